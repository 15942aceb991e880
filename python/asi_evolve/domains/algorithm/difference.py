"""What changed between two graphs, in lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from asi_evolve.domains.algorithm.graph import Edge, RLAlgorithmGraph
from asi_evolve.errors import InvalidCandidate


def difference(old: RLAlgorithmGraph, new: RLAlgorithmGraph) -> list[str]:
    """Nodes, constants and edges that were added (+), removed (-) or changed (~); empty for equal graphs.

    A node that only has another name counts as the same one.
    """
    names = _renamed(old, new)
    theirs = {names.get(n, n): v for n, v in new.nodes.items()}
    lines = []
    for id in [n for n in old.nodes if n not in theirs]:
        lines.append(f"- node {id}: {old.nodes[id].primitive}")
    for id, node in theirs.items():
        before = old.nodes.get(id)
        constants = ", ".join(f"{k}={v}" for k, v in node.params.items())
        if before is None:
            lines.append(f"+ node {id}: {node.primitive}{f' ({constants})' if constants else ''}")
        elif before.primitive != node.primitive:
            lines.append(f"~ node {id}: {before.primitive} -> {node.primitive}{f' ({constants})' if constants else ''}")
        else:
            for name in sorted({*before.params, *node.params}):
                a, b = before.params.get(name), node.params.get(name)
                if a != b:
                    lines.append(f"~ node {id}: {name} {_show(a)} -> {_show(b)}")
    ours = Counter(old.edges)
    others = Counter(replace(e, source=names.get(e.source, e.source), target=names.get(e.target, e.target))
                     for e in new.edges)  # fmt: skip
    gone, come = list((ours - others).elements()), list((others - ours).elements())
    for edge in list(gone):
        again = next((e for e in come if _ends(e) == _ends(edge)), None)
        if again is not None:
            gone.remove(edge)
            come.remove(again)
            lines.append(f"~ edge {_plain(edge)}: {_transforms(edge)} -> {_transforms(again)}")
    return [*lines, *(f"- edge {e}" for e in gone), *(f"+ edge {e}" for e in come)]


def _renamed(old: RLAlgorithmGraph, new: RLAlgorithmGraph) -> dict[str, str]:
    """Old name by new name of nodes that compute the same."""
    try:
        before, after = old.digests(), new.digests()
    except InvalidCandidate:
        return {}
    free = [n for n in old.nodes if n not in new.nodes]
    names: dict[str, str] = {}
    for id in [n for n in new.nodes if n not in old.nodes]:
        same = next((n for n in free if before[n] == after[id]), None)
        if same is not None:
            free.remove(same)
            names[id] = same
    return names


def _ends(edge: Edge) -> tuple[str, str, str]:
    return edge.source, edge.target, edge.port


def _plain(edge: Edge) -> str:
    return str(replace(edge, transforms=()))


def _transforms(edge: Edge) -> str:
    return " ".join(map(str, edge.transforms)) or "unchanged value"


def _show(value: object) -> str:
    return "default" if value is None else str(value)
