"""The facts of a run, read from its directory, finished or not: the one source of status, report and export."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from asi_evolve.benchmarks import load_benchmark
from asi_evolve.candidate import Candidate
from asi_evolve.cascade import CascadeReport, cascade_report
from asi_evolve.config import Config, load_config
from asi_evolve.domain import Benchmark, Domain
from asi_evolve.engine import RunResult, result_of
from asi_evolve.fitness import ALL_STAGES, STAGES, Fitness
from asi_evolve.knowledge.store import Row, Store
from asi_evolve.ledger import Ledger
from asi_evolve.novelty import Archive, Embedder
from asi_evolve.phases.explain import precision
from asi_evolve.rundir import RunDirectory
from asi_evolve.selection import rank_and_crowding

PHASES = ("learn", "design", "experiment", "analyze", "explain")


@dataclass(frozen=True)
class Valued:
    """A candidate with its fitness and rank."""

    hash: str
    label: str
    origin: str
    fitness: Fitness
    rank: int
    crowding: float


@dataclass(frozen=True)
class LLMUsage:
    """What the LLM was used for one purpose. ``cut_off``: answers that ended at the token limit."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cut_off: int


@dataclass(frozen=True)
class Summary:
    """Everything a view of a run needs."""

    directory: Path
    active: bool
    config: Config
    benchmark: Benchmark
    domains: Mapping[str, Domain]
    result: RunResult
    ledger: Ledger
    labels: Mapping[str, str]
    candidates: list[Row]
    triples: Mapping[str, Candidate]
    valued: list[Valued]
    cascade: CascadeReport
    runs: list[Row]
    journal: list[Row]
    proposals: list[Row]
    evaluations: list[Row]
    hypotheses: list[Row]
    evidence: list[Row]
    agenda: list[Row]
    analyses: list[Row]
    llm_calls: list[Row]
    explanations: list[Row]
    steering: list[Row]

    @property
    def state(self) -> str:
        """running, finished or interrupted."""
        finished = any(j["phase"] == "confirm" and j["event"] == "done" for j in self.journal)
        finished |= (
            bool(self.journal) and not self.config.cascade.confirm_seeds and self.cycles_done == self.config.cycles
        )
        return "running" if self.active else "finished" if finished else "interrupted"

    @property
    def cycles_done(self) -> int:
        """Number of finished cycles."""
        return sum(j["phase"] == "explain" and j["event"] == "done" for j in self.journal)

    def failures(self) -> Counter[str]:
        """Failed evaluations by kind."""
        return Counter(str(e["failure"]) for e in self.evaluations if e["status"] != "ok")

    def failure_examples(self, limit: int = 3) -> dict[str, list[Row]]:
        """By kind of failure, most frequent first, the latest failed evaluations, one per distinct message."""
        examples: dict[str, list[Row]] = {}
        for kind, _ in self.failures().most_common():
            distinct: dict[str, Row] = {}
            for e in reversed(self.evaluations):
                if e["status"] != "ok" and str(e["failure"]) == kind and len(distinct) < limit:
                    distinct.setdefault(e["message"], e)
            examples[kind] = list(distinct.values())
        return examples

    def llm_usage(self) -> dict[str, LLMUsage]:
        """Calls, tokens and time of the LLM by purpose."""
        groups: dict[str, list[Row]] = {}
        for call in self.llm_calls:
            groups.setdefault(str(call["phase"]), []).append(call)
        return {
            phase: LLMUsage(
                calls=len(calls),
                prompt_tokens=sum(c["prompt_tokens"] for c in calls),
                completion_tokens=sum(c["completion_tokens"] for c in calls),
                seconds=sum(c["seconds"] for c in calls),
                cut_off=sum(c["finish_reason"] == "length" for c in calls),
            )
            for phase, calls in groups.items()
        }

    def at_full_stage(self) -> list[Valued]:
        """The candidates measured at the full stage, ranked among themselves alone, best first.

        ``valued`` mixes stages: there a candidate counts at the highest stage it reached, which is what parents are
        selected by, but an isolated gain at a small budget is not a full-stage result.
        """
        members = [v for v in self.valued if v.fitness.stage == "full"]
        ranks, crowding = rank_and_crowding([v.fitness for v in members])
        ranked = [replace(v, rank=int(r), crowding=float(d)) for v, r, d in zip(members, ranks, crowding, strict=True)]
        return sorted(ranked, key=lambda v: (v.rank, -v.fitness.performance))

    def acceptance(self) -> dict[tuple[str, str], Counter[str]]:
        """What became of proposals, by source and kind."""
        table: dict[tuple[str, str], Counter[str]] = {}
        for p in self.proposals:
            table.setdefault((p["source"], p["kind"]), Counter())[p["status"]] += 1
        return table

    def claims(self) -> tuple[int, int]:
        """Checkable claims of the analyses: how many were true, how many there were."""
        claims = [c for a in self.analyses for c in a["claims"]]
        return sum(c["said"] == c["fact"] for c in claims), len(claims)

    def explanation_precision(self) -> dict[int, tuple[int, int]]:
        """By the cycle they were given in: explanations that survived their test, and those that a test decided."""
        by_cycle: dict[int, list[Row]] = {}
        for e in self.explanations:
            by_cycle.setdefault(e["cycle"], []).append(e)
        return {cycle: precision(rows) for cycle, rows in by_cycle.items()}

    def lineage(self, candidate: str) -> list[str]:
        """The candidate and its ancestors (first parents), newest first, down to the baseline."""
        rows = {row["hash"]: row for row in self.candidates}
        chain = [candidate]
        while rows[chain[-1]]["parents"] and rows[chain[-1]]["parents"][0] not in chain:
            chain.append(rows[chain[-1]]["parents"][0])
        return chain

    def to_json(self) -> dict[str, Any]:
        """The machine-readable status."""
        interval = self.result.improvement
        return {
            "directory": str(self.directory),
            "state": self.state,
            "cycles": {"done": self.cycles_done, "of": self.config.cycles},
            "metric": self.ledger.metric,
            "best": self.labels[self.result.best.hash],
            "best_hash": self.result.best.hash,
            "beats_baseline": self.result.beats_baseline,
            "improvement": None
            if interval is None
            else {
                "mean": _finite(interval.mean),
                "low": _finite(interval.low),
                "high": _finite(interval.high),
                "seeds": interval.n,
            },
            "confirmed": self.result.confirmed,
            "candidates": len(self.candidates),
            "evaluations": {stage: sum(e["stage"] == stage for e in self.evaluations) for stage in ALL_STAGES},
            "failures": dict(self.failures()),
            "proposals": {f"{s}/{k}": dict(c) for (s, k), c in self.acceptance().items()},
            "hypotheses": dict(Counter(h["status"] for h in self.hypotheses)),
            "llm": {
                "calls": len(self.llm_calls),
                "prompt_tokens": sum(c["prompt_tokens"] for c in self.llm_calls),
                "completion_tokens": sum(c["completion_tokens"] for c in self.llm_calls),
                "seconds": round(sum(c["seconds"] for c in self.llm_calls), 3),
            },
            "cascade": {
                "measured_seconds": round(self.cascade.measured, 3),
                "predicted_seconds": self.cascade.predicted,
                "saving": self.cascade.saving,
                "tau": dict(self.cascade.tau),
            },
            "claims": dict(zip(("true", "checked"), self.claims(), strict=True)),
            "explanations": dict(
                zip(("survived", "decided"), precision(self.explanations), strict=True), given=len(self.explanations)
            ),
            "agenda": self.agenda[-1]["shares"] if self.agenda else None,
        }

    def text(self) -> str:
        """The status as a page of text."""
        from asi_evolve.view import describe_result

        j = self.to_json()
        stages = ", ".join(f"{stage} {n}" for stage, n in j["evaluations"].items())
        failures = ", ".join(f"{k} {n}" for k, n in j["failures"].items()) or "none"
        label = None if self.result.best == self.result.baseline else j["best"]
        lines = [
            f"{self.directory}: {self.state}, cycle {self.cycles_done} of {self.config.cycles} done",
            describe_result(self.result, self.ledger.metric, label),
            f"evaluations: {stages}; failures: {failures}",
            "proposals: "
            + "; ".join(f"{k}: " + ", ".join(f"{n} {s}" for s, n in c.items()) for k, c in j["proposals"].items()),
            "hypotheses: " + (", ".join(f"{n} {s}" for s, n in j["hypotheses"].items()) or "none"),
            f"LLM: {j['llm']['calls']} calls, {j['llm']['prompt_tokens']} + {j['llm']['completion_tokens']} tokens, "
            f"{j['llm']['seconds']:.0f} s; claims true: {j['claims']['true']} of {j['claims']['checked']}",
        ]
        x = j["explanations"]
        if x["given"]:
            lines.append(
                f"explanations: {x['given']} given, {x['survived']} of the {x['decided']} that a test decided survived"
            )
        if self.cascade.saving is not None:
            lines.append(
                f"cascade: {self.cascade.measured:.0f} s measured, "
                f"{self.cascade.predicted or math.nan:.0f} s predicted, "
                f"{self.cascade.saving:.0%} saved against all at full"
            )
        front = [v for v in self.at_full_stage() if v.rank == 1]
        shown = [
            f"{'baseline' if v.hash == self.ledger.baseline else v.label} "
            f"({v.fitness.performance:+.4f}, cost {v.fitness.cost:.2f}x)"
            for v in front
        ]
        lines.append("Pareto front at the full stage: " + (", ".join(shown) or "nothing measured there yet"))
        return "\n".join(lines)


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def summarize(directory: str | Path, benchmark: Benchmark | None = None) -> Summary:
    """Reads a run directory. Raises RunDirectoryError when it holds no run."""
    run = RunDirectory(directory)
    config = load_config(run.config_path)
    store = Store(run.database, read_only=True)
    try:
        benchmark = benchmark or load_benchmark(config.benchmark.name, config.benchmark.options)
        domains = {d.name: d for d in benchmark.domains()}
        result = result_of(store, benchmark, config, run.path)
        ledger = Ledger(store.evaluations(), result.baseline.hash, benchmark)
        rows = store.candidates()
        labels = {row["hash"]: f"C{row['id']}" for row in rows}
        triples = {row["hash"]: store.candidate(row["hash"]) for row in rows}
        predicted = {
            row["hash"]: row["edit"]["predicted_gain"] for row in rows if row["origin"] == "cross" and row["edit"]
        }
        seeds = {stage: len(config.seeds(stage)) for stage in STAGES}
        return Summary(
            directory=run.path,
            active=run.locked(),
            config=config,
            benchmark=benchmark,
            domains=domains,
            result=result,
            ledger=ledger,
            labels=labels,
            candidates=rows,
            triples=triples,
            valued=_valued(config, domains, ledger, rows, labels, triples),
            cascade=cascade_report(ledger, config.cascade.promote, predicted, seeds),
            runs=store.runs(),
            journal=store.journal(),
            proposals=store.proposals(),
            evaluations=store.evaluation_rows(),
            hypotheses=store.hypotheses(),
            evidence=store.evidence(),
            agenda=store.agenda(),
            analyses=store.analyses(),
            llm_calls=store.llm_calls(),
            explanations=store.explanations(),
            steering=store.steering(),
        )
    finally:
        store.close()


def _valued(
    config: Config,
    domains: Mapping[str, Domain],
    ledger: Ledger,
    rows: list[Row],
    labels: Mapping[str, str],
    triples: Mapping[str, Candidate],
) -> list[Valued]:
    embed = Embedder(domains, config.novelty.structure_weight, config.novelty.code_weight)
    archive = Archive(embed.dim, config.novelty.k)
    origin = {row["hash"]: row["origin"] for row in rows}
    members = ledger.evaluated()
    for candidate in members:
        archive.add(embed(triples[candidate]))
    pairs = []
    for candidate, novelty in zip(members, archive.novelties(), strict=True):
        fitness = ledger.fitness(candidate, float(novelty) if math.isfinite(novelty) else 0.0)
        if fitness is not None:
            pairs.append((candidate, fitness))
    ranks, crowding = rank_and_crowding([f for _, f in pairs])
    valued = [
        Valued(c, labels[c], origin[c], f, int(r), float(d))
        for (c, f), r, d in zip(pairs, ranks, crowding, strict=True)
    ]
    return sorted(valued, key=lambda v: (v.rank, -v.crowding, -v.fitness.performance))


def best_so_far(summary: Summary) -> list[tuple[int, float, float]]:
    """(evaluations so far, evaluation seconds so far, best mean improvement so far at the full stage) after each.

    Only candidates measured on all the seeds of the full stage count; the confirmation does not.
    """
    points: list[tuple[int, float, float]] = [(0, 0.0, 0.0)]
    seen: dict[tuple[str, str], dict[int, float]] = {}
    sign = 1.0 if summary.ledger.maximize else -1.0
    best, seconds = 0.0, 0.0
    for number, e in enumerate(summary.evaluations, 1):
        seconds += e["seconds"]
        if e["status"] == "ok" and e["stage"] == "full":
            seen.setdefault((e["candidate"], e["stage"]), {})[e["seed"]] = e["metrics"][summary.ledger.metric]
        base = seen.get((summary.ledger.baseline, "full"), {})
        for (candidate, stage), values in seen.items():
            gains = [sign * (v - base[s]) for s, v in values.items() if s in base]
            if (
                candidate != summary.ledger.baseline
                and stage == "full"
                and len(gains) == len(summary.config.seeds("full"))
            ):
                best = max(best, fmean(gains))
        points.append((number, seconds, best))
    return points
