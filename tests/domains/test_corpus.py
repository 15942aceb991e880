import gzip
import hashlib
import json
import random
import re
import tracemalloc

import numpy as np
import pytest

from asi_evolve.domains import corpus_readers, corpus_sources
from asi_evolve.domains.corpus import open_corpus
from asi_evolve.domains.corpus_build import MAX_DOCUMENT
from asi_evolve.domains.corpus_dedup import HeldOutIndex, near_groups, shingles
from asi_evolve.domains.corpus_statistics import NAMES, statistics
from asi_evolve.errors import CorpusError


def word_shingles(text):
    """An independent implementation: sets of five-word tuples."""
    words = re.findall(rb"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def check_split(corpus):
    held = [word_shingles(part) for part in corpus.held_out.tobytes().split(b"\n\n") if len(part) > 100]
    everything = set().union(*held)
    worst = 0.0
    for i in range(len(corpus)):
        own = word_shingles(corpus.document(i))
        if own & everything:
            worst = max(worst, *(len(own & other) / len(own | other) for other in held))
    return worst


def test_users_corpus(corpus_file, cache):
    corpus = open_corpus(str(corpus_file), cache)
    assert corpus.sources == ["copies", "noise", "prose"]
    assert len(corpus.held_out) >= 8000
    assert check_split(corpus) < 0.5
    # Duplicates stay in the pool and are marked.
    texts = [corpus.document(i) for i in range(len(corpus))]
    assert len(set(texts)) < len(texts)
    assert all(texts[i] == texts[g] for i, g in enumerate(corpus.exact_groups))
    assert len(np.unique(corpus.exact_groups)) == len(set(texts))
    assert len(np.unique(corpus.near_groups)) < len(set(texts))
    assert corpus.statistics.shape == (len(corpus), len(NAMES))
    manifest = corpus.manifest
    assert sum(s["bytes"] for s in manifest["sources"].values()) == manifest["pool"]["bytes"] == len(corpus.text)
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((corpus.directory / name).read_bytes()).hexdigest() == digest
    assert not [p for p in cache.iterdir() if p.is_dir() and not (p / "manifest.json").exists()]


def test_deterministic_and_cached(corpus_file, cache, tmp_path):
    first, again = open_corpus(str(corpus_file), cache), open_corpus(str(corpus_file), tmp_path)
    assert first.manifest == again.manifest
    stamp = (first.directory / "manifest.json").stat().st_mtime_ns
    assert (open_corpus(str(corpus_file), cache).directory / "manifest.json").stat().st_mtime_ns == stamp


def test_a_planted_near_duplicate_never_straddles(tmp_path, prose):
    rng = random.Random(1)
    texts = [prose(rng, 20) for _ in range(120)]
    texts += [t.replace("bytes", "octets") for t in texts]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"text": t}) for t in texts))
    corpus = open_corpus(str(path), tmp_path / "cache")
    assert corpus.manifest["pool"]["dropped_for_held_out"] > 0
    assert check_split(corpus) < 0.5


def test_bad_rows_are_skipped_and_reported(tmp_path, prose):
    rng = random.Random(2)
    rows = [json.dumps({"text": prose(rng, 20)}) for _ in range(100)]
    rows[3:3] = ["{not json", '{"body": 1}', '{"text": 7}', ""]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows))
    corpus = open_corpus(str(path), tmp_path / "cache")
    skipped = corpus.manifest["skipped"]
    assert skipped["rows"] == 3
    assert f"{path}: line 4" in skipped["examples"][0]
    assert f"3 rows could not be read and were skipped, first: {path}: line 4: not JSON" in corpus.notes()[-1]


def test_bad_input_names_file_and_what_is_allowed(tmp_path):
    def fails(path, match):
        with pytest.raises(CorpusError, match=match):
            open_corpus(str(path), tmp_path / "cache")

    fails(tmp_path / "missing.jsonl", r"missing\.jsonl: no such file.*\.parquet")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "nothing to read")
    (tmp_path / "x.docx").write_text("x")
    fails(tmp_path / "x.docx", r"x\.docx.*\.jsonl")
    (tmp_path / "all.jsonl").write_text("{}\n{}\n")
    fails(tmp_path / "all.jsonl", r"all\.jsonl: line 2: no text in field 'text'")
    (tmp_path / "small.txt").write_text("too little " * 100)
    fails(tmp_path / "small.txt", "too small")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense")
    fails(tmp_path / "broken.parquet", r"broken\.parquet")
    (tmp_path / "blocked").write_text("")
    with pytest.raises(CorpusError, match="blocked"):
        open_corpus(None, tmp_path / "blocked" / "cache")


def test_folder_of_text_and_parquet(tmp_path, prose):
    rng = random.Random(3)
    for folder in ("good", "bad"):
        (tmp_path / "texts" / folder).mkdir(parents=True)
        for i in range(70):
            (tmp_path / "texts" / folder / f"{i}.txt").write_text(prose(rng, 20))
    corpus = open_corpus(str(tmp_path / "texts"), tmp_path / "cache")
    assert corpus.sources == ["bad", "good"]
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"content": [prose(rng, 20) for _ in range(140)]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert len(open_corpus(str(tmp_path / "t.parquet"), tmp_path / "cache", text_field="content")) > 50


def test_compressed_lines_and_a_dataset_saved_to_disk(tmp_path, prose):
    rng = random.Random(5)
    texts = [prose(rng, 20) for _ in range(140)]
    with gzip.open(tmp_path / "web.jsonl.gz", "wt") as lines:
        lines.write("\n".join(json.dumps({"text": t}) for t in texts))
    corpus = open_corpus(str(tmp_path / "web.jsonl.gz"), tmp_path / "cache")
    assert corpus.sources == ["web"]
    pa = pytest.importorskip("pyarrow")
    folder = tmp_path / "saved"  # what datasets.Dataset.save_to_disk writes
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    (folder / "dataset_info.json").write_text("{}")
    table = pa.table({"text": [*texts[:70], None, *texts[70:]]})
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=32)
    (folder / "cache-17.arrow").write_bytes(b"an intermediate result of map()")
    saved = open_corpus(str(folder), tmp_path / "cache")
    assert saved.sources == ["saved"]
    assert saved.manifest["skipped"]["rows"] == 1
    np.testing.assert_array_equal(saved.text, corpus.text)
    np.testing.assert_array_equal(saved.held_out, corpus.held_out)
    (folder / "data-00000-of-00001.arrow").write_bytes(b"nonsense")
    with pytest.raises(CorpusError, match=r"data-00000-of-00001\.arrow"):
        open_corpus(str(folder), tmp_path / "cache")


def test_memory_does_not_grow_with_the_text(tmp_path):
    """A pool larger than memory works: seven times the text, less than a tenth of it more memory."""
    rng = random.Random(6)
    lines = [" ".join(f"w{rng.randrange(1 << 40):x}" for _ in range(640)) for _ in range(500)]

    def peak(name, count):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps({"text": t}) for t in lines[:count]))
        tracemalloc.start()
        corpus = open_corpus(str(path), tmp_path / "cache", held_out_bytes=20_000)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, len(corpus.text)

    peak("warm.jsonl", 60)  # tables of the language identifier, imports
    (small, small_bytes), (large, large_bytes) = peak("small.jsonl", 70), peak("large.jsonl", 500)
    assert large_bytes - small_bytes > 2_500_000
    assert large - small < (large_bytes - small_bytes) / 10


def test_text_files_are_read_in_blocks(tmp_path, monkeypatch):
    text = "".join(f"line {i} of a file\n" for i in range(2000))
    (tmp_path / "t.txt").write_text(text)
    monkeypatch.setattr(corpus_readers, "_BLOCK", 1000)
    pieces = list(corpus_readers.read(tmp_path / "t.txt", "text", corpus_readers.Skipped()))
    assert "".join(piece for _, piece in pieces) == text
    assert all(piece.endswith("\n") for _, piece in pieces)
    assert len(pieces) > 30
    (tmp_path / "t.txt").write_bytes(text.encode() + b"\xff\n" + text.encode())
    skipped = corpus_readers.Skipped()
    kept = "".join(piece for _, piece in corpus_readers.read(tmp_path / "t.txt", "text", skipped))
    assert skipped.count == 1
    assert f"byte {len(text)} is not UTF-8" in skipped.examples[0]
    assert len(kept) >= 2 * len(text) - 1200


def test_languages(tmp_path, prose):
    german = [
        "der",
        "die",
        "das",
        "und",
        "ist",
        "nicht",
        "mit",
        "auf",
        "eine",
        "einer",
        "wurde",
        "werden",
        "können",
        "möchte",
        "schnelle",
        "braune",
        "Fuchs",
        "springt",
        "über",
        "den",
        "faulen",
        "Hund",
        "Katze",
        "schläft",
        "zwischen",
        "Bäumen",
        "während",
        "es",
        "regnet",
    ]
    rng = random.Random(7)
    rows = [{"text": prose(rng, 20)} for _ in range(100)]
    rows += [{"text": "Fuchs " + " ".join(rng.choices(german, k=120))} for _ in range(80)]
    (tmp_path / "two.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = open_corpus(str(tmp_path / "two.jsonl"), tmp_path / "cache")
    assert corpus.languages == ["en", "de"]
    for i in range(len(corpus)):
        assert (corpus.language[i] == "de") == (b"Fuchs" in corpus.document(i))


def test_near_groups_against_exact_similarity(prose):
    rng = random.Random(4)
    texts = [prose(rng, 25).encode() for _ in range(40)]
    texts += [texts[i].replace(b"model", b"network") for i in range(10)] + texts[:5]
    groups = near_groups([shingles(t) for t in texts])
    exact = [word_shingles(t) for t in texts]
    for i in range(len(texts)):
        for j in range(i):
            similarity = len(exact[i] & exact[j]) / len(exact[i] | exact[j])
            if similarity > 0.8:
                assert groups[i] == groups[j]
            elif similarity < 0.2:
                assert groups[i] != groups[j]


def test_held_out_index_counts_both_ways(prose):
    rng = random.Random(5)
    a, b, other = (prose(rng, 60).encode() for _ in range(3))
    index = HeldOutIndex([shingles(a), shingles(b)])
    assert index.overlaps(shingles(a))
    assert index.overlaps(shingles(other + b" " + b))  # held-out text inside a longer document
    assert index.overlaps(shingles(b[: len(b) // 3]))  # a part of held-out text
    assert not index.overlaps(shingles(other))


def test_statistics():
    values = dict(zip(NAMES, statistics(b"The cat sat on it.\nThe cat sat on it.\n12 #\n"), strict=True))
    assert values["bytes"] == 43
    assert values["repeated_lines"] == pytest.approx(1 / 3)
    assert values["sentences"] == pytest.approx(2 / 3)
    assert values["digit"] == pytest.approx(2 / 43)
    assert values["stop_words"] == pytest.approx(6 / 10)
    assert all(np.isfinite(statistics(t)).all() for t in (b"x", b"\n", b"\xff\x00"))


def test_docstrings_and_their_removal():
    source = '"""A module docstring that is long enough to be kept by the rule of forty."""\nx = 1\n\n\n'
    source += 'def f():\n    """' + "words " * 60 + '"""\n    return "kept string"\n'
    (text,) = corpus_sources.docstrings(source.encode())
    assert "module docstring" in text
    assert "words words" in text
    rest = corpus_sources.without_docstrings(source)
    assert "docstring" not in rest
    assert "kept string" in rest
    assert corpus_sources.docstrings(b"def broken(:") == []


@pytest.mark.slow
def test_default_corpus(tmp_path):
    corpus = open_corpus(None, tmp_path)
    manifest = corpus.manifest
    assert manifest["pool"]["bytes"] >= 20_000_000
    assert len(manifest["sources"]) >= 5
    assert manifest["pool"]["exact_duplicates"] > 0
    assert manifest["pool"]["near_duplicates"] > 0
    assert np.diff(corpus.offsets).max() <= MAX_DOCUMENT
    assert check_split(corpus) < 0.5
    assert any("pyc" in path for path in corpus.hidden)
    # What is hidden is nowhere in the pool.
    pool = corpus.text.tobytes()
    held = corpus.held_out.tobytes()
    lines = [line for line in held.split(b"\n") if len(line) > 70]
    assert sum(line in pool for line in lines[:300]) < 0.05 * min(300, len(lines))
