"""Near-duplicates: clusters inside the pool (MinHash LSH), and exact search between pool and held-out.

Shingles are windows of five words. Inside the pool, where duplicates are kept and only marked, MinHash (Broder 1997)
with LSH banding is enough. Across the split nothing may slip through: every shingle of the small held-out set is in an
index there, and shared shingles are counted, not estimated.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

SHINGLE = 5  # words
NEAR = 0.5  # Jaccard similarity of shingle sets from which two documents count as near-duplicates
CONTAINED = 0.2  # share of a document's shingles found in one on the other side of the split

_WORD = re.compile(rb"\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
PERMUTATIONS = 64
_BANDS = 16  # of 4 rows: the threshold (1/16)^(1/4) is 0.5


def shingles(text: bytes) -> np.ndarray:
    """Distinct 64-bit hashes of the text's shingles, sorted: uint64[n]. A shorter text is one shingle."""
    words = np.fromiter(map(zlib.crc32, _WORD.findall(text.lower())), np.uint64)
    if len(words) == 0:
        return np.array([zlib.crc32(text)], np.uint64)
    size = min(SHINGLE, len(words))
    value = np.zeros(len(words) - size + 1, np.uint64)
    for i in range(size):
        value = (value ^ words[i : len(words) - size + 1 + i]) * _MULTIPLIER
        value ^= value >> np.uint64(29)
    return np.unique(value)


def _low(value: np.uint64) -> int:
    return int(value) & 0xFFFFFFFF


@lru_cache(maxsize=1)
def _empty() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, hashfunc=_low)


def signature(values: np.ndarray) -> np.ndarray:
    """MinHash of a shingle set (uint64[n]): uint32[PERMUTATIONS]."""
    own = _empty().copy()
    own.update_batch(values)
    return np.asarray(own.hashvalues, np.uint32)


def near_groups(shingled: Sequence[np.ndarray]) -> np.ndarray:
    """Cluster number of every document, from its shingles: see :func:`clusters`."""
    return clusters(np.array([signature(values) for values in shingled], np.uint32).reshape(-1, PERMUTATIONS))


def clusters(signatures: np.ndarray) -> np.ndarray:
    """Cluster number of every document: int32[n], the lowest index in its cluster.

    Candidate pairs come from MinHash LSH and are confirmed by their estimated Jaccard similarity. Signatures are
    datasketch's; its index is a dictionary of kilobytes per document, so the bands are sorted here instead.

    Args:
        signatures: uint32[n, PERMUTATIONS], what :func:`signature` gives; may be memory-mapped.
    """
    parent = np.arange(len(signatures), dtype=np.int32)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    rows = PERMUTATIONS // _BANDS
    for band in range(_BANDS):
        keys = np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows]).view(f"V{4 * rows}").ravel()
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        for at in np.flatnonzero(same):
            a, b = int(order[at]), int(order[at + 1])
            if np.mean(signatures[a] == signatures[b]) >= NEAR:
                ra, rb = sorted((root(a), root(b)))
                parent[rb] = ra
    return np.array([root(i) for i in range(len(parent))], np.int32)


class HeldOutIndex:
    """Every shingle of the held-out documents.

    Args:
        shingled: per held-out document, what :func:`shingles` gives.
    """

    def __init__(self, shingled: Sequence[np.ndarray]) -> None:
        self._sizes = np.array([len(s) for s in shingled])
        values = np.concatenate(shingled) if len(shingled) else np.zeros(0, np.uint64)
        owners = np.repeat(np.arange(len(shingled)), self._sizes)
        order = np.argsort(values, kind="stable")
        self._values, self._owners = values[order], owners[order]

    def overlaps(self, values: np.ndarray) -> bool:
        """Whether a document shares too much with any held-out document: a fifth of the shingles of either, or with all
        of them together a fifth of its own."""
        left = np.searchsorted(self._values, values, "left")
        right = np.searchsorted(self._values, values, "right")
        hit = right > left
        if not hit.any():
            return False
        if hit.mean() >= CONTAINED:
            return True
        owners = np.concatenate([self._owners[a:b] for a, b in zip(left[hit], right[hit], strict=True)])
        counts = np.bincount(owners, minlength=len(self._sizes))
        return bool((counts >= np.maximum(CONTAINED * self._sizes, 1)).any())
