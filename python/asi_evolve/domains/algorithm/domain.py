"""The algorithm domain: optimiser, schedule and loss terms as a typed specification, with a code slot for a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from typing import Any

import numpy as np

from asi_evolve.candidate import Component
from asi_evolve.domain import ParametricDomain
from asi_evolve.domains.slots import code_statistics
from asi_evolve.errors import InvalidCandidate
from asi_evolve.source import check_source
from asi_evolve.space import Choice, Real, SearchSpace

LOSS = '''"""An auxiliary training loss."""


def auxiliary_loss(logits, targets, hidden):
    """logits: (batch, n, 256); targets: int64 (batch, n); hidden: (batch, n, width). A scalar, added to the loss."""
    return 0.0
'''
_DOC = """How the language model is trained: optimiser, learning-rate schedule, regularisation and loss terms. Every
candidate sees the same number of training bytes, so a larger batch means fewer steps. loss.py:
auxiliary_loss(logits, targets, hidden) -> scalar tensor, added to the cross-entropy (in nats per byte)."""

SPACE = SearchSpace(
    [
        Choice("optimizer", ("adamw", "sgd", "lion", "muon"), doc="update rule"),
        Real("learning_rate", 1e-4, 1.0, log=True, doc="peak; lion wants a tenth of adamw's, sgd a hundred times"),
        Choice("schedule", ("constant", "linear", "cosine", "wsd"), doc="after the warm-up"),
        Real("warmup", 0.0, 0.3, doc="share of the steps"),
        Choice("batch_size", (8, 16, 32, 64), doc="sequences per step"),
        Real("beta1", 0.5, 0.98, doc="momentum"),
        Real("beta2", 0.9, 0.999, doc="decay of the second moment"),
        Real("weight_decay", 0.0, 1.0, doc="decoupled, relative to the learning rate"),
        Choice("grad_clip", (0.0, 0.25, 0.5, 1.0, 2.0), doc="limit of the gradient norm; 0 is none"),
        Choice("label_smoothing", (0.0, 0.02, 0.05, 0.1), doc="share of the target spread over all bytes"),
        Choice("z_loss", (0.0, 1e-4, 1e-3, 1e-2), doc="weight of the squared log partition function"),
        Choice("ema", (0.0, 0.9, 0.95, 0.98, 0.99), doc="averaging of the weights; 0 is none"),
    ]
)


@dataclass(frozen=True)
class TrainingSpec:
    """A training algorithm as data: serialisable, typed, in range.

    Attributes are the parameters of :data:`SPACE`. Defaults are the baseline's.
    """

    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup: float = 0.0
    batch_size: int = 16
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    grad_clip: float = 0.0
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        SPACE.check(asdict(self))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingSpec:
        """The inverse of :meth:`to_json`; accepts a component's params. Raises InvalidCandidate."""
        checked = SPACE.check(value)
        return cls(**{f.name: checked[f.name] for f in fields(cls)})  # type: ignore[arg-type]


def training_files(component: Component) -> dict[str, str]:
    """A trainer that runs without the engine: ``training/__init__.py`` (see its ``train``) and ``training/loss.py``."""
    text = (resources.files(__package__) / "training.py").read_text(encoding="utf-8")
    return {"training/__init__.py": text, **{f"training/{path}": code for path, code in component.files.items()}}


class AlgorithmDomain(ParametricDomain):
    """Training specifications; see :data:`_DOC`."""

    def __init__(self) -> None:
        super().__init__("algorithm", list(SPACE), TrainingSpec().to_json(), {"loss.py": LOSS}, _DOC)

    def validate(self, component: Component) -> None:
        """Parameters, and that loss.py compiles and defines its function."""
        super().validate(component)
        if "loss.py" not in component.files:
            raise InvalidCandidate("files: 'loss.py' is missing")
        check_source("loss.py", component.files["loss.py"], ("auxiliary_loss",))

    def features(self, component: Component) -> np.ndarray:
        """The encoded parameters, then what the auxiliary loss does."""
        return np.concatenate([self.space.encode(component.params), code_statistics(component.files["loss.py"])])
