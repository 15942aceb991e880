"""A graph as a point, for novelty: what it is made of and how that is connected, not what its nodes are called."""

from __future__ import annotations

from collections import Counter

import numpy as np

from asi_evolve.domains.algorithm.graph import RLAlgorithmGraph
from asi_evolve.domains.algorithm.primitives import FAMILIES, PRIMITIVES

_FAMILIES = (*FAMILIES, "code")
SIZE = len(PRIMITIVES) + 1 + len(_FAMILIES) ** 2 + 3


def graph_features(graph: RLAlgorithmGraph) -> np.ndarray:
    """float64 [SIZE], entries of order 1: log(1 + count) of every primitive, of every pair of families that an edge
    connects, of nodes and edges, and the mean logarithm of the constants relative to their defaults."""
    primitives = Counter(graph.primitive(n).name for n in graph.nodes)
    family = {n: graph.primitive(n).family for n in graph.nodes}
    pairs = Counter((family[e.source], family[e.target]) for e in graph.edges)
    counts = [primitives[name] for name in PRIMITIVES] + [sum(primitives[n] for n in graph.extra)]
    counts += [pairs[a, b] for a in _FAMILIES for b in _FAMILIES]
    moved = []
    for id, node in graph.nodes.items():
        for name, value in node.params.items():
            constant = graph.primitive(id).constants.get(name)
            if constant is not None and not isinstance(value, str | bool) and not isinstance(constant.default, str):
                moved.append(np.arcsinh(10 * float(value)) - np.arcsinh(10 * float(constant.default)))
    scales = [np.arcsinh(100 * a) for e in graph.edges for t in e.transforms for a in t.arguments]
    size = [np.log1p(len(graph.nodes)) / 4, float(np.mean(np.abs(moved))) / 3 if moved else 0.0]
    size.append(float(np.mean(scales)) / 6 if scales else 0.0)
    return np.concatenate([np.log1p(np.array(counts, dtype=np.float64)), np.clip(size, -2, 2)])
