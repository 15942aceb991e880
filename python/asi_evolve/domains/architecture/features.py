"""Features for novelty from traced graphs: what a mechanism computes, not how it is written or called.

Each slot's code is traced in the baseline's model, in a sandbox, once: the result is kept by a hash of the code. For
the reference mechanisms it comes with the package, in ``traced.json``, which :func:`write_known` writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from asi_evolve.domains.architecture import trace
from asi_evolve.domains.slots import code_statistics
from asi_evolve.execution import Limits, Result, Sandbox
from asi_evolve.execution.limits import MEBIBYTE

SIZE = 1 + trace.SIZE  # of a slot's features: whether it could be traced, and the graph
_LARGEST = 4.0
_LIMITS = Limits(wall_seconds=30, memory_bytes=2048 * MEBIBYTE, result_bytes=MEBIBYTE)
_KNOWN = "traced.json"  # counts of the references by key


@lru_cache(maxsize=4096)
def slot_features(package: tuple[tuple[str, str], ...], cache: Path | None = None) -> np.ndarray:
    """float64 [SIZE] of a model package, by path and text; entries in [0, 4]. Not to be written to.

    Args:
        package: path and text of every file.
        cache: directory that keeps what was traced, for a campaign that goes on in another process.

    Logarithms of the counts that :func:`trace.trace` gives. Code that cannot be traced has those of its syntax, and is
    far from all that can.
    """
    counts = _traced(dict(package), cache)
    if counts is None:
        written = np.concatenate([code_statistics(text) for path, text in package if path != "__init__.py"])
        return np.concatenate([np.zeros(1), np.resize(written, trace.SIZE)])
    values = np.minimum(np.log1p(np.asarray(counts, dtype=np.float64)), _LARGEST)
    return np.concatenate([np.ones(1), values])


def _traced(files: Mapping[str, str], cache: Path | None) -> Sequence[float] | None:
    name = key(files)
    if name in _known():
        return _known()[name]
    place = cache / "traced" / f"{name[:32]}-{version('torch')}.json" if cache else None
    if place is not None:
        with contextlib.suppress(OSError, ValueError):
            return _checked([json.loads(place.read_text(encoding="utf-8"))], 1)[0]
    result = run([files])
    counts = _checked(result.value, 1)[0]
    if place is not None and (counts is not None or result.status in ("error", "timeout")):
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(counts), encoding="utf-8")
            part.replace(place)
    return counts


def key(files: Mapping[str, str]) -> str:
    """SHA-256 of a package, and of what is traced of it."""
    parts = [json.dumps([path, text]) for path, text in sorted(files.items())]
    return hashlib.sha256("\0".join([str(trace.SIZE), *parts]).encode()).hexdigest()


def run(cases: Sequence[Mapping[str, str]]) -> Result:
    """Runs :func:`trace.trace` in one sandbox."""
    source = "from asi_evolve.domains.architecture.trace import trace\n"
    return Sandbox.configured(_LIMITS).run(source, "trace", {"cases": [dict(c) for c in cases]})


def _checked(value: Any, count: int) -> Sequence[Sequence[float] | None]:
    """Counts as they have to be, None where they are not: the candidate's code ran where they come from."""

    def good(row: Any) -> bool:
        return isinstance(row, list) and len(row) == trace.SIZE and all(type(x) is float and 0 <= x < 1e9 for x in row)

    if not isinstance(value, list) or len(value) != count:
        return [None] * count
    return [row if good(row) else None for row in value]


@lru_cache(maxsize=1)
def _known() -> Mapping[str, Sequence[float]]:
    path = resources.files(__package__) / _KNOWN
    known: dict[str, list[float]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return known


def write_known() -> None:
    """Traces all references anew, for when they, the template or the tracing changed. Raises RuntimeError."""
    from asi_evolve.domains.architecture.domain import FILES, mechanisms, traced_package

    packages = [dict(traced_package(FILES[s], text)) for s, known in mechanisms().items() for text in known.values()]
    by_key = {key(p): p for p in packages}
    result = run(list(by_key.values()))
    rows = []
    for name, counts in zip(by_key, _checked(result.value, len(by_key)), strict=True):
        if counts is None:
            raise RuntimeError(f"not traced: {result.error}")
        rows.append(f"{json.dumps(name)}: {json.dumps([int(x) for x in counts])}")
    Path(str(resources.files(__package__) / _KNOWN)).write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
