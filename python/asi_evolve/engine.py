"""The engine: Learn -> Design -> Experiment -> Analyze, over and over, resumable at any instant."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asi_evolve import phases
from asi_evolve.benchmarks import load_benchmark
from asi_evolve.campaign import Campaign, Observer
from asi_evolve.candidate import Candidate
from asi_evolve.config import BenchmarkConfig, Config, load_config
from asi_evolve.domain import Benchmark
from asi_evolve.environment import describe_environment
from asi_evolve.errors import ConfigError, RunDirectoryError
from asi_evolve.execution.pool import LocalPool, benchmark_spec
from asi_evolve.fitness import Interval
from asi_evolve.knowledge.store import Store
from asi_evolve.llm.base import connect
from asi_evolve.rundir import RunDirectory


@dataclass(frozen=True)
class RunResult:
    """How a campaign ended.

    Attributes:
        best: the best candidate; the baseline when nothing beat it at the full stage.
        baseline: what the campaign started from.
        improvement: 95 % interval of the improvement of ``best`` over ``baseline`` in metric units (positive is
            better), on fresh seeds (``confirmed``) or, without confirmation seeds, on the full stage's.
        confirmed: whether the interval comes from seeds that took no part in the selection.
        evaluations: number of stored evaluations.
        directory: the run directory.
    """

    best: Candidate
    baseline: Candidate
    improvement: Interval | None
    confirmed: bool
    evaluations: int
    directory: Path

    @property
    def beats_baseline(self) -> bool:
        """Whether the interval lies above zero."""
        return self.improvement is not None and self.improvement.low > 0


class Engine:
    """A campaign in a run directory.

    Args:
        config: a Config, a mapping, the path of a YAML file, or the path of an existing run directory.
        out: the run directory. Made when missing; must be empty or hold this run. Default: ``runs/<name>-<time>``.
        benchmark: a Benchmark of your own instead of the configuration's.
        observers: called with every :class:`asi_evolve.campaign.Event`.

    Raises:
        ConfigError: a configuration value is wrong. RunDirectoryError: the directory is not usable, or in use.
    """

    def __init__(
        self,
        config: Config | Mapping[str, Any] | str | Path | None = None,
        out: str | Path | None = None,
        *,
        benchmark: Benchmark | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        existing = isinstance(config, str | Path) and Path(config).is_dir()
        if existing:
            out = Path(str(config))
            config = RunDirectory(out).config_path
        self.config = load_config(config)
        if benchmark is not None:  # stored, so that status, report and resume find it
            own = BenchmarkConfig(name=benchmark_spec(benchmark), options=dict(benchmark.options))
            self.config = self.config.model_copy(update={"benchmark": own})
        self.benchmark = benchmark or load_benchmark(self.config.benchmark.name, self.config.benchmark.options)
        known = [d.name for d in self.benchmark.domains()]
        for name in self.config.domains or ():
            if name not in known:
                raise ConfigError(f"config: domains: {name!r} is not one of {', '.join(known)}")
        self.directory = RunDirectory(out or Path("runs") / f"{self.config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        self._observers = tuple(observers)
        self._campaign: Campaign | None = None

    pool_class: type[LocalPool] = LocalPool  # what runs evaluations

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> RunResult:
        """Runs a new campaign to its end. Raises RunDirectoryError when the directory already holds a run."""
        if self.directory.has_run():
            raise RunDirectoryError(
                f"{self.directory.path}: already holds a run; resume it or choose another directory"
            )
        return self._open("run", self._all_cycles)

    def resume(self) -> RunResult:
        """Continues an interrupted campaign; a finished one just reports its result again."""
        if not self.directory.has_run():
            raise RunDirectoryError(f"{self.directory.path}: holds no run to resume")
        return self._open("resume", self._all_cycles)

    def step(self) -> RunResult:
        """Runs the next unfinished cycle only (starting the campaign if needed)."""
        return self._open("resume" if self.directory.has_run() else "run", self._one_cycle)

    def _all_cycles(self, campaign: Campaign) -> None:
        began = time.monotonic()
        for cycle in range(self.config.cycles):
            if self.config.max_seconds and time.monotonic() - began > self.config.max_seconds:
                campaign.emit("warning", cycle, f"stopped before cycle {cycle}: max_seconds is used up")
                break
            self._cycle(campaign, cycle)
        self._phase(campaign, self.config.cycles, "confirm", lambda: phases.confirm(campaign, self.config.cycles))

    def _one_cycle(self, campaign: Campaign) -> None:
        pending = [c for c in range(self.config.cycles) if campaign.store.done(c, "explain") is None]
        if pending:
            self._cycle(campaign, pending[0])
        else:
            self._phase(campaign, self.config.cycles, "confirm", lambda: phases.confirm(campaign, self.config.cycles))

    def _cycle(self, campaign: Campaign, cycle: int) -> None:
        context = self._phase(campaign, cycle, "learn", lambda: phases.learn(campaign, cycle))
        admitted = self._phase(campaign, cycle, "design", lambda: phases.design(campaign, cycle, context))
        self._phase(campaign, cycle, "experiment", lambda: phases.experiment(campaign, cycle, admitted))
        self._phase(campaign, cycle, "analyze", lambda: phases.analyze(campaign, cycle, context))
        self._phase(campaign, cycle, "explain", lambda: phases.explain(campaign, cycle))

    @staticmethod
    def _phase(campaign: Campaign, cycle: int, name: str, work: Callable[[], Any]) -> Any:
        """One phase: journalled when it starts (the phase itself journals its end) and shown."""
        if campaign.store.done(cycle, name) is None:
            campaign.store.log(cycle, name, "started")
            campaign.emit("phase", cycle, name)
        return work()

    # -- opening and closing ------------------------------------------------------------------------------------------

    def _open(self, what: str, work: Callable[[Campaign], None]) -> RunResult:
        directory = self.directory
        with directory.lock():
            directory.write_config(self.config)
            self.benchmark.prepare()
            store = Store(directory.database)
            llm = pool = None
            try:
                spec = benchmark_spec(self.benchmark)
                pool = self.pool_class(
                    spec,
                    dict(self.benchmark.options),
                    self.benchmark.isolation,
                    workers=self.config.workers,
                    sandbox_level=self.config.sandbox.level,
                    memory_mb=self.config.sandbox.memory_mb,
                    processes=self.config.sandbox.processes,
                    devices=self.config.sandbox.devices,
                )
                llm = connect(self.config.llm, str(directory.path / "llm.log"))
                campaign = Campaign(self.config, self.benchmark, store, llm, pool, self._observers, directory.path)
                environment = describe_environment(self.config, llm.name if llm else None)
                environment["notes"] = list(getattr(self.benchmark, "notes", list)())
                store.add_run(self.config.model_dump(mode="json"), environment, what)
                store.add_candidate(campaign.baseline, 0, "baseline")
                self._check_same_run(store, campaign)
                campaign.emit(
                    "run", 0, what, config=self.config, environment=environment, directory=str(directory.path)
                )
                work(campaign)
                result = self._result(campaign)
                campaign.emit("finished", self.config.cycles, result=result)
                return result
            finally:
                if pool is not None:
                    pool.shutdown(kill=True)
                if llm is not None:
                    llm.close()
                store.close()

    @staticmethod
    def _check_same_run(store: Store, campaign: Campaign) -> None:
        """Results against another baseline cannot be continued."""
        baseline = next(row["hash"] for row in store.candidates() if row["origin"] == "baseline")
        if baseline != campaign.baseline.hash:
            raise RunDirectoryError(
                "the run was started with another baseline (the benchmark or its options changed since); "
                "start a new run in another directory"
            )

    def _result(self, campaign: Campaign) -> RunResult:
        return result_of(campaign.store, self.benchmark, self.config, self.directory.path)


def result_of(store: Store, benchmark: Benchmark, config: Config, directory: Path) -> RunResult:
    """The result of a run as its knowledge base has it, finished or not."""
    from asi_evolve.fitness import t_interval
    from asi_evolve.ledger import Ledger

    baseline = next(row["hash"] for row in store.candidates() if row["origin"] == "baseline")
    ledger = Ledger(store.evaluations(), baseline, benchmark)
    best = ledger.incumbent(config.seeds("full"))
    interval, confirmed = None, False
    if best != baseline:
        interval = ledger.confirmation(best)
        confirmed = interval.n > 0
        if not confirmed:
            interval = t_interval(ledger.improvement(best, "full"))
    return RunResult(
        store.candidate(best), store.candidate(baseline), interval, confirmed, len(ledger.evaluations), directory
    )
