"""The data pipeline itself: filters, quality, deduplication and weights, as array operations on document statistics.

Needs numpy alone. The pipeline can only say which documents are drawn and how often: their text is never in its hands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

QUALITIES = ("none", "prose", "letters", "plain", "dense")


@dataclass(frozen=True)
class Selection:
    """Which documents are drawn and how often.

    Attributes:
        documents: int64[n], indices of the documents kept, ascending.
        weights: float64[n], relative frequency of each kept document's bytes; positive.
    """

    documents: np.ndarray
    weights: np.ndarray


def passes(statistics: Mapping[str, np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
    """The heuristic filters: bool[documents]. ``statistics`` has a float array per name."""
    keep: np.ndarray = statistics["bytes"] >= params["min_bytes"]
    keep &= statistics["alpha"] >= params["min_alpha"]
    keep &= statistics["digit"] <= params["max_digit"]
    keep &= statistics["symbol"] <= params["max_symbol"]
    keep &= statistics["repeated_lines"] <= params["max_repeated_lines"]
    keep &= statistics["stop_words"] >= params["min_stop_words"]
    return keep


def quality(statistics: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A quality score per document, standardised to mean 0 and deviation 1 over the pool: float64[documents]."""
    s = {k: np.asarray(v, np.float64) for k, v in statistics.items()}
    if name == "prose":  # English sentences: function words, ends of sentences, words of a usual length
        score = 4 * s["stop_words"] + s["sentences"] - 0.1 * np.abs(s["word_length"] - 5)
    elif name == "letters":
        score = s["alpha"] - s["digit"] - s["symbol"]
    elif name == "plain":  # few symbols, no repetition
        score = -s["symbol"] - s["repeated_lines"]
    elif name == "dense":  # little redundancy
        score = s["compression"]
    else:
        return np.zeros(len(s["bytes"]))
    deviation = score.std()
    return (score - score.mean()) / deviation if deviation > 0 else np.zeros(len(score))


def first_of_group(groups: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """``keep`` with only the first kept document of every group."""
    at = np.flatnonzero(keep)
    _, first = np.unique(groups[at], return_index=True)
    result = np.zeros(len(keep), bool)
    result[at[first]] = True
    return result


def select(
    statistics: Mapping[str, np.ndarray],
    source_ids: np.ndarray,
    sources: Sequence[str],
    exact_groups: np.ndarray,
    near_groups: np.ndarray,
    *,
    params: Mapping[str, Any],
    kept: np.ndarray | None = None,
    scores: np.ndarray | None = None,
) -> Selection:
    """Runs the pipeline: filters, code filter, deduplication, then weights.

    The weight of a document's bytes is w_source * exp(strength * quality) * score, where w_source is the weight of its
    source, divided by (bytes of the source kept) ** (1 - 1 / temperature): temperature 1 leaves the sources' sizes as
    they are, a high one makes them equal (the mixing temperature of Devlin 2018 / Arivazhagan et al. 2019).

    Args:
        statistics: per name a float array [documents], see :mod:`asi_evolve.domains.corpus_statistics`.
        source_ids: int[documents] into ``sources``.
        sources: names of the sources.
        exact_groups, near_groups: duplicate clusters.
        params: the data domain's parameters.
        kept: bool[documents], answers of the code filter.
        scores: float[documents], answers of the code score, at least 0.

    Returns:
        The selection; possibly empty.
    """
    keep = passes(statistics, params)
    if kept is not None:
        keep &= kept
    if params["deduplicate"] != "none":
        keep = first_of_group(exact_groups if params["deduplicate"] == "exact" else near_groups, keep)
    by_source = np.array([float(params.get(f"weight_{name}", 1.0)) for name in sources])
    weights = by_source[source_ids]
    weights = weights * np.exp(params["quality_strength"] * np.clip(quality(statistics, params["quality"]), -3, 3))
    if scores is not None:
        weights = weights * scores
    keep &= weights > 0
    sizes = np.bincount(source_ids[keep], statistics["bytes"][keep], minlength=len(sources))
    exponent = 1.0 - 1.0 / float(params["temperature"])
    weights = weights / np.maximum(sizes, 1.0)[source_ids] ** exponent
    documents = np.flatnonzero(keep)
    chosen = weights[documents]
    return Selection(documents, chosen / chosen.max() if len(chosen) else chosen)
