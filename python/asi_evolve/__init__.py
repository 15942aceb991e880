"""A machine that does research on your model, your training algorithm and your data.

The public names load on first use, so that ``import asi_evolve`` stays fast and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from asi_evolve import novelty, ops, pareto
    from asi_evolve.candidate import Candidate, Component, Edit
    from asi_evolve.config import Config
    from asi_evolve.domain import Benchmark, BenchmarkBase, Domain, ParametricDomain, Stage
    from asi_evolve.engine import Engine
    from asi_evolve.errors import AsiEvolveError
    from asi_evolve.space import Choice, Integer, Real, SearchSpace

_HOME = {
    "AsiEvolveError": "errors",
    "Benchmark": "domain",
    "BenchmarkBase": "domain",
    "Candidate": "candidate",
    "Choice": "space",
    "Component": "candidate",
    "Config": "config",
    "Domain": "domain",
    "Edit": "candidate",
    "Engine": "engine",
    "Integer": "space",
    "ParametricDomain": "domain",
    "Real": "space",
    "SearchSpace": "space",
    "Stage": "domain",
}
_MODULES = ("novelty", "ops", "pareto")

__all__ = [
    "AsiEvolveError",
    "Benchmark",
    "BenchmarkBase",
    "Candidate",
    "Choice",
    "Component",
    "Config",
    "Domain",
    "Edit",
    "Engine",
    "Integer",
    "ParametricDomain",
    "Real",
    "SearchSpace",
    "Stage",
    "__version__",
    "novelty",
    "ops",
    "pareto",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"asi_evolve.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(f"asi_evolve.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'asi_evolve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
