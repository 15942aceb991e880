"""Prompts are text files beside this one (Jinja templates), so that they can be read, compared and changed as text."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template


@cache
def _template(name: str) -> Template:
    text = files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")
    return Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(text)


def render(name: str, **values: Any) -> str:
    """The prompt ``name``.md with its values filled in. Raises jinja2.UndefinedError for a missing value."""
    return _template(name).render(**values).strip()
