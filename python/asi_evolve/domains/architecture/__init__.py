"""The architecture domain: a small causal language model whose mechanisms are code."""

from __future__ import annotations

from asi_evolve.domains.architecture.domain import (
    SLOTS,
    ArchitectureDomain,
    mechanisms,
    model_files,
    reference_source,
)
from asi_evolve.domains.architecture.estimate import (
    Estimate,
    estimate_parameters,
    estimate_training,
    machine_rates,
)

__all__ = [
    "SLOTS",
    "ArchitectureDomain",
    "Estimate",
    "estimate_parameters",
    "estimate_training",
    "machine_rates",
    "mechanisms",
    "model_files",
    "reference_source",
]
