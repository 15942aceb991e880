"""Novelty: mean distance to the k nearest neighbours in an archive that only grows (Lehman & Stanley 2011)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from asi_evolve.candidate import Candidate
from asi_evolve.domain import Domain

CODE_DIMENSIONS = 64
_TOKEN = re.compile(r"[A-Za-z_]\w*|\d+\.?\d*|[^\s\w]")


class Archive:
    """Every point ever added, with exact k-nearest-neighbour distances of all members kept current.

    Args:
        dim: length of the points.
        k: neighbours averaged.
        metric: ``l2`` (Euclidean) or ``cosine`` (1 - cosine similarity).

    Raises:
        ValueError: a bad argument, a point of another length or with non-finite entries.
    """

    def __init__(self, dim: int, k: int = 5, metric: str = "l2") -> None:
        if dim < 1 or k < 1:
            raise ValueError(f"dim and k: at least 1, got {dim} and {k}")
        if metric not in ("l2", "cosine"):
            raise ValueError(f"metric: {metric!r} is not one of 'l2', 'cosine'")
        import faiss  # takes 0.2 s, so not at import of the package

        self.dim, self.k, self.metric = dim, k, metric
        self._index = faiss.IndexFlatL2(dim) if metric == "l2" else faiss.IndexFlatIP(dim)
        self._nearest = np.full((0, k), np.inf)  # sorted distances of each member to its k nearest others

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def _point(self, x: Any) -> np.ndarray:
        point = np.ascontiguousarray(x, dtype=np.float32).reshape(-1)
        if point.shape != (self.dim,):
            raise ValueError(f"x: {point.size} entries, the archive has dim {self.dim}")
        if not np.isfinite(point).all():
            raise ValueError(f"x: entry {int(np.flatnonzero(~np.isfinite(point))[0])} is not finite")
        if self.metric == "cosine":
            norm = float(np.linalg.norm(point))
            point = point / norm if norm > 0 else point
        return point[None]

    def _distances(self, scores: np.ndarray) -> np.ndarray:
        if self.metric == "cosine":
            return np.maximum(0.0, 1.0 - scores.astype(np.float64))
        return np.sqrt(np.maximum(0.0, scores.astype(np.float64)))

    def novelty(self, x: Any) -> float:
        """Mean distance from ``x`` to its k nearest members (all members while there are fewer; inf when empty)."""
        if len(self) == 0:
            return float("inf")
        scores, _ = self._index.search(self._point(x), min(self.k, len(self)))
        return float(self._distances(scores[0]).mean())

    def nearest(self, x: Any) -> tuple[int, float]:
        """Position (in order of addition) of the nearest member and its distance; (-1, inf) when empty."""
        if len(self) == 0:
            return -1, float("inf")
        scores, ids = self._index.search(self._point(x), 1)
        return int(ids[0, 0]), float(self._distances(scores[0])[0])

    def add(self, x: Any) -> float:
        """Adds ``x`` and returns the novelty it had on arrival."""
        point = self._point(x)
        n = len(self)
        row = np.full(self.k, np.inf)
        if n:
            scores, ids = self._index.search(point, n)
            distances = np.empty(n)
            distances[ids[0]] = self._distances(scores[0])
            row[: min(self.k, n)] = np.sort(distances)[: self.k]
            # Only members that count x among their k nearest change.
            closer = np.flatnonzero(distances < self._nearest[:, -1])
            merged = np.concatenate([self._nearest[closer], distances[closer, None]], axis=1)
            self._nearest[closer] = np.sort(merged, axis=1)[:, : self.k]
        self._index.add(point)
        self._nearest = np.concatenate([self._nearest, row[None]])
        return float(row[np.isfinite(row)].mean()) if n else float("inf")

    def novelties(self) -> np.ndarray:
        """Current novelty of every member, in order of addition: float64[n]; inf for a single member."""
        known = np.isfinite(self._nearest)
        total = np.where(known, self._nearest, 0.0).sum(axis=1)
        count = known.sum(axis=1)
        mean: np.ndarray = np.divide(total, count, out=np.full(len(self._nearest), np.inf), where=count > 0)
        return mean


def code_embedding(text: str, dimensions: int = CODE_DIMENSIONS) -> np.ndarray:
    """Signed feature hashing (Weinberger et al. 2009) of token 1- to 3-grams, L2-normalised: float64[dimensions]."""
    tokens = _TOKEN.findall(text)
    vector = np.zeros(dimensions)
    for n in (1, 2, 3):
        for i in range(len(tokens) - n + 1):
            digest = hashlib.blake2b("\0".join(tokens[i : i + n]).encode(), digest_size=8).digest()
            value = int.from_bytes(digest, "little")
            vector[value % dimensions] += 1.0 if value >> 63 else -1.0
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector


class Embedder:
    """phi(x): per domain a structural block and a code block, each scaled so that its diameter is about its weight."""

    def __init__(self, domains: Mapping[str, Domain], structure_weight: float, code_weight: float) -> None:
        self._domains = dict(domains)
        self._weights = structure_weight, code_weight
        self._blocks: dict[str, np.ndarray] = {}
        self.dim = sum(len(self._block(d, d.baseline())) for d in self._domains.values())

    def _block(self, domain: Domain, component: Any) -> np.ndarray:
        known = self._blocks.get(component.hash)
        if known is None:
            structure = np.asarray(domain.features(component), dtype=np.float64)
            parts = [self._weights[0] * structure / max(1.0, np.sqrt(structure.size / 2))]
            if domain.baseline().files:
                source = "\n".join(component.files.values())
                parts.append(self._weights[1] * code_embedding(source))
            known = self._blocks[component.hash] = np.concatenate(parts)
        return known

    def __call__(self, candidate: Candidate) -> np.ndarray:
        """float64[dim]."""
        return np.concatenate([self._block(d, candidate[name]) for name, d in self._domains.items()])
