"""Graph edits as JSON: what a language model writes instead of a whole graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asi_evolve.domains.algorithm.graph import Edge, Node, RLAlgorithmGraph
from asi_evolve.domains.algorithm.primitives import PRIMITIVES
from asi_evolve.domains.algorithm.transforms import as_transforms
from asi_evolve.errors import InvalidCandidate

MAX_OPERATIONS = 16
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "add_node": ("node", "primitive"),
    "remove_node": ("node",),
    "add_edge": ("source", "target"),
    "remove_edge": ("source", "target"),
    "replace": ("node", "primitive"),
    "set_param": ("node", "param", "value"),
}


def operations_schema() -> dict[str, Any]:
    """JSON schema of a list of operations, in the few keywords that every server enforces."""
    name = {"type": "string", "maxLength": 48}
    operation = {
        "type": "object",
        "properties": {
            "op": {"type": "string", "enum": list(_NEEDS)},
            "node": name,
            "primitive": {"type": "string", "enum": [*PRIMITIVES, "custom"]},
            "source": name,
            "target": name,
            "port": name,
            "transform": {"type": "string", "maxLength": 60},
            "param": name,
            "value": {"type": "number", "minimum": -1000, "maximum": 1000},
        },
        "required": ["op"],
    }
    return {"type": "array", "items": operation, "maxItems": MAX_OPERATIONS}


def apply_operations(graph: RLAlgorithmGraph, operations: Any) -> RLAlgorithmGraph:
    """A copy of the graph with the operations applied in order; nodes that are then of no use are removed.

    Args:
        graph: what is edited; left as it is.
        operations: see :func:`operations_schema`. ``port`` and ``transform`` may be left out; ``remove_edge`` without a
            port removes every edge between the two.

    Raises:
        InvalidCandidate: an operation is malformed or cannot be applied; the message counts from 1.
    """
    if not isinstance(operations, Sequence) or isinstance(operations, str) or not operations:
        raise InvalidCandidate("operations: a list of at least one operation is needed")
    if len(operations) > MAX_OPERATIONS:
        raise InvalidCandidate(f"operations: {len(operations)}; at most {MAX_OPERATIONS}")
    edited = graph.copy()
    for number, operation in enumerate(operations, 1):
        try:
            _apply(edited, operation)
        except InvalidCandidate as error:
            raise InvalidCandidate(f"operation {number}: {error}") from None
    edited.prune()
    return edited


def _apply(graph: RLAlgorithmGraph, operation: Any) -> None:
    if not isinstance(operation, Mapping) or operation.get("op") not in _NEEDS:
        raise InvalidCandidate(f"'op' has to be one of {', '.join(_NEEDS)}")
    op = operation["op"]
    for name in _NEEDS[op]:
        if name not in operation:
            raise InvalidCandidate(f"{op} needs {name!r}")
        if name != "value" and not isinstance(operation[name], str):
            raise InvalidCandidate(f"{op}: {name!r} has to be text")
    if op == "add_node":
        graph.add_node(operation["node"], operation["primitive"])
        return
    if op in ("add_edge", "remove_edge"):
        port, transform = operation.get("port") or None, operation.get("transform") or None
        if op == "add_edge":
            graph.add_edge(operation["source"], operation["target"], port, transform)
            return
        found = [e for e in graph.edges if _matches(e, operation["source"], operation["target"], port)]
        if not found:
            raise InvalidCandidate(
                f"no edge {operation['source']} -> {operation['target']}{f'.{port}' if port else ''}"
            )
        for edge in found:
            graph.remove_edge(edge)
        return
    id = operation["node"]
    if id not in graph.nodes:
        raise InvalidCandidate(f"no node {id!r:.60}; there are {', '.join(graph.nodes)}")
    if op == "remove_node":
        graph.remove_node(id)
    elif op == "replace":
        replace_primitive(graph, id, operation["primitive"])
    else:
        graph.set_params(id, **{operation["param"]: operation["value"]})


def _matches(edge: Edge, source: str, target: str, port: str | None) -> bool:
    return edge.source == source and edge.target == target and port in (None, edge.port)


def replace_primitive(graph: RLAlgorithmGraph, id: str, primitive: str) -> None:
    """Gives a node another primitive. Constants and inputs that the new one knows by name stay; an input whose port it
    does not know goes to a free port of its type; inputs that then have no place are dropped.

    Raises:
        InvalidCandidate: an unknown primitive.
    """
    into = graph.inputs_of(id)
    old = graph.nodes[id]
    outputs = [e for e in graph.edges if e.source == id]
    place = list(graph.nodes)
    graph.remove_node(id)
    graph.add_node(id, primitive)
    new = graph.primitive(id)
    graph.nodes[id] = Node(primitive, {k: v for k, v in old.params.items() if k in new.constants})
    graph.nodes = {n: graph.nodes[n] for n in place}
    for edge in sorted(into, key=lambda e: e.port not in new.ports):
        given = graph.primitive(edge.source).output
        taken = {e.port for e in graph.inputs_of(id)}
        free = [
            n for n, p in new.ports.items() if (p.many or n not in taken) and (p.accepts(given) or given == "tensor")
        ]
        port = edge.port if edge.port in free else next(iter(free), None)
        if port is not None:
            graph.add_edge(edge.source, id, port, as_transforms(edge.transforms))
    for edge in outputs:
        graph.add_edge(edge.source, edge.target, edge.port, edge.transforms)
