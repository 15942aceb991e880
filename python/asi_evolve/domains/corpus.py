"""A text corpus split into a pool that candidates select from and a held-out set that they never see.

On disk a corpus is a directory: ``pool/`` (text, offsets, sources, hashes, statistics, duplicate groups),
``held-out/`` (text, offsets) and ``manifest.json``. It is built once, in a temporary directory that is then renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from asi_evolve.domains import corpus_readers, corpus_sources
from asi_evolve.domains.corpus_dedup import HeldOutIndex, near_groups, shingles
from asi_evolve.domains.corpus_statistics import NAMES, statistics
from asi_evolve.errors import CorpusError

FORMAT = 2
MAX_DOCUMENT = 8192  # bytes; longer texts are cut at line ends
MIN_POOL, MIN_HELD_OUT = 50_000, 8_000  # bytes

OnProgress = Callable[[float, str], None]


def default_cache() -> Path:
    """``$ASI_EVOLVE_CACHE``, else ``asi-evolve`` in the user's cache directory."""
    if os.environ.get("ASI_EVOLVE_CACHE"):
        return Path(os.environ["ASI_EVOLVE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asi-evolve"


class Corpus:
    """An existing corpus. Use :func:`open_corpus`.

    Attributes:
        directory: where it is.
        manifest: format, name, fingerprint, sources (documents and bytes each), pool and held-out sizes, counts of
            duplicates, rows skipped, hidden files, and SHA-256 of every file.
        sources: names of the sources, in the order of ``source_ids``.
        hidden: files that hold held-out text elsewhere on this machine, to be hidden from candidates.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
        except (OSError, ValueError) as error:
            raise CorpusError(f"corpus: {directory}: no readable manifest ({error})") from None
        self.sources: list[str] = list(self.manifest["sources"])
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

            texts = [self.document(i) for i in range(len(self))]
            try:
                scores = reference_scores(texts, self.source_ids == self.sources.index(source))
            except ValueError as error:
                raise CorpusError(f"corpus: source {source!r}: {error}") from None
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
                np.save(part, scores, allow_pickle=False)
            os.replace(part.name, path)
        return self._array(f"pool/{path.name}")

    @cached_property
    def held_out(self) -> np.ndarray:
        """The held-out text, documents separated by a blank line: uint8[bytes]. For the judge alone."""
        return np.asarray(self._array("held-out/text.npy"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, i: int) -> bytes:
        """Text of pool document ``i``."""
        return self.text[self.offsets[i] : self.offsets[i + 1]].tobytes()


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
        path: JSON Lines, Parquet or text of the user; None for the default corpus of this Python installation.
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
                _build(
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


def _build(
    source: Path | None, target: Path, *, key: str, text_field: str, held_out_bytes: int, on_progress: OnProgress
) -> None:
    skipped = corpus_readers.Skipped()
    hidden: list[str] = []
    if source is None:
        on_progress(0.0, "looking for text")
        installation = corpus_sources.Installation()
        held, files = corpus_sources.held_out_documents(installation, held_out_bytes)
        hidden = [trace for p in files for trace in corpus_sources.traces(p)]
        documents = _cut(
            corpus_sources.pool_documents(
                installation, set(files), lambda f: on_progress(0.1 + 0.5 * f, "collecting text")
            )
        )
        pool = list(documents)
    else:
        on_progress(0.0, f"reading {source.name}")
        pool, held = _split(list(_cut(corpus_readers.read(source, text_field, skipped))), held_out_bytes)
    writer = _Writer(pool, held, on_progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=target.parent))
    try:
        manifest = {
            "format": FORMAT,
            "fingerprint": key,
            "name": "this Python installation" if source is None else str(source),
            "skipped": {"rows": skipped.count, "examples": skipped.examples},
            "hidden": sorted(hidden),
            **writer.write(temporary),
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


def _cut(documents: Iterable[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    """Documents of at most MAX_DOCUMENT bytes, cut at the last line end that fits (else anywhere)."""
    for source, text in documents:
        data = text.encode("utf-8", "replace").strip(b"\n")
        while len(data) > MAX_DOCUMENT:
            at = data.rfind(b"\n", MAX_DOCUMENT // 2, MAX_DOCUMENT) + 1 or MAX_DOCUMENT
            yield source, data[:at]
            data = data[at:]
        if data.strip():
            yield source, data


def _split(documents: list[tuple[str, bytes]], size: int) -> tuple[list[tuple[str, bytes]], list[tuple[str, str]]]:
    """Pool and held-out by content hash: equal texts go to the same side whatever order they came in."""
    total = sum(len(data) for _, data in documents)
    budget = min(size, total // 10)
    hashes = sorted({(hashlib.sha256(data).digest(), len(data)) for _, data in documents})
    chosen: set[bytes] = set()
    for digest, length in hashes:
        if budget <= 0:
            break
        chosen.add(digest)
        budget -= length
    pool, held, seen = [], [], set()
    for source, data in documents:
        digest = hashlib.sha256(data).digest()
        if digest not in chosen:
            pool.append((source, data))
        elif digest not in seen:
            seen.add(digest)
            held.append((source, data.decode("utf-8", "replace")))
    return pool, held


class _Writer:
    """Duplicates and statistics of a split corpus, and its files."""

    def __init__(self, pool: list[tuple[str, bytes]], held: list[tuple[str, str]], on_progress: OnProgress) -> None:
        self.on_progress = on_progress
        on_progress(0.6, "looking for held-out text in the pool")
        self.held = list({hashlib.sha256(t.encode()).digest(): t.encode() for _, t in held}.values())
        index = HeldOutIndex([shingles(text) for text in self.held])
        shingled = [shingles(data) for _, data in pool]
        keep = [i for i, values in enumerate(shingled) if not index.overlaps(values)]
        self.dropped = len(pool) - len(keep)
        self.pool = [pool[i] for i in keep]
        self.shingled = [shingled[i] for i in keep]
        size, held_size = sum(len(d) for _, d in self.pool), sum(map(len, self.held))
        if size < MIN_POOL or held_size < MIN_HELD_OUT:
            raise CorpusError(
                f"corpus: too small: {size} bytes of pool and {held_size} held out are left after removing duplicates; "
                f"at least {MIN_POOL} and {MIN_HELD_OUT} are needed"
            )

    def write(self, directory: Path) -> dict[str, Any]:
        self.on_progress(0.75, "looking for duplicates")
        texts = [data for _, data in self.pool]
        names = sorted({source for source, _ in self.pool})
        first: dict[bytes, int] = {}
        exact = [first.setdefault(hashlib.sha256(t).digest(), i) for i, t in enumerate(texts)]
        near = near_groups(self.shingled)
        self.on_progress(0.85, "computing statistics")
        (directory / "pool").mkdir()
        (directory / "held-out").mkdir(mode=0o700)
        arrays: dict[str, np.ndarray] = {
            "pool/text.npy": np.frombuffer(b"".join(texts), np.uint8),
            "pool/offsets.npy": np.concatenate([[0], np.cumsum([len(t) for t in texts])]).astype(np.int64),
            "pool/sources.npy": np.array([names.index(s) for s, _ in self.pool], np.int32),
            "pool/statistics.npy": np.array([statistics(t) for t in texts], np.float32),
            "pool/exact.npy": np.array(exact, np.int32),
            "pool/near.npy": near,
            "held-out/text.npy": np.frombuffer(b"\n\n".join(self.held), np.uint8),
        }
        hashes = {}
        for name, array in arrays.items():
            np.save(directory / name, array, allow_pickle=False)
            hashes[name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
        exact_array = arrays["pool/exact.npy"]
        return {
            "sources": {
                name: {
                    "documents": sum(s == name for s, _ in self.pool),
                    "bytes": sum(len(d) for s, d in self.pool if s == name),
                }
                for name in names
            },
            "statistics": list(NAMES),
            "pool": {
                "documents": len(texts),
                "bytes": sum(map(len, texts)),
                "exact_duplicates": int((exact_array != np.arange(len(texts))).sum()),
                "near_duplicates": int((near != np.arange(len(texts))).sum()),
                "dropped_for_held_out": self.dropped,
            },
            "held_out": {"documents": len(self.held), "bytes": len(arrays["held-out/text.npy"])},
            "sha256": hashes,
        }
