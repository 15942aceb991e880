"""The architecture domain: a small causal language model whose mechanisms are code."""

from __future__ import annotations

from asi_evolve.domains.architecture.domain import (
    SLOTS,
    ArchitectureDomain,
    estimate_parameters,
    mechanisms,
    model_files,
    reference_source,
)

__all__ = [
    "SLOTS",
    "ArchitectureDomain",
    "estimate_parameters",
    "mechanisms",
    "model_files",
    "reference_source",
]
