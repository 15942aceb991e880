"""The data pipeline: documents from JSON Lines, filters, quality, deduplication, weights, and windows of bytes.

A line of the file is an object with ``text`` and, if there are several kinds of documents, ``source``. The pipeline's
parameters are in curation/params.json, its steps in curation/pipeline.py, its code in curation/filter.py and score.py.

    python data.py FILE.jsonl      says what the pipeline keeps
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from curation.dedup import near_groups, shingles  # noqa: E402
from curation.filter import filter as keep  # noqa: E402
from curation.language import LanguageId  # noqa: E402
from curation.pipeline import LIKE_REFERENCE, Selection, passes, select  # noqa: E402
from curation.quality import reference_scores  # noqa: E402
from curation.score import score  # noqa: E402
from curation.statistics import NAMES, statistics  # noqa: E402
from curation.windows import draw_windows  # noqa: E402

PARAMS = json.loads((HERE / "curation" / "params.json").read_text(encoding="utf-8"))
MAX_DOCUMENT = 8192  # bytes; longer texts are cut at line ends


@dataclass
class Pool:
    """All documents: ``text[offsets[i]:offsets[i + 1]]`` is document i, of source ``sources[source_ids[i]]``."""

    text: np.ndarray
    offsets: np.ndarray
    source_ids: np.ndarray
    sources: list


def read(path, text_field="text"):
    """The documents of a JSON Lines file. Raises ValueError naming the line that is wrong."""
    pieces = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                text, source = row[text_field], str(row.get("source", Path(path).stem))
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise ValueError(f"{path}: line {number}: {error!r}; need an object with {text_field!r}") from None
            pieces += [(source, part) for part in _cut(text.encode("utf-8", "replace").strip(b"\n"))]
    if not pieces:
        raise ValueError(f"{path}: no document")
    sources = sorted({source for source, _ in pieces})
    return Pool(
        np.frombuffer(b"".join(data for _, data in pieces), np.uint8),
        np.concatenate([[0], np.cumsum([len(data) for _, data in pieces])]).astype(np.int64),
        np.array([sources.index(source) for source, _ in pieces], np.int32),
        sources,
    )


def _cut(data):
    while len(data) > MAX_DOCUMENT:
        at = data.rfind(b"\n", MAX_DOCUMENT // 2, MAX_DOCUMENT) + 1 or MAX_DOCUMENT
        yield data[:at]
        data = data[at:]
    if data.strip():
        yield data


def curate(pool, params=None):
    """Runs the pipeline on a pool: the documents kept and how often each is drawn. ValueError: none is kept."""
    params = PARAMS if params is None else params
    count = len(pool.offsets) - 1
    language = LanguageId() if params["language"] != "any" else None
    texts = [pool.text[pool.offsets[i] : pool.offsets[i + 1]].tobytes() for i in range(count)]
    table = np.array([statistics(t) for t in texts], np.float32)
    columns = {name: table[:, i] for i, name in enumerate(NAMES)}
    if params["language"] != "any":
        columns["language"] = np.array([language(t) for t in texts])
    if params["quality"] in LIKE_REFERENCE and params["quality_strength"]:
        if params["reference"] not in pool.sources:
            raise ValueError(f"reference: no documents of source {params['reference']!r}")
        like = reference_scores(texts, pool.source_ids == pool.sources.index(params["reference"]))
        columns |= dict(zip(LIKE_REFERENCE, like.T, strict=True))
    exact = near = np.arange(count)
    if params["deduplicate"] == "exact":
        first = {}
        exact = np.array([first.setdefault(hashlib.sha256(t).digest(), i) for i, t in enumerate(texts)])
    elif params["deduplicate"] == "near":
        near = near_groups([shingles(t) for t in texts])
    kept, scores = np.zeros(count, bool), np.zeros(count)
    for i in np.flatnonzero(passes(columns, params)):
        document = {"text": texts[i].decode("utf-8", "replace"), "source": pool.sources[pool.source_ids[i]]}
        kept[i] = bool(keep(dict(document)))
        if kept[i]:
            scores[i] = float(score(document))
    selection = select(columns, pool.source_ids, pool.sources, exact, near, params=params, kept=kept, scores=scores)
    if not len(selection.documents):
        raise ValueError("the pipeline keeps no document")
    return selection


def windows(pool, selection, count, length, *, seed=0, data_seed=0):
    """``count`` windows of ``length + 1`` bytes: uint8 (count, length + 1), in the order they are trained on."""
    rng = np.random.default_rng([data_seed, seed, 1])
    return draw_windows(
        pool.text,
        pool.offsets,
        pool.source_ids,
        selection.documents,
        selection.weights,
        count,
        length,
        rng,
        max_repeats=PARAMS["max_repeats"],
        order=PARAMS["order"],
    )


def describe(pool, selection: Selection):
    """Documents kept and share of the drawn bytes, per source: a text of one line each."""
    sizes = np.diff(pool.offsets)[selection.documents] * selection.weights
    ids = pool.source_ids[selection.documents]
    return "\n".join(
        f"{name}: {int((ids == i).sum())} of {int((pool.source_ids == i).sum())} documents kept, "
        f"{sizes[ids == i].sum() / sizes.sum():.1%} of the bytes drawn"
        for i, name in enumerate(pool.sources)
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python data.py FILE.jsonl")
    whole = read(sys.argv[1])
    print(describe(whole, curate(whole)))
