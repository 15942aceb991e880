"""A candidate written as files that run, or can be read, without the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asi_evolve import __version__
from asi_evolve.candidate import Candidate, check_path, thaw
from asi_evolve.domain import Benchmark
from asi_evolve.errors import ConfigError, InvalidEdit, RunDirectoryError
from asi_evolve.fitness import STAGES
from asi_evolve.report.summary import Summary, summarize

_RECORD = "candidate.json"
_README = """# An exported candidate

The components of one candidate of a campaign: a folder per domain with the component's files and, in `params.json`, its
parameters. `candidate.json` says which candidate it is and what was measured. The benchmark of the campaign supplies no
exporter of its own, so how the parts are put together is told by the benchmark's code alone.

**Read the code before you run it.** It may have been written by a language model.
"""


def export_best(
    directory: str | Path, target: str | Path, candidate: str | None = None, *, benchmark: Benchmark | None = None
) -> list[Path]:
    """Writes the best triple of a run, or another one, so that it is of use without the engine.

    A benchmark with a method ``export(candidate, target)`` decides on the form; the built-in language model becomes an
    importable PyTorch package with its training and its data pipeline. Else every component's files and parameters are
    written as they are. ``candidate.json`` is always added.

    Args:
        directory: the run directory.
        target: where to write: a new or empty directory, or that of an earlier export, whose files are replaced.
        candidate: label, for example ``C12``, of another candidate than the best; the baseline counts as the best
            when nothing beat it.
        benchmark: the benchmark object, where the run's configuration does not name it.

    Returns:
        The files written.

    Raises:
        RunDirectoryError: ``directory`` holds no run, or ``target`` cannot be written or holds other things.
        ConfigError: there is no candidate of this label.
    """
    summary = summarize(directory, benchmark)
    chosen = _find(summary, candidate)
    target = Path(target)
    exporter = getattr(summary.benchmark, "export", None)
    try:
        _make_room(target)
        written = [Path(p) for p in (exporter or _export_components)(chosen, target)]
        record = target / _RECORD
        files = [p.relative_to(target).as_posix() for p in written if p.is_relative_to(target)]
        record.write_text(json.dumps(_record(summary, chosen, files), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"{target}: cannot be written: {error.strerror}") from None
    return [*written, record]


def _find(summary: Summary, label: str | None) -> Candidate:
    if label is None:
        return summary.result.best
    for key, known in summary.labels.items():
        if label == known:
            return summary.triples[key]
    names = list(summary.labels.values())
    raise ConfigError(f"--candidate: {label!r} is no candidate of this run; there are {names[0]} to {names[-1]}")


def _make_room(target: Path) -> None:
    """An empty place to write to. Of an earlier export only its own files go: weights trained there stay."""
    target.mkdir(parents=True, exist_ok=True)
    found = sorted(p.name for p in target.iterdir())
    if not found:
        return
    try:
        names = [check_path(str(name)) for name in json.loads((target / _RECORD).read_text(encoding="utf-8"))["files"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError, InvalidEdit):
        raise RunDirectoryError(f"{target}: not empty and not an earlier export (has {found[0]})") from None
    for name in names:
        (target / name).unlink(missing_ok=True)


def _export_components(candidate: Candidate, target: Path) -> list[Path]:
    texts = {"README.md": _README}
    for component in candidate.components:
        texts[f"{component.domain}/params.json"] = json.dumps(thaw(component.params), indent=2) + "\n"
        texts |= {f"{component.domain}/{path}": text for path, text in component.files.items()}
    written = []
    for name, text in texts.items():
        path = target / check_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _record(summary: Summary, candidate: Candidate, files: list[str]) -> dict[str, Any]:
    """What the candidate is and what was measured, in plain JSON."""
    ledger, stages = summary.ledger, (*STAGES, "confirm")
    return {
        "label": summary.labels[candidate.hash],
        "hash": candidate.hash,
        "is_baseline": candidate == summary.result.baseline,
        "is_best": candidate == summary.result.best,
        "components": candidate.to_json(),
        "benchmark": {"name": summary.config.benchmark.name, "options": dict(summary.config.benchmark.options)},
        "metric": ledger.metric,
        "maximize": ledger.maximize,
        "results": {
            stage: {str(seed): dict(m) for seed, m in ledger.results(candidate.hash, stage).items()}
            for stage in stages
            if ledger.results(candidate.hash, stage)
        },
        "improvement_over_baseline": {
            stage: values for stage in stages if (values := ledger.improvement(candidate.hash, stage))
        },
        "engine": __version__,
        "files": files,
    }
