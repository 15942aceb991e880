"""The measured results of a run, arranged for reading: by candidate and stage, against the baseline, as fitness."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from asi_evolve.domain import Benchmark
from asi_evolve.fitness import (
    ALL_STAGES,
    STAGES,
    Fitness,
    Interval,
    SeedMetrics,
    improvements,
    noise_interval,
    pooled_deviation,
    relative_cost,
    t_interval,
)
from asi_evolve.knowledge.store import Evaluation


class Ledger:
    """Evaluations by candidate, stage and seed. It grows; nothing that is asked of one candidate costs more for that.

    Args:
        evaluations: as stored, in an order that no worker decides.
        baseline: hash of the baseline candidate.
        benchmark: for the metric, its direction and the cost metrics.
    """

    def __init__(self, evaluations: Iterable[Evaluation], baseline: str, benchmark: Benchmark) -> None:
        self.metric, self.maximize, self.costs = benchmark.metric, benchmark.maximize, tuple(benchmark.costs)
        self.baseline = baseline
        self.evaluations: list[Evaluation] = []
        self.made: Counter[tuple[str, int]] = Counter()  # evaluations, failed ones too, by stage and cycle
        self.failures: Counter[str] = Counter()
        self.recent_failures: list[Evaluation] = []  # the last few, in an order that no worker decides
        self.cycle = -1
        self._results: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
        self._at: dict[str, dict[str, None]] = {stage: {} for stage in ALL_STAGES}
        self._repeated: set[tuple[str, str]] = set()
        self._incumbents: dict[tuple[int, ...], str] = {}
        self.extend(evaluations)

    def extend(self, evaluations: Iterable[Evaluation]) -> None:
        """Takes in more evaluations."""
        for e in evaluations:
            self.evaluations.append(e)
            self.cycle = max(self.cycle, e.cycle)
            self.made[e.stage, e.cycle] += 1
            if not e.ok:
                self.failures[e.failure or "internal"] += 1
                bisect.insort(self.recent_failures, e, key=lambda x: (x.cycle, x.candidate, x.stage, x.seed))
                del self.recent_failures[:-8]
                continue
            key = (e.candidate, e.stage)
            seeds = self._results.setdefault(key, {})
            seeds[e.seed] = dict(e.metrics)
            self._at[e.stage][e.candidate] = None
            if e.stage == "full":
                self._incumbents.clear()
            if len(seeds) >= 2:
                self._repeated.add(key)

    def results(self, candidate: str, stage: str) -> SeedMetrics:
        """Metrics by seed of the successful evaluations; empty when there are none."""
        return self._results.get((candidate, stage), {})

    def evaluated(self) -> list[str]:
        """Every candidate with at least one evaluation, failed ones too, in the order given."""
        return list(dict.fromkeys(e.candidate for e in self.evaluations))

    def at(self, stage: str) -> list[str]:
        """Candidates with a successful evaluation at a stage."""
        return list(self._at[stage])

    def stage(self, candidate: str) -> str | None:
        """The highest stage with results for both the candidate and, on the same seeds, the baseline."""
        for stage in reversed(STAGES):
            if set(self.results(candidate, stage)) & set(self.results(self.baseline, stage)):
                return stage
        return None

    def improvement(self, candidate: str, stage: str, reference: str | None = None) -> list[float]:
        """Paired improvements over ``reference`` (the baseline) by seed, in metric units, positive is better."""
        return improvements(
            self.results(candidate, stage), self.results(reference or self.baseline, stage), self.metric, self.maximize
        )

    def effect(self, candidate: str, reference: str, stage: str, metric: str) -> list[float]:
        """Relative changes of any metric against ``reference`` on the same seeds: (x - x_ref) / |x_ref|."""
        ours, theirs = self.results(candidate, stage), self.results(reference, stage)
        return [
            (ours[s][metric] - theirs[s][metric]) / abs(theirs[s][metric])
            for s in sorted(ours)
            if s in theirs and metric in ours[s] and theirs[s].get(metric)
        ]

    def noise(self, metric: str) -> tuple[float, int] | None:
        """Seed-to-seed deviation of relative paired effects of a metric, pooled over all candidates with repeats."""
        groups = [
            self.effect(candidate, self.baseline, stage, metric)
            for candidate, stage in sorted(self._repeated)  # a sum depends on its order
            if candidate != self.baseline
        ]
        return pooled_deviation(g for g in groups if len(g) >= 2)

    def effect_interval(self, candidate: str, reference: str, stage: str, metric: str) -> Interval | None:
        """95 % interval of the relative effect; None when the two share no seed."""
        values = self.effect(candidate, reference, stage, metric)
        return noise_interval(values, self.noise(metric)) if values else None

    def fitness(self, candidate: str, novelty: float) -> Fitness | None:
        """The objectives of a candidate at its highest stage; None while it has no result to compare."""
        stage = self.stage(candidate)
        if stage is None:
            return None
        ours, base = self.results(candidate, stage), self.results(self.baseline, stage)
        gain = self.improvement(candidate, stage)
        return Fitness(stage, fmean(gain), relative_cost(ours, base, self.costs), novelty, len(gain))

    def incumbent(self, seeds: Sequence[int]) -> str:
        """The candidate with the largest mean improvement on all the full stage's seeds; else the baseline."""
        if tuple(seeds) in self._incumbents:
            return self._incumbents[tuple(seeds)]
        best, gain = self.baseline, 0.0
        for candidate in sorted(self.at("full")):  # of equals the same one in whatever order they were measured
            if set(seeds) <= set(self.results(candidate, "full")):
                values = self.improvement(candidate, "full")
                if values and fmean(values) > gain:
                    best, gain = candidate, fmean(values)
        self._incumbents[tuple(seeds)] = best
        return best

    def confirmation(self, candidate: str) -> Interval:
        """95 % interval of the improvement over the baseline on seeds that took no part in the selection."""
        return t_interval(self.improvement(candidate, "confirm"))
