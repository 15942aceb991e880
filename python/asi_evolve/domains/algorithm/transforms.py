"""What an edge does to the value it carries: ``ScaleBy(0.01)`` and its kin."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asi_evolve.errors import InvalidCandidate

ARITY = {"ScaleBy": 1, "ShiftBy": 1, "ClipTo": 2, "Detach": 0}
_EXPRESSION = {
    "ScaleBy": "({x} * {0!r})",
    "ShiftBy": "({x} + {0!r})",
    "ClipTo": "{x}.clamp({0!r}, {1!r})",
    "Detach": "{x}.detach()",
}
_TEXT = re.compile(r"\s*([A-Za-z]+)\s*(?:\(([^()]*)\))?\s*")
_LIMIT = 1e6


@dataclass(frozen=True)
class Transform:
    """One step on an edge, applied to every entry of a tensor.

    ``ScaleBy(c)``: c x. ``ShiftBy(c)``: x + c. ``ClipTo(low, high)``: x within bounds. ``Detach()``: no gradient.

    Raises:
        InvalidCandidate: another name, a wrong number of arguments, or one that is not a number of at most 1e6.
    """

    name: str
    arguments: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in ARITY:
            raise InvalidCandidate(f"transform: {self.name!r} is not one of {', '.join(ARITY)}")
        if len(self.arguments) != ARITY[self.name]:
            raise InvalidCandidate(f"transform: {self.name} takes {ARITY[self.name]} numbers, got {self.arguments}")
        for x in self.arguments:
            if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x) or abs(x) > _LIMIT:
                raise InvalidCandidate(f"transform: {self.name} of {x!r}; a number of at most {_LIMIT:g} is needed")
        object.__setattr__(self, "arguments", tuple(float(x) for x in self.arguments))
        if self.name == "ClipTo" and self.arguments[0] > self.arguments[1]:
            raise InvalidCandidate(f"transform: {self}: the lower bound is above the upper one")

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{x:g}' if float(f'{x:g}') == x else repr(x) for x in self.arguments)})"

    def code(self, x: str) -> str:
        """A Python expression of the transformed value, given one of the value."""
        return _EXPRESSION[self.name].format(*self.arguments, x=x)

    @classmethod
    def parse(cls, text: str) -> Transform:
        """The transform that ``str`` gives as this text. Raises InvalidCandidate."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InvalidCandidate(f"transform: {text[:60]!r} is not of the form ScaleBy(0.01)")
        parts = [p for p in (match.group(2) or "").split(",") if p.strip()]
        try:
            return cls(match.group(1), tuple(float(p) for p in parts))
        except ValueError as error:
            if isinstance(error, InvalidCandidate):
                raise
            raise InvalidCandidate(f"transform: {text[:60]!r} holds something else than numbers") from None


def ScaleBy(factor: float) -> Transform:
    """x -> factor x."""
    return Transform("ScaleBy", (factor,))


def ShiftBy(offset: float) -> Transform:
    """x -> x + offset."""
    return Transform("ShiftBy", (offset,))


def ClipTo(low: float, high: float) -> Transform:
    """x -> min(max(x, low), high)."""
    return Transform("ClipTo", (low, high))


def Detach() -> Transform:
    """x -> x without gradient."""
    return Transform("Detach")


def as_transforms(given: Any) -> tuple[Transform, ...]:
    """One transform, its text, several of either, or None. Raises InvalidCandidate."""
    if given is None:
        return ()
    if isinstance(given, Transform):
        return (given,)
    if isinstance(given, str):
        return (Transform.parse(given),)
    if isinstance(given, Sequence):
        return tuple(t for item in given for t in as_transforms(item))
    raise InvalidCandidate(f"transform: {given!r:.60} is neither a transform nor its text, for example ScaleBy(0.01)")
