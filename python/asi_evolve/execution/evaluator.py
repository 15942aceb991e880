"""One evaluation in a process of its own: ``python -m asi_evolve.execution.evaluator REQUEST_FD RESULT_FD PARENT``.

The request is one frame ``{benchmark, options, candidate, stage, seed}``; the answer is progress frames and one result
frame, ``{"status": "ok", "metrics": {...}}`` or ``{"status": "failed", "kind": ..., "message": ...}``. A benchmark with
isolation ``judge`` runs in this process, which is trusted and starts sandboxes itself; one with ``sandbox`` is given to
:func:`evaluate` wholly inside a sandbox.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from asi_evolve.errors import AsiEvolveError, EvaluationFailure


def evaluate(request: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluates one request; never raises for anything the benchmark or the candidate does.

    Args:
        request: ``benchmark`` (``module:attribute``, ``/path/script.py:attribute`` or the object itself), ``options``,
            ``candidate``, ``stage`` (name, budget, time_limit), ``seed``.
    """
    try:
        return _evaluate(request)
    except EvaluationFailure as error:
        return {"status": "failed", "kind": error.kind, "message": str(error)}
    except AsiEvolveError as error:  # a corpus that has gone, a sandbox that does not work here
        return {"status": "failed", "kind": "internal", "message": str(error)}
    except MemoryError:
        return {"status": "failed", "kind": "memory", "message": "out of memory"}
    except Exception:
        return {"status": "failed", "kind": "crash", "message": traceback.format_exc()[-4000:]}


def _evaluate(request: Mapping[str, Any]) -> dict[str, Any]:
    from asi_evolve.benchmarks import load_benchmark
    from asi_evolve.candidate import Candidate
    from asi_evolve.domain import Stage

    benchmark = request["benchmark"]
    if isinstance(benchmark, str):
        benchmark = load_benchmark(benchmark, request["options"])
    stage = Stage(**request["stage"])
    measured = benchmark.evaluate(Candidate.from_json(request["candidate"]), stage, request["seed"])
    return {"status": "ok", "metrics": check_metrics(measured, [benchmark.metric, *benchmark.costs])}


def check_metrics(measured: Any, required: list[str]) -> dict[str, float]:
    """The metrics as plain floats.

    Raises:
        EvaluationFailure: ``protocol`` when one is missing or not a number, ``non-finite`` when one is NaN or infinite.
    """
    if not isinstance(measured, Mapping):
        raise EvaluationFailure("protocol", f"evaluate returned {type(measured).__name__}, not a mapping of metrics")
    for name in required:
        if name not in measured:
            raise EvaluationFailure(
                "protocol", f"evaluate returned no {name!r}; it returned {', '.join(measured) or 'nothing'}"
            )
    metrics: dict[str, float] = {}
    for name, value in measured.items():
        try:
            metrics[str(name)] = float(value)
        except (TypeError, ValueError):
            raise EvaluationFailure("protocol", f"metric {name!r} is {type(value).__name__}, not a number") from None
        if not math.isfinite(metrics[str(name)]):
            raise EvaluationFailure("non-finite", f"metric {name!r} is {value}")
    return metrics


def main(request_fd: int, result_fd: int, parent: int) -> None:
    """The process's program; never returns."""
    from asi_evolve.execution import child, frames, procfs, reporting

    procfs.die_with_parent(parent)
    procfs.become_subreaper()
    for fd in (request_fd, result_fd):  # sandboxes that we start get channels of their own
        os.set_inheritable(fd, False)
    request = child.read_frame(request_fd)
    sys.path[:1] = request["path"]
    reporting.connect(lambda fraction, note: child.write_frame(result_fd, "progress", [fraction, note]))
    child.write(result_fd, frames.encode("result", evaluate(request)))
    sys.stdout.flush()
    sys.stderr.flush()
    os.read(request_fd, 1)
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
