import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asi_evolve.execution.frames import MAGIC, PREFIX, FrameError, FrameReader, decode, encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.integers(1, 50))
@settings(max_examples=150, deadline=None)
def test_any_value_in_any_pieces(value, piece):
    data = b"".join(encode("result", value))
    reader = FrameReader(1 << 20)
    frames = [f for i in range(0, len(data), piece) for f in reader.feed(data[i : i + piece])]
    assert frames == [("result", value)]
    assert not reader.started


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_arrays(dtype, shape):
    array = np.ones(shape, dtype)
    ((_, value),) = FrameReader(1 << 20).feed(b"".join(encode("result", {"a": array, "t": array.T})))
    for name, expected in (("a", array), ("t", array.T)):
        assert value[name].dtype == dtype
        assert value[name].shape == expected.shape
        np.testing.assert_array_equal(value[name], expected)


def test_two_frames_in_one_piece():
    data = b"".join([*encode("progress", [0.5, "x"]), *encode("result", 1)])
    assert FrameReader(10).feed(data) == [("progress", [0.5, "x"]), ("result", 1)]


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_noise_is_a_frame_error_or_incomplete(noise):
    for data in (noise, MAGIC + noise, PREFIX.pack(MAGIC, len(noise), 0) + noise):
        with contextlib.suppress(FrameError):
            assert FrameReader(1 << 10).feed(data) == []


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_corrupt_headers(noise):
    good = b"".join(encode("result", {"a": np.arange(4)}))
    header = bytearray(good[PREFIX.size : -32])
    header[: len(noise)] = noise[: len(header)]
    with contextlib.suppress(FrameError):
        decode(header, bytearray(32))


def test_limits():
    with pytest.raises(FrameError, match="at most"):
        FrameReader(100).feed(struct.pack("<4sIQ", MAGIC, 10, 101))
    with pytest.raises(FrameError, match="object"):
        encode("result", np.array([None]))
    with pytest.raises(FrameError, match="not text"):
        encode("result", {1: 2})
