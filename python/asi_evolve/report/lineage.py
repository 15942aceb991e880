"""How a candidate came to be: step by step from the baseline, with what each step changed and why it was tried."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from asi_evolve.candidate import Component
from asi_evolve.domains.rl.domain import GRAPH_FILE, graph_of_files
from asi_evolve.errors import InvalidCandidate
from asi_evolve.fitness import STAGES, t_interval
from asi_evolve.report.summary import Summary


@dataclass(frozen=True)
class Measured:
    """Paired improvement over the baseline at one stage; bounds are infinite with one seed."""

    stage: str
    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Change:
    """What changed in one domain.

    Attributes:
        domain: which.
        source: label of the candidate that the component came from; None when it was made in this step.
        params: (name, old, new).
        diff: lines of unified diffs as (kind, text); kind is add, del, hunk, file or same.
    """

    domain: str
    source: str | None
    params: tuple[tuple[str, Any, Any], ...]
    diff: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Source:
    """A candidate that a cross triple took a component from."""

    label: str
    origin: str
    domain: str
    cycle: int
    statement: str
    status: str
    gain: float | None


@dataclass(frozen=True)
class Step:
    """One candidate of the lineage and how it differs from the one it was made from."""

    label: str
    hash: str
    origin: str
    cycle: int
    against: str
    edited: str | None
    statement: str
    status: str
    sources: tuple[Source, ...]
    changes: tuple[Change, ...]
    measured: tuple[Measured, ...]


def steps(summary: Summary, candidate: str) -> list[Step]:
    """The lineage of a candidate, newest first, down to (and without) the baseline."""
    chain = summary.lineage(candidate)
    return [_step(summary, child, parent) for child, parent in pairwise(chain)]


def contender(summary: Summary) -> str | None:
    """The winner; where nothing beat the baseline, the candidate that came nearest at the highest stage reached."""
    if summary.result.best != summary.result.baseline:
        return summary.result.best.hash
    others = [v for v in summary.valued if v.hash != summary.ledger.baseline]
    if not others:
        return None
    return max(others, key=lambda v: (STAGES.index(v.fitness.stage), v.fitness.performance)).hash


def _step(summary: Summary, child: str, parent: str) -> Step:
    rows = {row["hash"]: row for row in summary.candidates}
    hypotheses = {h["id"]: h for h in summary.hypotheses}
    row = rows[child]
    others = [rows[h] for h in row["parents"][1:] if h in rows]
    crossed = row["origin"] == "cross"
    sources = []
    for other in others if crossed else ():
        hypothesis = hypotheses.get(other["hypothesis"], {})
        gains = summary.ledger.improvement(other["hash"], "isolated", other["parents"][0])
        sources.append(
            Source(
                label=summary.labels[other["hash"]],
                origin=other["origin"],
                domain=other["domain"] or "",
                cycle=other["cycle"],
                statement=hypothesis.get("statement", ""),
                status=hypothesis.get("status", ""),
                gain=fmean(gains) if gains else None,
            )
        )
    ours, theirs = summary.triples[child], summary.triples[parent]
    changes = []
    for domain in ours.changed(theirs):
        source = next((s.label for s in sources if s.domain == domain), None)
        before = theirs[domain] if domain in theirs else Component(domain)
        changes.append(change(before, ours[domain], source))
    hypothesis = hypotheses.get(row["hypothesis"], {})
    return Step(
        label=summary.labels[child],
        hash=child,
        origin=row["origin"],
        cycle=row["cycle"],
        against=summary.labels[parent],
        # An edit starts from the tournament's parent but is measured against the incumbent.
        edited=summary.labels[others[0]["hash"]] if others and not crossed else None,
        statement=hypothesis.get("statement", ""),
        status=hypothesis.get("status", ""),
        sources=tuple(sources),
        changes=tuple(changes),
        measured=measured(summary, child),
    )


def measured(summary: Summary, candidate: str) -> tuple[Measured, ...]:
    """The improvement over the baseline at every stage that a candidate was measured at."""
    found = []
    for stage in (*STAGES, "confirm"):
        values = summary.ledger.improvement(candidate, stage)
        if values:
            i = t_interval(values)
            found.append(Measured(stage, i.mean, i.low, i.high, i.n))
    return tuple(found)


def change(before: Component, after: Component, source: str | None = None) -> Change:
    """The difference of two components of a domain."""
    names = sorted({*before.params, *after.params})
    params = tuple(
        (n, before.params.get(n), after.params.get(n)) for n in names if before.params.get(n) != after.params.get(n)
    )
    lines: list[tuple[str, str]] = []
    for path in sorted({*before.files, *after.files}):
        a, b = before.files.get(path, ""), after.files.get(path, "")
        if path == GRAPH_FILE and (told := _graph_difference(before, after)):
            lines += [("file", path), *((_kind(line), line) for line in told)]
            continue
        for line in difflib.unified_diff(a.splitlines(), b.splitlines(), f"a/{path}", f"b/{path}", lineterm=""):
            lines.append((_kind(line), line))
    return Change(after.domain, source, params, tuple(lines))


def _graph_difference(before: Component, after: Component) -> list[str]:
    """What changed in an algorithm graph; nothing where one of the two cannot be read."""
    try:
        return graph_of_files(before.files).diff(graph_of_files(after.files))
    except InvalidCandidate:
        return []


def _kind(line: str) -> str:
    if line.startswith(("--- a/", "+++ b/")):
        return "file"
    return {"+": "add", "-": "del", "@": "hunk"}.get(line[:1], "same")
