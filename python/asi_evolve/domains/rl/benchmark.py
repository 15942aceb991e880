"""The benchmark ``rl``: an algorithm graph trains a small actor-critic in Gymnasium's environments."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from asi_evolve.candidate import Candidate, thaw
from asi_evolve.domain import BenchmarkBase, Stage
from asi_evolve.domains.algorithm.code_slot import CODE_FILE
from asi_evolve.domains.rl.domain import GRAPH_FILE, RLGraphDomain, uses_code
from asi_evolve.domains.rl.environments import TASKS, Judge, Task, check_environment
from asi_evolve.domains.rl.metrics import Learned, judge_curve
from asi_evolve.errors import ConfigError, EvaluationFailure
from asi_evolve.execution import Limits, Sandbox, Usage, progress
from asi_evolve.execution.limits import MEBIBYTE

_KINDS = {"timeout": "timeout", "memory": "memory", "protocol": "protocol", "crash": "crash", "error": "crash"}
_ENTRY = "from asi_evolve.domains.rl.learner import learn\n"


@dataclass(frozen=True)
class Run:
    """One training run as the judge saw it.

    Attributes:
        curve: (steps taken, return) of every finished training episode.
        tests: float64 [tests], returns of the test episodes.
        steps: environment steps of training.
        seconds: wall clock, start of the process included.
        usage: of the learner's process.
    """

    curve: list[tuple[int, float]]
    tests: np.ndarray
    steps: int
    seconds: float
    usage: Usage


class RLBenchmark(BenchmarkBase):
    """How soon and how well an algorithm learns to act.

    The environments run in this process. The candidate's graph, and whatever code it brings, runs in a sandbox that
    maps observations to actions and data to updates; rewards are counted here.

    ``score``: mean of the final return and of the area under the learning curve, both normalised so that random play is
    0 and solved is 1, averaged over environments. Further metrics: ``final_return`` (normalised), ``area``, ``solved``,
    ``collapsed`` and ``steps_to_threshold`` (share of the budget), averaged, and per environment
    ``<name>/final_return`` in its own unit; see :class:`asi_evolve.domains.rl.metrics.Learned`.
    Costs: ``train_seconds``, CPU seconds of the learners, start-up included; ``peak_memory_mb``, of the largest one.

    Args:
        environments: names of Gymnasium environments with vectors as observations. Atari games ("ALE/...-v5") give the
            128 bytes of the machine's memory.
        full_steps: steps per environment at the full stage; smaller budgets take a share of them.
        tests: test episodes after training.
        threads: CPU threads of the learner.
        low, high: returns that count as 0 and 1 in an environment without known ones.

    Raises:
        TypeError: an option is out of range.
    """

    metric = "score"
    maximize = True
    costs = ("train_seconds", "peak_memory_mb")
    measured = ("train_seconds", "peak_memory_mb")
    isolation: Literal["sandbox", "judge"] = "judge"

    def __init__(
        self,
        *,
        environments: Sequence[str] = ("CartPole-v1",),
        full_steps: int = 100_000,
        tests: int = 20,
        threads: int = 1,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        if isinstance(environments, str) or not environments or not all(isinstance(e, str) for e in environments):
            raise TypeError(f"environments: {environments!r} is not a list of names")
        for name, value in (("full_steps", full_steps), ("tests", tests), ("threads", threads)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TypeError(f"{name}: {value!r} is not a positive whole number")
        if (low is None) != (high is None) or (low is not None and high is not None and not low < high):
            raise TypeError(f"low and high: {low!r}, {high!r}; either none or low below high")
        self.environments = tuple(environments)
        self.full_steps, self.tests, self.threads = full_steps, tests, threads
        self.options: Mapping[str, Any] = {
            "environments": list(environments),
            "full_steps": full_steps,
            "tests": tests,
            "threads": threads,
            "low": low,
            "high": high,
        }
        self._range = None if low is None or high is None else Task(low, high)

    def task(self, name: str) -> Task:
        """The scale of an environment's returns. Raises ConfigError where it is neither known nor given."""
        found = TASKS.get(name) or self._range
        if found is None:
            raise ConfigError(f"environments: the range of returns of {name!r} is not known; give low and high")
        return found

    def prepare(self) -> None:
        """Makes every environment once. Raises ConfigError, in one line, for one that is not installed."""
        for name in self.environments:
            self.task(name)
            check_environment(name)

    def domains(self) -> list[RLGraphDomain]:
        """The algorithm alone."""
        return [RLGraphDomain()]

    def evaluate(self, candidate: Candidate, stage: Stage, seed: int) -> dict[str, float]:
        """Trains and tests in every environment; deterministic but for times and memory.

        Raises:
            EvaluationFailure: with the kind of what went wrong. ConfigError: an environment is not installed.
        """
        began = time.monotonic()
        steps = max(1, round(self.full_steps * stage.budget))
        learned: list[Learned] = []
        runs: list[Run] = []
        metrics: dict[str, float] = {}
        for i, name in enumerate(self.environments):
            left = stage.time_limit - (time.monotonic() - began)
            if left <= 0:
                raise EvaluationFailure("timeout", f"no time left for {name}")
            span = i / len(self.environments), (i + 1) / len(self.environments)
            runs.append(self.train(candidate, name, steps, seed, left, span))
            learned.append(judge_curve(runs[-1].curve, runs[-1].tests, steps, self.task(name)))
            metrics[f"{name}/final_return"] = learned[-1].final_return
        final = float(np.mean([x.normalized for x in learned]))
        area = float(np.mean([x.area for x in learned]))
        return {
            "score": (final + area) / 2,
            "final_return": final,
            "area": area,
            "steps_to_threshold": float(np.mean([x.steps_to_threshold / steps for x in learned])),
            "solved": float(np.mean([x.solved for x in learned])),
            "collapsed": float(np.mean([x.collapsed for x in learned])),
            **metrics,
            "train_seconds": sum(r.usage.cpu_seconds for r in runs),
            "peak_memory_mb": max(r.usage.max_rss_bytes for r in runs) / MEBIBYTE,
        }

    def train(
        self,
        candidate: Candidate,
        name: str,
        steps: int,
        seed: int,
        time_limit: float = 600.0,
        span: tuple[float, float] = (0.0, 1.0),
    ) -> Run:
        """One training run in one environment.

        Raises:
            EvaluationFailure: it did not come to its end. ConfigError: the environment is not installed.
        """
        component = candidate.algorithm
        params = thaw(component.params)
        judge = Judge(name, int(params["environments"]), steps, self.tests, seed)
        code = component.files[CODE_FILE] if uses_code(component.files) else ""
        low, high = span
        began = time.monotonic()
        try:
            result = Sandbox.configured().run(
                _ENTRY,
                "learn",
                {
                    "graph": component.files[GRAPH_FILE],
                    "code": code,
                    "params": params,
                    "facts": judge.facts,
                    "steps": steps,
                    "seed": seed,
                    "threads": self.threads,
                },
                limits=Limits(wall_seconds=time_limit, threads=self.threads, result_bytes=1 << 20),
                on_progress=lambda fraction, note: progress(low + (high - low) * fraction, f"{name}: {note}"),
                on_question=judge.answer,
            )
        finally:
            judge.close()
        seconds = time.monotonic() - began
        if not result.ok:
            raise EvaluationFailure(_KINDS[result.status], f"{name}: {result.error}")
        answer = result.value if isinstance(result.value, dict) else {}
        for key, kind in (("invalid", "invalid"), ("non_finite", "non-finite")):
            if key in answer:
                raise EvaluationFailure(kind, f"{name}: {str(answer[key])[:2000]}")
        if not judge.finished:
            raise EvaluationFailure("protocol", f"{name}: ended after {judge.taken} of {steps} steps, before the test")
        return Run(judge.curve, judge.test_returns, steps, seconds, result.usage)
