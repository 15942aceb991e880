"""What measurements say of a prediction: tests with a false-discovery control over the whole run.

A hypothesis is tested when its experiment is done, one after the other, and how many there will be is not known: each
gets a level from an online procedure (LORD++), so that of all called supported at most a stated share is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats

from asi_evolve.fitness import Interval, noise_interval


@dataclass(frozen=True)
class Effect:
    """A mean effect in the predicted direction.

    Attributes:
        interval: 95 % interval of the effect; positive is as predicted.
        p_value: of the one-sided t test against "not in that direction"; None when the noise is not known.
    """

    interval: Interval
    p_value: float | None


def measure(values: Sequence[float], noise: tuple[float, int] | None) -> Effect:
    """The effect of paired differences, signed so that positive is as predicted.

    Args:
        values: one per seed, at least one.
        noise: deviation of such differences and its degrees of freedom, from other repeats.
    """
    interval = noise_interval(values, noise)
    if len(values) >= 2 or noise is None:
        deviation, freedom = _deviation(values), len(values) - 1
    else:
        deviation, freedom = noise
    if freedom < 1:
        return Effect(interval, None)
    mean, error = fmean(values), deviation / math.sqrt(len(values))
    if error == 0:
        return Effect(interval, 0.0 if mean > 0 else 1.0)
    return Effect(interval, float(stats.t.sf(mean / error, freedom)))


def _deviation(values: Sequence[float]) -> float:
    mean = fmean(values)
    return math.sqrt(sum((x - mean) ** 2 for x in values) / max(1, len(values) - 1))


class FalseDiscoveryControl:
    """LORD++ (Ramdas et al. 2017, eq. 4; weights of Javanmard and Montanari 2018): levels of tests that come one after
    the other. A test is a discovery when its p value is at most the level it is given.

    Args:
        rate: the expected share of false ones among all discoveries that is allowed, in (0, 1).

    Attributes:
        tests: how many there were.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._wealth = rate / 2
        self.tests = 0
        self._discoveries = np.zeros(16, np.int64)  # the first _found are their numbers
        self._found = 0
        self._weights = np.zeros(0)

    def level(self) -> float:
        """The level of the next test."""
        t = self.tests + 1
        if t >= len(self._weights):
            self._weights = np.array([0.0, *(_weight(j) for j in range(1, 2 * t + 64))])
        since = self._weights[t - self._discoveries[: self._found]]
        level = self._weights[t] * self._wealth + self.rate * since.sum()
        return float(level - (self._wealth * since[0] if self._found else 0.0))

    def test(self, p_value: float) -> bool:
        """Takes the next p value; whether it is a discovery."""
        found = p_value <= self.level()
        self.tests += 1
        if found:
            if self._found == len(self._discoveries):
                self._discoveries = np.concatenate([self._discoveries, np.zeros_like(self._discoveries)])
            self._discoveries[self._found] = self.tests
            self._found += 1
        return found

    def replay(self, p_values: Iterable[float]) -> FalseDiscoveryControl:
        """Takes earlier tests, oldest first."""
        for p in p_values:
            self.test(p)
        return self


def _weight(j: int) -> float:
    """Weights that fall slowly and add up to less than one."""
    x = max(j, 2)
    return 0.07720838 * math.log(x) / (j * math.exp(math.sqrt(math.log(x))))


def verdict(effect: Effect, level: float, prediction: Mapping[str, Any]) -> tuple[str, str]:
    """What a measured relative effect says of a prediction (metric, direction, minimum_effect).

    Supported: at least the minimum effect in the predicted direction, and a p value at most ``level``. Refuted: the
    whole 95 % interval lies below the minimum effect. Else inconclusive; also when the noise is unknown.
    """
    i, wanted = effect.interval, float(prediction["minimum_effect"])
    shown = (
        f"{prediction['metric']} {prediction['direction']} by {wanted:.1%} predicted, "
        f"measured {i.mean:+.2%} in that direction"
    )
    if effect.p_value is None or not math.isfinite(i.low):
        return "inconclusive", f"{shown}; the noise is not known yet"
    shown += f" [{i.low:+.2%}, {i.high:+.2%}], {i.n} seed{'s' if i.n > 1 else ''}"
    shown += f", p {effect.p_value:.2g} at level {level:.2g}"
    if i.mean >= wanted and effect.p_value <= level:
        return "supported", shown
    if i.high < wanted:
        return "refuted", shown
    return "inconclusive", shown
