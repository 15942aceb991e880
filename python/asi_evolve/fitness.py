"""Fitness F(a, r, d) = (performance, cost, novelty), made comparable across cascade stages.

A candidate is valued at the highest stage it reached, always against the baseline at the same stage and the same seeds:

- performance: mean over seeds of the paired improvement in the benchmark's metric (positive is better, metric units);
- cost: geometric mean over the benchmark's cost metrics of candidate / baseline (1 = as dear as the baseline);
- novelty: mean distance to the k nearest neighbours in the archive of everything evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import stats

STAGES = ("isolated", "cross", "full")
ALL_STAGES = (*STAGES, "explain", "confirm")  # those two measure again, on seeds of their own

Metrics = Mapping[str, float]
SeedMetrics = Mapping[int, Metrics]  # metrics by seed


@dataclass(frozen=True)
class Fitness:
    """The three objectives of one candidate and the stage they were measured at."""

    stage: str
    performance: float
    cost: float
    novelty: float
    seeds: int

    def vector(self) -> tuple[float, float, float]:
        """In the order of :data:`MAXIMIZE`."""
        return (self.performance, self.cost, self.novelty)


MAXIMIZE = (True, False, True)


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided confidence interval; infinite bounds when there are too few observations."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


def improvements(candidate: SeedMetrics, reference: SeedMetrics, metric: str, maximize: bool) -> list[float]:
    """Paired improvements of ``candidate`` over ``reference`` on the seeds both have, in order of seed."""
    sign = 1.0 if maximize else -1.0
    return [sign * (candidate[s][metric] - reference[s][metric]) for s in sorted(candidate) if s in reference]


def relative_cost(candidate: SeedMetrics, reference: SeedMetrics, costs: Sequence[str]) -> float:
    """Geometric mean over cost metrics of the ratio of mean costs; 1 when there is nothing to compare."""
    ratios = []
    for name in costs:
        ours = fmean([m[name] for m in candidate.values()])
        theirs = fmean([m[name] for m in reference.values()])
        if ours > 0 and theirs > 0:
            ratios.append(math.log(ours / theirs))
    return math.exp(fmean(ratios)) if ratios else 1.0


def t_interval(values: Iterable[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean. With fewer than two values the bounds are infinite."""
    x = np.asarray(list(values), dtype=np.float64)
    if x.size == 0:
        return Interval(math.nan, -math.inf, math.inf, 0)
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half = float(stats.t.ppf(0.5 + confidence / 2, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size))
    return Interval(mean, mean - half, mean + half, int(x.size))


def pooled_deviation(groups: Iterable[Sequence[float]]) -> tuple[float, int] | None:
    """Standard deviation pooled over groups of repeats, with its degrees of freedom; None without repeats."""
    total, freedom = 0.0, 0
    for group in groups:
        if len(group) >= 2:
            total += float(np.var(group, ddof=1)) * (len(group) - 1)
            freedom += len(group) - 1
    return (math.sqrt(total / freedom), freedom) if freedom else None


def noise_interval(values: Sequence[float], noise: tuple[float, int] | None, confidence: float = 0.95) -> Interval:
    """Interval of a mean whose noise is known from other repeats: needed where a stage has a single seed."""
    if len(values) >= 2 or noise is None:
        return t_interval(values, confidence)
    deviation, freedom = noise
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom) * deviation / math.sqrt(len(values)))
    mean = fmean(values)
    return Interval(mean, mean - half, mean + half, len(values))
