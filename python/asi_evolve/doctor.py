"""``asi-evolve doctor``: what is active on this machine, found by trying it."""

from __future__ import annotations

from importlib import metadata
from typing import Any


def examine() -> dict[str, Any]:
    """Facts by topic, JSON-able."""
    from asi_evolve import __version__
    from asi_evolve.execution import describe_level

    return {
        "version": __version__,
        "native": _native(),
        "torch": _torch(),
        "faiss": _faiss(),
        "sandbox": describe_level("auto"),
        "llm": _llm(),
    }


def _native() -> dict[str, Any]:
    from asi_evolve import _native

    return {"isa": _native.isa(), "build": _native.build_info(), "cuda": _cuda()}


def _cuda() -> dict[str, Any]:
    """The kernels of this build, the devices found, and which of both run linear attention."""
    from asi_evolve import _native

    info = _native.cuda_info()
    kernels = [f"{k['variant']} d={k['d']} ({', '.join(k['dtypes'])})" for k in _native.cuda_kernels()]
    if not kernels:
        runs_on = "CPU: built without CUDA"
    elif not info["devices"]:
        runs_on = f"CPU: no device was found ({info['error']})"
    else:
        runs_on = "CPU and CUDA"
    return {**info, "kernels": kernels, "architectures": _native.cuda_architectures(), "linear attention": runs_on}


def _torch() -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        return {"error": str(error)}
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.is_available(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _faiss() -> dict[str, Any]:
    try:
        import faiss
    except ImportError as error:
        return {"error": str(error)}
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return {"version": faiss.__version__, "gpu_build": hasattr(faiss, "StandardGpuResources"), "gpus": gpus}


def _llm() -> dict[str, Any]:
    from asi_evolve.llm.models import MODELS, model_path

    return {
        "xllamacpp": _version("xllamacpp"),
        "vllm": _version("vllm"),
        "models": {name: str(model_path(name) or "not fetched") for name in MODELS},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def text(facts: dict[str, Any]) -> str:
    """The facts as a page of text."""
    lines = [f"asi-evolve-engine {facts['version']}"]
    for topic in ("native", "torch", "faiss", "sandbox", "llm"):
        lines.append(f"{topic}")
        lines += _lines(facts[topic], 1)
    return "\n".join(lines)


def _lines(value: Any, depth: int) -> list[str]:
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{'  ' * depth}{key}", *_lines(item, depth + 1)]
        else:
            shown = ", ".join(map(str, item)) or "none" if isinstance(item, list | tuple) else item
            lines.append(f"{'  ' * depth}{key}: {shown}")
    return lines
