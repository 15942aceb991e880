"""What is evolved: a candidate is a tuple of components, one per domain (architecture a, algorithm r, data d).

Components are immutable and content-addressed: equal content, equal hash, everywhere and for ever.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from asi_evolve.errors import InvalidEdit
from asi_evolve.patch import Block, apply_blocks, parse_blocks

DOMAINS = ("architecture", "algorithm", "data")


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no whitespace, no NaN. Hashes are taken of this."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON text, in UTF-8."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()


def _freeze(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({str(k): _freeze(v, f"{where}.{k}") for k, v in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_freeze(v, f"{where}[{i}]") for i, v in enumerate(value))
    if value is None or isinstance(value, bool | int | float | str):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: {value!r} is not finite")
        return value
    raise TypeError(f"{where}: {type(value).__name__} is not a JSON value")


def thaw(value: Any) -> Any:
    """A frozen JSON value as plain dicts and lists."""
    if isinstance(value, Mapping):
        return {k: thaw(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [thaw(v) for v in value]
    return value


def check_path(path: str) -> str:
    """The path, when it is relative and stays below its directory. Raises ValueError otherwise."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or "\0" in path or any(p in ("", ".", "..") for p in parts):
        raise InvalidEdit(f"files: {path!r} is not a plain relative path")
    return path


@dataclass(frozen=True, eq=False)
class Component:
    """One domain's part of a candidate.

    Attributes:
        domain: name of the domain.
        params: typed parameters (JSON values), read-only.
        files: source text by relative path, read-only.

    Raises:
        TypeError: a parameter is not a JSON value. ValueError: a number is not finite or a text not encodable.
        InvalidEdit: a path leaves the component.
    """

    domain: str
    params: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        for path, text in self.files.items():
            check_path(path)
            if not isinstance(text, str):
                raise TypeError(f"files[{path!r}]: {type(text).__name__} is not text")
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValueError(f"files[{path!r}]: not encodable as UTF-8 at character {error.start}") from None
        object.__setattr__(self, "params", _freeze(self.params, "params"))
        object.__setattr__(self, "files", MappingProxyType(dict(sorted(self.files.items()))))
        object.__setattr__(self, "hash", content_hash(self.to_json()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Component) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Component.from_json, (self.to_json(),))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists; :meth:`from_json` gives an equal component back."""
        return {"domain": self.domain, "params": thaw(self.params), "files": dict(self.files)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Component:
        """The inverse of :meth:`to_json`."""
        return cls(value["domain"], value.get("params", {}), value.get("files", {}))

    def diff(self, other: Component) -> str:
        """From this component to ``other``: changed parameters, then a unified diff per changed file."""
        lines = []
        for name in sorted({*self.params, *other.params}):
            a, b = self.params.get(name), other.params.get(name)
            if a != b:
                lines.append(f"{name}: {_show(a)} -> {_show(b)}")
        for path in sorted({*self.files, *other.files}):
            a, b = self.files.get(path, ""), other.files.get(path, "")
            lines += difflib.unified_diff(a.splitlines(), b.splitlines(), f"a/{path}", f"b/{path}", lineterm="")
        return "\n".join(lines)


def _show(value: Any) -> str:
    return "unset" if value is None else canonical_json(thaw(value))


@dataclass(frozen=True, eq=False)
class Candidate(Mapping[str, Component]):
    """A tuple of components, one per domain; ``candidate["data"]`` is the data component.

    For the built-in benchmark the domains are architecture, algorithm and data: the triple (a, r, d).
    """

    components: tuple[Component, ...]
    hash: str = field(init=False)

    def __init__(self, components: Sequence[Component] | Mapping[str, Component]) -> None:
        given = list(components.values()) if isinstance(components, Mapping) else list(components)
        if len({c.domain for c in given}) != len(given):
            raise ValueError("components: two components of the same domain")
        order = {name: i for i, name in enumerate(DOMAINS)}
        ordered = tuple(sorted(given, key=lambda c: (order.get(c.domain, len(order)), c.domain)))
        object.__setattr__(self, "components", ordered)
        object.__setattr__(self, "hash", content_hash([c.hash for c in ordered]))

    def __getitem__(self, domain: str) -> Component:
        for component in self.components:
            if component.domain == domain:
                return component
        raise KeyError(domain)

    def __iter__(self) -> Iterator[str]:
        return (c.domain for c in self.components)

    def __len__(self) -> int:
        return len(self.components)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Candidate.from_json, (self.to_json(),))

    @property
    def architecture(self) -> Component:
        """The component a."""
        return self["architecture"]

    @property
    def algorithm(self) -> Component:
        """The component r."""
        return self["algorithm"]

    @property
    def data(self) -> Component:
        """The component d."""
        return self["data"]

    def replace(self, *components: Component) -> Candidate:
        """A candidate with these components in the place of those of the same domain."""
        unknown = [c.domain for c in components if c.domain not in set(self)]
        if unknown:
            raise ValueError(f"components: no {unknown[0]!r} component to replace; there are {', '.join(self)}")
        return Candidate({**{c.domain: c for c in self.components}, **{c.domain: c for c in components}})

    def changed(self, other: Candidate) -> tuple[str, ...]:
        """Names of the domains in which the two differ."""
        return tuple(d for d in self if d not in other or self[d] != other[d])

    def to_json(self) -> dict[str, Any]:
        """``{domain: component}`` in plain dictionaries."""
        return {c.domain: c.to_json() for c in self.components}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Candidate:
        """The inverse of :meth:`to_json`."""
        return cls([Component.from_json(c) for c in value.values()])


@dataclass(frozen=True)
class Edit:
    """A change to one component. Applied in this order: ``files``, ``blocks``, ``params``.

    Attributes:
        params: new values by parameter name.
        blocks: SEARCH/REPLACE blocks.
        files: whole-file rewrites; None removes the file.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    files: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", _freeze(self.params, "params"))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))

    def __bool__(self) -> bool:
        return bool(self.params or self.blocks or self.files)

    @classmethod
    def parse(cls, text: str, path: str | None = None) -> Edit:
        """The SEARCH/REPLACE blocks of an LLM's answer.

        Each block is ``<<<<<<< SEARCH``, old lines, ``=======``, new lines, ``>>>>>>> REPLACE``, with the file's path
        on the line before; ``path`` is used where a block names none.

        Raises:
            InvalidEdit: no block, a block that does not end, or one without a path; the message has the line number.
        """
        return cls(blocks=parse_blocks(text, path))

    def apply(self, component: Component) -> Component:
        """The edited component; ``component`` is left as it is.

        Raises:
            InvalidEdit: a block does not match (the message names file, block and first line that did not), matches
                more than once, or a path is not plain.
        """
        files = dict(component.files)
        for path, text in self.files.items():
            check_path(path)
            if text is None:
                files.pop(path, None)
            else:
                files[path] = text
        for number, block in enumerate(self.blocks, 1):
            if check_path(block.path) not in files:
                raise InvalidEdit(f"block {number}: no file {block.path!r}; files: {', '.join(files) or 'none'}")
            files[block.path] = apply_blocks(files[block.path], [block], first=number)
        return Component(component.domain, {**thaw(component.params), **thaw(self.params)}, files)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return {
            "params": thaw(self.params),
            "blocks": [{"path": b.path, "search": b.search, "replace": b.replace} for b in self.blocks],
            "files": dict(self.files),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Edit:
        """The inverse of :meth:`to_json`."""
        return cls(value.get("params", {}), tuple(Block(**b) for b in value.get("blocks", ())), value.get("files", {}))
