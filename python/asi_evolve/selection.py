"""Who wins a Pareto tournament: rank, then crowding distance, then chance (NSGA-II; Deb et al. 2002, section III)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asi_evolve import pareto
from asi_evolve.fitness import MAXIMIZE, Fitness


def rank_and_crowding(fitness: Sequence[Fitness]) -> tuple[np.ndarray, np.ndarray]:
    """Non-domination rank (int32, 1 = non-dominated) and crowding distance (float64) of each."""
    if not fitness:
        return np.zeros(0, np.int32), np.zeros(0)
    values = np.array([f.vector() for f in fitness], dtype=np.float64)
    ranks = pareto.rank(values, maximize=MAXIMIZE)
    return ranks, pareto.crowding_distance(values, ranks)


def tournament(ranks: Sequence[int], crowding: Sequence[float]) -> int:
    """Index of the winner among entrants drawn at random: lowest rank, then largest crowding distance, then the one
    drawn first, which is chance.

    Raises:
        ValueError: no entrants.
    """
    if not len(ranks):
        raise ValueError("ranks: nothing to choose from")
    return min(range(len(ranks)), key=lambda i: (ranks[i], -crowding[i]))
