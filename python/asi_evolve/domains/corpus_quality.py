"""How much a document is like a reference set, by two small models that need numpy alone.

Both are cross-fitted: each half of the documents (by content hash, so copies stay together) is scored by models of the
other half, so that a member of the reference set gains nothing from being one.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence

import numpy as np

_BUCKETS = 1 << 15  # of the classifier
_WORD = re.compile(rb"[a-z]+|[0-9]+|[^a-z0-9\s]")
_CONTEXTS = 1 << 22  # of the language model
_PRIOR = 4.0  # weight of the lower order, in observations


def reference_scores(texts: Sequence[bytes], reference: np.ndarray) -> np.ndarray:
    """Two scores per document, larger is more like the reference: float64[documents, 2].

    - ``classifier``: mean log odds of its words and word pairs, hashed, between reference and all other documents
      (naive Bayes on n-gram hashes: the features of fastText, Joulin et al. 2016, as quality filters use them).
    - ``likelihood``: mean log2 probability of its bytes under a byte 4-gram model of the reference, interpolated with
      the bigram (the perplexity filter of CCNet, Wenzek et al. 2019, with a smaller model).

    Args:
        texts: the documents; read twice, in order.
        reference: bool[documents], which of them are the reference set.

    Raises:
        ValueError: no document, or every document, of one half is in the reference set.
    """
    half = np.array([zlib.crc32(t) >> 16 & 1 for t in texts])
    for h in (0, 1):
        inside = reference[half == h]
        if not inside.any() or inside.all():
            raise ValueError(
                f"reference: {int(reference.sum())} of {len(texts)} documents cannot be told from the rest"
            )
    # Two passes, one document in memory at a time: the pool may be larger than memory.
    counts = np.ones((2, 2, _BUCKETS))
    models = (_Ngram(), _Ngram())
    for i, text in enumerate(texts):
        counts[half[i], int(reference[i])] += np.bincount(_grams(text), minlength=_BUCKETS)
        if reference[i]:
            models[half[i]].add(text)
    log = np.log(counts / counts.sum(axis=2, keepdims=True))
    odds = log[:, 1] - log[:, 0]
    scores = np.zeros((len(texts), 2))
    for i, text in enumerate(texts):
        other, grams = 1 - half[i], _grams(text)
        scores[i, 0] = odds[other][grams].mean() if len(grams) else 0.0
        scores[i, 1] = models[other].log_probability(text)
    return scores


def _grams(text: bytes) -> np.ndarray:
    words: list[bytes] = _WORD.findall(text.lower())
    pairs = [a + b" " + b for a, b in itertools.pairwise(words)]
    return np.array([zlib.crc32(g) % _BUCKETS for g in (*words, *pairs)], np.int64)


class _Ngram:
    """Counts of byte pairs and, hashed, of byte 4-grams."""

    def __init__(self) -> None:
        self._pairs, self._after = np.zeros((256, 256)), np.zeros(256)
        self._contexts, self._grams = np.zeros(_CONTEXTS, np.float32), np.zeros(_CONTEXTS, np.float32)

    def add(self, text: bytes) -> None:
        """Counts a text."""
        x = np.frombuffer(text, np.uint8)
        if len(x) < 4:
            return
        pairs = np.bincount(self._pair(x), minlength=1 << 16).reshape(256, 256)
        self._pairs += pairs
        self._after += pairs.sum(axis=1)
        for counts, buckets in zip((self._contexts, self._grams), self._hashed(x), strict=True):
            at, number = np.unique(buckets, return_counts=True)
            counts[at] += number

    @staticmethod
    def _pair(x: np.ndarray) -> np.ndarray:
        return np.asarray(x[2:-1].astype(np.int64) * 256 + x[3:])

    @staticmethod
    def _hashed(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Buckets of the three bytes before each position from the fourth on, and of these with the byte itself."""
        y = x.astype(np.uint64)
        context = y[:-3] << np.uint64(16) | y[1:-2] << np.uint64(8) | y[2:-1]
        gram = context << np.uint64(8) | y[3:]
        mix = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth, volume 3, section 6.4)
        shift = np.uint64(64 - 22)
        return ((context * mix) >> shift).astype(np.int64), ((gram * mix) >> shift).astype(np.int64)

    def log_probability(self, text: bytes) -> float:
        """Mean log2 probability of a byte; 0 for texts too short to have one."""
        x = np.frombuffer(text, np.uint8)
        if len(x) < 4:
            return 0.0
        before, byte = x[2:-1], x[3:]
        lower = (self._pairs[before, byte] + _PRIOR / 256) / (self._after[before] + _PRIOR)
        context, gram = self._hashed(x)
        p = (self._grams[gram] + _PRIOR * lower) / (self._contexts[context] + _PRIOR)
        return float(np.log2(np.minimum(p, 1.0)).mean())
