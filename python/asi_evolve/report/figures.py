"""The report's plots as SVG that can stand inside an HTML page, in the page's own text colour.

The object interface of matplotlib with its SVG canvas: no pyplot, so no global state and no display.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from asi_evolve.fitness import STAGES
from asi_evolve.report.summary import Summary, Valued, best_so_far

_INK = "#010203"  # replaced by currentColor, so that axes and text are readable on a light and on a dark page
_LINE = "#2f7ed8"
_FRONT = "#e0542e"
_SERIES = ("#2f7ed8", "#e0942e", "#3aa66b", "#a65bc4", "#c4455b", "#5b8a99", "#8a7a3a", "#7a7a7a")
_MARKERS = {"isolated": "o", "cross": "s", "full": "D"}
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, selectable, readable by screen readers
    "svg.hashsalt": "asi-evolve",  # equal input, equal file
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), _INK
    ),
}


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0.0)
    return figure


def _svg(figure: Any, name: str, title: str) -> str:
    """The figure without XML prologue, metadata and name spaces (HTML needs none), with ids of its own."""
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = text.replace(_INK, "currentColor")
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{title}">', text, count=1)


def progress_figure(summary: Summary, against: str) -> str:
    """Best so far at the full stage, against ``evaluations`` or ``seconds`` of evaluation."""
    points = best_so_far(summary)
    x = [p[0] if against == "evaluations" else p[1] for p in points]
    y = [p[2] for p in points]
    with _style():
        figure = _figure(5.2, 2.9)
        axes = figure.add_subplot()
        axes.step(x, y, where="post", color=_LINE, linewidth=2)
        steps = [i for i in range(1, len(y)) if y[i] > y[i - 1]]
        axes.plot([x[i] for i in steps], [y[i] for i in steps], "o", color=_LINE, markersize=5)
        axes.axhline(0.0, color=_INK, linewidth=0.8, linestyle=":", alpha=0.6)
        if not any(y):
            axes.set_ylim(-1.0, 1.0)
            axes.set_yticks([0.0])
            axes.text(0.5, 0.62, "nothing beat the baseline so far", transform=axes.transAxes, ha="center", alpha=0.7)
        axes.set_xlabel("evaluations" if against == "evaluations" else "evaluation time (s)")
        axes.set_ylabel(f"{summary.ledger.metric}\nbetter than baseline by")
        axes.set_xlim(0, max(x[-1], 1e-9) * 1.02)
        return _svg(figure, f"progress-{against}", f"Best improvement so far against {against}")


def front_figure(summary: Summary, valued: Sequence[Valued], name: str, title: str) -> str:
    """Performance against relative cost with novelty as colour; rank 1 is ringed."""
    with _style():
        figure = _figure(5.2, 3.5)
        axes = figure.add_subplot()
        axes.axhline(0.0, color=_INK, linewidth=0.8, linestyle=":", alpha=0.6)
        axes.axvline(1.0, color=_INK, linewidth=0.8, linestyle=":", alpha=0.6)
        novelties = [v.fitness.novelty for v in valued]
        low, high = min(novelties, default=0.0), max(novelties, default=1.0)
        points = None
        for stage in STAGES:
            mine = [v for v in valued if v.fitness.stage == stage]
            if mine:
                points = axes.scatter(
                    [v.fitness.cost for v in mine],
                    [v.fitness.performance for v in mine],
                    c=[v.fitness.novelty for v in mine],
                    vmin=low,
                    vmax=high if high > low else low + 1.0,
                    cmap=_novelty_colours(),
                    marker=_MARKERS[stage],
                    s=34,
                    edgecolors="#888888",
                    linewidths=0.5,
                    label=stage,
                )
        front = [v for v in valued if v.rank == 1]
        axes.scatter(
            [v.fitness.cost for v in front],
            [v.fitness.performance for v in front],
            marker="o",
            s=110,
            facecolors="none",
            edgecolors=_FRONT,
            linewidths=1.4,
            label="front",
        )
        for v in sorted(front, key=lambda v: -v.fitness.performance)[:12]:
            label = "baseline" if v.hash == summary.ledger.baseline else v.label
            axes.annotate(
                label, (v.fitness.cost, v.fitness.performance), xytext=(6, 5), textcoords="offset points", fontsize=8
            )
        _cost_axis(axes, [v.fitness.cost for v in valued])
        axes.set_ylabel(f"{summary.ledger.metric}\nbetter than baseline by")
        axes.margins(0.12)
        if points is not None:
            figure.colorbar(points, ax=axes, label="novelty", pad=0.02)
            figure.legend(loc="outside upper center", ncols=4, fontsize=8)
        return _svg(figure, name, title)


def _novelty_colours() -> Any:
    """Viridis without its ends: the darkest is lost on a dark page, the brightest on a light one."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps["viridis"]([0.28 + 0.65 * i / 63 for i in range(64)]))


def _cost_axis(axes: Any, costs: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xlabel("cost relative to the baseline")
    if not costs or min(costs) <= 0:
        return
    if max(costs) / min(costs) > 3:  # ratios: logarithmic when they span more than a little
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if max(costs) / min(costs) < 30 else (1.0,))
        )
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def agenda_figure(agenda: Sequence[Mapping[str, Any]], domains: Sequence[str]) -> str:
    """Share of proposals per domain over the cycles, stacked."""
    with _style():
        figure = _figure(5.2, 2.6)
        axes = figure.add_subplot()
        # Before the first entry the shares are equal; an entry holds from its cycle on.
        cycles = [0, *(row["cycle"] for row in agenda)]
        shares = [dict.fromkeys(domains, 1 / len(domains)), *(row["shares"] for row in agenda)]
        bottom = [0.0] * len(cycles)
        for i, domain in enumerate(domains):
            heights = [float(s.get(domain, 0.0)) for s in shares]
            axes.bar(cycles, heights, 0.92, bottom=bottom, color=_SERIES[i % len(_SERIES)], label=domain)
            bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        axes.set_xticks(cycles if len(cycles) <= 20 else cycles[:: len(cycles) // 10])
        axes.set_xlabel("cycle")
        axes.set_ylabel("share of proposals")
        axes.grid(visible=False)
        figure.legend(loc="outside upper center", ncols=min(4, len(domains)), fontsize=8)
        return _svg(figure, "agenda", "Agenda over time")
