"""What the four phases share: the run's parts, its random streams and its view of what is known."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asi_evolve.candidate import Candidate
from asi_evolve.config import Config
from asi_evolve.domain import Benchmark, Domain
from asi_evolve.execution.pool import LocalPool
from asi_evolve.fitness import Fitness
from asi_evolve.knowledge.store import Store
from asi_evolve.ledger import Ledger
from asi_evolve.llm.base import LLM
from asi_evolve.novelty import Archive, Embedder
from asi_evolve.selection import rank_and_crowding


@dataclass(frozen=True)
class Event:
    """Something worth showing. ``kind`` is one of run, phase, proposal, started, progress, evaluated, warning,
    incumbent, finished; ``data`` depends on it."""

    kind: str
    cycle: int
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)


Observer = Callable[[Event], None]


@dataclass(frozen=True)
class Ranked:
    """All valued candidates with their ranks, best first."""

    hashes: list[str]
    fitness: list[Fitness]
    ranks: np.ndarray
    crowding: np.ndarray


class Campaign:
    """One run's parts. Phases read and write through this and nothing else."""

    def __init__(
        self,
        config: Config,
        benchmark: Benchmark,
        store: Store,
        llm: LLM | None,
        pool: LocalPool,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self.config, self.benchmark, self.store, self.llm, self.pool = config, benchmark, store, llm, pool
        self._observers = observers
        every = {d.name: d for d in benchmark.domains()}
        self.all_domains: dict[str, Domain] = every
        self.domains: dict[str, Domain] = {n: every[n] for n in (config.domains or every)}
        self.baseline = Candidate([d.baseline() for d in every.values()])
        self._embed = Embedder(every, config.novelty.structure_weight, config.novelty.code_weight)
        self._archive = Archive(self._embed.dim, config.novelty.k)
        self._members: dict[str, int] = {}

    def emit(self, kind: str, cycle: int, message: str = "", **data: Any) -> None:
        """Tells every observer."""
        event = Event(kind, cycle, message, data)
        for observer in self._observers:
            observer(event)

    def rng(self, *stream: str | int) -> np.random.Generator:
        """The random stream of this name. It depends on the root seed and the name alone, never on what ran before,
        so that a phase started again after a crash draws the same numbers."""
        words = [zlib.crc32(s.encode()) if isinstance(s, str) else s for s in stream]
        return np.random.default_rng([self.config.seed, *words])

    def seed(self, *stream: str | int) -> int:
        """A sampling seed for the LLM, from the stream of this name."""
        return int(self.rng(*stream).integers(2**31 - 1))

    def ledger(self, before: int | None = None) -> Ledger:
        """All results so far, or those of the cycles before one: what a phase of that cycle started from, however
        often it is started again."""
        evaluations = [e for e in self.store.evaluations() if before is None or e.cycle < before]
        return Ledger(evaluations, self.baseline.hash, self.benchmark)

    def incumbent(self, ledger: Ledger | None = None) -> Candidate:
        """The best candidate by the full stage; the baseline at first."""
        return self.store.candidate((ledger or self.ledger()).incumbent(self.config.seeds("full")))

    def label(self, candidate: str) -> str:
        """The short name of a stored candidate, ``C12``."""
        for row in self.store.candidates():
            if row["hash"] == candidate:
                return f"C{row['id']}"
        return candidate[:8]

    def labels(self) -> dict[str, str]:
        """Short names of all stored candidates by hash."""
        return {row["hash"]: f"C{row['id']}" for row in self.store.candidates()}

    def _update_archive(self, ledger: Ledger) -> None:
        for candidate in ledger.evaluated():
            if candidate not in self._members:
                self._members[candidate] = len(self._members)
                self._archive.add(self._embed(self.store.candidate(candidate)))

    def nearest(self, candidate: Candidate, ledger: Ledger) -> tuple[str | None, float]:
        """The nearest evaluated candidate and its distance in feature space; (None, inf) at first."""
        self._update_archive(ledger)
        at, distance = self._archive.nearest(self._embed(candidate))
        return (list(self._members)[at] if at >= 0 else None), distance

    def ranked(self, ledger: Ledger) -> Ranked:
        """All candidates with a comparable result, ranked by performance, cost and novelty, best first."""
        self._update_archive(ledger)
        novelties = self._archive.novelties()
        pairs: list[tuple[str, Fitness]] = []
        for candidate, at in self._members.items():
            novelty = float(novelties[at])
            fitness = ledger.fitness(candidate, novelty if np.isfinite(novelty) else 0.0)
            if fitness is not None:
                pairs.append((candidate, fitness))
        ranks, crowding = rank_and_crowding([f for _, f in pairs])
        # The hash makes the order the same however the archive was filled.
        best_first = sorted(
            range(len(pairs)), key=lambda i: (ranks[i], -crowding[i], -pairs[i][1].performance, pairs[i][0])
        )
        return Ranked(
            [pairs[i][0] for i in best_first],
            [pairs[i][1] for i in best_first],
            ranks[best_first],
            crowding[best_first],
        )

    def agenda(self) -> dict[str, float]:
        """Share of proposals by searched domain, from the latest agenda; equal at first."""
        history = self.store.agenda()
        shares = history[-1]["shares"] if history else {}
        known = {n: float(shares.get(n, 0.0)) for n in self.domains}
        total = sum(known.values())
        return {n: s / total for n, s in known.items()} if total > 0 else {n: 1 / len(known) for n in known}
