"""SEARCH/REPLACE blocks: parsed from text, applied with tolerance of whitespace, with errors an author can act on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asi_evolve.errors import InvalidEdit

_SEARCH = re.compile(r"^\s*<{5,9}\s*SEARCH\s*$")
_DIVIDE = re.compile(r"^\s*={5,9}\s*$")
_REPLACE = re.compile(r"^\s*>{5,9}\s*REPLACE\s*$")
_PATH = re.compile(r"^[#/*\s`]*(?:file\s*:\s*)?([\w./-]+\.\w+)[:`\s*]*$", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """In file ``path`` the lines ``search`` become ``replace``. An empty ``search`` appends to the file."""

    path: str
    search: str
    replace: str


def parse_blocks(text: str, path: str | None = None) -> tuple[Block, ...]:
    """All blocks in ``text``; see :meth:`asi_evolve.candidate.Edit.parse`."""
    blocks: list[Block] = []
    lines = text.splitlines()
    current = path
    i = 0
    while i < len(lines):
        if _SEARCH.match(lines[i]):
            start = i + 1
            divide = next((j for j in range(start, len(lines)) if _DIVIDE.match(lines[j])), None)
            if divide is None:
                raise InvalidEdit(f"line {i + 1}: the SEARCH part has no ======= line after it")
            end = next((j for j in range(divide + 1, len(lines)) if _REPLACE.match(lines[j])), None)
            if end is None:
                raise InvalidEdit(f"line {divide + 1}: the REPLACE part has no >>>>>>> REPLACE line after it")
            if current is None:
                raise InvalidEdit(f"line {i + 1}: no file path on the line before the block")
            blocks.append(Block(current, "\n".join(lines[start:divide]), "\n".join(lines[divide + 1 : end])))
            i = end + 1
            continue
        named = _PATH.match(lines[i])
        if named:
            current = named.group(1)
        i += 1
    if not blocks:
        raise InvalidEdit("no SEARCH/REPLACE block found")
    return tuple(blocks)


def apply_blocks(text: str, blocks: Sequence[Block], first: int = 1) -> str:
    """``text`` with every block applied in order.

    A block matches whole lines: exactly, else without regard to trailing whitespace, else without regard to
    indentation (the replacement is then shifted by the difference).

    Raises:
        InvalidEdit: no match or several; names the block (counted from ``first``) and the first line that differs.
    """
    for number, block in enumerate(blocks, first):
        text = _apply(text, block, number)
    return text


def _apply(text: str, block: Block, number: int) -> str:
    lines = text.splitlines()
    search = block.search.splitlines()
    replace = block.replace.splitlines()
    while search and not search[0].strip():
        search.pop(0)
    while search and not search[-1].strip():
        search.pop()
    if not search:
        return "\n".join([*lines, *replace]) + "\n"
    forms: tuple[Callable[[str], str], ...] = (str, str.rstrip, str.strip)
    for form in forms:
        places = _matches([form(x) for x in lines], [form(x) for x in search])
        if len(places) > 1:
            where = ", ".join(str(p + 1) for p in places[:5])
            raise InvalidEdit(
                f"block {number} of {block.path}: matches {len(places)} places (lines {where}); add context"
            )
        if places:
            at = places[0]
            if form is str.strip:
                replace = _shift(replace, _indent(search), _indent(lines[at : at + len(search)]))
            merged = [*lines[:at], *replace, *lines[at + len(search) :]]
            return "\n".join(merged) + ("\n" if merged else "")
    best, length = max(
        ((at, _common([x.strip() for x in lines[at:]], [x.strip() for x in search])) for at in range(len(lines))),
        key=lambda pair: pair[1],
        default=(0, 0),
    )
    found = repr(lines[best + length].strip()) if best + length < len(lines) and length else "nothing like it"
    raise InvalidEdit(
        f"block {number} of {block.path}: line {length + 1} of the SEARCH part did not match: "
        f"{search[length].strip()!r}; the file has {found}"
    )


def _matches(lines: list[str], search: list[str]) -> list[int]:
    n = len(search)
    return [i for i in range(len(lines) - n + 1) if lines[i] == search[0] and lines[i : i + n] == search]


def _common(lines: list[str], search: list[str]) -> int:
    n = 0
    while n < len(search) and n < len(lines) and lines[n] == search[n]:
        n += 1
    return n


def _indent(lines: list[str]) -> str:
    first = next((x for x in lines if x.strip()), "")
    return first[: len(first) - len(first.lstrip())]


def _shift(lines: list[str], old: str, new: str) -> list[str]:
    """Lines written with indentation ``old`` moved to ``new``."""
    moved = []
    for line in lines:
        if not line.strip():
            moved.append("")
        elif line.startswith(old):
            moved.append(new + line[len(old) :])
        else:
            moved.append(new + line.lstrip())
    return moved
