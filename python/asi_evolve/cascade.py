"""The evaluation cascade: which components go into new triples, which triples go on, and what it all costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy import stats

from asi_evolve.candidate import Candidate, Component
from asi_evolve.fitness import STAGES
from asi_evolve.ledger import Ledger

SHORTLIST = 3  # components per domain that are combined


@dataclass(frozen=True)
class Triple:
    """A proposed combination. ``predicted`` is the sum of its components' isolated gains: what it would bring if the
    domains did not interact."""

    candidate: Candidate
    predicted: float
    sources: tuple[str, ...]


def promoted(count: int, fraction: float) -> int:
    """How many of ``count`` go on: the fraction rounded up, so that one of a few always does."""
    return min(count, math.ceil(count * fraction)) if count else 0


def combine(
    incumbent: Candidate,
    promising: Mapping[str, Sequence[tuple[Component, float, str]]],
    fresh: set[str],
    known: frozenset[str] | set[str],
    limit: int,
) -> list[Triple]:
    """New triples from the best components of each domain.

    Args:
        incumbent: what the isolated gains were measured against.
        promising: per domain its best components as (component, gain, candidate hash), best first.
        fresh: hashes of components promoted in this cycle; every triple has one.
        known: hashes of candidates already evaluated at the cross stage.
        limit: at most this many.

    Returns:
        By predicted gain; but the best with several changed domains first (they are what this stage is for), and then
        the best with one, the only prediction that is no sum.
    """
    options = []
    for domain in incumbent:
        keep = [(incumbent[domain], 0.0, "")]
        keep += [entry for entry in promising.get(domain, ())[:SHORTLIST] if entry[0] != incumbent[domain]]
        options.append(keep)
    triples: dict[str, tuple[int, Triple]] = {}
    for combination in itertools.product(*options):
        chosen = [entry for entry in combination if entry[2]]
        if not any(component.hash in fresh for component, _, _ in chosen):
            continue
        candidate = Candidate([component for component, _, _ in combination])
        if candidate.hash in known:
            continue
        triple = Triple(candidate, sum(gain for _, gain, _ in chosen), tuple(source for _, _, source in chosen))
        triples.setdefault(candidate.hash, (len(chosen), triple))
    ordered = sorted(triples.values(), key=lambda pair: (-pair[1].predicted, pair[1].candidate.hash))
    several = [triple for count, triple in ordered if count > 1][:1]
    single = [triple for count, triple in ordered if count == 1][:1]
    rest = [triple for _, triple in ordered if triple not in (*several, *single)]
    return [*several, *single, *rest][:limit]


@dataclass(frozen=True)
class StageCost:
    """One stage's count and cost."""

    stage: str
    candidates: int
    evaluations: int
    failed: int
    seconds: float
    predicted_seconds: float | None


@dataclass(frozen=True)
class CascadeReport:
    """Predicted and measured cost of the search, and how far its early stages can be trusted.

    ``predicted`` follows C_total = n C_iso + n p C_cross + n p^2 C_full with the stage costs of the baseline; both it
    and ``measured`` are evaluation seconds without the baseline's own. ``saving`` is against all n at the full stage.
    """

    stages: tuple[StageCost, ...]
    n: int
    p: float
    predicted: float | None
    measured: float
    all_full: float | None
    tau: Mapping[str, tuple[float, int] | None]

    @property
    def saving(self) -> float | None:
        """1 - measured / all at full; None while the full stage's cost is unknown."""
        return 1 - self.measured / self.all_full if self.all_full else None


def cascade_report(
    ledger: Ledger, p: float, predicted_gain: Mapping[str, float], seeds: Mapping[str, int]
) -> CascadeReport:
    """Accounts for every evaluation of the three stages.

    Args:
        ledger: all results.
        p: the fraction promoted.
        predicted_gain: additive prediction of each cross-stage triple, from its isolated gains.
        seeds: seeds per stage.
    """
    cost: dict[str, float | None] = {}
    for stage in STAGES:
        own = [e.seconds for e in ledger.evaluations if e.stage == stage and e.candidate == ledger.baseline and e.ok]
        cost[stage] = fmean(own) * seeds[stage] if own else None
    searched = [e for e in ledger.evaluations if e.candidate != ledger.baseline and e.stage in STAGES]
    n = len({e.candidate for e in searched if e.stage == "isolated"})
    expected = {"isolated": float(n), "cross": n * p, "full": n * p * p}
    rows = []
    for stage in STAGES:
        mine = [e for e in searched if e.stage == stage]
        unit = cost[stage]
        rows.append(
            StageCost(
                stage,
                len({e.candidate for e in mine}),
                len(mine),
                sum(not e.ok for e in mine),
                sum(e.seconds for e in mine),
                None if unit is None else expected[stage] * unit,
            )
        )
    parts = [r.predicted_seconds for r in rows]
    predicted = None if any(x is None for x in parts) else sum(x for x in parts if x is not None)
    full = cost["full"]
    return CascadeReport(
        tuple(rows),
        n,
        p,
        predicted,
        sum(r.seconds for r in rows),
        None if full is None else n * full,
        {
            "isolated-cross": _tau(
                [(gain, fmean(x)) for c, gain in predicted_gain.items() if (x := ledger.improvement(c, "cross"))]
            ),
            "cross-full": _tau(
                [
                    (fmean(x), fmean(y))
                    for c in ledger.at("full")
                    if c != ledger.baseline
                    and (x := ledger.improvement(c, "cross"))
                    and (y := ledger.improvement(c, "full"))
                ]
            ),
        },
    )


def _tau(pairs: Sequence[tuple[float, float]]) -> tuple[float, int] | None:
    """Kendall's tau-b and the number of pairs; None below three, where it says nothing."""
    if len(pairs) < 3:
        return None
    tau = float(stats.kendalltau([a for a, _ in pairs], [b for _, b in pairs]).statistic)
    return None if math.isnan(tau) else (tau, len(pairs))
