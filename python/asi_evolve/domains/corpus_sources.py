"""The default corpus: the text that every Python installation carries, in named sources of differing quality.

High quality are ``docstrings``, ``topics`` and ``readmes``; the rest is what a crawl also brings: code, tests, headers,
licences over and over, tables of data, stubs. The target distribution is the docstrings of standard-library modules
that a candidate has no need of, so that their files can be hidden from its sandbox.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from asi_evolve.source import ALLOWED_IMPORTS

MEGABYTE = 1_000_000
MAX_FILE = 400_000  # bytes; larger ones are data dumps that would be a source's whole share
SHARES = {  # bytes at most
    "docstrings": 3 * MEGABYTE,
    "topics": 1 * MEGABYTE,
    "readmes": 2 * MEGABYTE,
    "stdlib": 4 * MEGABYTE,
    "packages": 4 * MEGABYTE,
    "tests": 4 * MEGABYTE,
    "headers": 4 * MEGABYTE,
    "licences": 1 * MEGABYTE,
    "tables": 4 * MEGABYTE,
    "stubs": 2 * MEGABYTE,
}
_LICENCES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS")
_TABLES = (".csv", ".json", ".decTest", ".afm", ".dat", ".tsv", ".yaml", ".xml")
_PROSE = (".rst", ".md", ".txt")
_SKIPPED_DIRECTORIES = frozenset(("__pycache__", "site-packages", "dist-packages", "asi_evolve"))

Document = tuple[str, str]  # source, text


class Installation:
    """The files of the standard library and the installed packages, by kind."""

    def __init__(self) -> None:
        paths = sysconfig.get_paths()
        self.stdlib = Path(paths["stdlib"])
        self.sites = [Path(p) for p in dict.fromkeys((paths["purelib"], paths["platlib"])) if os.path.isdir(p)]
        self.kinds: dict[str, list[Path]] = {}
        for path in _walk(self.stdlib):
            self._add(path, path.relative_to(self.stdlib).as_posix(), standard=True)
        for site in self.sites:
            for path in _walk(site):
                self._add(path, path.relative_to(site).as_posix(), standard=False)
        for path in _walk(Path(paths["include"])):
            self._add(path, path.name, standard=False)

    def _add(self, path: Path, relative: str, standard: bool) -> None:
        kind = _kind(path, relative, standard)
        if kind:
            self.kinds.setdefault(kind, []).append(path)

    def files(self, kind: str) -> list[Path]:
        """The files of a kind. Their order depends on names alone, so that neighbours in a folder are spread."""
        return sorted(self.kinds.get(kind, []), key=lambda p: (hashlib.sha256(p.name.encode()).digest(), str(p)))


def _walk(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(d for d in folders if d not in _SKIPPED_DIRECTORIES and not d.startswith("asi_evolve"))
        for name in sorted(names):
            yield Path(folder, name)


def _kind(path: Path, relative: str, standard: bool) -> str:
    parts = relative.lower().split("/")
    suffix = path.suffix
    test = any(p in ("test", "tests", "testing") or p.startswith("test_") for p in parts)
    if path.name.upper().startswith(_LICENCES) and suffix in ("", ".txt", ".md", ".rst", ".APACHE", ".BSD"):
        return "licences"
    if suffix == ".py":
        if relative == "pydoc_data/topics.py":
            return "topics"
        if parts[0] == "encodings" or "tables" in path.stem or "_sysconfigdata" in path.stem:
            return "tables"
        return "tests" if test else "stdlib" if standard else "packages"
    if suffix in (".h", ".hpp", ".cuh"):
        return "headers"
    if suffix in _TABLES:
        return "tables"
    if suffix == ".pyi":
        return "stubs"
    if path.name == "METADATA" or (suffix in _PROSE and path.name not in ("top_level.txt", "entry_points.txt")):
        return "tests" if test else "readmes"
    return ""


def fingerprint() -> str:
    """Changes when the installation does: Python's version and every installed distribution's."""
    known = {f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}
    own = [n for n in known if not n.lower().replace("_", "-").startswith("asi-evolve")]
    return "\n".join([sys.version, sysconfig.get_paths()["stdlib"], *sorted(own)])


def needed_files() -> set[str]:
    """Standard-library files that a candidate's process reads: what torch, numpy and every import that candidates are
    allowed load."""
    names = ", ".join(sorted(ALLOWED_IMPORTS - {"asi_evolve"}))
    code = (
        f"import sys, {names}, linecache, traceback, resource, multiprocessing, concurrent.futures\n"
        # What torch loads only when it is asked for.
        "import torch._dynamo, torch._inductor.config, torch.func, torch.fft, torch.utils.flop_counter, torch.export\n"
        "print('\\n'.join(str(getattr(m, '__file__', '') or '') for m in list(sys.modules.values())))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(out.stdout.split("\n"))


def held_out_documents(installation: Installation, size: int) -> tuple[list[Document], list[Path]]:
    """The docstrings of whole standard-library files, taken in order of the files' content hash, and those files."""
    needed = needed_files()
    packages = {str(Path(p).parent) for p in needed if p.endswith("__init__.py")}
    eligible = []
    for path in installation.files("stdlib"):
        # Files beside needed ones may be imported later (lazily): only whole modules or packages that nothing touched.
        if str(path) not in needed and str(path.parent) not in packages and "idlelib" not in path.parts:
            data = path.read_bytes()
            eligible.append((hashlib.sha256(data).digest(), path, data))
    documents: list[Document] = []
    hidden: list[Path] = []
    total = 0
    for _, path, data in sorted(eligible):
        if total >= size:
            break
        texts = docstrings(data)
        if texts:
            documents += [("docstrings", text) for text in texts]
            hidden.append(path)
            total += sum(map(len, texts))
    return documents, hidden


def traces(path: Path) -> list[str]:
    """Every file that gives a module's text away: itself and its byte code."""
    return [str(path), *(str(p) for p in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"))]


def pool_documents(
    installation: Installation, without: set[Path], on_progress: Callable[[float], None]
) -> Iterator[Document]:
    """The pool, source by source, each up to its share.

    Args:
        installation: the files.
        without: held-out files; nothing of them is used.
        on_progress: called with the fraction done.
    """
    for number, (source, share) in enumerate(SHARES.items()):
        on_progress(number / len(SHARES))
        used = 0
        kinds = ("stdlib", "packages") if source == "docstrings" else (source,)
        for path in (p for kind in kinds for p in installation.files(kind)):
            if used >= share:
                break
            if path in without or path.stat().st_size > (MAX_FILE if source != "topics" else 1 << 22):
                continue
            for text in _texts(source, path):
                used += len(text)
                yield source, text


def _texts(source: str, path: Path) -> list[str]:
    try:
        data = path.read_bytes()
    except OSError:
        return []
    if source == "docstrings":
        return docstrings(data)
    if source == "topics":
        return _topics(data)
    text = _decode(data)
    if source in ("stdlib", "packages"):
        text = without_docstrings(text)
    if source == "readmes" and path.name == "METADATA":
        text = text.partition("\n\n")[2]  # the long description
    return [text] if len(text) >= 200 else []


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return ""


def _parse(text: bytes | str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(data: bytes) -> list[str]:
    """The docstrings of a module, joined to texts of some kilobytes; those under 40 characters are left out."""
    tree = _parse(data)
    texts: list[str] = []
    current: list[str] = []
    for node in ast.walk(tree) if tree else ():
        text = ast.get_docstring(node) if isinstance(node, _DOCUMENTED) else None
        if text and len(text) >= 40:
            current.append(text)
            if sum(map(len, current)) > 4000:
                texts.append("\n\n".join(current))
                current = []
    if current:
        texts.append("\n\n".join(current))
    return [t for t in texts if len(t) >= 200]


def without_docstrings(text: str) -> str:
    """Source text with its docstrings cut out; unchanged when it does not parse."""
    tree = _parse(text)
    if tree is None:
        return text
    drop: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            drop.update(range(first.lineno - 1, first.end_lineno or first.lineno))
    return "\n".join(line for i, line in enumerate(text.split("\n")) if i not in drop)


def _topics(data: bytes) -> list[str]:
    tree = _parse(data)
    texts = [
        node.value
        for node in (ast.walk(tree) if tree else ())
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [t for t in texts if len(t) >= 200]
