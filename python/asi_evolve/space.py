"""Typed, bounded search spaces: what a parameter may be, how it is sampled, moved, encoded and put into a JSON schema.

Proposals are choices over such a space first and free code second, because a bounded choice is valid by construction
even when it comes from a small language model or from a random operator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asi_evolve.errors import InvalidCandidate

Value = bool | int | float | str


@dataclass(frozen=True)
class Parameter:
    """One named parameter. Use :class:`Choice`, :class:`Integer` or :class:`Real`."""

    name: str

    def check(self, value: object) -> Value:
        """The value in its canonical type, or :class:`InvalidCandidate` naming the parameter, the value and what is
        allowed."""
        raise NotImplementedError

    def sample(self, rng: np.random.Generator) -> Value:
        """A value drawn from the whole range."""
        raise NotImplementedError

    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        """A value near ``value`` and different from it (a mutation)."""
        raise NotImplementedError

    def options(self, value: Value) -> list[Value]:
        """At most nine alternatives to ``value``, for a prompt: all of them for a choice, a grid for a range."""
        raise NotImplementedError

    def encode(self, value: Value) -> list[float]:
        """Features in [0, 1] for the novelty measure: one-hot for a choice, the position in the range else."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """JSON schema of the value (only type, enum, minimum and maximum, which every server enforces)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Choice(Parameter):
    """One of a fixed set of values (strings, numbers or booleans)."""

    values: tuple[Value, ...] = ()
    doc: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values:
            raise ValueError(f"{self.name}: a choice needs at least one value")

    def check(self, value: object) -> Value:
        for allowed in self.values:
            if type(allowed) is type(value) and allowed == value:
                return allowed
        for allowed in self.values:  # 2 for 2.0, and the other way round
            if not isinstance(value, bool | str) and not isinstance(allowed, bool | str) and allowed == value:
                return allowed
        raise InvalidCandidate(f"{self.name}: {value!r} is not one of {', '.join(map(repr, self.values))}")

    def sample(self, rng: np.random.Generator) -> Value:
        return self.values[int(rng.integers(len(self.values)))]

    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        others = [v for v in self.values if v != value]
        return others[int(rng.integers(len(others)))] if others else value

    def options(self, value: Value) -> list[Value]:
        return [v for v in self.values if v != value]

    def encode(self, value: Value) -> list[float]:
        return [1.0 if v == value else 0.0 for v in self.values]

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.values)}


_JUMP = 0.3


@dataclass(frozen=True)
class _Range(Parameter):
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    doc: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.name}: need finite low < high, got {self.low}, {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.name}: a logarithmic range needs low > 0, got {self.low}")

    def _round(self, x: float) -> Value:
        raise NotImplementedError

    def _position(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def _at(self, position: float) -> Value:
        position = min(1.0, max(0.0, position))
        x = self.low * (self.high / self.low) ** position if self.log else self.low + position * (self.high - self.low)
        return self._round(min(self.high, max(self.low, x)))

    def check(self, value: object) -> Value:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidCandidate(f"{self.name}: {value!r} is not a number in [{self.low:g}, {self.high:g}]")
        if not self.low <= value <= self.high:
            raise InvalidCandidate(f"{self.name}: {value!r} is outside [{self.low:g}, {self.high:g}]")
        return self._exact(value)

    def _exact(self, value: float) -> Value:
        return float(value)

    def sample(self, rng: np.random.Generator) -> Value:
        return self._at(float(rng.random()))

    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        here = self._position(float(value))
        for _ in range(32):
            # Mostly a step nearby; now and then anywhere, so that a search that starts badly need not walk.
            moved = self.sample(rng) if rng.random() < _JUMP else self._at(here + float(rng.normal(0.0, 0.15)))
            if moved != value:
                return moved
        return self._at(0.0) if here > 0.5 else self._at(1.0)

    def options(self, value: Value) -> list[Value]:
        grid = [self._at(i / 6) for i in range(7)]
        return [v for i, v in enumerate(grid) if v != value and v not in grid[:i]]

    def encode(self, value: Value) -> list[float]:
        return [self._position(float(value))]


@dataclass(frozen=True)
class Integer(_Range):
    """An integer in [low, high]; ``log`` makes sampling and distance logarithmic."""

    def _round(self, x: float) -> Value:
        return round(x)

    def _exact(self, value: float) -> Value:
        if float(value) != int(value):
            raise InvalidCandidate(f"{self.name}: {value!r} is not an integer in [{self.low:g}, {self.high:g}]")
        return int(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": int(self.low), "maximum": int(self.high)}


@dataclass(frozen=True)
class Real(_Range):
    """A real number in [low, high], sampled to 3 digits; ``log`` makes sampling and distance logarithmic."""

    def _round(self, x: float) -> Value:
        return float(min(self.high, max(self.low, float(f"{x:.3g}"))))

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high}


class SearchSpace:
    """An ordered set of parameters. Iterable; ``space["name"]`` is one parameter."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = {p.name: p for p in parameters}
        if len(self._parameters) != len(parameters):
            raise ValueError("parameters: two parameters have the same name")

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._parameters.values())

    def __len__(self) -> int:
        return len(self._parameters)

    def __contains__(self, name: object) -> bool:
        return name in self._parameters

    def __getitem__(self, name: str) -> Parameter:
        try:
            return self._parameters[name]
        except KeyError:
            raise InvalidCandidate(f"{name}: no such parameter; there are {', '.join(self._parameters)}") from None

    def check(self, params: Mapping[str, object]) -> dict[str, Value]:
        """All parameters in canonical type and order.

        Raises:
            InvalidCandidate: an unknown or missing parameter, or a value out of range, by name.
        """
        for name in params:
            self[name]
        missing = [name for name in self._parameters if name not in params]
        if missing:
            raise InvalidCandidate(f"{missing[0]}: missing; every parameter of the space needs a value")
        return {name: p.check(params[name]) for name, p in self._parameters.items()}

    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """A point drawn uniformly (in the parameters' own scales)."""
        return {p.name: p.sample(rng) for p in self}

    def mutate(self, params: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Value]:
        """Changes to one to three parameters (one most often), each to a neighbouring value."""
        count = min(len(self), 1 + int(rng.choice(3, p=[0.6, 0.3, 0.1])))
        names = rng.choice(list(self._parameters), size=count, replace=False)
        return {str(n): self[str(n)].neighbour(params[str(n)], rng) for n in names}

    def encode(self, params: Mapping[str, Any]) -> np.ndarray:
        """Features of a point: float64, fixed length for the space, entries in [0, 1]."""
        return np.array([x for p in self for x in p.encode(params[p.name])], dtype=np.float64)
