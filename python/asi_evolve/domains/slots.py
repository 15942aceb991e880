"""Parameters that name a piece of code: a reference by name, or ``custom`` when the code was edited."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asi_evolve.candidate import Component, Edit
from asi_evolve.errors import InvalidCandidate
from asi_evolve.space import Choice, Value

CUSTOM = "custom"


@dataclass(frozen=True)
class Mechanism(Choice):
    """One of the references; ``custom`` is a value that only an edit of the code gives."""

    def check(self, value: object) -> Value:
        """``custom`` is allowed: it describes the code that is there."""
        return CUSTOM if value == CUSTOM else super().check(value)

    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        """Another reference."""
        others = [v for v in self.values if v != value]
        return others[int(rng.integers(len(others)))] if others else value

    def encode(self, value: Value) -> list[float]:
        """One-hot over the references and ``custom``."""
        return [1.0 if v == value else 0.0 for v in (*self.values, CUSTOM)]


def settle(
    parent: Component, edit: Edit, slots: Mapping[str, str], references: Mapping[str, Mapping[str, str]]
) -> Component:
    """The edited component with every slot's parameter and file in agreement.

    An edited file decides over the parameter: it becomes the reference's name if the code is a reference's, else
    ``custom``. A changed parameter brings its reference's code.

    Args:
        parent: what is edited.
        edit: the edit.
        slots: file by parameter name.
        references: source by name, by parameter name.

    Raises:
        InvalidEdit: the edit does not apply. InvalidCandidate: ``custom`` without code, or a slot's file was removed.
    """
    child = edit.apply(parent)
    params: dict[str, Any] = dict(child.params)
    files = dict(child.files)
    for name, path in slots.items():
        known = references[name]
        if path not in files:
            raise InvalidCandidate(f"files: {path!r} was removed; it has to be there")
        if files[path] != parent.files.get(path):
            params[name] = next((n for n, text in known.items() if text == files[path]), CUSTOM)
        elif params.get(name) != parent.params.get(name):
            if params[name] not in known:
                allowed = ", ".join(known)
                raise InvalidCandidate(
                    f"{name}: {params[name]!r} is not one of {allowed} (edit {path} for code of your own)"
                )
            files[path] = known[params[name]]
    return Component(child.domain, params, files)


_COUNTED: dict[str, tuple[str, ...]] = {
    "linear": ("Linear", "Parameter", "Embedding"),
    "convolution": ("Conv1d", "conv1d", "unfold"),
    "softmax": ("softmax", "scaled_dot_product_attention", "log_softmax"),
    "recurrence": ("cumsum", "cumprod", "linear_attention", "GRU", "LSTM", "scan"),
    "gate": ("sigmoid", "silu", "tanh", "chunk", "gelu", "relu", "elu"),
    "norm": ("rsqrt", "LayerNorm", "mean", "var", "norm", "rms_norm"),
    "shape": ("view", "reshape", "permute", "transpose", "cat", "pad", "roll"),
    "mask": ("masked_fill", "tril", "triu", "where", "arange"),
}


@functools.lru_cache(maxsize=4096)
def code_statistics(text: str) -> np.ndarray:
    """What a piece of Python does, from its syntax tree: float64[14], entries of order 1.

    Counts of calls by purpose, matrix products, multiplications, loops, branches, functions, and the size of the tree,
    as log(1 + count) / 4. Names of classes and variables have no part in it. Not to be written to.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return np.zeros(len(_COUNTED) + 6)
    counts = dict.fromkeys((*_COUNTED, "product", "multiply", "loop", "branch", "function", "size"), 0)
    for node in ast.walk(tree):
        counts["size"] += 1
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for purpose, names in _COUNTED.items():
                counts[purpose] += called in names
            counts["product"] += called in ("matmul", "einsum", "bmm")
        elif isinstance(node, ast.BinOp):
            counts["product"] += isinstance(node.op, ast.MatMult)
            counts["multiply"] += isinstance(node.op, ast.Mult | ast.Div | ast.Pow)
        elif isinstance(node, ast.For | ast.While | ast.comprehension):
            counts["loop"] += 1
        elif isinstance(node, ast.If | ast.IfExp | ast.Try):
            counts["branch"] += 1
        elif isinstance(node, ast.FunctionDef | ast.Lambda):
            counts["function"] += 1
    counts["size"] //= 20
    return np.log1p(np.array(list(counts.values()), dtype=np.float64)) / 4
