"""The architecture domain: mechanisms by name or as code, sizes, and what goes together."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from asi_evolve.candidate import Component, Edit
from asi_evolve.domain import ParametricDomain
from asi_evolve.domains.architecture.estimate import estimate_parameters
from asi_evolve.domains.architecture.features import slot_features
from asi_evolve.domains.slots import Mechanism, settle
from asi_evolve.errors import InvalidCandidate
from asi_evolve.source import check_source
from asi_evolve.space import Choice, Integer

SLOTS = {  # parameter and folder of references -> class that the file defines
    "token_mixing": "TokenMixing",
    "normalization": "Normalization",
    "mlp": "MLP",
    "position": "Position",
    "connectivity": "Block",
}
FILES = {name: f"{name}.py" for name in SLOTS}
REFERENCES = {  # baseline first
    "token_mixing": (
        "softmax_attention",
        "linear_attention",
        "linear_attention_elu",
        "performer",
        "gated_linear_attention",
        "deltanet",
        "sliding_window",
        "hybrid",
        "convolution",
    ),
    "normalization": ("layernorm", "rmsnorm", "none"),
    "mlp": ("gelu", "swiglu", "relu2"),
    "position": ("learned", "rope", "alibi", "none"),
    "connectivity": ("pre_norm", "post_norm", "parallel"),
}
_DOC = """A byte-level causal language model. Its mechanisms are five Python files. A parameter names the reference
mechanism in each; editing the file makes it "custom". x is (batch, n, width). Nothing may look at later tokens.
token_mixing.py: class TokenMixing(nn.Module): __init__(self, width, heads, window); forward(self, x, position) -> as x.
normalization.py: class Normalization(nn.Module): __init__(self, width); forward(self, x) -> as x, per token.
mlp.py: class MLP(nn.Module): __init__(self, width, hidden); forward(self, x) -> as x, per token.
position.py: class Position(nn.Module): __init__(self, width, heads, max_length); embed(self, x) -> as x, once after the
embedding; rotate(self, q, k) -> (q, k), each (batch, heads, n, width / heads); bias(self, n, heads) -> None or a causal
additive mask (heads, n, n).
Optional, for fast decoding: in TokenMixing step(self, x, position, state, index) -> (y, state), the whole prompt with
state None and index 0, then one token, number index, with the state before it (tensors, batch first); in Position
embed(self, x, offset=0) and rotate(self, q, k, offset=0), where offset is the number of the first token.
connectivity.py: class Block(nn.Module): __init__(self, width, mixing, mlp, make_norm); forward(self, x, position) -> as
x; mixing(x, position) and mlp(x) are the two mechanisms, make_norm() makes a Normalization."""


@lru_cache(maxsize=1)
def mechanisms() -> dict[str, dict[str, str]]:
    """Source of every reference mechanism, by slot and name."""
    root = resources.files(__package__) / "mechanisms"
    return {
        slot: {name: (root / slot / f"{name}.py").read_text(encoding="utf-8") for name in names}
        for slot, names in REFERENCES.items()
    }


def reference_source(slot: str, name: str) -> str:
    """Source of one reference mechanism. Raises KeyError."""
    return mechanisms()[slot][name]


def model_files(component: Component) -> dict[str, str]:
    """A Python package (``model/__init__.py`` with ``build(params, max_length)`` and the mechanisms beside it) of an
    architecture. It needs torch, and asi_evolve.ops where the mechanism uses it."""
    template = (resources.files(__package__) / "template.py").read_text(encoding="utf-8")
    return {"model/__init__.py": template, **{f"model/{path}": text for path, text in component.files.items()}}


@lru_cache(maxsize=4096)
def traced_package(path: str, text: str) -> tuple[tuple[str, str], ...]:
    """The baseline's model with one file in another version, by path and text: what is traced for that file."""
    template = (resources.files(__package__) / "template.py").read_text(encoding="utf-8")
    files = {FILES[slot]: mechanisms()[slot][names[0]] for slot, names in REFERENCES.items()}
    return tuple(sorted({"__init__.py": template, **files, path: text}.items()))


class ArchitectureDomain(ParametricDomain):
    """See :data:`_DOC` for the contracts.

    Args:
        max_parameters: models larger than this are refused.
        sequence_length: of the benchmark; a table of positions has parameters.
        cache: directory that keeps what :meth:`features` traced.
    """

    def __init__(self, max_parameters: int = 600_000, sequence_length: int = 128, cache: Path | None = None) -> None:
        self.max_parameters, self.sequence_length, self.cache = max_parameters, sequence_length, cache
        parameters = [
            *(Mechanism(slot, names, doc=f"mechanism in {FILES[slot]}") for slot, names in REFERENCES.items()),
            Integer("layers", 1, 8, doc="number of blocks"),
            Choice("width", (32, 48, 64, 80, 96, 128, 160), doc="model width, a multiple of 2 * heads"),
            Choice("heads", (1, 2, 4, 8), doc="heads of the token mixing"),
            Choice("mlp_ratio", (1.0, 2.0, 3.0, 4.0), doc="hidden size of the MLP / width"),
            Choice("window", (4, 8, 16, 32, 64), doc="tokens that sliding_window, hybrid and convolution look back"),
            Choice("tie_embeddings", (False, True), doc="one matrix for input and output"),
        ]
        start: dict[str, Any] = {slot: names[0] for slot, names in REFERENCES.items()}
        start |= {"layers": 2, "width": 64, "heads": 4, "mlp_ratio": 4.0, "window": 16, "tie_embeddings": False}
        files = {FILES[slot]: mechanisms()[slot][names[0]] for slot, names in REFERENCES.items()}
        super().__init__("architecture", parameters, start, files, _DOC)

    def apply(self, parent: Component, edit: Edit) -> Component:
        """``edit`` applied, with every mechanism's parameter and file in agreement."""
        child = settle(parent, edit, FILES, mechanisms())
        return Component(self.name, self.space.check(child.params), child.files)

    def validate(self, component: Component) -> None:
        """Parameters, sources, the class each file has to define, sizes that fit together, and the parameter budget."""
        super().validate(component)
        for slot, name in SLOTS.items():
            path = FILES[slot]
            if path not in component.files:
                raise InvalidCandidate(f"files: {path!r} is missing")
            check_source(path, component.files[path], (name,))
        params = component.params
        if params["width"] % (2 * params["heads"]):
            raise InvalidCandidate(f"width: {params['width']} is not a multiple of 2 * heads = {2 * params['heads']}")
        count = estimate_parameters(params, self.sequence_length)
        if count > self.max_parameters:
            raise InvalidCandidate(f"layers, width: about {count} parameters; at most {self.max_parameters}")

    def mutate(self, component: Component, rng: np.random.Generator) -> Edit:
        """One to three parameters moved; the result is valid."""
        for _ in range(50):
            edit = super().mutate(component, rng)
            try:
                self.validate(self.apply(component, edit))
            except InvalidCandidate:
                continue
            return edit
        return Edit(params={"mlp_ratio": self.space["mlp_ratio"].neighbour(component.params["mlp_ratio"], rng)})

    def features(self, component: Component) -> np.ndarray:
        """The encoded sizes, then per slot what its code computes, from its traced graph (see :mod:`features`). Names
        have no part in it.

        Code not seen before is traced in a sandbox, which takes about two seconds.
        """
        sizes = [x for p in self.space if p.name not in SLOTS for x in p.encode(component.params[p.name])]
        graphs = [slot_features(traced_package(path, component.files[path]), self.cache) for path in FILES.values()]
        return np.concatenate([sizes, *graphs])
