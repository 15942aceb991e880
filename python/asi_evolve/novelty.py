"""Novelty: mean distance to the k nearest neighbours in an archive that only grows (Lehman & Stanley 2011)."""

from __future__ import annotations

import functools
import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asi_evolve.candidate import Candidate
from asi_evolve.domain import Domain

CODE_DIMENSIONS = 64
_TOKEN = re.compile(r"[A-Za-z_]\w*|\d+\.?\d*|[^\s\w]")


class Archive:
    """Every point ever added, with exact k-nearest-neighbour distances of all members kept current.

    Distances are FAISS's. Small archives are scanned whole. Larger ones are filtered first: two points are at least as
    far apart as their projections on the leading principal components, together with the difference of what these
    leave out, so a scan of a few columns rules out nearly all members and distances are taken to the rest. The result
    is exact whatever the data; data that spread evenly in all directions take the time of a whole scan. Where FAISS has
    a GPU, queries go to a flat index there.

    Args:
        dim: length of the points.
        k: neighbours averaged.
        metric: ``l2`` (Euclidean) or ``cosine`` (1 - cosine similarity; zero vectors are at distance 1 from all others
            and 0 from each other).

    Raises:
        ValueError: a bad argument, a point of another length or with non-finite entries.
    """

    def __init__(self, dim: int, k: int = 5, metric: str = "l2") -> None:
        if dim < 1 or k < 1:
            raise ValueError(f"dim and k: at least 1, got {dim} and {k}")
        if metric not in ("l2", "cosine"):
            raise ValueError(f"metric: {metric!r} is not one of 'l2', 'cosine'")
        self.dim, self.k, self.metric = dim, k, metric
        # Cosine distance is half the squared distance of unit vectors; a zero vector gets a direction of its own.
        self._width = dim if metric == "l2" else dim + 1
        self._count = 0
        self._points = np.zeros((0, self._width), np.float32)
        self._nearest = np.zeros((0, k))  # sorted Euclidean distances of each member to its k nearest others
        self._filter: _Filter | None = None
        self._gpu = _gpu_index(self._width)

    def __len__(self) -> int:
        return self._count

    def novelty(self, x: Any) -> float:
        """Mean distance from ``x`` to its k nearest members (all members while there are fewer; inf when empty)."""
        if not len(self):
            return float("inf")
        _, distances = self._search(self._point(x), min(self.k, len(self)))
        return float(self._shown(distances).mean())

    def nearest(self, x: Any) -> tuple[int, float]:
        """Position (in order of addition) of the nearest member and its distance; (-1, inf) when empty."""
        if not len(self):
            return -1, float("inf")
        members, distances = self._search(self._point(x), 1)
        return int(members[0]), float(self._shown(distances)[0])

    def add(self, x: Any) -> float:
        """Adds ``x`` and returns the novelty it had on arrival."""
        return self.insert(x)[0]

    def insert(self, x: Any) -> tuple[float, np.ndarray]:
        """Adds ``x``; returns the novelty it had on arrival and the members (int64) whose novelty it changed."""
        point = self._point(x)
        n = self._count
        self._grow()
        row = np.full(self.k, np.inf)
        changed = np.zeros(0, np.int64)
        if n:
            members, distances = self._around(point, self.k, reached=True)
            row[: min(self.k, n)] = np.sort(_smallest(distances, self.k))
            closer = distances < self._nearest[members, -1]
            changed = members[closer]
            merged = np.concatenate([self._nearest[changed], distances[closer, None]], axis=1)
            self._nearest[changed] = np.sort(merged, axis=1)[:, : self.k]
        self._points[n], self._nearest[n] = point, row
        self._count = n + 1
        self._index(point, changed)
        return (float(self._shown(row[np.isfinite(row)]).mean()) if n else float("inf")), changed

    def novelties(self, members: Any = None) -> np.ndarray:
        """Current novelty of every member in order of addition, or of those named: float64; inf for a single one."""
        nearest = self._nearest[: self._count] if members is None else self._nearest[np.asarray(members, np.int64)]
        known = np.isfinite(nearest)
        total = np.where(known, self._shown(nearest), 0.0).sum(axis=1)
        count = known.sum(axis=1)
        mean: np.ndarray = np.divide(total, count, out=np.full(len(nearest), np.inf), where=count > 0)
        return mean

    def save(self, path: str | Path) -> None:
        """Writes the archive to one file (NumPy's npz), whole or not at all."""
        part = Path(f"{path}.part")
        with open(part, "wb") as file:
            np.savez(
                file,
                points=self._points[: self._count],
                nearest=self._nearest[: self._count],
                dim=self.dim,
                k=self.k,
                metric=self.metric,
            )
        part.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Archive:
        """An archive as it was saved. Raises OSError or ValueError when the file is not one."""
        try:
            with np.load(path, allow_pickle=False) as saved:
                archive = cls(int(saved["dim"]), int(saved["k"]), str(saved["metric"]))
                points, nearest = saved["points"], saved["nearest"]
        except (KeyError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a saved archive: {error}") from None
        if points.shape != (len(nearest), archive._width) or nearest.shape[1] != archive.k:
            raise ValueError(f"{path}: not a saved archive: shapes {points.shape} and {nearest.shape} do not fit")
        archive._points, archive._nearest, archive._count = points.astype(np.float32), nearest, len(points)
        if archive._gpu is not None:
            archive._gpu.add(archive._points)
        archive._refit()
        return archive

    # -- how it is done -----------------------------------------------------------------------------------------------

    def _point(self, x: Any) -> np.ndarray:
        point = np.ascontiguousarray(x, dtype=np.float32).reshape(-1)
        if point.shape != (self.dim,):
            raise ValueError(f"x: {point.size} entries, the archive has dim {self.dim}")
        if not np.isfinite(point).all():
            raise ValueError(f"x: entry {int(np.flatnonzero(~np.isfinite(point))[0])} is not finite")
        if self.metric == "cosine":
            norm = float(np.linalg.norm(point.astype(np.float64)))
            point = np.append(point / norm if norm > 0 else point, np.float32(norm == 0)).astype(np.float32)
        return point

    def _shown(self, distances: np.ndarray) -> np.ndarray:
        """Euclidean distances as those of the metric."""
        return distances if self.metric == "l2" else distances * distances / 2

    def _grow(self) -> None:
        if self._count == len(self._points):
            more = max(256, self._count)
            self._points = np.concatenate([self._points, np.zeros((more, self._width), np.float32)])
            self._nearest = np.concatenate([self._nearest, np.full((more, self.k), np.inf)])

    def _index(self, point: np.ndarray, changed: np.ndarray) -> None:
        """Makes the newest point findable."""
        if self._gpu is not None:
            self._gpu.add(point[None])
        if self._filter is None:
            self._refit()
        else:
            fits = self._filter.append(point, self._nearest[self._count - 1, -1])
            self._filter.reach(changed, self._nearest[changed, -1])
            if not fits or self._count >= 2 * self._filter.fitted:
                self._refit()

    def _refit(self) -> None:
        if self._count >= _FLAT:
            self._filter = _Filter(self._points[: self._count], self._nearest[: self._count, -1])

    def _search(self, point: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest ``count`` members, nearest first, and their Euclidean distances."""
        if self._gpu is not None:
            squares, found = self._gpu.search(point[None], count)
            return found[0], np.sqrt(np.maximum(0.0, squares[0].astype(np.float64)))
        members, distances = self._around(point, count, reached=False)
        if count < len(distances):  # members are in order, so that of equals the earliest comes first
            near = np.flatnonzero(distances <= _smallest(distances, count).max())
            members, distances = members[near], distances[near]
        order = np.argsort(distances, kind="stable")[:count]
        return members[order], distances[order]

    def _around(self, point: np.ndarray, count: int, reached: bool) -> tuple[np.ndarray, np.ndarray]:
        """Members among which are the nearest ``count`` and, with ``reached``, all that have ``point`` nearer than
        their k-th neighbour; and their Euclidean distances."""
        points = self._points[: self._count]
        members = None if self._filter is None else self._filter.members(points, point, count, reached)
        if members is None:
            return np.arange(self._count), _distances(points, point)
        return members, _distances(points[members], point)


def _smallest(x: np.ndarray, count: int) -> np.ndarray:
    return np.partition(x, count - 1)[:count] if count < len(x) else x


_FLAT = 8192  # members; a scan of fewer takes less time than the filter
_COLUMNS = 32  # of the projection


def _distances(points: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Euclidean distances (float64) of x to the points (n, width), float32 and contiguous. FAISS's kernel sums squared
    differences, without the cancellation of inner products, and on one thread: on a busy machine waiting for a second
    one costs more than the whole scan."""
    import faiss  # takes 0.2 s, so not at import of the package

    squares = np.empty(len(points), np.float32)
    pointers = map(faiss.swig_ptr, (squares, x, points))
    faiss.fvec_L2sqr_ny(*pointers, points.shape[1], len(points))  # type: ignore[attr-defined]
    return np.sqrt(squares.astype(np.float64))


class _Filter:
    """Lower bounds of distances from a few columns: |x - y|^2 >= |P x - P y|^2 + (|x - P x| - |y - P y|)^2."""

    def __init__(self, points: np.ndarray, reach: np.ndarray) -> None:
        self.fitted = self._count = len(points)
        sample = points[:: max(1, len(points) // 4096)].astype(np.float64)
        self._mean = sample.mean(axis=0)
        _, axes = np.linalg.eigh(np.cov(sample, rowvar=False).reshape(points.shape[1], -1))
        self._axes = axes[:, ::-1][:, : _COLUMNS - 1]
        self._columns = self._project(points)
        largest = float(np.linalg.norm(self._columns, axis=1).max(initial=0.0))
        # Columns are float32: off by 6e-8 of their size, which may be a hundred times what it is now.
        self._furthest, self._slack = 100 * largest, 5e-5 * largest
        self._reach = reach + self._slack

    def _project(self, points: np.ndarray) -> np.ndarray:
        centred = points.astype(np.float64) - self._mean
        inside = centred @ self._axes
        rest = np.einsum("ij,ij->i", centred, centred) - np.einsum("ij,ij->i", inside, inside)
        return np.concatenate([inside, np.sqrt(np.maximum(0.0, rest))[:, None]], axis=1).astype(np.float32)

    def append(self, point: np.ndarray, reach: float) -> bool:
        """Adds a member; False when it lies too far out for the bounds, and a new filter is needed."""
        if self._count == len(self._columns):
            room = self._count
            self._columns = np.concatenate([self._columns, np.zeros((room, self._columns.shape[1]), np.float32)])
            self._reach = np.concatenate([self._reach, np.zeros(room)])
        row = self._project(point[None])[0]
        self._columns[self._count] = row
        self._reach[self._count] = reach + self._slack
        self._count += 1
        return float(np.linalg.norm(row)) <= self._furthest

    def reach(self, members: np.ndarray, distances: np.ndarray) -> None:
        """New distances of members to their k-th neighbours."""
        self._reach[members] = distances + self._slack

    def members(self, points: np.ndarray, x: np.ndarray, count: int, reached: bool) -> np.ndarray | None:
        """Members among which are the ``count`` nearest to x and, with ``reached``, all that have x in their reach;
        None when that would be most of them."""
        row = self._project(x[None])[0]
        n = self._count
        if count >= n or not np.linalg.norm(row) <= self._furthest:
            return None
        bounds = _distances(self._columns[:n], row)
        likely = np.argpartition(bounds, count - 1)[:count]
        limit = _distances(points[likely], x).max() + self._slack
        found = np.flatnonzero(bounds <= (np.maximum(self._reach[:n], limit) if reached else limit))
        return found if len(found) < n // 4 else None


def _gpu_index(width: int) -> Any:
    """A flat index on the first GPU that FAISS has, or None."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        return None
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, faiss.IndexFlatL2(width))


def code_embedding(*texts: str) -> np.ndarray:
    """Signed feature hashing (Weinberger et al. 2009) of the token 1- to 3-grams of all texts, L2-normalised: float64
    [CODE_DIMENSIONS]."""
    vector: np.ndarray = sum((_hashed(text) for text in texts), np.zeros(CODE_DIMENSIONS))
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector


@functools.lru_cache(maxsize=4096)
def _hashed(text: str) -> np.ndarray:
    tokens = _TOKEN.findall(text)
    vector = np.zeros(CODE_DIMENSIONS)
    for n in (1, 2, 3):
        for i in range(len(tokens) - n + 1):
            digest = hashlib.blake2b("\0".join(tokens[i : i + n]).encode(), digest_size=8).digest()
            value = int.from_bytes(digest, "little")
            vector[value % CODE_DIMENSIONS] += 1.0 if value >> 63 else -1.0
    return vector


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
                parts.append(self._weights[1] * code_embedding(*component.files.values()))
            known = self._blocks[component.hash] = np.concatenate(parts)
        return known

    def __call__(self, candidate: Candidate) -> np.ndarray:
        """float64[dim]."""
        return np.concatenate([self._block(d, candidate[name]) for name, d in self._domains.items()])
