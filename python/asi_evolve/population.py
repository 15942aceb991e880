"""The valued candidates of a run, kept ranked while results come in: one result costs about the same at a hundred as
at a hundred thousand candidates."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable

import numpy as np

from asi_evolve import pareto
from asi_evolve.candidate import Candidate
from asi_evolve.fitness import MAXIMIZE, Fitness
from asi_evolve.novelty import Archive
from asi_evolve.selection import tournament


class Population:
    """Ranks, crowding and novelty of every candidate evaluated so far.

    Everything evaluated is in the novelty archive; what has a fitness is ranked as well, on (performance, cost,
    novelty). Each new member changes the novelty of its neighbours, whose ranks follow. None of the answers depends on
    the order in which workers finished, as long as :meth:`update` is given the same batches.

    Args:
        embed: phi(x), float [dim].
        archive: an empty archive of that dim.
    """

    def __init__(self, embed: Callable[[Candidate], np.ndarray], archive: Archive) -> None:
        self._embed, self._archive = embed, archive
        self._members: dict[str, int] = {}  # position in the archive, by hash
        self._hashes: list[str] = []  # by position in the archive
        self._front = pareto.Front(3, maximize=MAXIMIZE)
        self._place: dict[str, int] = {}  # position in the front, by hash
        self._placed: list[str] = []  # by position in the front
        self._fitness: dict[str, Fitness] = {}
        self._sorted: list[str] = []  # ranked hashes in order: what a draw is made from
        self._crowding: dict[int, dict[str, float]] = {}  # by rank, until something moves

    def __len__(self) -> int:
        """Number of ranked candidates."""
        return len(self._placed)

    def update(self, candidates: Iterable[Candidate], value: Callable[[str, float], Fitness | None]) -> None:
        """Takes in candidates with new results.

        Args:
            candidates: those with results that are new, known or not.
            value: the fitness of a hash, given its novelty; None while there is nothing to compare.
        """
        moved: dict[str, None] = {}
        for candidate in candidates:
            moved[candidate.hash] = None
            if candidate.hash not in self._members:
                self._members[candidate.hash] = len(self._hashes)
                self._hashes.append(candidate.hash)
                _, changed = self._archive.insert(self._embed(candidate))
                moved |= {self._hashes[i]: None for i in changed if self._hashes[i] in self._place}
        if not moved:
            return
        self._crowding.clear()
        novelties = self._archive.novelties([self._members[h] for h in moved])
        for key, novelty in zip(moved, novelties, strict=True):
            fitness = value(key, float(novelty) if np.isfinite(novelty) else 0.0)
            if fitness is None:
                continue
            self._fitness[key] = fitness
            if key in self._place:
                self._front.update(self._place[key], fitness.vector())
            else:
                self._place[key] = len(self._placed)
                self._placed.append(key)
                bisect.insort(self._sorted, key)
                self._front.insert(fitness.vector())

    def nearest(self, candidate: Candidate) -> tuple[str | None, float]:
        """The nearest evaluated candidate and its distance in feature space; (None, inf) at first."""
        at, distance = self._archive.nearest(self._embed(candidate))
        return (self._hashes[at] if at >= 0 else None), distance

    def novelty(self, candidate: Candidate) -> float:
        """Mean distance of a candidate to its nearest evaluated neighbours."""
        return self._archive.novelty(self._embed(candidate))

    def fitness(self, key: str) -> Fitness:
        """The fitness of a ranked candidate. Raises KeyError."""
        return self._fitness[key]

    def rank(self, key: str) -> int:
        """Pareto rank of a ranked candidate, 1 = non-dominated. Raises KeyError."""
        return self._front.rank(self._place[key])

    def crowding(self, key: str) -> float:
        """Crowding distance of a ranked candidate among those of its rank. Raises KeyError."""
        rank = self.rank(key)
        if rank not in self._crowding:
            # In order of hash: crowding breaks ties by position.
            keys = sorted(self._placed[i] for i in self._front.members(rank))
            values = np.array([self._fitness[k].vector() for k in keys], dtype=np.float64)
            distances = pareto.crowding_distance(values, np.ones(len(keys), np.int32))
            self._crowding[rank] = dict(zip(keys, distances.tolist(), strict=True))
        return self._crowding[rank][key]

    def best(self, count: int) -> list[tuple[str, Fitness]]:
        """The first ``count`` candidates by rank, crowding distance, performance and hash."""
        found: list[str] = []
        rank = 1
        while len(found) < count and len(members := self._front.members(rank)):
            keys = [self._placed[i] for i in members]
            found += sorted(keys, key=lambda k: (-self.crowding(k), -self._fitness[k].performance, k))
            rank += 1
        return [(k, self._fitness[k]) for k in found[:count]]

    def select(self, size: int, rng: np.random.Generator, scalar: bool = False) -> str:
        """The winner of a Pareto tournament among ``size`` candidates drawn at random; with ``scalar`` the one with the
        best performance, whatever its cost and novelty.

        Raises:
            ValueError: nothing is ranked yet.
        """
        n = len(self._sorted)
        drawn = [self._sorted[int(i)] for i in rng.choice(n, size=min(size, n), replace=False)] if n else []
        if scalar and drawn:
            return max(drawn, key=lambda k: self._fitness[k].performance)
        ranks = [self.rank(k) for k in drawn]
        best = min(ranks, default=0)
        tied = ranks.count(best) > 1  # only then does crowding matter, and only among them
        crowding = [self.crowding(k) if tied and r == best else 0.0 for k, r in zip(drawn, ranks, strict=True)]
        return drawn[tournament(ranks, crowding)]
