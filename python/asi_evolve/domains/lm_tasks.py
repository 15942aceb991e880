"""Verifiable tasks for a small byte-level language model: copying, addition, closing brackets. Needs numpy alone.

A task is a line ``copy abca>abca``: a prompt that ends in ``>`` and an answer that ends with the line. Answers have at
most :data:`ANSWER` bytes, the end of the line included; difficulty is graded, from one symbol on, so that a model that
has seen a few thousand lines starts above chance. Whether a task is held out depends on the hash of its prompt alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ANSWER = 6
KINDS = ("copy", "add", "close")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_HELD_OUT = 5  # one in so many


@dataclass(frozen=True)
class Task:
    """A prompt and the answer to it, in ASCII; the answer without the end of the line."""

    prompt: str
    answer: str

    @property
    def held_out(self) -> bool:
        """Whether it is for testing; its prompt is then in no training text."""
        return zlib.crc32(self.prompt.encode()) % _HELD_OUT == 0


def draw(rng: np.random.Generator, kind: str) -> Task:
    """A task of a kind, of random difficulty. Raises ValueError for another kind."""
    size = int(rng.integers(1, ANSWER))
    if kind == "copy":
        text = "".join(rng.choice(list("abcdefgh"), size))
        return Task(f"copy {text}>", text)
    if kind == "add":
        largest = (5, 10, 50, 100)[int(rng.integers(4))]
        a, b = (int(x) for x in rng.integers(0, largest, 2))
        return Task(f"add {a}+{b}>", str(a + b))
    if kind == "close":
        text = "".join(rng.choice(list(_BRACKETS), size))
        return Task(f"close {text}>", "".join(_BRACKETS[c] for c in reversed(text)))
    raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")


def tasks(count: int, held_out: bool, rng: np.random.Generator) -> list[Task]:
    """``count`` tasks of all kinds in turn, all held out or none."""
    found: list[Task] = []
    while len(found) < count:
        task = draw(rng, KINDS[len(found) % len(KINDS)])
        if task.held_out == held_out:
            found.append(task)
    return found


def training_text(size: int, rng: np.random.Generator) -> np.ndarray:
    """At least ``size`` bytes of solved tasks, a line each, none of them held out: uint8."""
    lines: list[str] = []
    length = 0
    while length < size:
        lines += [f"{t.prompt}{t.answer}\n" for t in tasks(64, False, rng)]
        length = sum(map(len, lines))
    return np.frombuffer("".join(lines).encode(), np.uint8)


def prompts(of: Sequence[Task], length: int, rng: np.random.Generator) -> np.ndarray:
    """Each task's prompt after solved training tasks, cut to ``length`` bytes at the left: uint8 (tasks, length)."""
    rows = np.zeros((len(of), length), np.uint8)
    for i, task in enumerate(of):
        text = training_text(length, rng).tobytes() + task.prompt.encode()
        rows[i] = np.frombuffer(text[-length:], np.uint8)
    return rows


def answers(of: Sequence[Task]) -> np.ndarray:
    """Answers with the end of the line, filled up with zeros: uint8 (tasks, ANSWER)."""
    rows = np.zeros((len(of), ANSWER), np.uint8)
    for i, task in enumerate(of):
        data = f"{task.answer}\n".encode()
        rows[i, : len(data)] = np.frombuffer(data, np.uint8)
    return rows


def right_bytes(given: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Bytes that are right before the first that is wrong, over the length of the answer: float64 (tasks,); 1.0 for a
    whole answer.

    Args:
        given: uint8 (tasks, ANSWER), what comes after the end of the line has no part in it.
        expected: as from :func:`answers`.
    """
    sizes = (expected != 0).sum(axis=1)
    agree = np.cumprod(given == expected, axis=1) * (np.arange(ANSWER) < sizes[:, None])
    return np.asarray(agree.sum(axis=1) / sizes)
