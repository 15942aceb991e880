"""Replay: a recorded campaign again, with the recorded answers of the language model and every experiment made anew.

It has to come to the same rows. What a clock measures cannot: those metrics are taken from the recording once an
evaluation has been made, so that a choice that hangs on seconds is the same one.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asi_evolve.campaign import Event
from asi_evolve.candidate import Candidate
from asi_evolve.config import Config, load_config
from asi_evolve.domain import Benchmark, Stage
from asi_evolve.engine import Engine
from asi_evolve.errors import LLMError, RunDirectoryError
from asi_evolve.execution.pool import EvaluationOutcome, LocalPool
from asi_evolve.execution.supervise import OnProgress
from asi_evolve.knowledge.store import Evaluation, Store
from asi_evolve.rundir import RunDirectory
from asi_evolve.steering import FILE

# Columns that are compared: everything but row numbers, times and what the machine measured.
COMPARED: Mapping[str, tuple[str, ...]] = {
    "candidates": ("hash", "cycle", "origin", "domain", "parents", "edit", "hypothesis"),
    "proposals": ("cycle", "position", "attempt", "source", "kind", "domain", "parent", "status", "cause", "candidate"),
    "hypotheses": ("key", "cycle", "domain", "statement", "mechanism", "prediction", "provenance", "history"),
    "evidence": ("hypothesis", "cycle", "candidate", "reference", "stage", "metric", "effect", "low", "high", "level"),
    "explanations": ("cycle", "candidate", "reference", "mechanism", "status", "reason", "effect", "low", "high"),
    "agenda": ("cycle", "shares", "reason", "provenance"),
    "analyses": ("cycle", "facts", "interpretation", "claims"),
    "llm_calls": ("key", "request", "response"),
}
_EVALUATION = ("candidate", "stage", "seed", "cycle", "status", "failure", "metrics")


@dataclass(frozen=True)
class Replay:
    """How a replay ended.

    Attributes:
        directory: the replay's own run directory, or None where it was not kept.
        rows: by table, the number of rows of the recording and the SHA-256 of what is compared of them.
        differences: what is not the same, a line each; empty when the replay is exact.
        evaluations: number of evaluations that were made again.
    """

    directory: Path | None
    rows: Mapping[str, tuple[int, str]]
    differences: tuple[str, ...]
    evaluations: int

    @property
    def exact(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def replay(
    directory: str | Path,
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    benchmark: Benchmark | None = None,
    observer: Callable[[Event], None] | None = None,
    tolerance: float = 0.0,
) -> Replay:
    """Runs a recorded campaign again and compares.

    Args:
        directory: the recorded run, finished or not (then as far as it went in whole cycles).
        out: run directory of the replay; None for a temporary one that is removed.
        workers: evaluations at a time, another number than the recording's if you like.
        benchmark: for a run of a benchmark object of your own that its configuration cannot name.
        observer: of the replay's events.
        tolerance: relative difference of a metric that is let pass; 0 on the same machine type.

    Raises:
        RunDirectoryError: no run there, or not one whole cycle.
    """
    run = RunDirectory(directory)
    recorded = Store(run.database, read_only=True)
    try:
        config = load_config(run.config_path)
        cycles = sum(j["phase"] == "explain" and j["event"] == "done" for j in recorded.journal())
        if not cycles:
            raise RunDirectoryError(f"{run.path}: no cycle of this run is whole; there is nothing to replay")
        finished = any(j["phase"] == "confirm" and j["event"] == "done" for j in recorded.journal())
        provider = "recorded" if recorded.llm_calls() else "none"
        llm = config.llm.model_copy(update={"provider": provider, "recording": str(run.path)})
        config = config.model_copy(update={"llm": llm, "max_seconds": None, "workers": workers or config.workers})
        with tempfile.TemporaryDirectory(prefix="asi-evolve-replay-") as temporary:
            target = Path(out) if out is not None else Path(temporary) / "run"
            engine = _Replaying(config, target, recorded, benchmark, observer, tolerance)
            try:
                for cycle in range(cycles):
                    _step(engine, recorded.count_events(cycle, "design", "failed"))
                if finished:
                    engine.resume()
            except LLMError as error:  # another campaign by now: it asks what was never answered
                engine.mismatches.append(f"the replay stopped in cycle {cycle}: {error}")
            found = Store(engine.directory.database, read_only=True)
            try:
                differences = [*engine.mismatches, *_compare(recorded, found, cycles)]
                rows = {name: (len(table), _digest(table)) for name, table in _tables(recorded, cycles).items()}
                count = len(found.evaluations())
            finally:
                found.close()
        return Replay(None if out is None else target, rows, tuple(differences), count)
    finally:
        recorded.close()


def _step(engine: Engine, failed: int) -> None:
    """A cycle; as often again as the recording failed in it and was resumed."""
    for _ in range(failed):
        try:
            engine.step()
            return
        except LLMError:
            continue
    engine.step()


class _Replaying(Engine):
    """An engine whose evaluations are checked against a recording, and whose people decide what they decided then."""

    def __init__(
        self,
        config: Config,
        out: Path,
        recorded: Store,
        benchmark: Benchmark | None,
        observer: Callable[[Event], None] | None,
        tolerance: float,
    ) -> None:
        super().__init__(config, out, benchmark=benchmark, observers=[self._before, *([observer] if observer else [])])
        self._steering = recorded.steering()
        original = RunDirectory(Path(recorded.url.removeprefix("sqlite:///")).parent).path / FILE
        self._lines = original.read_text(encoding="utf-8").split("\n") if original.is_file() else []
        known = {(e.candidate, e.stage, e.seed): e for e in recorded.evaluations()}
        measured = frozenset(getattr(self.benchmark, "measured", ()))
        self.mismatches: list[str] = []
        mismatches = self.mismatches

        class Pool(LocalPool):
            """Makes an evaluation, compares it, and passes on what the recording says of clock and memory."""

            def submit(
                self, candidate: Candidate, stage: Stage, seed: int, on_progress: OnProgress | None = None
            ) -> Future[EvaluationOutcome]:
                checked: Future[EvaluationOutcome] = Future()

                def done(future: Future[EvaluationOutcome]) -> None:
                    if future.exception() is not None:
                        checked.set_exception(future.exception())
                        return
                    outcome, before = future.result(), known.get((candidate.hash, stage.name, seed))
                    if before is not None:
                        outcome = _checked(outcome, before, measured, tolerance, mismatches)
                    checked.set_result(outcome)

                super().submit(candidate, stage, seed, on_progress).add_done_callback(done)
                return checked

        self.pool_class = Pool

    def _before(self, event: Event) -> None:
        """Before a Learn phase: the lines of people's decisions that were there at that time."""
        if event.kind == "phase" and event.message == "learn":
            taken = [int(r["key"].split("/")[1]) for r in self._steering if r["cycle"] <= event.cycle]
            if taken:
                text = "".join(line + "\n" for line in self._lines[: max(taken) + 1])
                (self.directory.path / FILE).write_text(text, encoding="utf-8")


def _checked(
    outcome: EvaluationOutcome, before: Evaluation, measured: frozenset[str], tolerance: float, mismatches: list[str]
) -> EvaluationOutcome:
    where = f"evaluation of {before.candidate[:12]} at the {before.stage} stage, seed {before.seed}"
    if (outcome.status, outcome.failure_kind) != (before.status, before.failure):
        mismatches.append(
            f"{where}: {outcome.failure_kind or outcome.status}, recorded {before.failure or before.status}"
        )
        return outcome
    for name in sorted({*outcome.metrics, *before.metrics} - measured):
        now, then = outcome.metrics.get(name), before.metrics.get(name)
        if now is None or then is None or not abs(now - then) <= tolerance * max(abs(now), abs(then)):
            mismatches.append(f"{where}: {name} {now!r}, recorded {then!r}")
    # What the engine goes on with is the recording's, so that one difference does not breed others.
    return replace(outcome, metrics=dict(before.metrics), message=before.message)


def _tables(store: Store, cycles: int) -> dict[str, list[list[Any]]]:
    tables: dict[str, list[list[Any]]] = {}
    for name, columns in COMPARED.items():
        rows = getattr(store, name)()
        for row in rows:
            if name == "hypotheses":
                row["history"] = [[e["cycle"], e["status"], e["reason"]] for e in row["history"]]
        tables[name] = [[row[c] for c in columns] for row in rows if _counts(name, row, cycles)]
    evaluations = [vars(e) for e in store.evaluations() if e.cycle < cycles or e.stage == "confirm"]
    tables["evaluations"] = sorted(
        [row[c] if c != "metrics" else dict(row[c]) for c in _EVALUATION] for row in evaluations
    )
    return tables


def _counts(name: str, row: Mapping[str, Any], cycles: int) -> bool:
    """Whether a row belongs to a whole cycle. The agenda of the next cycle was made in the last whole one."""
    cycle: int = int(str(row["key"]).split("/")[1]) if name == "llm_calls" else int(row["cycle"])
    return cycle < cycles or (name == "agenda" and cycle == cycles)


def _compare(recorded: Store, found: Store, cycles: int) -> list[str]:
    differences = []
    ours = _tables(found, cycles)
    for name, theirs in _tables(recorded, cycles).items():
        for number, (one, other) in enumerate(zip(ours[name], theirs, strict=False)):
            if one != other:
                differences.append(f"{name}: row {number + 1}: {_short(one)}, recorded {_short(other)}")
                break
        if len(ours[name]) != len(theirs):
            differences.append(f"{name}: {len(ours[name])} rows, recorded {len(theirs)}")
    return differences


def _short(row: list[Any]) -> str:
    text = json.dumps(row, default=str)
    return text if len(text) <= 160 else text[:157] + "..."


def _digest(table: list[list[Any]]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest()
