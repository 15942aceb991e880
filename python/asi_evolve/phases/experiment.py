"""Experiment: the cascade isolated -> cross -> full, every evaluation stored the moment it ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from statistics import fmean

from asi_evolve.campaign import Campaign
from asi_evolve.candidate import Candidate, Component
from asi_evolve.cascade import SHORTLIST, Triple, combine, promoted
from asi_evolve.errors import EvaluationFailure
from asi_evolve.execution.pool import EvaluationOutcome
from asi_evolve.knowledge.store import Evaluation

Job = tuple[str, str, int]  # candidate, stage, seed


def experiment(campaign: Campaign, cycle: int, admitted: Sequence[str]) -> None:
    """Runs the cascade for the candidates admitted in a cycle.

    Each sub-stage depends on stored results alone, so a phase that was killed runs again from its start without
    repeating an evaluation.

    Raises:
        EvaluationFailure: the baseline itself failed; there is nothing to compare with.
    """
    if campaign.store.done(cycle, "experiment") is not None:
        return
    earlier = campaign.ledger(before=cycle)
    incumbent = campaign.incumbent(earlier)
    known = frozenset(earlier.at("cross"))
    any_full = any(c != campaign.baseline.hash for c in earlier.at("full"))
    evaluate(campaign, cycle, "isolated", [campaign.baseline.hash, incumbent.hash, *admitted])
    triples = _cross(campaign, incumbent, admitted, known)
    for triple in triples:
        campaign.store.add_candidate(
            triple.candidate,
            cycle,
            "cross",
            None,
            [incumbent.hash, *triple.sources],
            {"predicted_gain": triple.predicted},
        )
    crossed = [t.candidate.hash for t in triples]
    if crossed:
        evaluate(campaign, cycle, "cross", [campaign.baseline.hash, incumbent.hash, *crossed])
    last_chance = not any_full and cycle == campaign.config.cycles - 1
    finalists = _finalists(campaign, incumbent, crossed, last_chance)
    if finalists:
        evaluate(campaign, cycle, "full", [campaign.baseline.hash, *finalists])
    new = campaign.incumbent()
    if new != incumbent:
        campaign.emit("incumbent", cycle, campaign.labels[new.hash], candidate=new.hash)
    campaign.store.log(cycle, "experiment", "done", {"crossed": crossed, "finalists": finalists, "incumbent": new.hash})


def confirm(campaign: Campaign, cycle: int) -> None:
    """Measures the winner and the baseline again on seeds that took no part in choosing the winner."""
    if campaign.store.done(cycle, "confirm") is not None or not campaign.config.cascade.confirm_seeds:
        return
    winner = campaign.incumbent().hash
    if winner != campaign.baseline.hash:
        evaluate(campaign, cycle, "confirm", [campaign.baseline.hash, winner])
    campaign.store.log(cycle, "confirm", "done", {"winner": winner})


def evaluate(campaign: Campaign, cycle: int, stage: str, candidates: Sequence[str]) -> None:
    """Evaluates candidates at a stage on all its seeds; results already stored are not computed again."""
    jobs: list[Job] = [
        (candidate, stage, seed)
        for candidate in dict.fromkeys(candidates)
        for seed in campaign.config.seeds(stage)
        if campaign.store.evaluation(candidate, stage, seed) is None
    ]
    if not jobs:
        _require_baseline(campaign, stage)
        return
    labels = campaign.labels
    running: dict[Future[EvaluationOutcome], Job] = {}
    finished = threading.Event()
    queue = iter(jobs)
    try:
        # No more are handed to the pool than run: an interrupt then loses only what is in flight.
        for job in queue:
            _submit(campaign, cycle, job, labels, running, finished)
            if len(running) >= campaign.config.workers:
                break
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                _finish(campaign, cycle, job, labels[job[0]], future.result())
                following = next(queue, None)
                if following is not None:
                    _submit(campaign, cycle, following, labels, running, finished)
    finally:
        finished.set()  # progress of evaluations that are being killed is not shown any more
    _require_baseline(campaign, stage)


def _submit(
    campaign: Campaign,
    cycle: int,
    job: Job,
    labels: Mapping[str, str],
    running: dict[Future[EvaluationOutcome], Job],
    finished: threading.Event,
) -> None:
    candidate, stage, seed = job
    label = labels[candidate]

    def on_progress(fraction: float, note: str) -> None:
        if not finished.is_set():
            campaign.emit("progress", cycle, note, label=label, stage=stage, seed=seed, fraction=fraction)

    campaign.emit("started", cycle, label=label, stage=stage, seed=seed)
    future = campaign.pool.submit(
        campaign.store.candidate(candidate), campaign.config.stage(stage), seed, on_progress=on_progress
    )
    running[future] = job


def _finish(campaign: Campaign, cycle: int, job: Job, label: str, outcome: EvaluationOutcome) -> None:
    candidate, stage, seed = job
    evaluation = Evaluation(
        candidate=candidate,
        stage=stage,
        seed=seed,
        cycle=cycle,
        status=outcome.status,
        metrics=outcome.metrics,
        failure=outcome.failure_kind,
        message=outcome.message,
        usage=outcome.usage,
        seconds=outcome.wall_seconds,
    )
    campaign.store.add_evaluation(evaluation)
    campaign.emit(
        "evaluated",
        cycle,
        evaluation.message,
        label=label,
        stage=stage,
        seed=seed,
        status=evaluation.status,
        failure=evaluation.failure,
        value=evaluation.metrics.get(campaign.benchmark.metric),
        seconds=evaluation.seconds,
    )


def _require_baseline(campaign: Campaign, stage: str) -> None:
    for seed in campaign.config.seeds(stage):
        result = campaign.store.evaluation(campaign.baseline.hash, stage, seed)
        if result is not None and not result.ok:
            reason = (result.message.strip().splitlines() or ["no message"])[-1]
            raise EvaluationFailure(
                result.failure or "internal", f"the baseline failed at the {stage} stage ({result.failure}): {reason}"
            )


def _cross(campaign: Campaign, incumbent: Candidate, admitted: Sequence[str], known: frozenset[str]) -> list[Triple]:
    """New triples around the components of this cycle that did best alone; none that earlier cycles measured."""
    gains = [(c, g) for c in admitted if (g := campaign.isolated_gain(c)) is not None]
    gains.sort(key=lambda pair: -pair[1])
    count = promoted(len(gains), campaign.config.cascade.promote)
    fresh: set[str] = set()
    promising: dict[str, list[tuple[Component, float, str]]] = {}
    for candidate, gain in gains[:count]:
        domain = str(campaign.store.candidate_row(candidate)["domain"])
        component = campaign.store.candidate(candidate)[domain]
        fresh.add(component.hash)
        promising.setdefault(domain, []).append((component, gain, candidate))
    # All cycles' components count, by what they are worth over the incumbent's: an old one may be what a new one needs.
    for domain in campaign.domains:
        older = promising.setdefault(domain, [])
        present = campaign.component_value(incumbent[domain].hash)
        for candidate, value in campaign.best_components(domain):
            if value <= present or len(older) >= SHORTLIST:
                break
            component = campaign.store.candidate(candidate)[domain]
            if component.hash not in fresh:
                older.append((component, value - present, candidate))
    return combine(incumbent, promising, fresh, known, count)


def _finalists(campaign: Campaign, incumbent: Candidate, crossed: Sequence[str], last_chance: bool) -> list[str]:
    """The cross-stage triples that go to the full stage: better than the incumbent there, best first."""
    ledger = campaign.ledger()
    measured = [(c, fmean(x)) for c in crossed if (x := ledger.improvement(c, "cross"))]
    measured.sort(key=lambda pair: -pair[1])
    count = promoted(len(measured), campaign.config.cascade.promote)
    own = ledger.improvement(incumbent.hash, "cross")
    bar = fmean(own) if own else 0.0
    chosen = [c for c, gain in measured[:count] if gain > bar]
    if not chosen and measured and last_chance:
        return [measured[0][0]]  # a campaign that never measured anything at full budget has shown nothing either way
    return chosen
