"""What a person sees while a campaign runs: a live table on a terminal, one quiet line per event elsewhere."""

from __future__ import annotations

import threading
import time
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from asi_evolve.campaign import Event
from asi_evolve.engine import RunResult


def describe_result(result: RunResult, metric: str, label: str | None) -> str:
    """The last line of a run: what beat the baseline, by how much and how surely."""
    if result.improvement is None or label is None:
        return f"Nothing beat the baseline at the full stage ({result.evaluations} evaluations)."
    i = result.improvement
    seeds = f"{i.n} {'fresh ' if result.confirmed else ''}seed{'s' if i.n != 1 else ''}"
    bounds = f"95 % interval [{i.low:+.4f}, {i.high:+.4f}]" if i.n > 1 else "no interval from one seed"
    verdict = "beats the baseline" if result.beats_baseline else "is not distinguishable from the baseline"
    size = f"{metric} better by {i.mean:+.4f}, {bounds}, {seeds}"
    return f"Best {label} {verdict}: {size}, {result.evaluations} evaluations."


class LineView:
    """One line per event, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True, color_system=None)
        self._began = time.monotonic()

    def __enter__(self) -> LineView:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        """Prints the event's line."""
        text = event_line(event)
        if text:
            minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
            self._console.print(f"[{minutes:02d}:{seconds:02d}] {text}", markup=False)


def event_line(event: Event) -> str:
    """The text of an event; empty for those that only move a progress bar."""
    d = event.data
    if event.kind == "run":
        env = d["environment"]
        return (
            f"{event.message} {d['directory']}; LLM {env['llm']['model'] or 'none'}; "
            f"sandbox {env['sandbox']['level']}; {d['config'].cycles} cycles of "
            f"{d['config'].design.proposals} proposals, {d['config'].workers} workers"
        )
    if event.kind == "phase":
        return f"cycle {event.cycle} {event.message}"
    if event.kind == "proposal":
        return f"  {d['status']:9} {d['source']} {d['domain']} {d['proposal_kind']}: {event.message[:120]}"
    if event.kind == "evaluated":
        if d["status"] == "ok":
            return f"  {d['label']} {d['stage']} seed {d['seed']}: {d['value']:.4f} in {d['seconds']:.1f} s"
        reason = (event.message.strip().splitlines() or [""])[-1]
        return f"  {d['label']} {d['stage']} seed {d['seed']}: failed ({d['failure']}) {reason[:120]}"
    if event.kind == "incumbent":
        return f"new incumbent {event.message}"
    if event.kind == "warning":
        return f"warning: {event.message}"
    return ""


class LiveView:
    """A table that follows the campaign: cycle and phase, bars of what runs, best so far, budget and forecast."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._cycle, self._phase, self._cycles = 0, "starting", 1
        self._metric, self._maximize = "", False
        self._best: tuple[float, str] | None = None
        self._counts = {"ok": 0, "failed": 0, "admitted": 0, "refused": 0}
        self._cycle_began: dict[int, float] = {}
        self._header = ""
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        self._tasks: dict[tuple[str, str, int], TaskID] = {}
        self._live = Live(self, console=self._console, refresh_per_second=4, transient=False)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._live.__exit__(*exc)

    def __call__(self, event: Event) -> None:
        """Updates the view."""
        with self._lock:
            self._take(event)
            if event.kind in ("warning", "incumbent"):
                self._console.print(event_line(event), markup=False)

    def _take(self, event: Event) -> None:
        d = event.data
        key = (d.get("label", ""), d.get("stage", ""), d.get("seed", 0))
        if event.kind == "run":
            self._cycles = d["config"].cycles
            self._header = event_line(event)
        elif event.kind == "phase":
            self._cycle, self._phase = event.cycle, event.message
            self._cycle_began.setdefault(event.cycle, time.monotonic())
        elif event.kind == "proposal":
            self._counts["admitted" if d["status"] == "admitted" else "refused"] += 1
        elif event.kind == "started":
            self._tasks[key] = self._bars.add_task(f"{key[0]:>5} {key[1]:<8} seed {key[2]}", total=1.0, note="")
        elif event.kind == "progress" and key in self._tasks:
            self._bars.update(self._tasks[key], completed=d["fraction"], note=event.message[:40])
        elif event.kind == "evaluated":
            self._counts[d["status"]] += 1
            if key in self._tasks:
                self._bars.remove_task(self._tasks.pop(key))
        elif event.kind == "incumbent":
            self._best = (time.monotonic() - self._began, event.message)

    def __rich__(self) -> Group:
        with self._lock:
            elapsed = time.monotonic() - self._began
            table = Table.grid(padding=(0, 2))
            table.add_row("cycle", f"{min(self._cycle + 1, self._cycles)} of {self._cycles}", "phase", self._phase)
            best = f"{self._best[1]} (after {_clock(self._best[0])})" if self._best else "the baseline"
            table.add_row("best so far", best, "elapsed", _clock(elapsed))
            c = self._counts
            table.add_row(
                "proposals", f"{c['admitted']} admitted, {c['refused']} refused", "left (forecast)", self._forecast()
            )
            table.add_row("evaluations", f"{c['ok']} good, {c['failed']} failed")
            return Group(Text(self._header, style="dim"), table, self._bars)

    def _forecast(self) -> str:
        """Time left if the remaining cycles take as long as the finished ones did."""
        starts = [self._cycle_began[c] for c in sorted(self._cycle_began) if c < self._cycles]
        if len(starts) < 2:
            return "after the first cycle"
        each = (starts[-1] - starts[0]) / (len(starts) - 1)
        left = each * (self._cycles - len(starts) + 1) - (time.monotonic() - starts[-1])
        return f"about {_clock(max(0.0, left))}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
