"""The one channel between a process and its parent: frames of a length-limited JSON header and raw buffers.

A frame is ``<4s I Q>`` (magic, header bytes, payload bytes), the header as UTF-8 JSON, then the payload. The header is
``{"kind": ..., "value": ..., "buffers": [[dtype, shape], ...]}``; in ``value`` an object ``{"$buffer": i}`` stands for
the i-th buffer, a C-contiguous array or (dtype ``bytes``) a byte string. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

PREFIX = struct.Struct("<4sIQ")
MAGIC = b"ASE1"
MAX_HEADER = 16 << 20
MAX_DIMENSIONS = 32

_DTYPES = frozenset(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
)


class FrameError(ValueError):
    """Bytes that are not a frame, a frame over its limit, or a value that does not fit into one."""


def encode(kind: str, value: Any) -> list[bytes | memoryview]:
    """A frame as a list of buffers to be written in order.

    Raises:
        FrameError: ``value`` holds something else than JSON values, numpy arrays of numbers, and bytes.
    """
    buffers: list[Any] = []
    described: list[Any] = []
    plain = _pack(value, buffers, described)
    try:
        header = json.dumps({"kind": kind, "value": plain, "buffers": described}).encode("utf-8")
    except (ValueError, RecursionError, UnicodeEncodeError) as error:
        raise FrameError(f"value: not encodable: {error}") from None
    if len(header) > MAX_HEADER:
        raise FrameError(f"value: {len(header)} bytes of JSON; at most {MAX_HEADER} (use arrays for bulk data)")
    views = [memoryview(b).cast("B") if len(b) else b"" for b in buffers]
    return [PREFIX.pack(MAGIC, len(header), sum(len(v) for v in views)), header, *views]


def _pack(value: Any, buffers: list[Any], described: list[Any]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        buffers.append(data)
        described.append(["bytes", [len(data)]])
        return {"$buffer": len(buffers) - 1}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise FrameError(f"value: key {key!r} is not text")
        # A leading $ is doubled, so that no mapping can pass for a buffer.
        return {("$" + k if k.startswith("$") else k): _pack(v, buffers, described) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(v, buffers, described) for v in value]
    if type(value).__module__.partition(".")[0] == "numpy":
        import numpy as np

        if isinstance(value, np.generic) and value.dtype.name in _DTYPES:
            return value.item()
        if isinstance(value, np.ndarray) and (name := _name(value.dtype)) is not None:
            array = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
            buffers.append(array.reshape(-1).view("uint8").data)
            described.append([name, list(value.shape)])
            return {"$buffer": len(buffers) - 1}
        if isinstance(value, np.ndarray):
            raise FrameError(f"value: array of dtype {value.dtype}; allowed: {', '.join(sorted(_DTYPES))}")
    raise FrameError(f"value: {type(value).__name__} is neither a JSON value, nor a numpy array, nor bytes")


@lru_cache(maxsize=64)
def _name(dtype: Any) -> str | None:
    """The name of an allowed dtype, else None. numpy works a name out anew every time, which takes longer than sending
    a small array."""
    return str(dtype.name) if dtype.name in _DTYPES else None


def decode(header: bytes | bytearray, payload: bytearray) -> tuple[str, Any]:
    """(kind, value) of a frame. Arrays are views of ``payload``.

    Raises:
        FrameError: the header is not what :func:`encode` makes.
    """
    try:
        content = json.loads(header)
        kind, plain, described = content["kind"], content["value"], content["buffers"]
        buffers = _buffers(described, payload)
        return str(kind), _unpack(plain, buffers)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise FrameError(f"malformed frame: {type(error).__name__}: {error}") from None


def _buffers(described: Any, payload: bytearray) -> list[Any]:
    buffers: list[Any] = []
    offset = 0
    for dtype, shape in described:
        if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
            raise FrameError("malformed frame: shape")
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in shape):
            raise FrameError("malformed frame: shape")
        count = math.prod(shape)
        if dtype == "bytes":
            size = count
        elif dtype in _DTYPES:
            import numpy as np

            size = count * np.dtype(dtype).itemsize
        else:
            raise FrameError(f"malformed frame: dtype {dtype!r}")
        if offset + size > len(payload):
            raise FrameError("malformed frame: buffers are longer than the payload")
        if dtype == "bytes":
            buffers.append(bytes(payload[offset : offset + size]))
        else:
            view = np.frombuffer(payload, np.dtype(dtype).newbyteorder("<"), count, offset)
            buffers.append(view.astype(dtype, copy=False).reshape(shape))
        offset += size
    if offset != len(payload):
        raise FrameError("malformed frame: payload is longer than its buffers")
    return buffers


def _unpack(value: Any, buffers: list[Any]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, buffers) for v in value]
    if isinstance(value, dict):
        if len(value) == 1 and "$buffer" in value:
            index = value["$buffer"]
            if isinstance(index, bool) or not isinstance(index, int) or index < 0:
                raise FrameError("malformed frame: buffer index")
            return buffers[index]
        return {(k[1:] if k.startswith("$") else k): _unpack(v, buffers) for k, v in value.items()}
    return value


class FrameReader:
    """Assembles frames from pieces.

    Args:
        limit: largest payload, bytes; also bounds the header.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = bytearray()  # prefix and header
        self._payload = bytearray()
        self._filled = 0
        self._lengths: tuple[int, int] | None = None

    @property
    def started(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._head)

    def feed(self, data: bytes) -> list[tuple[str, Any]]:
        """The frames completed by ``data``. Raises FrameError."""
        frames: list[tuple[str, Any]] = []
        view = memoryview(data)
        while view:
            view = self._take(view)
            if self._lengths is not None:
                header_length, payload_length = self._lengths
                if len(self._head) == PREFIX.size + header_length and self._filled == payload_length:
                    frames.append(decode(self._head[PREFIX.size :], self._payload))
                    self._head, self._payload, self._filled, self._lengths = bytearray(), bytearray(), 0, None
        return frames

    def _take(self, view: memoryview) -> memoryview:
        if self._lengths is None:
            part = view[: PREFIX.size - len(self._head)]
            self._head += part
            if len(self._head) == PREFIX.size:
                self._check_prefix()
            return view[len(part) :]
        header_length, _ = self._lengths
        missing = PREFIX.size + header_length - len(self._head)
        if missing:
            part = view[:missing]
            self._head += part
            return view[len(part) :]
        part = view[: len(self._payload) - self._filled]
        self._payload[self._filled : self._filled + len(part)] = part
        self._filled += len(part)
        return view[len(part) :]

    def _check_prefix(self) -> None:
        magic, header_length, payload_length = PREFIX.unpack(bytes(self._head))
        if magic != MAGIC:
            raise FrameError("malformed frame: wrong magic")
        if header_length > min(MAX_HEADER, max(self._limit, 1 << 16)):
            raise FrameError(f"header of {header_length} bytes; at most {min(MAX_HEADER, max(self._limit, 1 << 16))}")
        if payload_length > self._limit:
            raise FrameError(f"result of {payload_length} bytes; at most {self._limit}")
        if header_length == 0:
            raise FrameError("malformed frame: empty header")
        self._lengths = header_length, payload_length
        self._payload = bytearray(payload_length)
