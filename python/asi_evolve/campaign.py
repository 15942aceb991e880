"""What the four phases share: the run's parts, its random streams and its view of what is known."""

from __future__ import annotations

import bisect
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from asi_evolve.candidate import Candidate
from asi_evolve.config import Config
from asi_evolve.domain import Benchmark, Domain
from asi_evolve.evidence import FalseDiscoveryControl
from asi_evolve.execution.pool import LocalPool
from asi_evolve.fitness import STAGES
from asi_evolve.knowledge.store import Evaluation, Store
from asi_evolve.ledger import Ledger
from asi_evolve.llm.base import LLM
from asi_evolve.novelty import Archive, Embedder
from asi_evolve.population import Population


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


class _Labels(Mapping[str, str]):
    """Short names of all stored candidates, ``C12``, by hash."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, candidate: str) -> str:
        return f"C{self._store.numbers[candidate]}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.numbers)

    def __len__(self) -> int:
        return len(self._store.numbers)


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
        directory: Path | None = None,
    ) -> None:
        self.directory = directory  # where people leave decisions, see steering
        self.config, self.benchmark, self.store, self.llm, self.pool = config, benchmark, store, llm, pool
        self._observers = observers
        every = {d.name: d for d in benchmark.domains()}
        self.all_domains: dict[str, Domain] = every
        self.domains: dict[str, Domain] = {n: every[n] for n in (config.domains or every)}
        self.baseline = Candidate([d.baseline() for d in every.values()])
        self.labels: Mapping[str, str] = _Labels(store)
        embed = Embedder(every, config.novelty.structure_weight, config.novelty.code_weight)
        self._population = Population(embed, Archive(embed.dim, config.novelty.k))
        self._ledger = Ledger((), self.baseline.hash, benchmark)
        self._control = FalseDiscoveryControl(config.analyze.false_discovery_rate)
        self._last = 0  # row of the newest evaluation in the ledger
        self._unranked: list[Evaluation] = []  # in the ledger, not yet in the population
        self._components: dict[str, list[tuple[float, str]]] = {}  # by domain: (-value, candidate), sorted
        self._gains: dict[str, tuple[float, float]] = {}  # isolated gain and value, of the candidates listed there
        self._values: dict[str, tuple[int, float]] = {}  # by component: candidate it was first measured in, value
        self._waiting: dict[str, None] = {}  # measured, but what they are compared with is not yet

    def false_discovery_control(self) -> FalseDiscoveryControl:
        """The control of this run's tests of hypotheses, with all tests that are stored."""
        stored = self.store.p_values(self._control.tests)
        return self._control.replay(stored)

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

    def check(self, candidate: Candidate) -> None:
        """What the benchmark, if it has the method, checks before a candidate is admitted. Raises InvalidCandidate."""
        checks = getattr(self.benchmark, "check", None)
        if checks is not None:
            checks(candidate, [self.config.stage(name) for name in STAGES])

    def seed(self, *stream: str | int) -> int:
        """A sampling seed for the LLM, from the stream of this name."""
        return int(self.rng(*stream).integers(2**31 - 1))

    def ledger(self, before: int | None = None) -> Ledger:
        """All results so far: one ledger that grows. Or those of the cycles before one: what a phase of that cycle
        started from, however often it is started again."""
        new, self._last = self.store.evaluations_after(self._last)
        self._ledger.extend(new)
        self._unranked += new
        isolated = dict.fromkeys(e.candidate for e in new if e.stage == "isolated")
        if isolated:
            for candidate in {**isolated, **self._waiting}:
                self._value_component(candidate)
        if before is None or self._ledger.cycle < before:
            return self._ledger
        return Ledger([e for e in self._ledger.evaluations if e.cycle < before], self.baseline.hash, self.benchmark)

    def _value_component(self, candidate: str) -> None:
        row = self.store.candidate_row(candidate)
        if row["domain"] is None or not row["parents"]:
            return
        gains = self._ledger.improvement(candidate, "isolated", row["parents"][0])
        ranked = self._components.setdefault(row["domain"], [])
        if candidate in self._gains:
            ranked.remove((-self._gains.pop(candidate)[1], candidate))
        self._waiting.pop(candidate, None)
        if not gains and self._ledger.results(candidate, "isolated"):
            self._waiting[candidate] = None
        if gains:
            reference = self.store.candidate(row["parents"][0])[row["domain"]].hash
            value = fmean(gains) + self.component_value(reference)
            number, own = self.store.numbers[candidate], self.store.candidate(candidate)[row["domain"]].hash
            if number <= self._values.get(own, (number, 0.0))[0]:
                self._values[own] = (number, value)
            self._gains[candidate] = (fmean(gains), value)
            bisect.insort(ranked, (-value, candidate))

    def component_value(self, component: str) -> float:
        """What a component is worth over the baseline's: the sum of the isolated gains that led to it, 0 where nothing
        was measured. Gains over different incumbents cannot be compared, values can."""
        return self._values.get(component, (0, 0.0))[1]

    def isolated_gain(self, candidate: str) -> float | None:
        """Mean paired improvement at the isolated stage over the incumbent that a candidate was made from; None when it
        failed or was not measured."""
        self.ledger()
        found = self._gains.get(candidate)
        return None if found is None else found[0]

    def best_components(self, domain: str) -> Iterator[tuple[str, float]]:
        """Candidates that an edit of this domain made, with their components' values, best first."""
        self.ledger()
        return ((candidate, -negative) for negative, candidate in self._components.get(domain, ()))

    def incumbent(self, ledger: Ledger | None = None) -> Candidate:
        """The best candidate by the full stage; the baseline at first."""
        return self.store.candidate((ledger or self.ledger()).incumbent(self.config.seeds("full")))

    def population(self) -> Population:
        """Everything evaluated so far, ranked by performance, cost and novelty."""
        ledger = self.ledger()
        # In an order that neither workers nor a crash in between decide: of equals, the archive's order decides.
        self._unranked.sort(key=lambda e: (e.cycle, self.store.numbers[e.candidate]))
        fresh = list(dict.fromkeys(e.candidate for e in self._unranked))
        self._unranked.clear()
        self._population.update([self.store.candidate(c) for c in fresh], ledger.fitness)
        return self._population

    def agenda(self) -> dict[str, float]:
        """Share of proposals by searched domain, from the latest agenda; equal at first."""
        last = self.store.last_agenda()
        shares = last["shares"] if last else {}
        known = {n: float(shares.get(n, 0.0)) for n in self.domains}
        total = sum(known.values())
        return {n: s / total for n, s in known.items()} if total > 0 else {n: 1 / len(known) for n in known}
