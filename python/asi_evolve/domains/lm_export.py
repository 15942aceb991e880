"""A candidate of the language-model benchmark as a plain PyTorch program, and its model for Hugging Face Transformers;
both run without the engine."""

from __future__ import annotations

import ast
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from asi_evolve.candidate import Candidate, Component, thaw
from asi_evolve.domains.algorithm.domain import training_files
from asi_evolve.domains.architecture import SLOTS, model_files
from asi_evolve.domains.data import curation_files
from asi_evolve.domains.slots import CUSTOM

_PROVIDED = frozenset(
    {"linear_attention", "linear_attention_ref", "linear_attention_step"}
)  # what ops.py has of asi_evolve.ops
_HUGGING_FACE = ("__init__.py", "configuration_evolved.py", "decoding.py", "modeling_evolved.py", "README.md")
_OTHERS = "# Named here because Transformers copies those modules alone that the first one imports.\n"
_COPIED = {  # modules of the engine that need numpy alone and are exported as they are
    "curation/statistics.py": "corpus_statistics.py",
    "curation/dedup.py": "corpus_dedup.py",
    "curation/language.py": "corpus_language.py",  # imports py3langid where a pipeline asks for a language
    "curation/quality.py": "corpus_quality.py",
    "curation/windows.py": "data/windows.py",
}


def export_files(candidate: Candidate, settings: dict[str, Any]) -> dict[str, str]:
    """Text by relative path: the packages ``model``, ``training`` and ``curation``, ``train.py``, ``data.py``, README,
    and ``huggingface``, the same model for Transformers, which is complete in itself.

    Args:
        candidate: the triple.
        settings: ``sequence_length``, ``windows`` (of the full stage), ``data_seed``, ``threads``.
    """
    files = {
        **model_files(candidate.architecture),
        **training_files(candidate.algorithm),
        **curation_files(candidate.data),
        "curation/__init__.py": '"""Which documents are drawn, and how often; see data.py beside this package."""\n',
    }
    left = []
    for path in sorted(files):
        package = path.split("/")[0]
        text, uses_ops, remaining = without_engine(files[path])
        files[path] = text
        left += [f"{path}: {what}" for what in remaining]
        if uses_ops:
            files[f"{package}/ops.py"] = _read("lm_export_files/ops.py")
            reference = resources.files("asi_evolve") / "ops" / "reference.py"  # plain torch; not imported here
            files[f"{package}/reference.py"] = reference.read_text(encoding="utf-8")
    for path, name in _COPIED.items():
        files[path] = _read(name)
    for name in ("train.py", "data.py"):
        files[name] = _read(f"lm_export_files/{name}")
    files["model/params.json"] = _json(candidate.architecture)
    files["training/spec.json"] = _json(candidate.algorithm)
    files["curation/params.json"] = _json(candidate.data)
    files |= _huggingface(candidate.architecture, files, settings["sequence_length"])
    files["settings.json"] = json.dumps(settings, indent=2) + "\n"
    readme = _read("lm_export_files/README.md")
    files["README.md"] = readme.replace("SEQUENCE_LENGTH", str(settings["sequence_length"]))
    if left:
        lines = "\n".join(f"- `{line}`" for line in left)
        files["README.md"] += f"\nThese imports could not be replaced, so the engine is needed after all:\n\n{lines}\n"
    return files


def _huggingface(architecture: Component, files: dict[str, str], length: int) -> dict[str, str]:
    """The folder ``huggingface``: flat, as Transformers copies only modules that lie beside the one it loads."""
    code = {
        path.split("/")[1]: text for path, text in files.items() if path.startswith("model/") and path[-3:] == ".py"
    }
    code["language_model.py"] = code.pop("__init__.py")
    for name in _HUGGING_FACE:
        code[name] = _read(f"lm_export_files/huggingface/{name}")
    names = {**SLOTS, "ops": "linear_attention", "reference": "linear_attention_ref"}
    imports = [f"from .{m} import {n} as _{m}  # noqa: F401\n" for m, n in names.items() if f"{m}.py" in code]
    code["modeling_evolved.py"] = code["modeling_evolved.py"].replace(_OTHERS, _OTHERS + "".join(imports))
    # Transformers takes two models with one configuration class for the same code: each export has a class of its own.
    digest = hashlib.sha256("\0".join(text for _, text in sorted(code.items())).encode()).hexdigest()
    code["configuration_evolved.py"] += (
        f'\n\nCODE = "{digest[:16]}"  # of the modules here, which this class stands for\n'
    )
    config = {
        "architectures": ["EvolvedForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_evolved.EvolvedConfig",
            "AutoModelForCausalLM": "modeling_evolved.EvolvedForCausalLM",
        },
        "model_type": "asi_evolve",
        "architecture": thaw(architecture.params),
        "max_position_embeddings": length,
        "resume": CUSTOM not in [architecture.params[slot] for slot in SLOTS],
    }
    code["config.json"] = json.dumps(config, indent=2) + "\n"
    return {f"huggingface/{path}": text for path, text in code.items()}


def write_export(candidate: Candidate, target: Path, settings: dict[str, Any]) -> list[Path]:
    """Writes :func:`export_files` under ``target``; the paths written. Raises OSError."""
    written = []
    for name, text in sorted(export_files(candidate, settings).items()):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _json(component: Component) -> str:
    return json.dumps(thaw(component.params), indent=2) + "\n"


def _read(name: str) -> str:
    return resources.files("asi_evolve.domains").joinpath(*name.split("/")).read_text(encoding="utf-8")


# -- imports ----------------------------------------------------------------------------------------------------------


def without_engine(text: str) -> tuple[str, bool, list[str]]:
    """Source with its imports of ``asi_evolve.ops`` turned into imports of ``ops.py`` in its own package.

    Returns:
        The source, whether it uses ``ops.py``, and the imports of the engine that have no replacement.
    """
    tree = ast.parse(text)
    edits: list[tuple[ast.stmt | ast.expr, str]] = []
    left: list[str] = []
    dotted = False  # ``import asi_evolve.ops``: uses are written out and have to be renamed
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _engine(node.module):
            names = [a.name for a in node.names]
            shown = ", ".join(a.name + (f" as {a.asname}" if a.asname else "") for a in node.names)
            if node.module == "asi_evolve.ops" and set(names) <= _PROVIDED:
                edits.append((node, f"from .ops import {shown}"))
            elif node.module == "asi_evolve" and names == ["ops"]:
                edits.append((node, f"from . import {shown}"))
            else:
                left.append(f"from {node.module} import {shown}")
        elif isinstance(node, ast.Import) and any(_engine(a.name) for a in node.names):
            statements = []
            for a in node.names:
                if a.name == "asi_evolve.ops":
                    dotted |= a.asname is None
                    statements.append(f"from . import ops as {a.asname or _RENAMED}")
                else:
                    statements.append(f"import {a.name}" + (f" as {a.asname}" if a.asname else ""))
                    left += [f"import {a.name}"] if _engine(a.name) else []
            edits.append((node, "; ".join(statements)))
    if dotted:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "asi_evolve.ops":
                edits.append((node, _RENAMED))
    uses = any("ops" in replacement for _, replacement in edits)
    return _apply(text, edits), uses, left


_RENAMED = "_ops"


def _engine(module: str | None) -> bool:
    return module is not None and module.split(".")[0] == "asi_evolve"


def _apply(text: str, edits: list[tuple[ast.stmt | ast.expr, str]]) -> str:
    """``text`` with the source of each node replaced. Positions in the tree are bytes of UTF-8 within a line."""
    data = text.encode("utf-8")
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    spans = [
        (starts[n.lineno - 1] + n.col_offset, starts[(n.end_lineno or n.lineno) - 1] + (n.end_col_offset or 0), new)
        for n, new in edits
    ]
    for begin, end, new in sorted(spans, reverse=True):
        data = data[:begin] + new.encode("utf-8") + data[end:]
    return data.decode("utf-8")
