"""The report: one HTML file that needs nothing else, made from a run directory, finished or not.

Everything an LLM wrote is hostile text: the template escapes all values, and the only markup that is passed through
is made here or by matplotlib from numbers and names.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from asi_evolve import __version__
from asi_evolve.candidate import thaw
from asi_evolve.domain import Benchmark
from asi_evolve.domains.rl.domain import GRAPH_FILE, graph_of_files
from asi_evolve.errors import InvalidCandidate, RunDirectoryError
from asi_evolve.fitness import ALL_STAGES
from asi_evolve.knowledge.store import Row
from asi_evolve.report import figures
from asi_evolve.report.lineage import contender, measured, steps
from asi_evolve.report.summary import Summary, summarize

_UNITS = {"train_seconds": "s", "seconds": "s", "flops_per_token": "FLOP", "peak_memory_mb": "MiB"}
_NARROW = "\u202f"  # narrow no-break space: between a number and its unit, and between thousands


def write_report(directory: str | Path, out: str | Path | None = None, *, benchmark: Benchmark | None = None) -> Path:
    """Writes the report of a run, whole or not at all.

    Args:
        directory: the run directory; the run may be going on.
        out: the file; default ``report.html`` in the run directory.
        benchmark: the benchmark object, where the run's configuration does not name it.

    Returns:
        The file's path.

    Raises:
        RunDirectoryError: the directory holds no run, or the file cannot be written.
    """
    target = Path(out) if out is not None else Path(directory) / "report.html"
    text = render(summarize(directory, benchmark))
    try:
        handle, part = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:  # lone surrogates exist in JSON
                file.write(text)
            os.chmod(part, 0o644)
            os.replace(part, target)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as error:
        raise RunDirectoryError(f"{target}: cannot be written: {error.strerror}") from None
    return target


def render(summary: Summary) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        duration=duration,
        number=number,
        signed=signed,
        percent=percent,
        moment=moment,
        metric=metric_value,
        count=count,
        value=_value,
        prediction=_prediction,
        drawn=_drawn,
    )
    template = resources.files("asi_evolve.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(_context(summary))


def _context(summary: Summary) -> dict[str, Any]:
    from asi_evolve.view import describe_result

    result, ledger = summary.result, summary.ledger
    full = summary.at_full_stage()
    label = None if result.best == result.baseline else summary.labels[result.best.hash]
    shown = contender(summary)
    claims_true, claims_checked = summary.claims()
    environment = summary.runs[-1]["environment"] if summary.runs else {}
    return {
        "s": summary,
        "version": __version__,
        "written": time.time(),
        "verdict": describe_result(result, ledger.metric, label),
        "label": label,
        "bounded": result.improvement is not None and result.improvement.n > 1,
        "baseline_label": summary.labels[result.baseline.hash],
        "seconds": sum(e["seconds"] for e in summary.evaluations),
        "baseline_values": _stage_means(summary, result.baseline.hash),
        "best_values": _stage_means(summary, result.best.hash),
        "progress": [Markup(figures.progress_figure(summary, x)) for x in ("evaluations", "seconds")]
        if summary.evaluations
        else [],
        "full": full,
        "full_figure": _front(summary, full, "full", "Candidates at the full stage"),
        "mixed_figure": _front(
            summary, summary.valued, "mixed", "All candidates, each at the highest stage it reached"
        ),
        "shown": None if shown is None else summary.labels[shown],
        "steps": [] if shown is None else steps(summary, shown),
        "measured": () if shown is None else measured(summary, shown),
        "triple": None if shown is None else summary.triples[shown],
        "evidence": _by(summary.evidence, "hypothesis"),
        "agenda_figure": Markup(figures.agenda_figure(summary.agenda, _agenda_domains(summary)))
        if summary.agenda
        else "",
        "failures": summary.failures(),
        "examples": summary.failure_examples(),
        "claims": (claims_true, claims_checked),
        "usage": summary.llm_usage(),
        "environment": environment,
        "sandboxes": list(dict.fromkeys(_sandbox(r["environment"].get("sandbox")) for r in summary.runs)),
        "environment_json": json.dumps(environment, indent=2, ensure_ascii=False),
        "seeds": {stage: summary.config.seeds(stage) for stage in ALL_STAGES},
        "config_yaml": summary.config.to_yaml(),
        "metrics": _metric_names(summary),
        "unit": lambda name: _UNITS.get(name, ""),
        "finite": math.isfinite,
    }


def _drawn(text: str, path: str, files: Mapping[str, str]) -> Markup | str:
    """The drawing of an algorithm graph; nothing for other files and for graphs that cannot be read."""
    if path != GRAPH_FILE:
        return ""
    try:
        return Markup(f'<div style="overflow-x:auto">{graph_of_files(files).svg()}</div>')
    except InvalidCandidate:
        return ""


def _front(summary: Summary, valued: list[Any], name: str, title: str) -> Markup | str:
    # A front of the baseline alone is no picture.
    if not any(v.hash != summary.ledger.baseline for v in valued):
        return ""
    return Markup(figures.front_figure(summary, valued, name, title))


def _agenda_domains(summary: Summary) -> list[str]:
    names = list(dict.fromkeys(name for row in summary.agenda for name in row["shares"]))
    return sorted(names, key=lambda n: (list(summary.domains).index(n) if n in summary.domains else len(names), n))


def _stage_means(summary: Summary, candidate: str) -> dict[str, tuple[float, int]]:
    """Mean metric and number of seeds by stage."""
    means = {}
    for stage in ALL_STAGES:
        found = [m[summary.ledger.metric] for m in summary.ledger.results(candidate, stage).values()]
        if found:
            means[stage] = (sum(found) / len(found), len(found))
    return means


def _metric_names(summary: Summary) -> list[str]:
    first = [summary.ledger.metric, *summary.ledger.costs]
    return list(dict.fromkeys([*first, *(name for e in summary.evaluations for name in e["metrics"])]))


def _sandbox(facts: Any) -> str:
    """The level that was active and what it promises."""
    if not isinstance(facts, dict):
        return "unknown"
    text = f"{facts.get('level') or 'none available'}: {facts.get('promises', '')}"
    return text if facts.get("seccomp", True) else f"{text}; without seccomp"


def _by(rows: list[Row], key: str) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


# -- numbers for people -----------------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Seconds as ``840 ms``, ``12.3 s``, ``4 min 05 s`` or ``3 h 07 min``."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 0.0005:
        return f"0{_NARROW}s"
    if seconds < 1:
        return f"{seconds * 1000:.0f}{_NARROW}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}{_NARROW}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{_NARROW}min {whole % 60:02d}{_NARROW}s"
    whole = round(seconds / 60)
    return f"{whole // 60}{_NARROW}h {whole % 60:02d}{_NARROW}min"


def number(x: float | None, digits: int = 4) -> str:
    """A real number with ``digits`` decimals; a dash when there is none."""
    return "–" if x is None or not math.isfinite(x) else f"{x:.{digits}f}"


def signed(x: float | None, digits: int = 4) -> str:
    """As :func:`number`, with its sign."""
    return "–" if x is None or not math.isfinite(x) else f"{x:+.{digits}f}".replace("-", "−")


def percent(x: float | None, digits: int = 0) -> str:
    """A share as a percentage."""
    return "–" if x is None or not math.isfinite(x) else f"{x * 100:.{digits}f}{_NARROW}%".replace("-", "−")


def count(n: int) -> str:
    """An integer with thousands apart."""
    return f"{n:,}".replace(",", _NARROW)


def moment(unix: float) -> str:
    """A Unix time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix))


def metric_value(x: float | None, name: str) -> str:
    """A metric in its unit: FLOP with an SI prefix, seconds and MiB, anything else to four decimals."""
    if x is None or not math.isfinite(x):
        return "–"
    unit = _UNITS.get(name)
    if unit == "s":
        return duration(x)
    if unit == "MiB":
        return f"{x:.0f}{_NARROW}MiB"
    if unit == "FLOP":
        for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(x) >= factor:
                return f"{x / factor:.3g}{_NARROW}{prefix}FLOP"
        return f"{x:.0f}{_NARROW}FLOP"
    return f"{x:.4f}" if 1e-3 <= abs(x) < 1e5 or x == 0 else f"{x:.3g}"


def _value(x: Any) -> str:
    """A parameter's value."""
    return "unset" if x is None else json.dumps(thaw(x), ensure_ascii=False)


def _prediction(p: Any) -> str:
    """A prediction in words."""
    effect = p.get("minimum_effect")
    amount = f" by at least {percent(float(effect), 1)}" if isinstance(effect, int | float) else ""
    return f"{p.get('metric', '?')} will {p.get('direction', 'change')}{amount}"
