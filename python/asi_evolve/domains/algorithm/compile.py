"""A graph as straight-line Python: one call a node, no walk over the graph when the loss is computed.

What depends on the rollout alone (returns, advantages, schedules) is a function of its own, so that a trainer computes
it once per rollout and not once per minibatch.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from asi_evolve.domains.algorithm import operations
from asi_evolve.domains.algorithm.check import check_structure
from asi_evolve.domains.algorithm.code_slot import load_functions
from asi_evolve.domains.algorithm.graph import Edge, RLAlgorithmGraph
from asi_evolve.domains.algorithm.primitives import GROUPS, POLICY, PRIMITIVES, SCALAR, N, Primitive
from asi_evolve.errors import InvalidCandidate
from asi_evolve.space import Value

Batch = Mapping[str, Tensor]
_PREFIX = {"policy": "", "old_policy": "old_", "reference_policy": "reference_"}


@dataclass(frozen=True)
class CompiledLoss:
    """A graph as functions.

    Attributes:
        source: the Python text they were compiled from.
        loss: batch -> loss, everything in one go.
        prepare: rollout -> the values that depend on the rollout alone and that :attr:`rest` needs, by name.
        rest: minibatch with the prepared values in it -> loss.
        prepared: type of each prepared value.
        inputs: names of batch entries that :attr:`rest` reads directly, by input primitive.
        columns: minibatches for :attr:`rest` have to consist of whole sequences.
        step: primitive name and constants of the optimiser; Adam's defaults where the graph has none.
        step_scale: batch -> factor of the learning rate (1.0 without a schedule).
    """

    source: str
    loss: Callable[[Batch], Tensor]
    prepare: Callable[[Batch], dict[str, Tensor]]
    rest: Callable[[Batch], Tensor]
    prepared: Mapping[str, str]
    inputs: tuple[str, ...]
    columns: bool
    step: tuple[str, Mapping[str, Value]]
    step_scale: Callable[[Batch], float]


def compile_graph(graph: RLAlgorithmGraph, hyperparameters: Mapping[str, Any]) -> CompiledLoss:
    """See :meth:`RLAlgorithmGraph.compile`."""
    known = check_structure(graph)
    order = graph.order()
    kinds = {n: graph.primitive(n) for n in order}
    output = next(n for n in order if kinds[n].kind == "loss")
    step = next((n for n in order if kinds[n].kind == "step"), None)
    early = _rollout_nodes(graph, order, kinds)
    late = [n for n in order if n not in early and n != step]
    needed = _ancestors(graph, {output})
    wanted = [n for n in order if n in early and n in needed and kinds[n].kind != "input" and _crosses(graph, n, late)]
    if output in early:
        raise InvalidCandidate(f"node {output!r}: the loss does not depend on the current policy")

    def constants(id: str) -> dict[str, Value]:
        shared = {
            k: kinds[id].constants[k].parameter.check(v) for k, v in hyperparameters.items() if k in kinds[id].constants
        }
        return kinds[id].resolve(kinds[id].check(graph.nodes[id].params), shared)

    def function(name: str, nodes: Sequence[str], given: Sequence[str], returns: str) -> list[str]:
        lines = [f"def {name}(batch):"]
        lines += [f"    n_{id} = batch[{_key(id)!r}]" for id in given]
        lines += [f"    n_{id} = {_call(kinds[id], graph.inputs_of(id), constants(id))}" for id in nodes]
        return [*lines, f"    return {returns}", "", ""]

    loss_nodes = [n for n in order if n in needed]
    prepare_nodes = [n for n in order if n in _ancestors(graph, set(wanted)) and n in early]
    # An input of the rollout that late nodes read is in the minibatch itself.
    direct = [n for n in early if kinds[n].kind == "input" and n in needed and _crosses(graph, n, late)]
    rest_nodes = [n for n in order if n in direct or (n in late and n in needed)]
    lines = function("loss", loss_nodes, (), f"n_{output}")
    lines += function("prepare", prepare_nodes, (), "{" + ", ".join(f"{_key(n)!r}: n_{n}" for n in wanted) + "}")
    lines += function("rest", rest_nodes, wanted, f"n_{output}")
    schedule = next((e for e in graph.inputs_of(step) if e.port == "schedule"), None) if step else None
    if schedule is None:
        lines += ["def step_scale(batch):", "    return 1.0", ""]
    else:
        if schedule.source not in early:
            raise InvalidCandidate(f"edge {schedule}: a schedule cannot depend on the current policy or values")
        nodes = [n for n in order if n in _ancestors(graph, {schedule.source})]
        lines += function("step_scale", nodes, (), f"float({_value(schedule)})")[:-1]
    source = "\n".join(lines)
    module: dict[str, Any] = {"ops": operations, "code": types.SimpleNamespace(**load_functions(graph))}
    exec(compile(source, "<graph>", "exec"), module)
    rest_inputs = tuple(kinds[n].name for n in rest_nodes if kinds[n].kind == "input")
    primitive = kinds[step] if step else PRIMITIVES["adam"]
    settings = constants(step) if step else primitive.resolve({}, hyperparameters)
    return CompiledLoss(
        source,
        _checked(module["loss"], graph),
        cast(Callable[[Batch], dict[str, Tensor]], torch.no_grad()(module["prepare"])),
        module["rest"],
        {_key(n): known[n] for n in wanted},
        rest_inputs,
        any(kinds[n].columns for n in rest_nodes),
        (primitive.name, settings),
        module["step_scale"],
    )


def _checked(loss: Callable[[Batch], Tensor], graph: RLAlgorithmGraph) -> Callable[[Batch], Tensor]:
    """The function, with a message that says which tensor the batch lacks and what it holds."""

    def checked(batch: Batch) -> Tensor:
        try:
            return loss(batch)
        except KeyError as error:
            wanted = ", ".join(graph.batch_names())
            raise KeyError(
                f"batch: no {error.args[0]!r}; the graph reads {wanted}; there are {', '.join(batch)}"
            ) from None

    return checked


def _key(id: str) -> str:
    """Name of a prepared value in a minibatch; no batch entry has an at sign."""
    return f"@{id}"


def _value(edge: Edge) -> str:
    text = f"n_{edge.source}"
    for transform in edge.transforms:
        text = transform.code(text)
    return text


def _call(primitive: Primitive, edges: Sequence[Edge], constants: Mapping[str, Value]) -> str:
    if primitive.kind == "input":
        if primitive.output == POLICY:
            return f"ops.distribution(batch, {_PREFIX[primitive.name]!r})"
        return f"batch[{primitive.name!r}]"
    arguments = []
    for name, port in primitive.ports.items():
        values = [_value(e) for e in edges if e.port == name]
        arguments += values if port.many else [values[0] if values else "None"]
    arguments += [f"{name}={value!r}" for name, value in constants.items()]
    module = "ops" if primitive.name in PRIMITIVES else "code"
    return f"{module}.{primitive.name}({', '.join(arguments)})"


def _rollout_nodes(graph: RLAlgorithmGraph, order: Sequence[str], kinds: Mapping[str, Primitive]) -> set[str]:
    """Nodes that depend on the rollout alone."""
    early: set[str] = set()
    for id in order:
        inputs = {e.source for e in graph.inputs_of(id)}
        if kinds[id].rollout or (kinds[id].kind == "operation" and inputs <= early):
            early.add(id)
    return early


def _ancestors(graph: RLAlgorithmGraph, ends: set[str]) -> set[str]:
    """The nodes and everything they depend on."""
    found, queue = set(ends), list(ends)
    while queue:
        at = queue.pop()
        for e in graph.edges:
            if e.target == at and e.source not in found:
                found.add(e.source)
                queue.append(e.source)
    return found


def _crosses(graph: RLAlgorithmGraph, id: str, late: Sequence[str]) -> bool:
    return any(e.source == id and e.target in late for e in graph.edges)


def minibatch(
    values: Mapping[str, Tensor], kinds: Mapping[str, str], index: Tensor, columns: bool
) -> dict[str, Tensor]:
    """A part of prepared or recorded values.

    Args:
        values: tensors by name; [T, N, ...], [N] or none, as ``kinds`` says.
        kinds: type by name.
        index: int64; with ``columns`` numbers of sequences, else of steps t * N + n.

    Returns:
        By name: [T, len(index), ...] and [len(index)] with ``columns``, else [len(index), 1, ...] for both.
    """
    part = {}
    for name, x in values.items():
        kind = kinds[name]
        if kind == SCALAR:
            part[name] = x
        elif kind in (N, GROUPS):
            part[name] = x[index] if columns else x[index % len(x)].unsqueeze(1)
        else:
            part[name] = x[:, index] if columns else x.flatten(0, 1)[index].unsqueeze(1)
    return part
