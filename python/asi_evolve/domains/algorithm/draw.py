"""A graph as SVG: layers from left to right, no program but this."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from asi_evolve.domains.algorithm.graph import RLAlgorithmGraph

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 148, 38, 80, 16, 12
_COLOURS = {
    "input": "#7a7a7a",
    "returns": "#2f7ed8",
    "reward": "#3aa66b",
    "policy": "#a65bc4",
    "policy loss": "#e0542e",
    "value loss": "#e0942e",
    "output": "#c4455b",
    "code": "#8a7a3a",
}
_OTHER = "#5b8a99"
_SWEEPS = 6


def draw(graph: RLAlgorithmGraph) -> str:
    """An SVG element that stands for itself or inside an HTML page; text has the page's colour.

    Every node is right of all that it depends on (longest path) and as near as that allows to what depends on it; each
    layer is ordered by the mean position of its neighbours (Sugiyama et al. 1981).

    Raises:
        InvalidCandidate: the graph has a cycle or an unknown primitive.
    """
    layers = _layers(graph)
    rows = max((len(layer) for layer in layers), default=0)
    width = 2 * _MARGIN + len(layers) * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + rows * (_HEIGHT + _GAP_Y) - _GAP_Y
    place: dict[str, tuple[float, float]] = {}
    for x, layer in enumerate(layers):
        top = (height - len(layer) * (_HEIGHT + _GAP_Y) + _GAP_Y) / 2
        for y, id in enumerate(layer):
            place[id] = _MARGIN + x * (_WIDTH + _GAP_X), top + y * (_HEIGHT + _GAP_Y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" '
        f'font-family="sans-serif" font-size="11" fill="currentColor" role="img" '
        f'aria-label="Algorithm graph of {len(graph.nodes)} nodes">'
    ]
    parts += _edges(graph, place)
    parts += [_node(graph, id, at) for id, at in place.items()]
    return "\n".join([*parts, "</svg>"])


def _layers(graph: RLAlgorithmGraph) -> list[list[str]]:
    depth: dict[str, int] = {}
    order = graph.order()
    for id in order:
        depth[id] = max((depth[e.source] + 1 for e in graph.inputs_of(id)), default=0)
    # Then every node as far to the right as its uses allow: shorter edges.
    for id in reversed(order):
        depth[id] = min((depth[e.target] - 1 for e in graph.edges if e.source == id), default=depth[id])
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for id, at in depth.items():
        layers[at].append(id)
    neighbours: dict[str, list[str]] = {id: [] for id in graph.nodes}
    for e in graph.edges:
        neighbours[e.source].append(e.target)
        neighbours[e.target].append(e.source)
    for _ in range(_SWEEPS):
        row = {id: y - len(layer) / 2 for layer in layers for y, id in enumerate(layer)}
        mean = {id: sum(row[n] for n in near) / len(near) if near else row[id] for id, near in neighbours.items()}
        for layer in layers:
            layer.sort(key=lambda id: mean[id])
    return layers


def _edges(graph: RLAlgorithmGraph, place: Mapping[str, tuple[float, float]]) -> list[str]:
    parts = []
    for e in graph.edges:
        (x0, y0), (x1, y1) = place[e.source], place[e.target]
        x0, y0, y1 = x0 + _WIDTH, y0 + _HEIGHT / 2, y1 + _HEIGHT / 2
        bend = max(30.0, (x1 - x0) / 2)
        title = escape(str(e))
        parts.append(
            f'<path d="M{x0:g} {y0:g} C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1 - 4:g} {y1:g} l4 0" fill="none" '
            f'stroke="currentColor" stroke-opacity="0.45"><title>{title}</title></path>'
        )
        if e.transforms:
            text = escape(" ".join(map(str, e.transforms)))
            x, y = (x0 + x1) / 2, (y0 + y1) / 2 - 3
            parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="middle" font-size="9">{text}</text>')
    return parts


def _node(graph: RLAlgorithmGraph, id: str, at: tuple[float, float]) -> str:
    x, y = at
    node, primitive = graph.nodes[id], graph.primitive(id)
    colour = _COLOURS.get(primitive.family, _OTHER)
    constants = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in node.params.items())
    second = " ".join(t for t in ("" if id == node.primitive else node.primitive, constants) if t)
    lines = [f'<text x="{x + 8:g}" y="{y + (16 if second else 23):g}" font-weight="bold">{_short(id, 20)}</text>']
    if second:
        lines.append(f'<text x="{x + 8:g}" y="{y + 30:g}" font-size="9">{_short(second, 28)}</text>')
    title = escape(f"{id}: {node.primitive} {constants}\n{primitive.formula}\n{primitive.source}")
    return (
        f'<g><title>{title}</title><rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" '
        f'fill="{colour}" fill-opacity="0.14" stroke="{colour}"/>{"".join(lines)}</g>'
    )


def _short(text: str, limit: int) -> str:
    return escape(text if len(text) <= limit else text[: limit - 1] + "…")
