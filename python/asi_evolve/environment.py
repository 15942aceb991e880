"""What a result depends on besides the code: versions, hardware, git state. Stored with every run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from asi_evolve.config import Config

_PACKAGES = (
    "asi-evolve-engine",
    "torch",
    "numpy",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "sqlalchemy",
    "openai",
    "xllamacpp",
    "vllm",
)


def describe_environment(config: Config, llm: str | None) -> dict[str, Any]:
    """JSON-able description of this machine and installation."""
    from asi_evolve.execution import describe_level

    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "git": _git(),
        "sandbox": describe_level(config.sandbox.level),
        "llm": {"provider": config.llm.provider, "model": llm},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git() -> dict[str, Any] | None:
    """Commit and cleanness of the checkout the command runs in; None outside one."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "clean": not status.stdout.strip()}
