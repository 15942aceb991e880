"""The code slot: a primitive written in Python, in a file of its own, declared so that it can be checked unexecuted.

PORTS = {"values": "[T, N]", "rewards": "[T, N]"}
OUTPUT = "[T, N]"

def custom(values, rewards):
    return values - rewards
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable
from typing import Any

from asi_evolve.domains.algorithm.graph import RLAlgorithmGraph
from asi_evolve.domains.algorithm.primitives import POLICY, TENSOR, TENSORS, Port, Primitive
from asi_evolve.errors import InvalidCandidate
from asi_evolve.source import check_source

CODE_FILE, NAME = "primitive.py", "custom"
_TYPES = (*TENSORS, POLICY, TENSOR)
TEMPLATE = '''"""A primitive of your own, node type "custom" in graph.json."""

PORTS = {"x": "[T, N]"}
OUTPUT = "[T, N]"


def custom(x):
    """Tensors in, a tensor out; differentiable torch code."""
    return x
'''


def declared(text: str) -> Primitive:
    """The primitive that the code declares. The code is parsed, not run.

    Raises:
        InvalidCandidate: it does not compile, imports what it must not, or lacks PORTS, OUTPUT or ``custom``.
    """
    check_source(CODE_FILE, text, ("PORTS", "OUTPUT", NAME))
    found: dict[str, Any] = {}
    arguments: list[str] = []
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name) and target.id in ("PORTS", "OUTPUT"):
                    try:
                        found[target.id] = ast.literal_eval(statement.value)
                    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                        raise InvalidCandidate(f"{CODE_FILE}: {target.id} has to be written out literally") from None
        elif isinstance(statement, ast.FunctionDef) and statement.name == NAME:
            arguments = [a.arg for a in (*statement.args.posonlyargs, *statement.args.args)]
    ports, output = found.get("PORTS"), found.get("OUTPUT")
    allowed = ", ".join(_TYPES)
    if not isinstance(ports, dict) or not 1 <= len(ports) <= 8:
        raise InvalidCandidate(f"{CODE_FILE}: PORTS has to be a dictionary of 1 to 8 names with their types")
    for name, kind in ports.items():
        if not isinstance(name, str) or kind not in _TYPES:
            raise InvalidCandidate(f"{CODE_FILE}: PORTS: {name!r}: {kind!r} is not one of {allowed}")
    if output not in (*TENSORS, TENSOR):
        raise InvalidCandidate(f"{CODE_FILE}: OUTPUT: {output!r} is not one of {', '.join((*TENSORS, TENSOR))}")
    if arguments[: len(ports)] != list(ports):
        raise InvalidCandidate(f"{CODE_FILE}: {NAME}({', '.join(arguments)}) does not take {', '.join(ports)} in order")
    return Primitive(
        NAME,
        str(output),
        {n: Port(kind) for n, kind in ports.items()},
        formula=f"see {CODE_FILE}",
        source="this candidate",
        family="code",
        columns=True,  # nothing is known of it
    )


def load_functions(graph: RLAlgorithmGraph) -> dict[str, Callable[..., Any]]:
    """Executes the graph's code: only where untrusted code may run.

    Raises:
        InvalidCandidate: a declared primitive is not there afterwards.
    """
    if not graph.code or not any(v.primitive in graph.extra for v in graph.nodes.values()):
        return {}
    module = types.ModuleType("primitive")
    exec(compile(graph.code, CODE_FILE, "exec"), module.__dict__)
    functions: dict[str, Callable[..., Any]] = {}
    for name in graph.extra:
        function = getattr(module, name, None)
        if not callable(function):
            raise InvalidCandidate(f"{CODE_FILE}: does not define {name}")
        functions[name] = function
    return functions
