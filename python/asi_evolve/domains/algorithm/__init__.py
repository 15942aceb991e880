"""The algorithm domain: how the language model is trained, and reinforcement-learning algorithms as graphs."""

from __future__ import annotations

from asi_evolve.domains.algorithm.domain import AlgorithmDomain, TrainingSpec, training_files
from asi_evolve.domains.algorithm.graph import Edge, Node, RLAlgorithmGraph
from asi_evolve.domains.algorithm.primitives import PRIMITIVES, Primitive, describe_primitives
from asi_evolve.domains.algorithm.reference import reference
from asi_evolve.domains.algorithm.transforms import ClipTo, Detach, ScaleBy, ShiftBy, Transform

__all__ = [
    "PRIMITIVES",
    "AlgorithmDomain",
    "ClipTo",
    "Detach",
    "Edge",
    "Node",
    "Primitive",
    "RLAlgorithmGraph",
    "ScaleBy",
    "ShiftBy",
    "TrainingSpec",
    "Transform",
    "describe_primitives",
    "reference",
    "training_files",
]
