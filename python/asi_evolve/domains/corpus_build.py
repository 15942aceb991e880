"""Building a corpus: documents come as a stream and go to disk at once, so that the text may be larger than memory.

What stays in memory is some tens of bytes per document (hashes, offsets, duplicate groups); statistics and MinHash
signatures are written as they are computed. Three passes: spool the documents; choose the held-out set; drop what
overlaps with it, describe and write the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from asi_evolve.domains import corpus_readers, corpus_sources
from asi_evolve.domains.corpus_dedup import PERMUTATIONS, HeldOutIndex, clusters, shingles, signature
from asi_evolve.domains.corpus_language import LanguageId
from asi_evolve.domains.corpus_statistics import NAMES, statistics
from asi_evolve.errors import CorpusError

FORMAT = 3
MAX_DOCUMENT = 8192  # bytes; longer texts are cut at line ends
MIN_POOL, MIN_HELD_OUT = 50_000, 8_000  # bytes
_DIGEST = 16  # bytes of SHA-256 kept per document

OnProgress = Callable[[float, str], None]


def build(
    source: Path | None, target: Path, *, key: str, text_field: str, held_out_bytes: int, on_progress: OnProgress
) -> None:
    """Builds a corpus in a temporary directory beside ``target`` and renames it.

    Args:
        source: JSON Lines, Parquet, Arrow or text of the user, or a folder; None for the default corpus.
        target: directory of the corpus.
        key: fingerprint, kept in the manifest.
        text_field: field or column that holds the text.
        held_out_bytes: size of the held-out set, at most a tenth of a user's corpus.
        on_progress: called with (fraction, note).

    Raises:
        CorpusError: unreadable or too small. OSError: the disk is full, or the like.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=target.parent))
    skipped = corpus_readers.Skipped()
    hidden: list[str] = []
    try:
        with _Spool(temporary / "spool") as spool:
            if source is None:
                on_progress(0.0, "looking for text")
                installation = corpus_sources.Installation()
                documents, files = corpus_sources.held_out_documents(installation, held_out_bytes)
                hidden = [trace for p in files for trace in corpus_sources.traces(p)]
                held = list(dict.fromkeys(text.encode() for _, text in documents))
                spool.extend(
                    corpus_sources.pool_documents(
                        installation, set(files), lambda f: on_progress(0.1 + 0.4 * f, "collecting text")
                    )
                )
                in_pool = np.ones(len(spool), bool)
            else:
                on_progress(0.0, f"reading {source.name}")
                spool.extend(corpus_readers.read(source, text_field, skipped))
                held, in_pool = _held_out(spool, held_out_bytes)
            writer = _Writer(temporary, spool, held, on_progress)
            facts = writer.write(np.flatnonzero(in_pool))
        manifest = {
            "format": FORMAT,
            "fingerprint": key,
            "name": "this Python installation" if source is None else str(source),
            "skipped": {"rows": skipped.count, "examples": skipped.examples},
            "hidden": sorted(hidden),
            **facts,
        }
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for file in [*temporary.rglob("*"), temporary]:
            _sync(file)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(target)  # half a corpus of an older format
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    on_progress(1.0, "corpus ready")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def cut(text: str) -> Iterator[bytes]:
    """A text in documents of at most MAX_DOCUMENT bytes, cut at the last line end that fits (else anywhere)."""
    data = text.encode("utf-8", "replace").strip(b"\n")
    start = 0
    while len(data) - start > MAX_DOCUMENT:
        end = data.rfind(b"\n", start + MAX_DOCUMENT // 2, start + MAX_DOCUMENT) + 1 or start + MAX_DOCUMENT
        yield data[start:end]
        start = end
    if data[start:].strip():
        yield data[start:]


class _Spool:
    """Documents in a file in the order they came. A context: the file is removed at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._map: mmap.mmap | None = None
        self._ids: dict[str, int] = {}
        self._offsets, self._sources, self._digests = array("q", [0]), array("i"), bytearray()

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._map is not None:
            self._map.close()
        self._file.close()
        self._path.unlink(missing_ok=True)

    def extend(self, texts: Iterable[tuple[str, str]]) -> None:
        """Takes (source, text) pairs, cut into documents."""
        for source, text in texts:
            for data in cut(text):
                self._file.write(data)
                self._offsets.append(self._offsets[-1] + len(data))
                self._sources.append(self._ids.setdefault(source, len(self._ids)))
                self._digests += hashlib.sha256(data).digest()[:_DIGEST]
        self._file.flush()

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, i: int) -> bytes:
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map[self._offsets[i] : self._offsets[i + 1]]

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of every document: int64."""
        return np.diff(np.frombuffer(self._offsets, np.int64))

    @property
    def digests(self) -> np.ndarray:
        """The start of the SHA-256 of every document: 16 bytes each."""
        return np.frombuffer(bytes(self._digests), f"V{_DIGEST}")

    @property
    def sources(self) -> tuple[list[str], np.ndarray]:
        """Names, sorted, and int32 index into them of every document."""
        names = sorted(self._ids)
        place = {self._ids[name]: i for i, name in enumerate(names)}
        table = np.array([place[i] for i in range(len(place))], np.int32)
        return names, table[np.frombuffer(self._sources, np.int32)] if len(self) else np.zeros(0, np.int32)


def _held_out(spool: _Spool, size: int) -> tuple[list[bytes], np.ndarray]:
    """The held-out documents of a user's corpus, and which documents are left for the pool.

    Chosen by content hash: equal texts go to the same side, whatever order they came in.
    """
    sizes, digests = spool.sizes, spool.digests
    budget = min(size, int(sizes.sum()) // 10)
    unique, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    before = np.concatenate([[0], np.cumsum(sizes[first])])[: len(unique)]
    chosen = before < budget
    held = [spool[int(i)] for i in np.sort(first[chosen])]
    return held, ~chosen[inverse]


class _Array:
    """A ``.npy`` file that grows by rows (numpy leaves room in the header for the length)."""

    def __init__(self, path: Path, dtype: Any, width: int | None = None) -> None:
        self._file: IO[bytes] = path.open("w+b")
        self._dtype, self._width, self._rows = np.dtype(dtype), width, 0
        self._header()

    def _header(self) -> None:
        shape = (self._rows,) if self._width is None else (self._rows, self._width)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, data: bytes, rows: int = 1) -> None:
        """Appends rows as raw bytes."""
        self._file.write(data)
        self._rows += rows

    def close(self) -> None:
        """Writes the final length."""
        self._header()
        self._file.close()


class _Writer:
    """The last pass: the pool without what overlaps with the held-out set, and what is known of each document."""

    def __init__(self, directory: Path, spool: _Spool, held: list[bytes], on_progress: OnProgress) -> None:
        self.directory, self.spool, self.held, self.on_progress = directory, spool, held, on_progress

    def write(self, candidates: np.ndarray) -> dict[str, Any]:
        """Writes the arrays; the manifest's facts about them. Raises CorpusError: too small."""
        pool = self.directory / "pool"
        pool.mkdir()
        (self.directory / "held-out").mkdir(mode=0o700)
        kept, languages = self._documents(candidates, pool)
        sizes = self.spool.sizes[kept]
        held = np.frombuffer(b"\n\n".join(self.held), np.uint8)
        if sizes.sum() < MIN_POOL or len(held) < MIN_HELD_OUT:
            raise CorpusError(
                f"corpus: too small: {sizes.sum()} bytes of pool and {len(held)} held out are left after removing "
                f"duplicates; at least {MIN_POOL} and {MIN_HELD_OUT} are needed"
            )
        self.on_progress(0.9, "looking for duplicates")
        names, source_ids = self.spool.sources
        used = np.unique(source_ids[kept])
        names, source_ids = [names[i] for i in used], np.searchsorted(used, source_ids[kept]).astype(np.int32)
        _, first, inverse = np.unique(self.spool.digests[kept], return_index=True, return_inverse=True)
        exact = first[inverse].astype(np.int32)
        signatures = np.load(self.directory / "signatures.npy", mmap_mode="r")
        near = clusters(signatures)
        del signatures
        (self.directory / "signatures.npy").unlink()
        codes, language_ids = np.unique(np.array(languages), return_inverse=True)
        arrays = {
            "pool/offsets.npy": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            "pool/sources.npy": source_ids,
            "pool/languages.npy": language_ids.astype(np.int32),
            "pool/exact.npy": exact,
            "pool/near.npy": near,
            "held-out/text.npy": held,
        }
        for name, values in arrays.items():
            np.save(self.directory / name, values, allow_pickle=False)
        hashes = {name: _sha256(self.directory / name) for name in (*arrays, "pool/text.npy", "pool/statistics.npy")}
        here = np.arange(len(kept))
        by_source = np.bincount(source_ids, sizes, len(names)).astype(np.int64)
        return {
            "sources": {
                name: {"documents": int((source_ids == i).sum()), "bytes": int(by_source[i])}
                for i, name in enumerate(names)
            },
            "languages": {str(code): int((language_ids == i).sum()) for i, code in enumerate(codes)},
            "statistics": list(NAMES),
            "pool": {
                "documents": len(kept),
                "bytes": int(sizes.sum()),
                "exact_duplicates": int((exact != here).sum()),
                "near_duplicates": int((near != here).sum()),
                "dropped_for_held_out": len(candidates) - len(kept),
                "dropped_by_source": self.dropped,
            },
            "held_out": {"documents": len(self.held), "bytes": len(held)},
            "sha256": hashes,
        }

    def _documents(self, candidates: np.ndarray, pool: Path) -> tuple[np.ndarray, list[str]]:
        """Writes text, statistics and signatures; the documents kept, and the language of each."""
        index = HeldOutIndex([shingles(text) for text in self.held])
        text, table = _Array(pool / "text.npy", np.uint8), _Array(pool / "statistics.npy", np.float32, len(NAMES))
        signatures = _Array(self.directory / "signatures.npy", np.uint32, PERMUTATIONS)
        language = LanguageId()
        kept, languages = array("q"), []
        names, source_ids = self.spool.sources
        self.dropped: dict[str, int] = {}
        for number, i in enumerate(candidates):
            if number % 500 == 0:
                self.on_progress(0.5 + 0.4 * number / len(candidates), "describing documents")
            data = self.spool[int(i)]
            values = shingles(data)
            if index.overlaps(values):
                name = names[source_ids[i]]
                self.dropped[name] = self.dropped.get(name, 0) + 1
                continue
            kept.append(int(i))
            text.append(data, len(data))
            table.append(np.array(statistics(data), np.float32).tobytes())
            signatures.append(signature(values).tobytes())
            languages.append(language(data))
        for file in (text, table, signatures):
            file.close()
        return np.frombuffer(kept, np.int64) if kept else np.zeros(0, np.int64), languages


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
