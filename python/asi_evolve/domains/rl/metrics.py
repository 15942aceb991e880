"""What a learning curve is worth, and how results of several seeds and environments are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asi_evolve.domains.rl.environments import Task

WINDOW = 20  # finished episodes that are averaged
_GRID = 100


@dataclass(frozen=True)
class Learned:
    """One training run in numbers.

    Attributes:
        final_return: mean return of the test episodes after training, with the likeliest actions.
        normalized: ``final_return`` on the scale where random play is 0 and solved is 1, not below -1.
        area: mean over training of the rolling mean return, on that scale and within [-1, 1]: how soon it was learned.
        steps_to_threshold: steps after which the rolling mean first was at the threshold; all steps if it never was.
        solved: whether it was.
        collapsed: whether it was, and the final return is less than half way from random to solved.
    """

    final_return: float
    normalized: float
    area: float
    steps_to_threshold: int
    solved: bool
    collapsed: bool


def judge_curve(curve: Sequence[tuple[int, float]], tests: np.ndarray, steps: int, task: Task) -> Learned:
    """Judges one training run.

    Args:
        curve: (steps taken, return) of every finished training episode, in order.
        tests: returns of the test episodes.
        steps: of training.
        task: the environment's scale.
    """

    def normal(x: np.ndarray) -> np.ndarray:
        return np.maximum(-1.0, (x - task.low) / (task.high - task.low))

    at = np.array([s for s, _ in curve], dtype=np.int64)
    returns = np.array([r for _, r in curve], dtype=np.float64)
    total = np.concatenate([[0.0], np.cumsum(returns)])
    counts = np.minimum(np.arange(1, len(at) + 1), WINDOW)
    rolling = (total[1:] - total[np.arange(1, len(at) + 1) - counts]) / counts
    # A policy that finishes no episode has shown nothing: 0.
    grid = np.linspace(steps / _GRID, steps, _GRID)
    known = np.searchsorted(at, grid, side="right") - 1
    heights = np.where(known >= 0, np.minimum(1.0, normal(rolling[known])), 0.0) if len(at) else np.zeros(_GRID)
    good = np.flatnonzero((rolling >= task.high) & (counts == WINDOW))
    final = float(np.mean(tests))
    final_normal = float(normal(np.array(final)))
    return Learned(
        final,
        final_normal,
        float(heights.mean()),
        int(at[good[0]]) if len(good) else steps,
        bool(len(good)),
        bool(len(good)) and final_normal < 0.5,
    )


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores, whatever their shape."""
    from scipy import stats  # a second to import, which no learner's process should pay

    return float(stats.trim_mean(scores, 0.25, axis=None))


def aggregate(
    scores: np.ndarray, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Interquartile mean with its percentile interval by stratified bootstrap: seeds are drawn with replacement within
    each environment (Agarwal et al. 2021, as in rliable).

    Written out because rliable needs four more packages for these lines.

    Args:
        scores: float (seeds, environments), normalised.
        resamples: bootstrap samples. confidence: of the interval. seed: of the draws.

    Returns:
        (interquartile mean, lower bound, upper bound).

    Raises:
        ValueError: not a matrix with at least one entry, or not finite.
    """
    from scipy import stats

    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"scores: a finite matrix (seeds, environments) is needed, got shape {scores.shape}")
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(scores), size=(resamples, *scores.shape))
    drawn = np.take_along_axis(scores[None], rows, axis=1).reshape(resamples, -1)
    means = stats.trim_mean(drawn, 0.25, axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return interquartile_mean(scores), float(low), float(high)
