"""A text corpus split into a pool that candidates select from and a held-out set that they never see.

On disk a corpus is a directory: ``pool/`` (text, offsets, sources, languages, statistics, duplicate groups),
``held-out/`` (text) and ``manifest.json``. It is built once, see :mod:`corpus_build`. The text is memory-mapped: it may
be larger than memory, what is known of each document may not.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from asi_evolve.domains import corpus_readers, corpus_sources
from asi_evolve.domains.corpus_build import FORMAT, OnProgress, build
from asi_evolve.domains.corpus_dedup import SHINGLE
from asi_evolve.domains.corpus_language import UNDECIDED
from asi_evolve.errors import CorpusError


def default_cache() -> Path:
    """``$ASI_EVOLVE_CACHE``, else ``asi-evolve`` in the user's cache directory."""
    if os.environ.get("ASI_EVOLVE_CACHE"):
        return Path(os.environ["ASI_EVOLVE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asi-evolve"


class Corpus:
    """An existing corpus. Use :func:`open_corpus`.

    Attributes:
        directory: where it is.
        manifest: format, name, fingerprint, sources (documents and bytes each), languages (documents each), pool and
            held-out sizes, counts of duplicates and of documents dropped because of held-out text in them, rows
            skipped, hidden files, and SHA-256 of every file.
        sources: names of the sources, in the order of ``source_ids``.
        languages: ISO 639-1 codes in which at least one document in a hundred is written, the commonest first.
        hidden: files that hold held-out text elsewhere on this machine, to be hidden from candidates.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
        except (OSError, ValueError) as error:
            raise CorpusError(f"corpus: {directory}: no readable manifest ({error})") from None
        self.sources: list[str] = list(self.manifest["sources"])
        counts: dict[str, int] = self.manifest["languages"]
        common = [c for c in counts if c not in UNDECIDED and counts[c] * 100 >= sum(counts.values())]
        self.languages = sorted(common, key=lambda code: (-counts[code], code))
        self.hidden: list[str] = list(self.manifest["hidden"])

    def _array(self, name: str) -> np.ndarray:
        try:
            array: np.ndarray = np.load(self.directory / name, mmap_mode="r", allow_pickle=False)
            return array
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"corpus: {self.directory / name}: {error}; delete the directory to build it anew"
            ) from None

    @cached_property
    def text(self) -> np.ndarray:
        """All pool documents one after the other: uint8[bytes], memory-mapped."""
        return self._array("pool/text.npy")

    @cached_property
    def offsets(self) -> np.ndarray:
        """Document i is ``text[offsets[i]:offsets[i + 1]]``: int64[documents + 1]."""
        return np.asarray(self._array("pool/offsets.npy"))

    @cached_property
    def source_ids(self) -> np.ndarray:
        """Index into ``sources`` of every document: int32[documents]."""
        return np.asarray(self._array("pool/sources.npy"))

    @cached_property
    def language(self) -> np.ndarray:
        """ISO 639-1 code of the language of every document, "und" where it cannot be told: str[documents]."""
        codes = np.array(list(self.manifest["languages"]), dtype="U3")
        return np.asarray(codes[self._array("pool/languages.npy")])

    @cached_property
    def statistics(self) -> np.ndarray:
        """float32[documents, len(NAMES)], columns as in :mod:`asi_evolve.domains.corpus_statistics`."""
        return np.asarray(self._array("pool/statistics.npy"))

    @cached_property
    def exact_groups(self) -> np.ndarray:
        """Lowest index of a document with the same bytes: int32[documents]."""
        return np.asarray(self._array("pool/exact.npy"))

    @cached_property
    def near_groups(self) -> np.ndarray:
        """Lowest index in the cluster of near-duplicates: int32[documents]."""
        return np.asarray(self._array("pool/near.npy"))

    def reference_scores(self, source: str) -> np.ndarray:
        """How much each document is like those of a source: float64[documents, 2], see
        :func:`corpus_quality.reference_scores`. Computed at the first call (some seconds) and kept beside the pool.

        Raises:
            CorpusError: no such source, or nothing but that source.
        """
        if source not in self.sources:
            raise CorpusError(f"corpus: {source!r} is not a source; there are {', '.join(self.sources)}")
        path = self.directory / "pool" / f"reference-{self.sources.index(source)}.npy"
        if not path.exists():
            from asi_evolve.domains.corpus_quality import reference_scores

            try:
                scores = reference_scores(_Documents(self), self.source_ids == self.sources.index(source))
            except ValueError as error:
                raise CorpusError(f"corpus: source {source!r}: {error}") from None
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
                np.save(part, scores, allow_pickle=False)
            os.replace(part.name, path)
        return self._array(f"pool/{path.name}")

    def notes(self) -> list[str]:
        """What a reader of results has to know of the corpus, a sentence each."""
        m = self.manifest
        pool, held = m["pool"], m["held_out"]
        sources = ", ".join(f"{name} {s['bytes']:,}" for name, s in m["sources"].items())
        by_source = ", ".join(f"{name} {count}" for name, count in sorted(pool["dropped_by_source"].items()))
        notes = [
            f"Corpus: {m['name']}; pool of {pool['documents']:,} documents, {pool['bytes']:,} bytes ({sources}).",
            f"Held out: {held['documents']:,} documents, {held['bytes']:,} bytes.",
            f"Decontamination: {pool['dropped_for_held_out']} documents left the pool because they share a fifth of "
            f"their, or of a held-out document's, {SHINGLE}-word sequences with held-out text"
            + (f" ({by_source})." if by_source else "."),
            f"Copies left in the pool: {pool['exact_duplicates']} exact, {pool['near_duplicates']} with near-copies.",
            "Languages: " + ", ".join(f"{c} {n}" for c, n in sorted(m["languages"].items(), key=lambda x: -x[1])) + ".",
        ]
        skipped = m["skipped"]
        if skipped["rows"]:
            notes.append(f"{skipped['rows']} rows could not be read and were skipped, first: {skipped['examples'][0]}.")
        return notes

    @cached_property
    def held_out(self) -> np.ndarray:
        """The held-out text, documents separated by a blank line: uint8[bytes]. For the judge alone."""
        return np.asarray(self._array("held-out/text.npy"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, i: int) -> bytes:
        """Text of pool document ``i``."""
        return self.text[self.offsets[i] : self.offsets[i + 1]].tobytes()


class _Documents(Sequence[bytes]):
    """The pool's documents, read as they are asked for."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def __len__(self) -> int:
        return len(self._corpus)

    def __getitem__(self, i: Any) -> Any:
        return [self[j] for j in range(*i.indices(len(self)))] if isinstance(i, slice) else self._corpus.document(i)


def open_corpus(
    path: str | None = None,
    cache: str | Path | None = None,
    *,
    text_field: str = "text",
    held_out_bytes: int = 400_000,
    on_progress: OnProgress | None = None,
) -> Corpus:
    """The corpus, built first if it is not there yet.

    Args:
        path: JSON Lines, Parquet, text or a dataset saved to disk; None for the default corpus.
        cache: directory to keep it in; default :func:`default_cache`.
        text_field: field or column that holds the text.
        held_out_bytes: size of the held-out set, at most a tenth of a user's corpus.
        on_progress: called with (fraction, note) while building.

    Raises:
        CorpusError: missing, unreadable or too small, or the cache cannot be written.
    """
    source = None if path is None else Path(path).expanduser().absolute()
    key = _key(source, text_field, held_out_bytes)
    home = Path(cache).expanduser().absolute() if cache else default_cache()
    directory = home / f"corpus-{key[:16]}"
    if (directory / "manifest.json").exists():
        return Corpus(directory)
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (home / f"corpus-{key[:16]}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second engine waits for the first one's build
            if not (directory / "manifest.json").exists():
                build(
                    source,
                    directory,
                    key=key,
                    text_field=text_field,
                    held_out_bytes=held_out_bytes,
                    on_progress=on_progress or (lambda *_: None),
                )
    except OSError as error:
        raise CorpusError(f"corpus: {home}: {error.strerror or error}") from None
    return Corpus(directory)


def _key(source: Path | None, text_field: str, held_out_bytes: int) -> str:
    if source is None:
        what = corpus_sources.fingerprint()
    else:
        if not source.exists():
            raise CorpusError(f"corpus: {source}: no such file or folder; give {corpus_readers.ALLOWED}")
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        stats = [(str(f), f.stat()) for f in files if f.is_file()]
        what = "\n".join(f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in stats)
    return hashlib.sha256(f"{FORMAT}\n{held_out_bytes}\n{text_field}\n{what}".encode()).hexdigest()
