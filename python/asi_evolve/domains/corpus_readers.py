"""Users' corpora: JSON Lines, Parquet, text files and folders of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asi_evolve.errors import CorpusError

ALLOWED = "a .jsonl, .parquet, .txt or .md file, or a folder of them"
_TEXT = (".txt", ".md", ".rst", ".text")
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
    known = [p for p in files if p.suffix in (".jsonl", ".parquet", *_TEXT)]
    if not known:
        raise CorpusError(f"corpus: {path}: nothing to read; give {ALLOWED}")
    for file in known:
        source = file.relative_to(path).parts[0] if path.is_dir() else file.stem
        source = source.removesuffix(file.suffix)
        try:
            if file.suffix == ".jsonl":
                yield from _jsonl(file, source, text_field, skipped)
            elif file.suffix == ".parquet":
                yield from _parquet(file, source, text_field, skipped)
            else:
                yield from _text(file, source, skipped)
        except OSError as error:
            raise CorpusError(f"corpus: {file}: {error.strerror or error}") from None


def _text(file: Path, source: str, skipped: Skipped) -> Iterator[tuple[str, str]]:
    try:
        yield source, file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        skipped.add(str(file), f"byte {error.start} is not UTF-8")


def _jsonl(file: Path, source: str, text_field: str, skipped: Skipped) -> Iterator[tuple[str, str]]:
    good = 0
    with file.open("rb") as lines:
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


def _parquet(file: Path, source: str, text_field: str, skipped: Skipped) -> Iterator[tuple[str, str]]:
    try:
        import pyarrow
        import pyarrow.parquet as pq
    except ImportError:
        raise CorpusError(
            f"corpus: {file}: reading Parquet needs pyarrow: pip install asi-evolve-engine[parquet]"
        ) from None
    try:
        table: Any = pq.ParquetFile(file)
        names = table.schema_arrow.names
        if text_field not in names:
            raise CorpusError(f"corpus: {file}: no column {text_field!r}; its columns: {', '.join(names)}")
        columns = [text_field, *(["source"] if "source" in names else [])]
        at = 0
        for batch in table.iter_batches(columns=columns):
            for row in batch.to_pylist():
                at += 1
                if isinstance(row[text_field], str):
                    yield str(row.get("source") or source), row[text_field]
                else:
                    skipped.add(f"{file}: row {at}", f"no text in column {text_field!r}")
    except pyarrow.ArrowException as error:
        raise CorpusError(f"corpus: {file}: not a readable Parquet file: {error}") from None
