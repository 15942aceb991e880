"""A reinforcement-learning algorithm as a typed computational graph."""

from __future__ import annotations

import copy as copying
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asi_evolve.candidate import content_hash
from asi_evolve.domains.algorithm.primitives import PRIMITIVES, TENSOR, Primitive
from asi_evolve.domains.algorithm.transforms import Transform, as_transforms
from asi_evolve.errors import InvalidCandidate

if TYPE_CHECKING:
    from torch import Tensor

    from asi_evolve.domains.algorithm.compile import CompiledLoss

MAX_NODES, MAX_EDGES = 128, 512
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")
_VERSION = 1


@dataclass(frozen=True)
class Node:
    """A primitive with its constants (those given; the others have their defaults)."""

    primitive: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Edge:
    """From a node's value, through transforms, into a port of another node."""

    source: str
    target: str
    port: str
    transforms: tuple[Transform, ...] = ()

    def __str__(self) -> str:
        through = "".join(f" {t}" for t in self.transforms)
        return f"{self.source} ->{through} {self.target}.{self.port}"


class RLAlgorithmGraph:
    """What a policy-gradient algorithm minimises, as a graph of :mod:`primitives` that ends in ``loss_output``.

    The graph may be wrong while it is being built; :meth:`validate` says whether it can be used. Node names are for
    people: they have no part in :attr:`hash`.

    ``batch``, where the graph is evaluated, is a mapping of tensors; T steps of N sequences, time first. Only those are
    needed that the graph has an input node for. All float tensors have one dtype.
    :func:`asi_evolve.domains.algorithm.probe.example_batch` makes a random one.

    ======================================================  =========================================================
    ``logits``                                              float [T, N, A], of the current policy, with gradient; or
    ``mean``, ``log_std``                                   float [T, N, A], of a Gaussian policy
    ``old_...``, ``reference_...`` of these                 the same of the policy that acted, and of a fixed one
    ``log_probs``                                           float [T, N], with gradient, where no distribution is given
    ``values``                                              float [T, N], of the current value function, with gradient
    ``actions``                                             int64 [T, N], or float [T, N, A] for a Gaussian policy
    ``rewards``, ``dones``, ``mask``                        float [T, N]; dones and mask are 0 or 1
    ``old_log_probs``, ``old_values``,
    ``reference_log_probs``, ``visit_counts``               float [T, N], recorded with the rollout
    ``bootstrap_values``                                    float [N], value of the state after the last step
    ``groups``                                              int64 [N], values in [0, N)
    ``progress``                                            float, share of training that is done
    ======================================================  =========================================================

    Args:
        primitives: primitives besides the built-in ones, by name, with ``code`` that defines them.
        code: Python source with a function per additional primitive; see :mod:`code_slot`. It is executed where the
            graph is compiled, so that belongs into a sandbox.

    Raises:
        InvalidCandidate: an additional primitive has no usable name.
    """

    def __init__(self, primitives: Mapping[str, Primitive] | None = None, code: str = "") -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.extra = dict(primitives or {})
        for name in self.extra:
            if not _ID.fullmatch(name) or name in PRIMITIVES:
                raise InvalidCandidate(f"primitives: {name!r:.60} is not a name, or a built-in primitive's")
        self.code = code
        self._compiled: CompiledLoss | None = None

    # -- building -----------------------------------------------------------------------------------------------------

    def primitive(self, node: str) -> Primitive:
        """The primitive of a node. Raises InvalidCandidate where there is none of that name."""
        name = self.nodes[node].primitive
        found = PRIMITIVES.get(name) or self.extra.get(name)
        if found is None:
            known = ", ".join((*PRIMITIVES, *self.extra))
            raise InvalidCandidate(f"node {node!r}: unknown primitive {name!r:.60}; there are {known}")
        return found

    def add_node(self, id: str, primitive: str | None = None, **params: Any) -> str:
        """Adds a node and returns its name.

        Args:
            id: its name; letters, digits and underscores.
            primitive: its primitive; ``id`` where not given.
            params: constants; checked by :meth:`validate`.

        Raises:
            InvalidCandidate: the name is taken or not a name, or the graph is full.
        """
        if not isinstance(id, str) or not _ID.fullmatch(id):
            raise InvalidCandidate(f"node {id!r:.60}: a name of at most 48 letters, digits and underscores is needed")
        if id in self.nodes:
            raise InvalidCandidate(f"node {id!r}: there is one of that name already")
        if len(self.nodes) >= MAX_NODES:
            raise InvalidCandidate(f"node {id!r}: the graph has {MAX_NODES} nodes, which is the limit")
        self.nodes[id] = Node(id if primitive is None else primitive, dict(params))
        self._compiled = None
        return id

    def add_edge(self, source: str, target: str, port: str | None = None, transform: Any = None) -> Edge:
        """Adds an edge and returns it.

        Args:
            source, target: names of nodes.
            port: of the target; where not given, its first free port that takes the source's type.
            transform: a transform, its text (``"ScaleBy(0.01)"``), or several of either, applied in this order.

        Raises:
            InvalidCandidate: no such node, no such transform, or the graph is full.
        """
        for end in (source, target):
            if end not in self.nodes:
                raise InvalidCandidate(f"edge {source} -> {target}: no node {end!r:.60}")
        if len(self.edges) >= MAX_EDGES:
            raise InvalidCandidate(f"edge {source} -> {target}: the graph has {MAX_EDGES} edges, which is the limit")
        edge = Edge(source, target, self._port(source, target) if port is None else port, as_transforms(transform))
        self.edges.append(edge)
        self._compiled = None
        return edge

    def _port(self, source: str, target: str) -> str:
        try:
            ports, given = self.primitive(target).ports, self.primitive(source).output
        except InvalidCandidate:
            return "x"
        taken = {e.port for e in self.edges if e.target == target}
        free = [n for n, p in ports.items() if p.many or n not in taken]
        fitting = [n for n in free if given == TENSOR or ports[n].accepts(given)]
        # Without one that fits, the edge is a mistake that validate explains.
        return next(iter([*fitting, *free, *ports]), "x")

    def remove_edge(self, edge: Edge) -> None:
        """Removes an edge (one of equal ones). Raises InvalidCandidate where there is none."""
        if edge not in self.edges:
            raise InvalidCandidate(f"edge {edge}: there is none")
        self.edges.remove(edge)
        self._compiled = None

    def remove_node(self, id: str) -> None:
        """Removes a node and its edges. Raises InvalidCandidate where there is none."""
        if id not in self.nodes:
            raise InvalidCandidate(f"node {id!r:.60}: there is none; there are {', '.join(self.nodes)}")
        del self.nodes[id]
        self.edges = [e for e in self.edges if id not in (e.source, e.target)]
        self._compiled = None

    def set_params(self, id: str, **params: Any) -> None:
        """Changes constants of a node; None goes back to the default."""
        node = self.nodes[id]
        merged = {k: v for k, v in {**node.params, **params}.items() if v is not None}
        self.nodes[id] = Node(node.primitive, merged)
        self._compiled = None

    def prune(self) -> None:
        """Removes every node whose value is used neither by the loss nor by the optimiser."""
        useful = {n for n, node in self.nodes.items() if node.primitive in PRIMITIVES and self._is_end(n)}
        queue = list(useful)
        while queue:
            at = queue.pop()
            for e in self.edges:
                if e.target == at and e.source not in useful:
                    useful.add(e.source)
                    queue.append(e.source)
        for id in [n for n in self.nodes if n not in useful]:
            self.remove_node(id)

    def _is_end(self, id: str) -> bool:
        return self.primitive(id).kind in ("loss", "step")

    def copy(self) -> RLAlgorithmGraph:
        """A graph of its own with the same nodes and edges."""
        other = RLAlgorithmGraph(self.extra, self.code)
        other.nodes = {n: Node(v.primitive, copying.deepcopy(dict(v.params))) for n, v in self.nodes.items()}
        other.edges = list(self.edges)
        return other

    # -- looking ------------------------------------------------------------------------------------------------------

    def inputs_of(self, id: str) -> list[Edge]:
        """The edges into a node, in the order they were added."""
        return [e for e in self.edges if e.target == id]

    def batch_names(self) -> list[str]:
        """Names of the input nodes' primitives: what the batch has to hold."""
        return sorted({v.primitive for n, v in self.nodes.items() if self.primitive(n).kind == "input"})

    def order(self) -> list[str]:
        """The nodes in topological order, the same for the same graph.

        Raises:
            InvalidCandidate: there is a cycle; the message names its edges.
        """
        waiting = {n: {e.source for e in self.edges if e.target == n} for n in self.nodes}
        done: list[str] = []
        placed: set[str] = set()
        while waiting:
            ready = [n for n, needs in waiting.items() if needs <= placed]
            if not ready:
                raise InvalidCandidate(f"cycle: {' , '.join(map(str, self._cycle(set(waiting))))}")
            for n in ready:
                del waiting[n]
                placed.add(n)
            done += ready
        return done

    def _cycle(self, among: set[str]) -> list[Edge]:
        """The edges of one cycle; every one of these nodes has an input among them."""
        at = min(among)
        back: list[Edge] = []
        seen: dict[str, int] = {}
        while at not in seen:
            seen[at] = len(back)
            edge = next(e for e in self.edges if e.target == at and e.source in among)
            back.append(edge)
            at = edge.source
        return list(reversed(back[seen[at] :]))

    def digests(self) -> dict[str, str]:
        """For every node a hash of what it computes, whatever the nodes are called. Raises InvalidCandidate."""
        known: dict[str, str] = {}
        for id in self.order():
            inputs = sorted([e.port, [str(t) for t in e.transforms], known[e.source]] for e in self.inputs_of(id))
            node = self.nodes[id]
            known[id] = content_hash([node.primitive, self.primitive(id).check(node.params), inputs])
        return known

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of what the loss and the optimiser compute: independent of the nodes' order and names, and of
        whether a value that is used twice is one node or two. Raises InvalidCandidate where there is a cycle."""
        digests = self.digests()
        return content_hash([sorted(digests[n] for n in self.nodes if self._is_end(n)), self.code])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RLAlgorithmGraph) and self.hash == other.hash

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"<RLAlgorithmGraph of {len(self.nodes)} nodes, {len(self.edges)} edges>"

    # -- JSON ---------------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Text, one node or edge a line; :meth:`from_json` gives an equal graph back."""
        nodes = [{"id": n, "primitive": v.primitive, **({"params": v.params} if v.params else {})}
                 for n, v in self.nodes.items()]  # fmt: skip
        edges = []
        for e in self.edges:
            transforms = {"transforms": [str(t) for t in e.transforms]} if e.transforms else {}
            edges.append({"source": e.source, "target": e.target, "port": e.port, **transforms})
        lines = [",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in rows) for rows in (nodes, edges)]
        return f'{{\n  "version": {_VERSION},\n  "nodes": [\n{lines[0]}\n  ],\n  "edges": [\n{lines[1]}\n  ]\n}}\n'

    @classmethod
    def from_json(
        cls, text: str, primitives: Mapping[str, Primitive] | None = None, code: str = ""
    ) -> RLAlgorithmGraph:
        """The inverse of :meth:`to_json`. What the graph means is checked by :meth:`validate`.

        Raises:
            InvalidCandidate: not JSON of that form; the message names the node or edge.
        """
        graph = cls(primitives, code)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidCandidate(f"graph: not JSON: {error}") from None
        if not isinstance(content, dict) or content.get("version", _VERSION) != _VERSION:
            raise InvalidCandidate(f"graph: an object of version {_VERSION} with nodes and edges is needed")
        for name in ("nodes", "edges"):
            if not isinstance(content.get(name), list) or not all(isinstance(x, dict) for x in content[name]):
                raise InvalidCandidate(f"graph: {name!r} has to be a list of objects")
        for at, row in enumerate(content["nodes"]):
            params = row.get("params", {})
            if not isinstance(params, dict) or not isinstance(row.get("primitive"), str):
                raise InvalidCandidate(f"nodes[{at}]: 'id' and 'primitive' have to be text, 'params' an object")
            graph.add_node(row.get("id", ""), row["primitive"])
            graph.nodes[row["id"]] = Node(row["primitive"], params)
        for at, row in enumerate(content["edges"]):
            if not all(isinstance(row.get(k), str) for k in ("source", "target")):
                raise InvalidCandidate(f"edges[{at}]: 'source' and 'target' have to be text")
            port = row.get("port")
            if port is not None and not isinstance(port, str):
                raise InvalidCandidate(f"edges[{at}]: 'port' has to be text")
            graph.add_edge(row["source"], row["target"], port, row.get("transforms", row.get("transform")))
        return graph

    # -- using --------------------------------------------------------------------------------------------------------

    def validate(self, *, run: bool = True) -> None:
        """Checks that the graph can be used; see :mod:`asi_evolve.domains.algorithm.check`.

        Args:
            run: also evaluate it on a tiny batch and look whether a gradient reaches the policy. Not done for a graph
                with code, which must not run here.

        Raises:
            InvalidCandidate: names the node and the edge, and what is allowed.
        """
        from asi_evolve.domains.algorithm.check import check_structure

        check_structure(self)
        if run and not self.code:
            from asi_evolve.domains.algorithm.probe import check_gradient

            check_gradient(self)

    def compile(self, hyperparameters: Mapping[str, Any] | None = None) -> CompiledLoss:
        """The graph as a torch function.

        Args:
            hyperparameters: values of shared constants (``gamma``, ``lam``, ``learning_rate``, ``max_grad_norm``) for
                nodes that give none.

        Raises:
            InvalidCandidate: the graph is not valid.
        """
        from asi_evolve.domains.algorithm.compile import compile_graph

        return compile_graph(self, hyperparameters or {})

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss: a tensor without dimensions, differentiable. Compiled at the first call after a change.

        Args:
            batch: see the class.

        Raises:
            InvalidCandidate: the graph is not valid. KeyError: the batch lacks a tensor, by name.
        """
        if self._compiled is None:
            self._compiled = self.compile()
        return self._compiled.loss(batch)

    def diff(self, other: RLAlgorithmGraph) -> list[str]:
        """Readable lines of what changes from this graph to the other; see :mod:`difference`."""
        from asi_evolve.domains.algorithm.difference import difference

        return difference(self, other)

    def svg(self) -> str:
        """A drawing; see :mod:`draw`."""
        from asi_evolve.domains.algorithm.draw import draw

        return draw(self)
