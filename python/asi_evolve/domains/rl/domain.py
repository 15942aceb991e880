"""The algorithm domain of the benchmark ``rl``: a graph, its constants, and the training around it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asi_evolve.candidate import Component, Edit, thaw
from asi_evolve.domain import ParametricDomain
from asi_evolve.domains.algorithm.code_slot import CODE_FILE, NAME, TEMPLATE, declared
from asi_evolve.domains.algorithm.edits import apply_operations, operations_schema
from asi_evolve.domains.algorithm.graph import RLAlgorithmGraph
from asi_evolve.domains.algorithm.graph_features import graph_features
from asi_evolve.domains.algorithm.mutate import mutate_graph
from asi_evolve.domains.algorithm.primitives import describe_primitives
from asi_evolve.domains.algorithm.reference import NAMES, reference
from asi_evolve.domains.slots import Mechanism, code_statistics, settle
from asi_evolve.errors import InvalidCandidate
from asi_evolve.space import Choice, Integer, Parameter, Real

GRAPH_FILE = "graph.json"
_SLOTS = {"graph": GRAPH_FILE}
_GRAPH_SHARE = 0.6  # of random edits that change the graph
PARAMETERS = [
    Mechanism("graph", NAMES, doc="the loss, as a graph in graph.json"),
    Real("learning_rate", 1e-5, 1e-2, log=True, doc="where the graph's optimiser gives none"),
    Real("gamma", 0.8, 0.9999, doc="discount, where a node gives none"),
    Real("lam", 0.0, 1.0, doc="lambda of advantages, where a node gives none"),
    Choice("horizon", (16, 32, 64, 128, 256, 512), doc="steps of every environment per update"),
    Choice("environments", (4, 8, 16, 32), doc="environments that are played at a time"),
    Integer("epochs", 1, 16, doc="passes over the data of an update"),
    Choice("minibatches", (1, 2, 4, 8, 16), doc="optimiser steps per pass"),
    Choice("max_grad_norm", (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0), doc="limit of the gradient norm; 0 is none"),
    Choice("hidden", (32, 64, 128), doc="width of the networks"),
    Choice("activation", ("tanh", "relu"), doc="of the networks"),
    Choice("normalize_observations", (False, True), doc="by their running mean and deviation"),
    Choice("normalize_rewards", (False, True), doc="by the running deviation of the return"),
]
START: Mapping[str, Any] = {
    "graph": "ppo",
    "learning_rate": 1e-3,
    "gamma": 0.99,
    "lam": 0.95,
    "horizon": 64,
    "environments": 16,
    "epochs": 4,
    "minibatches": 4,
    "max_grad_norm": 0.5,
    "hidden": 64,
    "activation": "tanh",
    "normalize_observations": False,
    "normalize_rewards": False,
}
_DOC = """A reinforcement-learning algorithm: an actor-critic plays environments, and after every `horizon` steps its
weights move to lower the loss that graph.json computes from the data.
"""
GRAPH_DOC = f"""graph.json: nodes {{"id", "primitive",
"params"}} and edges {{"source", "target", "port", "transforms": ["ScaleBy(0.01)"]}}, no cycles, ending in loss_output.
Instead of a whole graph, graph.json may be given as {{"operations": [...]}}, edits of the one that is there: add_node
(node, primitive), remove_node (node), add_edge and remove_edge (source, target, port, transform), replace (node,
primitive), set_param (node, param, value). {CODE_FILE}: PORTS, OUTPUT and {NAME}(...) define a primitive "{NAME}".
Primitives, with * for many inputs and ? for optional ones:
{describe_primitives(formulas=False)}"""


def uses_code(files: Mapping[str, str]) -> bool:
    """Whether the graph has a node of the component's own primitive."""
    return CODE_FILE in files and f'"{NAME}"' in files.get(GRAPH_FILE, "")


def graph_of_files(files: Mapping[str, str]) -> RLAlgorithmGraph:
    """The graph of a component's files. Its code is parsed, not run. Raises InvalidCandidate."""
    text = files.get(GRAPH_FILE)
    if text is None:
        raise InvalidCandidate(f"files: {GRAPH_FILE!r} is missing")
    if not uses_code(files):
        return RLAlgorithmGraph.from_json(text)
    return RLAlgorithmGraph.from_json(text, {NAME: declared(files[CODE_FILE])}, files[CODE_FILE])


class RLGraphDomain(ParametricDomain):
    """Algorithm graphs. The parameter ``graph`` names a reference, or is ``custom``.

    Args:
        parameters: the search space; ``graph`` among them. start: the baseline's values.
        doc: what it is, for the prompt. The defaults are those of the benchmark ``rl``.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter] = PARAMETERS,
        start: Mapping[str, Any] = START,
        doc: str = _DOC + GRAPH_DOC,
    ) -> None:
        self._references = {"graph": {name: reference(name).to_json() for name in NAMES}}
        files = {GRAPH_FILE: self._references["graph"][str(start["graph"])], CODE_FILE: TEMPLATE}
        super().__init__("algorithm", parameters, start, files, doc)

    def apply(self, parent: Component, edit: Edit) -> Component:
        """The edited component. A ``graph.json`` that holds operations is the parent's graph with them applied."""
        child = settle(parent, self._whole(parent, edit), _SLOTS, self._references)
        return Component(self.name, self.space.check(child.params), child.files)

    def _whole(self, parent: Component, edit: Edit) -> Edit:
        text = edit.files.get(GRAPH_FILE)
        if not text:
            return edit
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return edit
        if not isinstance(content, dict) or "operations" not in content:
            return edit
        code = dict(edit.files).get(CODE_FILE) or parent.files.get(CODE_FILE, "")
        extra = {NAME: declared(code)} if code and f'"{NAME}"' in text + parent.files.get(GRAPH_FILE, "") else None
        base = RLAlgorithmGraph.from_json(parent.files[GRAPH_FILE], extra, code if extra else "")
        edited = apply_operations(base, content["operations"]).to_json()
        return Edit(edit.params, edit.blocks, {**edit.files, GRAPH_FILE: edited})

    def validate(self, component: Component) -> None:
        """Parameters, and that the graph can be used: every primitive known, types fit, no cycle, a gradient reaches
        the policy."""
        super().validate(component)
        if CODE_FILE in component.files:
            declared(component.files[CODE_FILE])
        graph_of_files(component.files).validate()

    def mutate(self, component: Component, rng: np.random.Generator) -> Edit:
        """A random change of the graph, or of parameters."""
        if rng.random() >= _GRAPH_SHARE:
            return Edit(params=self.space.mutate(component.params, rng))
        return Edit(files={GRAPH_FILE: mutate_graph(graph_of_files(component.files), rng).to_json()})

    def features(self, component: Component) -> np.ndarray:
        """The encoded parameters, then what the graph is made of, then what the code slot does."""
        params = thaw(component.params)
        code = code_statistics(component.files[CODE_FILE]) if uses_code(component.files) else code_statistics("")
        return np.concatenate([self.space.encode(params), graph_features(graph_of_files(component.files)), code])

    def operations_schema(self, path: str) -> dict[str, Any] | None:
        """JSON schema of a list of graph edits, for a language model; see :mod:`asi_evolve.domains.algorithm.edits`."""
        return operations_schema() if path == GRAPH_FILE else None
