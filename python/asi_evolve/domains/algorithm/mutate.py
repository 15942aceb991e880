"""Random changes of a graph: add, remove, rewire, replace, move constants. What comes out is valid and different."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

import numpy as np

from asi_evolve.domains.algorithm.check import check_structure
from asi_evolve.domains.algorithm.edits import replace_primitive
from asi_evolve.domains.algorithm.graph import Edge, RLAlgorithmGraph
from asi_evolve.domains.algorithm.primitives import PRIMITIVES, SCALAR, TENSOR, TENSORS, TN, Primitive
from asi_evolve.domains.algorithm.transforms import ScaleBy, Transform
from asi_evolve.errors import InvalidCandidate

_T = TypeVar("_T")
_TRIES = 200
# What a trainer of environments gives; log_probs are there as log_prob of policy and actions.
INPUTS = tuple(n for n, p in PRIMITIVES.items() if p.kind == "input" and n != "log_probs")
# What values mean, beyond their types. Any value of the type may go anywhere; most random edges respect the meaning.
_MEANS = {
    "log-probability": ("log_probs", "log_prob", "old_log_probs", "reference_log_probs"),
    "value": ("values", "old_values", "monte_carlo_returns", "n_step_returns", "v_trace_returns"),
    "reward": ("rewards", "potential_shaping", "count_bonus", "surprise_bonus"),
    "flag": ("dones", "mask"),
    "advantage": ("gae", "v_trace_advantages", "td_error", "group_relative"),
    "ratio": ("ratio",),
    "count": ("visit_counts",),
    "penalty": ("entropy", "kl", "kl_estimate", "policy_gradient", "surrogate", "clipped_surrogate", "squared_error",
                "dual_clipped_surrogate", "huber", "clipped_value_loss"),
}  # fmt: skip
_MEANING = {name: meaning for meaning, names in _MEANS.items() for name in names}
_WANTED = {
    **dict.fromkeys(("log_probs", "old_log_probs", "other_log_probs"), "log-probability"),
    **dict.fromkeys(("values", "prediction", "target", "old", "potential"), "value"),
    "rewards": "reward",
    "advantages": "advantage",
    "ratio": "ratio",
    "visit_counts": "count",
}
_FLAGS = ("dones", "mask")
_FREEDOM = 0.1  # share of random edges that do not


def mutate_graph(
    graph: RLAlgorithmGraph, rng: np.random.Generator, inputs: Collection[str] = INPUTS
) -> RLAlgorithmGraph:
    """A valid graph that computes something else.

    Args:
        graph: a valid graph; left as it is.
        rng: source of chance.
        inputs: input primitives that may be added.

    Raises:
        InvalidCandidate: the graph is not valid.
    """
    check_structure(graph)
    before = graph.hash
    for attempt in range(_TRIES):
        change = graph.copy()
        # Constants can nearly always be moved, so they come last.
        operator = _constants if attempt > _TRIES // 2 else _OPERATORS[int(rng.integers(len(_OPERATORS)))]
        try:
            operator(change, rng, inputs)
            change.prune()
            change.validate()
        except (InvalidCandidate, _Impossible):
            continue
        if change.hash != before:
            return change
    raise InvalidCandidate(f"graph: {_TRIES} random changes gave nothing valid")


class _Impossible(Exception):
    """An operator finds nothing to work on."""


def _pick(items: Collection[_T], rng: np.random.Generator) -> _T:
    if not items:
        raise _Impossible
    return list(items)[int(rng.integers(len(items)))]


def _meanings(graph: RLAlgorithmGraph) -> dict[str, str]:
    """What each node's value means: that of its primitive, else that of its first input."""
    found: dict[str, str] = {}
    for id in graph.order():
        own = _MEANING.get(graph.nodes[id].primitive)
        inputs = graph.inputs_of(id)
        found[id] = own or (found[inputs[0].source] if inputs else "")
    return found


def _source(
    graph: RLAlgorithmGraph,
    target: str,
    port: str,
    rng: np.random.Generator,
    inputs: Collection[str],
    but: Collection[str] = (),
    meaning: str = "",
) -> str:
    """A node whose value fits the port, new if it is an input that was not there; none of ``but``. ``meaning``: what
    is wanted where the port does not say."""
    takes = graph.primitive(target).ports[port]
    types, means = _types_so_far(graph), _meanings(graph)
    fits = {n: means[n] for n, kind in types.items() if n not in but and n != target and takes.accepts(kind)
            and graph.primitive(n).kind in ("input", "operation")}  # fmt: skip
    fits |= {n: _MEANING.get(n, "") for n in inputs if n not in graph.nodes and takes.accepts(PRIMITIVES[n].output)}
    wanted = _WANTED.get(port, meaning)
    chosen = list(fits)
    if port in _FLAGS:
        chosen = [n for n in fits if n == port] or [n for n in fits if fits[n] == "flag"]
    elif rng.random() >= _FREEDOM:
        # Predictions are of the current networks, what is called old of the recorded ones; flags are no numbers.
        sensible = [n for n in fits if fits[n] not in ("flag", "count")]
        alike = [n for n in fits if fits[n] == wanted]
        named = [n for n in alike if n == port]
        current = [n for n in alike if n in ("values", "log_prob")] if port in ("prediction", "log_probs") else []
        chosen = current or (named if port.startswith("old") else []) or alike or sensible or chosen
    source = _pick(chosen, rng)
    if source not in graph.nodes:
        graph.add_node(source)
    return source


def _types_so_far(graph: RLAlgorithmGraph) -> dict[str, str]:
    """Types of the values of a graph that is being changed: those of a declared output, and the widest for others."""
    types: dict[str, str] = {}
    for id in graph.order():
        output = graph.primitive(id).output
        given = [types[e.source] for e in graph.inputs_of(id) if types[e.source] in TENSORS]
        types[id] = max(given, key=TENSORS.index, default=SCALAR) if output == TENSOR else output
    return types


def _constants(graph: RLAlgorithmGraph, rng: np.random.Generator, _: Collection[str]) -> None:
    """Moves a constant to a neighbouring value, or scales a factor on an edge."""
    nodes = [(n, c) for n in graph.nodes for c in graph.primitive(n).constants]
    edges = [e for e in graph.edges if any(t.arguments for t in e.transforms)]
    if not edges or rng.random() < 0.6:
        id, name = _pick(nodes, rng)
        constant = graph.primitive(id).constants[name]
        value = graph.nodes[id].params.get(name, constant.default)
        graph.set_params(id, **{name: constant.parameter.neighbour(value, rng)})
        return
    edge = _pick(edges, rng)
    number = int(rng.integers(len(edge.transforms)))
    old = edge.transforms[number]
    factor = float(np.exp(rng.normal(0, 0.7)))
    moved = Transform(old.name, tuple(float(f"{a * factor:.3g}") for a in old.arguments))
    transforms = (*edge.transforms[:number], moved, *edge.transforms[number + 1 :])
    graph.remove_edge(edge)
    graph.add_edge(edge.source, edge.target, edge.port, transforms)


def _name(graph: RLAlgorithmGraph, primitive: str) -> str:
    """A free name, the primitive's where it is free."""
    if primitive not in graph.nodes:
        return primitive
    return next(f"{primitive}_{i}" for i in range(2, len(graph.nodes) + 3) if f"{primitive}_{i}" not in graph.nodes)


def _feed(
    graph: RLAlgorithmGraph, id: str, rng: np.random.Generator, inputs: Collection[str], but: Collection[str] = ()
) -> None:
    """Connects the open ports of a node to values that fit. ``but`` is left out."""
    taken = {e.port for e in graph.inputs_of(id)}
    for name, port in graph.primitive(id).ports.items():
        if name not in taken and not (port.optional and rng.random() < 0.5):
            graph.add_edge(_source(graph, id, name, rng, inputs, but), id, name)


def _add_term(graph: RLAlgorithmGraph, rng: np.random.Generator, inputs: Collection[str]) -> None:
    """A further term of the loss: a primitive on values that are there, its mean, weighted."""
    wanted = [p for p in PRIMITIVES.values() if p.family in ("policy", "policy loss", "value loss")
              and p.name not in ("log_prob", "ratio")]  # fmt: skip
    primitive = _pick(wanted, rng)
    id = graph.add_node(_name(graph, primitive.name), primitive.name)
    _feed(graph, id, rng, inputs)
    if primitive.output != SCALAR:
        mean = graph.add_node(_name(graph, f"{id}_mean"), "mean")
        graph.add_edge(id, mean, "x")
        id = mean
    weight = float(f"{10 ** rng.uniform(-3, 0):.2g}") * (-1 if rng.random() < 0.2 else 1)
    output = next(n for n in graph.nodes if graph.primitive(n).kind == "loss")
    graph.add_edge(id, output, "x", ScaleBy(weight))


def _insert(graph: RLAlgorithmGraph, rng: np.random.Generator, inputs: Collection[str]) -> None:
    """A primitive in the middle of an edge."""
    types = check_structure(graph)
    edge = _pick(
        [e for e in graph.edges if types[e.source] in TENSORS and graph.primitive(e.target).kind != "step"], rng
    )
    given = types[edge.source]

    def fits(p: Primitive) -> bool:
        if p.kind != "operation" or not p.ports or p.output not in (TENSOR, given):
            return False
        return any(port.accepts(given) for port in p.ports.values())

    primitive = _pick([p for p in PRIMITIVES.values() if fits(p)], rng)
    id = graph.add_node(_name(graph, primitive.name), primitive.name)
    graph.remove_edge(edge)
    graph.add_edge(edge.source, id, _pick([n for n, q in primitive.ports.items() if q.accepts(given)], rng))
    # What lies behind the edge must not come in again: that would be a cycle.
    _feed(graph, id, rng, inputs, _behind(graph, edge.target))
    graph.add_edge(id, edge.target, edge.port, edge.transforms)
    for name, constant in primitive.constants.items():
        if rng.random() < 0.3:
            graph.set_params(id, **{name: constant.parameter.neighbour(constant.default, rng)})


def _extend(graph: RLAlgorithmGraph, rng: np.random.Generator, inputs: Collection[str]) -> None:
    """A bonus or another [T, N] term added to a value on an edge."""
    types, means = check_structure(graph), _meanings(graph)
    wanted = ("reward", "advantage", "penalty")
    edge = _pick([e for e in graph.edges if types[e.source] == TN and means[e.source] in wanted
                  and graph.primitive(e.target).kind == "operation"], rng)  # fmt: skip
    family = "reward" if means[edge.source] == "reward" else "policy"
    named = [p for p in PRIMITIVES.values() if p.family in (family, "reward") and p.name not in ("log_prob", "ratio")]
    primitive = _pick(named, rng)
    term = graph.add_node(_name(graph, primitive.name), primitive.name)
    _feed(graph, term, rng, inputs, _behind(graph, edge.target))
    total = graph.add_node(_name(graph, "add"), "add")
    graph.remove_edge(edge)
    graph.add_edge(edge.source, total, "x")
    graph.add_edge(term, total, "x", ScaleBy(float(f"{10 ** rng.uniform(-3, 0):.2g}")))
    graph.add_edge(total, edge.target, edge.port, edge.transforms)


def _behind(graph: RLAlgorithmGraph, id: str) -> set[str]:
    """A node and all that depend on it."""
    found, queue = {id}, [id]
    while queue:
        at = queue.pop()
        for e in graph.edges:
            if e.source == at and e.target not in found:
                found.add(e.target)
                queue.append(e.target)
    return found


def _remove(graph: RLAlgorithmGraph, rng: np.random.Generator, _: Collection[str]) -> None:
    """A term of the loss, an optional input, or a node that can be bridged."""
    types = check_structure(graph)

    def loose(e: Edge) -> bool:
        port = graph.primitive(e.target).ports[e.port]
        return port.optional or (port.many and sum(x.port == e.port for x in graph.inputs_of(e.target)) > 1)

    bridges = [(n, e) for n in graph.nodes for e in graph.inputs_of(n)
               if types[e.source] == types[n] and graph.primitive(n).kind == "operation"]  # fmt: skip
    edges = [e for e in graph.edges if loose(e)]
    if rng.random() < 0.5:
        graph.remove_edge(_pick(edges, rng))
        return
    id, kept = _pick(bridges, rng)
    outputs = [e for e in graph.edges if e.source == id]
    graph.remove_node(id)
    for e in outputs:
        graph.add_edge(kept.source, e.target, e.port, (*kept.transforms, *e.transforms))


def _rewire(graph: RLAlgorithmGraph, rng: np.random.Generator, inputs: Collection[str]) -> None:
    """Another source for an edge."""
    edge: Edge = _pick([e for e in graph.edges if graph.primitive(e.target).kind != "step"], rng)
    but = _behind(graph, edge.target) | {edge.source}
    meaning = _meanings(graph)[edge.source]
    source = _source(graph, edge.target, edge.port, rng, [n for n in inputs if n not in but], but, meaning)
    graph.remove_edge(edge)
    graph.add_edge(source, edge.target, edge.port, edge.transforms)


def _replace(graph: RLAlgorithmGraph, rng: np.random.Generator, inputs: Collection[str]) -> None:
    """Another primitive of the same family for a node, or of any family with the same output."""
    types = check_structure(graph)
    id = _pick([n for n in graph.nodes if graph.primitive(n).kind in ("operation", "step")], rng)
    old = graph.primitive(id)
    outputs = (old.output, types[id], TENSOR)
    alike = [p for p in PRIMITIVES.values() if p.kind == old.kind and p.name != old.name and p.ports
             and (p.family == old.family or rng.random() < _FREEDOM) and p.output in outputs]  # fmt: skip
    primitive = _pick(alike, rng)
    behind = _behind(graph, id)
    replace_primitive(graph, id, primitive.name)
    if primitive.kind == "operation":
        _feed(graph, id, rng, inputs, behind)


_OPERATORS: tuple[Callable[[RLAlgorithmGraph, np.random.Generator, Collection[str]], None], ...] = (
    _constants,
    _constants,
    _add_term,
    _insert,
    _extend,
    _remove,
    _rewire,
    _replace,
)
