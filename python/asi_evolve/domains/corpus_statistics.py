"""Statistics of a document that filters and quality scores are made of. Computed once, when the corpus is built."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import numpy as np

NAMES = (
    "bytes",  # length
    "alpha",  # share of ASCII letters
    "digit",  # share of ASCII digits
    "symbol",  # share of ASCII punctuation
    "space",  # share of white space
    "non_ascii",  # share of bytes above 127
    "line_length",  # mean bytes per non-empty line
    "repeated_lines",  # share of non-empty lines that occurred before (Rae et al. 2021, Gopher)
    "unique_words",  # distinct words / words
    "word_length",  # mean letters per word (Gopher)
    "stop_words",  # share of words among the most common English ones (Gopher)
    "sentences",  # share of non-empty lines ending in terminal punctuation (Raffel et al. 2020, C4)
    "compression",  # bytes after zlib level 1 / bytes before
    "words",  # number of words
    "symbol_words",  # number signs and ellipses / words (Gopher)
    "alphabetic_words",  # share of words with a letter (Gopher)
    "bullet_lines",  # share of non-empty lines that start with a bullet (Gopher)
    "ellipsis_lines",  # share of non-empty lines that end in an ellipsis (Gopher)
    "short_lines",  # share of non-empty lines shorter than 30 bytes (Penedo et al. 2024, FineWeb)
    "repeated_bytes",  # share of bytes in non-empty lines that occurred before (Gopher, FineWeb)
    "full_stops",  # ends of sentences (C4)
    "braces",  # curly brackets (C4)
    "required_words",  # how many of the, be, to, of, and, that, have, with occur (Gopher)
)
STOP_WORDS = frozenset(
    b"the be to of and that have with is in a an it for not on as this are or by if from at which when can will was "
    b"may must should no all you has any used value".split()
)
_REQUIRED = frozenset(b"the be to of and that have with".split())
_BULLETS = tuple(x.encode() for x in ("-", "*", "•", "‣", "▪"))
_SENTENCE = re.compile(rb"[.!?](?=\s|$)")
_WORD = re.compile(rb"[A-Za-z]+")
_KIND = np.zeros(256, np.intp)  # 1 letter, 2 digit, 3 punctuation, 4 white space, 5 above 127
for _b in range(256):
    _c = chr(_b)
    _KIND[_b] = 5 if _b > 127 else 1 if _c.isalpha() else 2 if _c.isdigit() else 4 if _c.isspace() else 3

Progress = Callable[[float], None]


def statistics(text: bytes) -> list[float]:
    """The values of :data:`NAMES` for one document (at least one byte)."""
    size = max(1, len(text))
    kinds = np.bincount(_KIND[np.frombuffer(text, np.uint8)], minlength=6) / size
    lines = [line for line in (raw.strip() for raw in text.split(b"\n")) if line]
    count = max(1, len(lines))
    words = _WORD.findall(text.lower())
    number = max(1, len(words))
    return [
        float(len(text)),
        *(float(kinds[i]) for i in (1, 2, 3, 4, 5)),
        sum(map(len, lines)) / count,
        1.0 - len(set(lines)) / count,
        len(set(words)) / number,
        sum(map(len, words)) / number,
        sum(w in STOP_WORDS for w in words) / number,
        sum(line.endswith((b".", b"!", b"?", b":")) for line in lines) / count,
        len(zlib.compress(text, 1)) / size,
        *_rules(text, lines, words),
    ]


def _rules(text: bytes, lines: list[bytes], words: list[bytes]) -> list[float]:
    """What the published rules ask for beyond the general statistics."""
    count, number = max(1, len(lines)), max(1, len(text.split()))
    seen: set[bytes] = set()
    repeated = 0
    for line in lines:
        repeated += len(line) if line in seen else 0
        seen.add(line)
    return [
        float(len(text.split())),
        (text.count(b"#") + text.count(b"...") + text.count("…".encode())) / number,
        sum(bool(_WORD.search(w.lower())) for w in text.split()) / number,
        sum(line.startswith(_BULLETS) for line in lines) / count,
        sum(line.endswith((b"...", "…".encode())) for line in lines) / count,
        sum(len(line) < 30 for line in lines) / count,
        repeated / max(1, sum(map(len, lines))),
        float(len(_SENTENCE.findall(text))),
        float(text.count(b"{") + text.count(b"}")),
        float(len(_REQUIRED & set(words))),
    ]
