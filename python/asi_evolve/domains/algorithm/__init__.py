"""The algorithm domain: how the language model is trained."""

from __future__ import annotations

from asi_evolve.domains.algorithm.domain import AlgorithmDomain, TrainingSpec, training_files

__all__ = ["AlgorithmDomain", "TrainingSpec", "training_files"]
