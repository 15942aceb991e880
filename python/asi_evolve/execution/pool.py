"""Evaluations side by side on this machine, each in a process of its own that cannot outlive the engine."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asi_evolve.candidate import Candidate
from asi_evolve.domain import Stage
from asi_evolve.errors import FAILURE_KINDS, ConfigError, EvaluationFailure
from asi_evolve.execution import evaluator, frames, levels
from asi_evolve.execution.limits import MEBIBYTE, Limits, Status
from asi_evolve.execution.sandbox import SETTINGS, Sandbox, settings
from asi_evolve.execution.supervise import OnProgress, supervise

_KINDS: dict[Status, str] = {
    "timeout": "timeout",
    "memory": "memory",
    "crash": "crash",
    "protocol": "protocol",
    "error": "crash",
}


@dataclass(frozen=True)
class EvaluationOutcome:
    """How one evaluation ended.

    Attributes:
        status: ``ok`` or ``failed``.
        metrics: finite floats by name; empty when failed.
        failure_kind: one of :data:`asi_evolve.errors.FAILURE_KINDS` when failed.
        message: why, when failed.
        usage: wall_seconds, cpu_seconds, max_rss_bytes of the evaluation's processes.
        wall_seconds: from start to end.
    """

    status: Literal["ok", "failed"]
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure_kind: str | None = None
    message: str = ""
    usage: Mapping[str, float] = field(default_factory=dict)
    wall_seconds: float = 0.0


def benchmark_spec(benchmark: Any) -> str:
    """``module:Class`` of a benchmark object, or ``/path/script.py:Class`` when it is defined in the running script.

    Raises:
        ConfigError: a worker process could not find the class (it is local to a function, or from an interactive
            session).
    """
    cls = type(benchmark)
    if "<" in cls.__qualname__:
        raise ConfigError(f"benchmark: {cls.__qualname__} is defined inside a function; define it at module level")
    module = sys.modules.get(cls.__module__)
    path = getattr(module, "__file__", None)
    main_spec = getattr(module, "__spec__", None) if cls.__module__ == "__main__" else None
    if main_spec is not None:  # python -m package.module
        return f"{main_spec.name}:{cls.__qualname__}"
    if cls.__module__ == "__main__" or cls.__module__.startswith("asi_evolve_user_"):
        if not path:
            raise ConfigError("benchmark: its class is from an interactive session; put it into a file")
        return f"{Path(path).resolve()}:{cls.__qualname__}"
    return f"{cls.__module__}:{cls.__qualname__}"


class LocalPool:
    """Runs evaluations, at most ``workers`` at a time.

    Args:
        benchmark: what :func:`benchmark_spec` gives.
        options: keyword arguments of the benchmark's class.
        isolation: ``sandbox`` or ``judge``, see :class:`asi_evolve.Benchmark`.
        workers: evaluations at a time.
        sandbox_level: see :class:`asi_evolve.execution.Sandbox`.
        memory_mb: memory limit of one candidate process tree, MiB.
        processes: process and thread limit of one candidate.
        threads: threads of the numerical libraries in one evaluation.
        devices: device nodes that candidates may use.

    A benchmark with a true attribute ``inline`` is trusted and fast: it is run in a thread of this process.

    Raises:
        ConfigError: the sandbox level does not work here, a device is not there, an inline benchmark cannot be built.
    """

    def __init__(
        self,
        benchmark: str,
        options: Mapping[str, Any],
        isolation: Literal["sandbox", "judge"],
        *,
        workers: int = 2,
        sandbox_level: str = "auto",
        memory_mb: int = 4096,
        processes: int = 64,
        threads: int = 1,
        devices: Sequence[str] = (),
    ) -> None:
        if isolation not in ("sandbox", "judge"):
            raise ConfigError(f"benchmark.isolation: {isolation!r} is not one of sandbox, judge")
        from asi_evolve.benchmarks import load_benchmark

        self._benchmark, self._options, self._isolation = benchmark, dict(options), isolation
        self._devices = levels.checked_devices(devices)
        self._memory, self._processes, self._threads = memory_mb * MEBIBYTE, processes, threads
        self._inline: Any = None
        if not benchmark.rpartition(":")[0].endswith(".py"):  # a script is not run again inside its own process
            built = load_benchmark(benchmark, options)
            self._inline = built if getattr(built, "inline", False) else None
        self.level = None if self._inline is not None else levels.resolve(sandbox_level)
        self._cancel = threading.Event()
        self._threads_pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="evaluation")

    def submit(
        self, candidate: Candidate, stage: Stage, seed: int, on_progress: OnProgress | None = None
    ) -> Future[EvaluationOutcome]:
        """Queues an evaluation. The future never raises for what the candidate or the benchmark does.

        Args:
            candidate: what to evaluate.
            stage: with what budget and time limit.
            seed: of every random choice in the evaluation.
            on_progress: called with (fraction, note) from a thread of the pool.
        """
        request = {
            "benchmark": self._benchmark,
            "options": self._options,
            "candidate": candidate.to_json(),
            "stage": {"name": stage.name, "budget": stage.budget, "time_limit": stage.time_limit},
            "seed": int(seed),
            "path": [p or os.getcwd() for p in sys.path],
        }
        return self._threads_pool.submit(self._run, request, stage.time_limit, on_progress)

    def shutdown(self, kill: bool = True) -> None:
        """Ends the pool.

        Args:
            kill: running evaluations are killed and come out as ``internal`` failures, queued ones are cancelled;
                False waits for all of them.
        """
        if kill:
            self._cancel.set()
        self._threads_pool.shutdown(wait=True, cancel_futures=kill)

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown(kill=True)

    # -- one evaluation, in a thread of the pool ----------------------------------------------------------------------

    def _run(self, request: dict[str, Any], time_limit: float, on_progress: OnProgress | None) -> EvaluationOutcome:
        started = time.monotonic()
        try:
            run: Callable[..., EvaluationOutcome]
            if self._cancel.is_set():
                return EvaluationOutcome("failed", {}, "internal", "cancelled")
            run = self._in_thread if self._inline is not None else getattr(self, f"_in_{self._isolation}")
            return run(request, time_limit, on_progress)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            return EvaluationOutcome("failed", {}, "internal", message, {}, time.monotonic() - started)

    def _in_thread(self, request: dict[str, Any], _: float, __: OnProgress | None) -> EvaluationOutcome:
        started = time.monotonic()
        answer = evaluator.evaluate({**request, "benchmark": self._inline})
        return _outcome(answer, {}, time.monotonic() - started)

    def _in_sandbox(
        self, request: dict[str, Any], time_limit: float, on_progress: OnProgress | None
    ) -> EvaluationOutcome:
        assert self.level is not None
        sandbox = Sandbox(self.level, self._limits(time_limit), self._devices)
        result = sandbox.run(
            "import sys\ndef run(request):\n"
            "    sys.path[1:1] = [p for p in request['path'] if p not in sys.path]\n"
            "    from asi_evolve.execution.evaluator import evaluate\n"
            "    return evaluate(request)\n",
            "run",
            {"request": request},
            read_only=self._own_directories(),
            on_progress=on_progress,
            cancel=self._cancel,
        )
        usage = result.usage.to_json()
        if result.ok:
            return _outcome(result.value, usage, result.usage.wall_seconds)
        return self._failed(result.status, result.error, usage)

    def _in_judge(
        self, request: dict[str, Any], time_limit: float, on_progress: OnProgress | None
    ) -> EvaluationOutcome:
        assert self.level is not None
        given = settings(self.level, self._memory >> 20, self._processes, self._devices)
        ending = supervise(
            lambda a, b: [sys.executable, "-m", "asi_evolve.execution.evaluator", str(a), str(b), str(os.getpid())],
            frames.encode("request", request),
            self._limits(time_limit),
            # The judge is trusted; what it needs of the environment is its own affair.
            env={**os.environ, "PYTHONPATH": _python_path(), "PYTHONHASHSEED": "0", SETTINGS: given},
            on_progress=on_progress,
            cancel=self._cancel,
            watch_memory=False,  # each of its sandboxes has its own limits
        )
        usage = ending.usage.to_json()
        if ending.status == "ok":
            return _outcome(ending.value, usage, ending.usage.wall_seconds)
        message = ending.message
        if ending.status in ("crash", "protocol") and ending.stderr.strip():
            message = f"{message}: {ending.stderr.decode('utf-8', 'replace').strip()[-2000:]}"
        if ending.status in ("crash", "protocol", "error"):  # the judge itself, not the candidate
            return EvaluationOutcome("failed", {}, "internal", message, usage, ending.usage.wall_seconds)
        return self._failed(ending.status, message, usage)

    def _failed(self, status: Status, message: str, usage: Mapping[str, float]) -> EvaluationOutcome:
        kind = "internal" if self._cancel.is_set() and message == "cancelled" else _KINDS[status]
        return EvaluationOutcome("failed", {}, kind, message, usage, usage["wall_seconds"])

    def _limits(self, time_limit: float) -> Limits:
        return Limits(
            wall_seconds=time_limit, memory_bytes=self._memory, processes=self._processes, threads=self._threads
        )

    def _own_directories(self) -> Sequence[str]:
        """Where the user's own code and data are: the script's directory and the working directory. Not a home
        directory or the root of the file system as a whole, should one work there."""
        places = [os.getcwd()]
        module = self._benchmark.rpartition(":")[0]
        if module.endswith(".py"):
            places.append(str(Path(module).parent))
        else:
            places += [p for p in sys.path if p and os.path.isdir(p) and not p.startswith(sys.base_prefix)]
        avoid = {"/", os.path.expanduser("~"), "/home", "/root", "/tmp", "/etc", "/var"}
        return [*(p for p in levels.outermost(places) if p not in avoid), *([module] if module.endswith(".py") else [])]


def _outcome(answer: Any, usage: Mapping[str, float], seconds: float) -> EvaluationOutcome:
    """The evaluator's answer, checked: inside a sandbox it comes from a process that ran a candidate's code."""
    if isinstance(answer, dict) and answer.get("status") == "ok" and isinstance(answer.get("metrics"), dict):
        try:
            metrics = evaluator.check_metrics(answer["metrics"], [])
            return EvaluationOutcome("ok", metrics, None, "", usage, seconds)
        except EvaluationFailure as error:
            return EvaluationOutcome("failed", {}, error.kind, str(error), usage, seconds)
    if isinstance(answer, dict) and answer.get("status") == "failed" and answer.get("kind") in FAILURE_KINDS:
        return EvaluationOutcome("failed", {}, answer["kind"], str(answer.get("message", ""))[:8000], usage, seconds)
    return EvaluationOutcome("failed", {}, "protocol", "the evaluator's answer is not a result", usage, seconds)


def _python_path() -> str:
    """So that the evaluator finds this very package, however it was made importable here."""
    known = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(dict.fromkeys([*levels.import_paths(), *filter(None, known.split(os.pathsep))]))
