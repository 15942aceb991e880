"""Structural checks of a graph, without torch: every error names the node and the edge."""

from __future__ import annotations

from asi_evolve.domains.algorithm.graph import Edge, RLAlgorithmGraph
from asi_evolve.domains.algorithm.primitives import SCALAR, TENSOR, TENSORS
from asi_evolve.errors import InvalidCandidate


def check_structure(graph: RLAlgorithmGraph) -> dict[str, str]:
    """Checks primitives, constants, edges, cycles, ports, types, outputs, dead nodes and the policy's gradient path.

    Returns:
        The type of every node's value.

    Raises:
        InvalidCandidate: what is wrong first.
    """
    for id, node in graph.nodes.items():
        primitive = graph.primitive(id)
        try:
            constants = primitive.resolve(primitive.check(node.params), {})
        except InvalidCandidate as error:
            raise InvalidCandidate(f"node {id!r}: {error}") from None
        if node.primitive == "clip" and float(constants["low"]) > float(constants["high"]):
            raise InvalidCandidate(f"node {id!r}: low {constants['low']} is above high {constants['high']}")
    order = graph.order()
    _check_outputs(graph)
    types: dict[str, str] = {}
    for id in order:
        types[id] = _check_ports(graph, id, types)
    _check_use(graph)
    if not any(graph.primitive(n).carries_policy for n in policy_path(graph)):
        raise InvalidCandidate(
            f"node {_loss(graph)!r}: no gradient path to the policy: no way back from it through edges that carry "
            "gradients leads to policy or log_probs"
        )
    return types


def _loss(graph: RLAlgorithmGraph) -> str:
    return next(n for n in graph.nodes if graph.primitive(n).kind == "loss")


def _check_outputs(graph: RLAlgorithmGraph) -> None:
    for kind, least in (("loss", 1), ("step", 0)):
        found = [n for n in graph.nodes if graph.primitive(n).kind == kind]
        if len(found) < least:
            raise InvalidCandidate("loss_output: missing; the graph has to end in a node of primitive 'loss_output'")
        if len(found) > 1:
            raise InvalidCandidate(f"node {found[1]!r}: a second {kind} node, besides {found[0]!r}; at most one")


def _check_ports(graph: RLAlgorithmGraph, id: str, types: dict[str, str]) -> str:
    """Checks a node's inputs and returns the type of its value."""
    primitive = graph.primitive(id)
    taken: dict[str, Edge] = {}
    widest = SCALAR
    for edge in graph.inputs_of(id):
        port = primitive.ports.get(edge.port)
        if port is None:
            allowed = ", ".join(primitive.ports) or "none"
            raise InvalidCandidate(f"edge {edge}: {primitive.name} has no port {edge.port!r:.60}; it has {allowed}")
        if edge.port in taken and not port.many:
            raise InvalidCandidate(f"edge {edge}: the port is taken by edge {taken[edge.port]}; it takes one")
        taken[edge.port] = edge
        source = graph.primitive(edge.source)
        given = types[edge.source]
        # The loss is there to be minimised, not to be computed with.
        if source.kind == "step" or (source.kind == "loss" and primitive.kind != "step"):
            raise InvalidCandidate(f"edge {edge}: the value of {source.name} cannot be used by {primitive.name}")
        if not port.accepts(given):
            wanted = f"one of {', '.join(TENSORS)}" if port.type == TENSOR else port.type
            hint = " (take a mean first)" if port.type == SCALAR and given in TENSORS else ""
            raise InvalidCandidate(f"edge {edge}: {edge.source} gives {given}, the port takes {wanted}{hint}")
        if edge.transforms and given not in TENSORS:
            raise InvalidCandidate(f"edge {edge}: {given} cannot be transformed, only {', '.join(TENSORS)}")
        if port.type == TENSOR:
            widest = max(widest, given, key=TENSORS.index)
    for name, port in primitive.ports.items():
        if name not in taken and not port.optional:
            raise InvalidCandidate(f"node {id!r}: dangling input: nothing is connected to port {name!r} ({port.type})")
    return widest if primitive.output == TENSOR else primitive.output


def _check_use(graph: RLAlgorithmGraph) -> None:
    pruned = graph.copy()
    pruned.prune()
    for id in graph.nodes:
        if id not in pruned.nodes:
            raise InvalidCandidate(f"node {id!r}: its value is not used: no path from it leads to loss_output")
    for id in graph.nodes:
        if graph.primitive(id).kind == "step" and not any(
            e.port == "loss" and graph.primitive(e.source).kind == "loss" and not e.transforms
            for e in graph.inputs_of(id)
        ):
            raise InvalidCandidate(f"node {id!r}: port 'loss' takes loss_output itself, without transforms")


def policy_path(graph: RLAlgorithmGraph) -> set[str]:
    """The nodes from which a gradient of the loss is asked for."""
    reached = {_loss(graph)}
    queue = list(reached)
    while queue:
        at = queue.pop()
        ports = graph.primitive(at).ports
        for edge in graph.inputs_of(at):
            blocked = not ports[edge.port].gradient or any(t.name == "Detach" for t in edge.transforms)
            if not blocked and edge.source not in reached:
                reached.add(edge.source)
                queue.append(edge.source)
    return reached
