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
    *,
    max_repeats: float = 0,
    order: str = "random",
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
        max_repeats: how often the bytes of a document may be expected to be drawn; the others take up what is left.
            0 sets no limit, and there is none when all documents together are not enough (Muennighoff et al. 2023 find
            little lost up to about 4).
        order: ``random``, or ``short_first`` / ``long_first`` by the size of the document a window starts in.
    """
    by_source = np.lexsort((rng.random(len(documents)), source_ids[documents]))
    documents, weights = documents[by_source], weights[by_source]
    sizes = (offsets[documents + 1] - offsets[documents]).astype(np.int64)
    ends = np.cumsum(sizes)
    share = weights * sizes / (weights * sizes).sum()
    if max_repeats:
        share = limited(share, max_repeats * sizes / (count * length))
    chosen = rng.choice(len(documents), size=count, p=share / share.sum())
    if order != "random":
        chosen = chosen[np.argsort(sizes[chosen] * (1 if order == "short_first" else -1), kind="stable")]
    starts = ends[chosen] - sizes[chosen] + (rng.random(count) * sizes[chosen]).astype(np.int64)
    # Every byte of every window: where in the row of documents, then where in the pool.
    at = (starts[:, None] + np.arange(length + 1)) % ends[-1]
    document = np.searchsorted(ends, at, side="right")
    within = at - (ends[document] - sizes[document])
    return np.asarray(text[offsets[documents[document]] + within])


def limited(share: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Shares (float64[n], sum 1) cut down to ``most``, what is cut given to the others in proportion; ``share`` as it
    is when the limits leave no room."""
    if most.sum() <= 1:
        return share
    full = np.zeros(len(share), bool)
    scaled = share
    while True:
        left = 1 - most[full].sum()
        scaled = np.where(full, most, share * (left / share[~full].sum()))
        over = ~full & (scaled > most)
        if not over.any():
            return scaled
        full |= over
