"""What the judge computes, against independent computations."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from asi_evolve.domains import lm_judge
from asi_evolve.domains.corpus import open_corpus
from asi_evolve.domains.data import Selection
from asi_evolve.errors import EvaluationFailure


@pytest.fixture(scope="module")
def corpus(corpus_file, cache):
    return open_corpus(str(corpus_file), cache)


@pytest.fixture(scope="module")
def held_out(corpus):
    return lm_judge.held_out_windows(corpus, 40, 64, np.random.default_rng(0))


def causal_logits(inputs):
    """Logits that depend on the past in a definite way."""
    past = np.cumsum(inputs.astype(np.float64), axis=1)
    return np.sin(past[..., None] * np.arange(1, 257) / 100).astype(np.float32)


def test_bits_per_byte():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(3, 5, 256)).astype(np.float32), rng.integers(0, 256, (3, 5), dtype=np.uint8)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    expected = np.mean([-np.log2(p[i, j, targets[i, j]]) for i in range(3) for j in range(5)])
    assert lm_judge.bits_per_byte(logits, targets) == pytest.approx(expected, rel=1e-9)
    assert lm_judge.bits_per_byte(np.zeros((1, 2, 256), np.float32), targets[:1, :2]) == pytest.approx(8.0)
    assert lm_judge.bits_per_byte(logits + 1e4, targets) == pytest.approx(expected, rel=1e-2)


def test_held_out_windows(corpus, held_out):
    text = corpus.held_out.tobytes()
    assert held_out.inputs.shape == held_out.targets.shape == (40, 64)
    places = sorted(text.find(row.tobytes()) for row in held_out.inputs)
    assert all(b - a > 64 for a, b in itertools.pairwise(places))
    np.testing.assert_array_equal(held_out.inputs[:, 1:], held_out.targets[:, :-1])
    kept = np.arange(64) <= held_out.cuts[:, None]
    np.testing.assert_array_equal(held_out.altered[kept], held_out.inputs[held_out.order][kept])
    assert (held_out.altered != held_out.inputs[held_out.order])[~kept].mean() > 0.7


def test_causality_check_accepts_causal_and_rounding(held_out):
    a, b = causal_logits(held_out.inputs), causal_logits(held_out.altered)
    lm_judge.check_causality(a, b, held_out)
    lm_judge.check_causality(a, b + np.float32(1e-5), held_out)


@pytest.mark.parametrize("reach", [1, 5, 63])
def test_causality_check_refuses_a_look_ahead(held_out, reach):
    def leaky(inputs):
        ahead = np.zeros((*inputs.shape, 256), np.float32)
        future = np.roll(inputs, -reach, axis=1)
        np.put_along_axis(ahead, future[..., None].astype(int), 3.0, axis=-1)
        ahead[:, -reach:] = 0
        return causal_logits(inputs) + ahead

    if reach < 63:
        with pytest.raises(EvaluationFailure) as caught:
            lm_judge.check_causality(leaky(held_out.inputs), leaky(held_out.altered), held_out)
        assert caught.value.kind == "acausal"


def test_causality_check_refuses_dependence_on_other_windows(held_out):
    def batchy(inputs):
        return causal_logits(inputs) + np.roll(inputs, 1, axis=0)[..., None].astype(np.float32) / 255

    with pytest.raises(EvaluationFailure, match="other windows"):
        lm_judge.check_causality(batchy(held_out.inputs), batchy(held_out.altered), held_out)


def test_logits_are_checked():
    good = np.zeros((2, 3, 256), np.float32)
    lm_judge.check_logits(good, (2, 3))
    for bad in (None, good[:1], good.astype(np.float64), good[..., :255]):
        with pytest.raises(EvaluationFailure, match="logits") as caught:
            lm_judge.check_logits(bad, (2, 3))
        assert caught.value.kind == "protocol"
    good[1, 2, 3] = np.inf
    with pytest.raises(EvaluationFailure) as caught:
        lm_judge.check_logits(good, (2, 3))
    assert caught.value.kind == "non-finite"


def test_training_windows(corpus):
    prose = np.flatnonzero(corpus.source_ids == corpus.sources.index("prose"))
    noise = np.flatnonzero(corpus.source_ids == corpus.sources.index("noise"))
    rng = np.random.default_rng
    some = Selection(prose[:5], np.ones(5))
    windows = lm_judge.training_windows(corpus, some, 200, 32, rng(0))
    assert windows.shape == (200, 33)
    assert windows.dtype == np.uint8
    np.testing.assert_array_equal(windows, lm_judge.training_windows(corpus, some, 200, 32, rng(0)))
    text = b"".join(corpus.document(i) for i in prose[:5])
    inside = sum(w.tobytes() in text for w in windows)
    assert inside > 180  # the others cross from one document to the next
    both = np.sort(np.concatenate([prose, noise]))
    weights = np.where(np.isin(both, noise), 3.0, 1.0)
    drawn = lm_judge.training_windows(corpus, Selection(both, weights), 4000, 32, rng(1))
    sizes = np.diff(corpus.offsets)
    expected = 3 * sizes[noise].sum() / (3 * sizes[noise].sum() + sizes[prose].sum())
    letters = ((drawn >= 97) & (drawn <= 122)).mean(axis=1)
    assert (letters < 0.3).mean() == pytest.approx(expected, abs=0.04)


def test_the_judge_imports_no_torch():
    code = (
        "import sys, asi_evolve.domains.lm, asi_evolve.execution.evaluator, asi_evolve.execution.pool; "
        "assert 'torch' not in sys.modules"
    )
    environment = {"PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
