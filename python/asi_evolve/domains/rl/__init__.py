"""The reinforcement-learning benchmark: an algorithm graph, judged by what it learns in Gymnasium's environments."""

from __future__ import annotations

from asi_evolve.domains.rl.benchmark import RLBenchmark
from asi_evolve.domains.rl.domain import RLGraphDomain

__all__ = ["RLBenchmark", "RLGraphDomain"]
