"""Windows of training bytes drawn from selected documents. Needs numpy alone."""

from __future__ import annotations

import numpy as np


def draw_windows(
    text: np.ndarray,
    offsets: np.ndarray,
    source_ids: np.ndarray,
    documents: np.ndarray,
    weights: np.ndarray,
    count: int,
    length: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Windows of bytes: uint8 (count, length + 1).

    The selected documents are laid end to end, shuffled within their source, and windows start at a byte drawn by its
    document's weight.

    Args:
        text: uint8, all documents of the pool one after the other.
        offsets: document i is ``text[offsets[i]:offsets[i + 1]]``.
        source_ids: int[documents of the pool].
        documents: indices of the documents selected.
        weights: relative frequency of each selected document's bytes.
        count: number of windows.
        length: bytes that a model reads; a window has one more, to predict.
        rng: of the draws.
    """
    order = np.lexsort((rng.random(len(documents)), source_ids[documents]))
    documents, weights = documents[order], weights[order]
    sizes = (offsets[documents + 1] - offsets[documents]).astype(np.int64)
    ends = np.cumsum(sizes)
    share = weights * sizes
    chosen = rng.choice(len(documents), size=count, p=share / share.sum())
    starts = ends[chosen] - sizes[chosen] + (rng.random(count) * sizes[chosen]).astype(np.int64)
    # Every byte of every window: where in the row of documents, then where in the pool.
    at = (starts[:, None] + np.arange(length + 1)) % ends[-1]
    document = np.searchsorted(ends, at, side="right")
    within = at - (ends[document] - sizes[document])
    return np.asarray(text[offsets[documents[document]] + within])
