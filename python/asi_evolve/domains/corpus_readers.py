"""Users' corpora: JSON Lines, Parquet, text files, folders of them, and datasets saved to disk, read as a stream."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from asi_evolve.errors import CorpusError

ALLOWED = "a .jsonl(.gz), .parquet, .txt or .md file, a folder of them, or a folder that datasets.save_to_disk wrote"
_TEXT = (".txt", ".md", ".rst", ".text")
_LINES = (".jsonl", ".jsonl.gz", ".json.gz")
_BLOCK = 1 << 24  # bytes of a text file in memory
_MAX_REPORTED = 20


@dataclass
class Skipped:
    """Rows that could not be read: how many, and the first few by place and cause."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, place: str, cause: str) -> None:
        """Counts one."""
        self.count += 1
        if len(self.examples) < _MAX_REPORTED:
            self.examples.append(f"{place}: {cause}")


def read(path: Path, text_field: str, skipped: Skipped) -> Iterator[tuple[str, str]]:
    """(source name, text) of every document.

    The source is the row's ``source`` field where it has one, else the file's stem, or the sub-folder's name.

    Args:
        path: file or folder.
        text_field: field or column that holds the text.
        skipped: gets the rows that could not be read.

    Raises:
        CorpusError: missing, unreadable or of an unknown kind; the message names the file and what is allowed.
    """
    if not path.exists():
        raise CorpusError(f"corpus: {path}: no such file or folder; give {ALLOWED}")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    known = [p for p in files if _kind(p)]
    if not known:
        raise CorpusError(f"corpus: {path}: nothing to read; give {ALLOWED}")
    for file in known:
        kind = _kind(file)
        source = file.relative_to(path).parts[0] if path.is_dir() else file.name
        source = path.name if kind == ".arrow" and source == file.name else source.removesuffix(kind)
        try:
            if kind in _LINES:
                yield from _jsonl(file, source, text_field, skipped)
            elif kind in (".parquet", ".arrow"):
                yield from _table(file, kind, source, text_field, skipped)
            else:
                yield from _text(file, source, skipped)
        except (OSError, EOFError, gzip.BadGzipFile) as error:
            raise CorpusError(f"corpus: {file}: {getattr(error, 'strerror', None) or error}") from None


def _kind(path: Path) -> str:
    """The ending that says how a file is read; "" if it is not."""
    if path.suffix == ".arrow":  # of a dataset saved to disk; other Arrow files there are caches
        return ".arrow" if (path.parent / "state.json").exists() and path.name.startswith("data-") else ""
    endings = (*_LINES, ".parquet", *_TEXT)
    return next((e for e in endings if path.name.endswith(e)), "")


def _text(file: Path, source: str, skipped: Skipped) -> Iterator[tuple[str, str]]:
    """In blocks that end with a line, so that a file may be larger than memory."""
    at, rest = 0, b""
    with file.open("rb") as data:
        while True:
            block = data.read(_BLOCK)
            end = (block.rfind(b"\n") + 1 or len(block)) if len(block) == _BLOCK else len(block)
            piece, rest = rest + block[:end], block[end:]
            if piece:
                try:
                    yield source, piece.decode("utf-8")
                except UnicodeDecodeError as error:
                    skipped.add(str(file), f"byte {at + error.start} is not UTF-8")
            at += len(piece)
            if len(block) < _BLOCK:
                return


def _jsonl(file: Path, source: str, text_field: str, skipped: Skipped) -> Iterator[tuple[str, str]]:
    good = 0
    with cast(IO[bytes], (gzip.open if file.suffix == ".gz" else open)(file, "rb")) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                skipped.add(f"{file}: line {number}", f"not JSON ({error})")
                continue
            text = row.get(text_field) if isinstance(row, dict) else None
            if not isinstance(text, str):
                skipped.add(f"{file}: line {number}", f"no text in field {text_field!r}")
                continue
            good += 1
            yield str(row.get("source") or source), text
    if not good:
        first = skipped.examples[-1] if skipped.examples else f"{file}: empty"
        raise CorpusError(
            f'corpus: {first}; every line must be a JSON object like {{"{text_field}": "...", "source": "..."}}'
        )


def _table(file: Path, kind: str, source: str, text_field: str, skipped: Skipped) -> Iterator[tuple[str, str]]:
    try:
        import pyarrow
        import pyarrow.parquet as pq
    except ImportError:
        raise CorpusError(
            f"corpus: {file}: reading {kind} needs pyarrow: pip install asi-evolve-engine[parquet]"
        ) from None
    batches: Iterable[Any]
    try:
        with file.open("rb") as opened:
            table: Any = pq.ParquetFile(opened) if kind == ".parquet" else pyarrow.ipc.open_stream(opened)
            names = table.schema_arrow.names if kind == ".parquet" else table.schema.names
            if text_field not in names:
                raise CorpusError(f"corpus: {file}: no column {text_field!r}; its columns: {', '.join(names)}")
            columns = [text_field, *(["source"] if "source" in names else [])]
            batches = table.iter_batches(columns=columns) if kind == ".parquet" else table
            at = 0
            for batch in batches:
                for row in batch.select(columns).to_pylist():
                    at += 1
                    if isinstance(row[text_field], str):
                        yield str(row.get("source") or source), row[text_field]
                    else:
                        skipped.add(f"{file}: row {at}", f"no text in column {text_field!r}")
    except pyarrow.ArrowException as error:
        raise CorpusError(f"corpus: {file}: not a readable {kind} file: {error}") from None
