"""The data pipeline itself: filters, quality, deduplication and weights, as array operations on document statistics.

Needs numpy alone. The pipeline can only say which documents are drawn and how often: their text is never in its hands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

QUALITIES = ("none", "prose", "letters", "plain", "dense", "classifier", "likelihood")
LIKE_REFERENCE = ("classifier", "likelihood")  # qualities that compare with the documents of a source
RULES = ("none", "c4", "gopher", "fineweb", "all")


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
    """The heuristic filters: bool[documents]. ``statistics`` has an array per name, see :func:`select`."""
    keep: np.ndarray = statistics["bytes"] >= params["min_bytes"]
    keep &= statistics["alpha"] >= params["min_alpha"]
    keep &= statistics["digit"] <= params["max_digit"]
    keep &= statistics["symbol"] <= params["max_symbol"]
    keep &= statistics["repeated_lines"] <= params["max_repeated_lines"]
    keep &= statistics["stop_words"] >= params["min_stop_words"]
    keep &= rules(statistics, params["rules"])
    if params["language"] != "any":
        keep &= statistics["language"] == params["language"]
    return keep


def rules(s: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Published rules for web text, as far as they keep or drop whole documents: bool[documents].

    ``c4`` (Raffel et al. 2020, section 2.2): at least 3 sentences, no curly bracket; its cut of lines without terminal
    punctuation becomes: at least half of the lines have it. ``gopher`` (Rae et al. 2021, appendix A.1): 50 to 100,000
    words, mean length 3 to 10, few number signs and ellipses, not mostly bullets, words mostly alphabetic, two of eight
    English words, few repeated lines. ``fineweb`` (Penedo et al. 2024, section 3.5): at least 12 % of lines with
    terminal punctuation, at most 10 % of bytes in repeated lines, at most 67 % short lines. ``all``: all three.
    """
    every = np.ones(len(s["bytes"]), bool)
    if name in ("c4", "all"):
        every &= (s["full_stops"] >= 3) & (s["braces"] == 0) & (s["sentences"] >= 0.5)
    if name in ("gopher", "all"):
        every &= (s["words"] >= 50) & (s["words"] <= 100_000) & (s["word_length"] >= 3) & (s["word_length"] <= 10)
        every &= (s["symbol_words"] <= 0.1) & (s["bullet_lines"] <= 0.9) & (s["ellipsis_lines"] <= 0.3)
        every &= (s["alphabetic_words"] >= 0.8) & (s["required_words"] >= 2)
        every &= (s["repeated_lines"] <= 0.3) & (s["repeated_bytes"] <= 0.2)
    if name in ("fineweb", "all"):
        every &= (s["sentences"] >= 0.12) & (s["repeated_bytes"] <= 0.1) & (s["short_lines"] <= 0.67)
    return every


def quality(statistics: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A quality score per document, standardised to mean 0 and deviation 1 over the pool: float64[documents]."""
    s = {k: np.asarray(v, np.float64) for k, v in statistics.items() if k != "language"}
    if name == "prose":  # English sentences: function words, ends of sentences, words of a usual length
        score = 4 * s["stop_words"] + s["sentences"] - 0.1 * np.abs(s["word_length"] - 5)
    elif name == "letters":
        score = s["alpha"] - s["digit"] - s["symbol"]
    elif name == "plain":  # few symbols, no repetition
        score = -s["symbol"] - s["repeated_lines"]
    elif name == "dense":  # little redundancy
        score = s["compression"]
    elif name in LIKE_REFERENCE:
        score = s[name]
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
        statistics: per name a float array [documents], see :mod:`asi_evolve.domains.corpus_statistics`; for a quality
            of :data:`LIKE_REFERENCE` also its scores under its name, see :mod:`asi_evolve.domains.corpus_quality`;
            under ``language`` str[documents], ISO 639-1 codes, needed unless the parameter is "any".
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
    if params["quality_strength"]:
        score = quality(statistics, params["quality"])
        weights = weights * np.exp(params["quality_strength"] * np.clip(score, -3, 3))
    if scores is not None:
        weights = weights * scores
    keep &= weights > 0
    sizes = np.bincount(source_ids[keep], statistics["bytes"][keep], minlength=len(sources))
    exponent = 1.0 - 1.0 / float(params["temperature"])
    weights = weights / np.maximum(sizes, 1.0)[source_ids] ** exponent
    documents = np.flatnonzero(keep)
    chosen = weights[documents]
    return Selection(documents, chosen / chosen.max() if len(chosen) else chosen)
