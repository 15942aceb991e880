"""Explain: a small share of the budget tests why a candidate is said to be better.

"W is better because of M" is a claim about two experiments that were not made: W with M taken back, and the reference
with M put in. They are made here, on seeds of their own, and the share of explanations that survive is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np

from asi_evolve.campaign import Campaign
from asi_evolve.candidate import Candidate, Component, Edit, thaw
from asi_evolve.domain import Domain
from asi_evolve.errors import InvalidCandidate, InvalidEdit
from asi_evolve.fitness import Interval, pooled_deviation
from asi_evolve.knowledge.store import Row
from asi_evolve.phases.experiment import evaluate

_SHARE = 0.5  # of the gain that what is named as the reason has to account for


def explain(campaign: Campaign, cycle: int) -> None:
    """Tests the newest explanation that has not been tested, if the budget for that allows it."""
    store = campaign.store
    if store.done(cycle, "explain") is not None:
        return
    waiting = [e for e in store.explanations() if e["status"] == "untested"]
    chosen = waiting[-1] if waiting and _affordable(campaign, cycle) else None
    if chosen is None:
        store.log(cycle, "explain", "done", {"tested": None})
        return
    result = _test(campaign, cycle, chosen)
    with store.transaction():
        store.add_explanation_test(explanation=chosen["id"], cycle=cycle, **result)
        store.log(cycle, "explain", "done", {"tested": chosen["id"]})


def _affordable(campaign: Campaign, cycle: int) -> bool:
    """Whether one more test stays within its share of all budget spent (in full-stage evaluations: what the clock says
    would make every replay another campaign)."""
    analyze, cascade = campaign.config.analyze, campaign.config.cascade
    if not analyze.explanation_share:
        return False
    made = campaign.ledger().made
    search = sum(campaign.config.stage(s).budget * n for (s, _), n in made.items() if s != "explain")
    # What this very test has spent before the engine was killed must not speak against it.
    tests = sum(n for (s, c), n in made.items() if s == "explain" and c < cycle) + 4 * analyze.explanation_seeds
    after = tests * cascade.isolated.budget
    return after <= analyze.explanation_share * (after + search)


# -- counterfactuals --------------------------------------------------------------------------------------------------


def mechanisms(candidate: Candidate, reference: Candidate) -> list[str]:
    """What sets two candidates apart: ``domain.parameter`` and ``domain.file``; a file that a parameter names is not
    listed beside it."""
    found = []
    for domain in candidate.changed(reference):
        ours, theirs = candidate[domain], reference[domain]
        names = [n for n in ours.params if thaw(ours.params)[n] != thaw(theirs.params).get(n)]
        paths = sorted(set(ours.files) | set(theirs.files))
        changed = [p for p in paths if ours.files.get(p) != theirs.files.get(p) and p.rsplit(".", 1)[0] not in names]
        found += [f"{domain}.{name}" for name in (*names, *changed)]
    return found


def transplant(domains: Mapping[str, Domain], into: Candidate, source: Candidate, mechanism: str) -> Candidate:
    """``into`` with one mechanism as it is in ``source``.

    Raises:
        InvalidEdit, InvalidCandidate: the two do not go together.
    """
    name, _, what = mechanism.partition(".")
    domain, target, giver = domains[name], into[name], source[name]
    if what in giver.params:
        values = thaw(giver.params)
        own = {p: t for p, t in giver.files.items() if p.rsplit(".", 1)[0] == what and target.files.get(p) != t}
        changed = _applied(domain, target, Edit(params={what: values[what]}), own)
    else:
        changed = domain.apply(target, Edit(files={what: giver.files[what]}))
    domain.validate(changed)
    return into.replace(changed)


def _applied(domain: Domain, target: Component, edit: Edit, files: Mapping[str, str]) -> Component:
    """An edit of a parameter, with the file it names where the parameter alone does not bring it."""
    try:
        child = domain.apply(target, edit)
    except (InvalidEdit, InvalidCandidate):
        if not files:
            raise
        return domain.apply(target, Edit(params=edit.params, files=files))
    missing = {p: t for p, t in files.items() if child.files.get(p) != t}
    return domain.apply(child, Edit(files=missing)) if missing else child


# -- the test ---------------------------------------------------------------------------------------------------------


def _test(campaign: Campaign, cycle: int, claim: Row) -> dict[str, Any]:
    store = campaign.store
    winner, reference = store.candidate(claim["candidate"]), store.candidate(claim["reference"])
    try:
        without = transplant(campaign.all_domains, winner, reference, claim["mechanism"])
        with_it = transplant(campaign.all_domains, reference, winner, claim["mechanism"])
    except (InvalidEdit, InvalidCandidate, ValueError, KeyError) as error:
        return _result("inconclusive", f"the counterfactual is not valid: {error}")
    for made in (without, with_it):
        store.add_candidate(
            made, cycle, "counterfactual", None, [winner.hash, reference.hash], {"mechanism": claim["mechanism"]}
        )
    hashes = [winner.hash, without.hash, with_it.hash, reference.hash]
    evaluate(campaign, cycle, "explain", hashes)
    ledger = campaign.ledger()
    gain = ledger.improvement(winner.hash, "explain", reference.hash)
    out = ledger.improvement(winner.hash, "explain", without.hash)
    into = ledger.improvement(with_it.hash, "explain", reference.hash)
    if len(gain) < 2 or len(out) < 2 or len(into) < 2:
        return _result("inconclusive", "too few of its experiments succeeded")
    status, reason, interval = judge(gain, out, into)
    return _result(status, reason, fmean(gain), interval)


def judge(gain: list[float], out: list[float], into: list[float]) -> tuple[str, str, Interval]:
    """The verdict on "the gain comes from this mechanism".

    Args:
        gain: improvements of the winner over the reference. out: of the winner over itself without the mechanism.
            into: of the reference with the mechanism over the reference. One per seed that did not fail, two at least.

    Returns:
        Status, reason, and the 95 % interval of the mechanism's effect (mean of both ways).
        Supported: above zero, and it may account for at least half of the gain. Refuted: it cannot.
    """
    from scipy import stats

    pooled = pooled_deviation([gain, out, into])
    assert pooled is not None
    deviation, freedom = pooled
    variance = (1 / len(out) + 1 / len(into)) / 4
    if out == into:  # the mechanism is all that sets the two apart: both ways are one experiment
        deviation, freedom, variance = float(np.std(out, ddof=1)), len(out) - 1, 1 / len(out)
    half = float(stats.t.ppf(0.975, freedom)) * deviation * math.sqrt(variance)
    mean, total, seeds = (fmean(out) + fmean(into)) / 2, fmean(gain), min(len(out), len(into))
    interval = Interval(mean, mean - half, mean + half, seeds)
    shown = (
        f"the mechanism accounts for {mean:+.4g} [{interval.low:+.4g}, {interval.high:+.4g}] of {total:+.4g} "
        f"(taken out {fmean(out):+.4g}, put in {fmean(into):+.4g}; {seeds} seeds)"
    )
    if total <= 0:
        return "refuted", f"the candidate is not better on fresh seeds ({total:+.4g}); {shown}", interval
    if interval.high < _SHARE * total:
        return "refuted", shown, interval
    if interval.low > 0:
        return "supported", shown, interval
    return "inconclusive", shown, interval


def _result(status: str, reason: str, gain: float | None = None, interval: Interval | None = None) -> dict[str, Any]:
    return {
        "status": status,
        "reason": reason,
        "gain": gain,
        "effect": None if interval is None else interval.mean,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
    }


def precision(explanations: list[Row]) -> tuple[int, int]:
    """How many explanations survived, of those whose test said something."""
    said = [e for e in explanations if e["status"] in ("supported", "refuted")]
    return sum(e["status"] == "supported" for e in said), len(said)
