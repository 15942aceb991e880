"""Static checks of candidate source code before anything runs. They save experiments; the sandbox contains."""

from __future__ import annotations

import ast

from asi_evolve.errors import InvalidCandidate

MAX_SOURCE_BYTES = 200_000

# What a mechanism, a loss or a document filter has a use for. Not a security boundary.
ALLOWED_IMPORTS = frozenset(
    [
        *("__future__", "abc", "asi_evolve", "bisect", "collections", "dataclasses", "enum", "functools", "heapq"),
        *("itertools", "json", "math", "numbers", "numpy", "operator", "random", "re", "statistics", "string"),
        *("textwrap", "torch", "typing", "unicodedata", "zlib"),
    ]
)


def check_source(path: str, text: str, requires: tuple[str, ...] = ()) -> None:
    """Parses ``text``, checks its size, its imports, and that it defines the names ``requires`` at top level.

    Raises:
        InvalidCandidate: names the file, the line and what is wrong.
    """
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_SOURCE_BYTES:
        raise InvalidCandidate(f"{path}: {size} bytes of source; at most {MAX_SOURCE_BYTES}")
    try:
        tree = ast.parse(text, filename=path)
        compile(tree, path, "exec")
    except SyntaxError as error:
        raise InvalidCandidate(f"{path}: line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, nesting too deep for the parser
        raise InvalidCandidate(f"{path}: not compilable: {error}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if node.level == 0 else ["."]
        else:
            continue
        for name in names:
            if name.split(".")[0] not in ALLOWED_IMPORTS:
                allowed = ", ".join(sorted(ALLOWED_IMPORTS - {"__future__"}))
                raise InvalidCandidate(f"{path}: line {node.lineno}: import of {name!r}; allowed: {allowed}")
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    defined |= {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    for name in requires:
        if name not in defined:
            raise InvalidCandidate(f"{path}: does not define {name}")
