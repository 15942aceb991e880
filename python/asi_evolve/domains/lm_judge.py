"""What the judge of the language-model benchmark computes itself, with numpy alone: training bytes, held-out windows,
bits per byte and the causality check. No candidate code and no torch in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asi_evolve.domains.corpus import Corpus
from asi_evolve.domains.data import Selection
from asi_evolve.domains.data.windows import draw_windows
from asi_evolve.errors import EvaluationFailure

TOLERANCE = 1e-4  # largest difference of two logits, relative to 1 + the largest logit, that counts as rounding


@dataclass(frozen=True)
class HeldOut:
    """Held-out windows and their counterfactuals.

    Attributes:
        inputs: uint8 (windows, n), what a model may see.
        targets: uint8 (windows, n), the byte after each input byte. Never leaves the judge.
        altered: ``inputs`` in the order ``order``, with everything after ``cuts`` replaced by another window's bytes.
        order: int64 (windows,), altered[i] comes from inputs[order[i]].
        cuts: int64 (windows,), last position of altered[i] that is unchanged.
    """

    inputs: np.ndarray
    targets: np.ndarray
    altered: np.ndarray
    order: np.ndarray
    cuts: np.ndarray


def training_windows(
    corpus: Corpus,
    selection: Selection,
    count: int,
    length: int,
    rng: np.random.Generator,
    *,
    max_repeats: float = 0,
    order: str = "random",
) -> np.ndarray:
    """Windows of training bytes, as many for every candidate: uint8 (count, length + 1)."""
    return draw_windows(
        corpus.text,
        corpus.offsets,
        corpus.source_ids,
        selection.documents,
        selection.weights,
        count,
        length,
        rng,
        max_repeats=max_repeats,
        order=order,
    )


def held_out_windows(corpus: Corpus, count: int, length: int, rng: np.random.Generator) -> HeldOut:
    """Evenly spaced windows of the held-out text, in random order, never overlapping or touching.

    Raises:
        EvaluationFailure: the held-out text is too short for even one window.
    """
    text = corpus.held_out
    count = min(count, len(text) // (length + 2))
    if count < 1:
        raise EvaluationFailure("internal", f"{len(text)} bytes of held-out text are no window of {length}")
    starts = (np.arange(count) * (len(text) - length - 1)) // max(1, count)
    windows = text[rng.permutation(starts)[:, None] + np.arange(length + 1)]
    inputs, targets = windows[:, :-1], windows[:, 1:]
    order = rng.permutation(count)
    cuts = rng.integers(0, max(1, length - 1), count)
    # Futures come from other windows, so that they look like any other text; one in four is noise.
    futures = inputs[np.roll(order, 1)].copy()
    noisy = rng.random(count) < 0.25
    futures[noisy] = rng.integers(0, 256, (int(noisy.sum()), length), dtype=np.uint8)
    altered = np.where(np.arange(length) <= cuts[:, None], inputs[order], futures)
    return HeldOut(inputs, targets, altered, order, cuts)


def check_logits(logits: Any, shape: tuple[int, int]) -> np.ndarray:
    """The logits, checked.

    Raises:
        EvaluationFailure: ``protocol`` for another shape or dtype, ``non-finite`` for NaN or infinity.
    """
    if not isinstance(logits, np.ndarray) or logits.shape != (*shape, 256) or logits.dtype != np.float32:
        found = f"{logits.dtype} {logits.shape}" if isinstance(logits, np.ndarray) else type(logits).__name__
        raise EvaluationFailure("protocol", f"logits: expected float32 {(*shape, 256)}, got {found}")
    if not np.isfinite(logits).all():
        raise EvaluationFailure("non-finite", "logits: NaN or infinity")
    return logits


def bits_per_byte(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean negative log2 probability of the targets.

    Args:
        logits: float32 (windows, n, 256). targets: uint8 (windows, n).
    """
    x = logits.astype(np.float64)
    top = x.max(axis=-1, keepdims=True)
    log_z = np.log(np.exp(x - top).sum(axis=-1)) + top[..., 0]
    chosen = np.take_along_axis(x, targets[..., None].astype(np.int64), axis=-1)[..., 0]
    return float((log_z - chosen).mean() / np.log(2.0))


def check_causality(logits: np.ndarray, altered: np.ndarray, held_out: HeldOut) -> None:
    """Logits up to each cut must not depend on what comes after it, nor on the other windows.

    The two arrays come from two processes that share nothing, so that a model cannot remember what it answered.

    Args:
        logits: of ``held_out.inputs``. altered: of ``held_out.altered``.

    Raises:
        EvaluationFailure: ``acausal``, with the first position that differs.
    """
    before = logits[held_out.order]
    difference = np.abs(before - altered).max(axis=-1)
    scale = 1.0 + np.abs(before).max(axis=-1)
    wrong = (difference > TOLERANCE * scale) & (np.arange(logits.shape[1]) <= held_out.cuts[:, None])
    if wrong.any():
        window, at = (int(i) for i in np.argwhere(wrong)[0])
        raise EvaluationFailure(
            "acausal",
            f"logits at position {at} changed by {difference[window, at]:.3g} when only bytes after position "
            f"{int(held_out.cuts[window])}, or other windows, were changed ({int(wrong.any(axis=1).sum())} of "
            f"{len(wrong)} windows)",
        )
