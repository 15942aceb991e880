"""Features of architectures: what the code computes decides, not its names or its order; and where it is run."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

from asi_evolve.candidate import Edit
from asi_evolve.domains.architecture import ArchitectureDomain, features, trace
from asi_evolve.domains.architecture.domain import (
    FILES,
    REFERENCES,
    mechanisms,
    reference_source,
    traced_package,
)
from asi_evolve.execution import Sandbox

DOMAIN = ArchitectureDomain()


def of(slot=None, text=None, **params):
    files = {} if slot is None else {FILES[slot]: text}
    return DOMAIN.features(DOMAIN.apply(DOMAIN.baseline(), Edit(params=params, files=files)))


def distance(a, b):
    return float(np.linalg.norm(a - b))


@pytest.fixture
def runs(monkeypatch):
    """Cases that were given to sandboxes."""
    seen, real = [], Sandbox.run
    monkeypatch.setattr(Sandbox, "run", lambda self, *a, **k: seen.append(a[2]["cases"]) or real(self, *a, **k))
    features.slot_features.cache_clear()
    return seen


def test_references_need_no_sandbox(runs):
    for slot, names in REFERENCES.items():
        vectors = [of(**{slot: name}) for name in names]
        for i, a in enumerate(vectors):
            for b in vectors[:i]:
                assert distance(a, b) > 0.3, slot
    assert not runs


def test_what_comes_with_the_package_is_what_tracing_gives():
    known = json.loads((features.Path(features.__file__).parent / "traced.json").read_text())
    packages = [dict(traced_package(FILES[s], text)) for s, names in mechanisms().items() for text in names.values()]
    assert set(known) == {features.key(p) for p in packages}, "run asi_evolve.domains.architecture.features.write_known"
    some = [packages[i] for i in (0, 5, 8, 14)]
    result = features.run(some)
    assert result.ok, result.error
    assert result.value == [known[features.key(p)] for p in some]


LINEAR = reference_source("token_mixing", "linear_attention")
RENAMED = re.sub(r"\bqkv\b", "projections", re.sub(r"\bself\.out\b", "self.back", LINEAR))
RENAMED = RENAMED.replace("feature_bias", "shift").replace("self.weight", "self.w_phi").replace("q, k, v", "a, c, e")
RENAMED = RENAMED.replace("position.rotate(q, k)", "position.rotate(a, c)").replace("q, k =", "a, c =")
ATTENTION = '''
import math
import torch
from torch import nn


class TokenMixing(nn.Module):
    """Softmax attention, written out."""

    def __init__(self, width, heads, window):
        super().__init__()
        self.h = heads
        self.last = nn.Linear(width, width, bias=False)
        self.first = nn.Linear(width, 3 * width, bias=False)

    def forward(self, x, position):
        batch, n, width = x.shape
        parts = self.first(x).view(batch, n, 3, self.h, width // self.h)
        q, k, v = (parts[:, :, i].transpose(1, 2) for i in range(3))
        q, k = position.rotate(q, k)
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(width // self.h)
        later = torch.ones(n, n, dtype=torch.bool).triu(1)
        attended = scores.masked_fill(later, float("-inf")).softmax(-1) @ v
        return self.last(attended.transpose(1, 2).reshape(batch, n, width))
'''
SWIGLU = reference_source("mlp", "swiglu")
REORDERED = """
import torch
from torch import nn


class MLP(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        inner = max(8, int(hidden * 2 / 3) // 8 * 8)
        self.lower = nn.Linear(inner, width, bias=False)
        self.upper = nn.Linear(width, 2 * inner, bias=False)

    def forward(self, tensor):
        both = self.upper(tensor)
        unused = both.exp().sum()
        right = both[..., both.shape[-1] // 2 :]
        left = both[..., : both.shape[-1] // 2]
        again = torch.nn.functional.silu(left)
        return self.lower(right * torch.nn.functional.silu(left)) + 0 * 0
"""


def test_names_order_and_spelling_do_not_matter(runs):
    start = of(token_mixing="linear_attention")
    assert distance(of("token_mixing", RENAMED), start) == 0
    softmax = of()
    written_out = of("token_mixing", ATTENTION)
    assert distance(written_out, softmax) < 0.25 * distance(start, softmax)
    swiglu, gelu = of(mlp="swiglu"), of(mlp="gelu")
    assert distance(of("mlp", REORDERED), swiglu) < 0.5 * distance(swiglu, gelu)
    assert len(runs) == 3
    assert distance(of("token_mixing", RENAMED), start) == 0  # known by now
    assert len(runs) == 3
    # Sizes are features of their own, without another trace.
    assert distance(of("token_mixing", RENAMED, layers=5), of(token_mixing="linear_attention", layers=5)) == 0
    assert len(runs) == 3


def test_a_change_of_what_is_computed_shows():
    start = of(token_mixing="linear_attention")
    for old, new in (
        ("return self.out(y", "return self.out(y * y.sigmoid()"),
        ("q, k = position.rotate(q, k)", "k = k.cumsum(2)"),
        ("y, state = linear", "k = torch.softmax(k, -1); y, state = linear"),
    ):
        assert old in LINEAR
        assert distance(of("token_mixing", LINEAR.replace(old, new)), start) > 0.3


def test_another_process_finds_what_was_traced(tmp_path, runs):
    package = traced_package("mlp.py", REORDERED)
    first = features.slot_features(package, tmp_path)
    broken = traced_package("mlp.py", "raise RuntimeError\n" + REORDERED)
    second = features.slot_features(broken, tmp_path)
    assert len(runs) == 2
    features.slot_features.cache_clear()
    assert np.array_equal(features.slot_features(package, tmp_path), first)
    assert np.array_equal(features.slot_features(broken, tmp_path), second)
    assert len(runs) == 2
    for path in (tmp_path / "traced").iterdir():  # a damaged file is as good as none
        path.write_text("[1")
    features.slot_features.cache_clear()
    assert np.array_equal(features.slot_features(package, tmp_path), first)
    assert len(runs) == 3


HOSTILE = """
from pathlib import Path
for place in ({place!r}, "/tmp/asi-evolve-was-here", "/var/tmp/asi-evolve-was-here"):
    try:
        Path(place).write_text("here")
    except OSError:
        pass
""" + reference_source("mlp", "gelu").replace("F.gelu(self.up(x)", "F.gelu(3 * self.up(x)")


def test_code_runs_in_a_sandbox_alone(tmp_path, runs):
    place = tmp_path / "here"
    vector = of("mlp", HOSTILE.format(place=str(place)))
    assert len(runs) == 1
    assert not list(tmp_path.iterdir())
    assert not features.Path("/var/tmp/asi-evolve-was-here").exists()
    assert 0 < distance(vector, of()) < distance(of(mlp="swiglu"), of())  # it was traced


LIES = "import asi_evolve.domains.architecture.trace as t\nt._counts = lambda _: [{value}] * t.SIZE\n"
BROKEN = {
    "raises": "raise RuntimeError('no')\n",
    "loops": "import torch\nwhile True: pass\n",
    "exits": "import torch\ntorch.os._exit(0)\n",
    "nan": LIES.format(value="float('nan')"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_traced_has_the_statistics_of_its_syntax(case, monkeypatch):
    monkeypatch.setattr(features, "_LIMITS", features.Limits(wall_seconds=8))
    good = of()
    bad = of("mlp", BROKEN[case] + reference_source("mlp", "gelu"))
    assert bad.shape == good.shape
    assert np.isfinite(bad).all()
    assert bad.min() >= 0
    assert bad.max() <= 4
    assert distance(bad, good) > 1
    if case != "raises":
        return
    other = of("mlp", BROKEN[case] + reference_source("mlp", "gelu") + "\n\ndef more(x):\n    return x.softmax(-1)\n")
    assert not np.array_equal(bad, other)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "x", True, None, 1])
def test_answers_are_checked(value):
    row = [0.0] * trace.SIZE
    assert features._checked([row], 1) == [row]
    assert features._checked([[value, *row[1:]]], 1) == [None]
    assert features._checked([row[1:]], 1) == features._checked([row, row], 1) == features._checked(value, 1) == [None]


def test_features_are_the_same_in_another_process_and_need_no_torch():
    program = """
import sys
from asi_evolve.domains.architecture import ArchitectureDomain
d = ArchitectureDomain()
print(d.features(d.baseline()).tolist())
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == of().tolist()
    features.slot_features.cache_clear()
    first = of("token_mixing", ATTENTION)
    features.slot_features.cache_clear()
    assert np.array_equal(first, of("token_mixing", ATTENTION))
    assert len(first) == len(of())
    assert len(trace.FAMILIES) + len(trace.GROUPS) ** 2 + len(trace.OTHER) == trace.SIZE
