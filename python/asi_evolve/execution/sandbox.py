"""The sandbox: code that a language model wrote runs here and nowhere else."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asi_evolve.candidate import check_path
from asi_evolve.execution import frames, levels, procfs, seccomp
from asi_evolve.execution.limits import MEBIBYTE, Limits, Result
from asi_evolve.execution.supervise import OnProgress, OnQuestion, supervise

_THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM", "BLIS", "TBB")
_SCRATCH = "/tmp"
SETTINGS = "ASI_EVOLVE_SANDBOX"  # from the pool to benchmarks that start sandboxes, see settings()
_BOOT = (
    "import sys; sys.path[:1] = {path!r}; sys.path += [p for p in {more!r} if p not in sys.path]; "
    "from asi_evolve.execution.child import main; main({request}, {result}, {parent})"
)


class Sandbox:
    """Runs functions of untrusted source, each in a fresh contained process.

    Args:
        level: ``auto`` (the strongest that works here), ``bubblewrap``, ``landlock`` or ``none`` (contains nothing and
            must be asked for by name).
        limits: of every run.
        devices: device nodes that the code may use besides the harmless ones, such as /dev/nvidia0. What a driver lets
            its users do is then open to the code.

    Raises:
        ConfigError: the level is unknown or does not work here, or a device is not there.

    What holds at level ``bubblewrap``: no network, no file of the host but the read-only Python installation and what
    ``read_only`` names, no environment, no process of the host visible, no new privileges; a scratch directory of
    limited size that vanishes with the process. At ``landlock``, the same files and no sockets, but other processes'
    numbers and the existence and size of files are visible, the total size of the scratch directory is not limited,
    and before Linux 6.12 processes of the same user can be signalled. At both, the limits hold, and nothing outlives
    the call, nor its caller. To root the kernel does not apply RLIMIT_NPROC: there the parent's watch alone bounds the
    number of processes.
    """

    def __init__(
        self,
        level: str = "auto",
        limits: Limits | None = None,
        devices: Sequence[str] = (),
        *,
        _resolved: levels.Level | None = None,
    ) -> None:
        self.level: levels.Level = _resolved or levels.resolve(level)
        self.limits = limits or Limits()
        self.devices = levels.checked_devices(devices)

    @classmethod
    def configured(cls, limits: Limits | None = None) -> Sandbox:
        """The sandbox that the engine's configuration asks for, inside an evaluator process; ``auto`` elsewhere.

        Args:
            limits: with memory and process limits at most the configured ones.
        """
        limits = limits or Limits()
        given = json.loads(os.environ.get(SETTINGS, "") or settings("auto", 1 << 20, 1 << 20, ()))
        limits = replace(
            limits,
            memory_bytes=min(limits.memory_bytes, given["memory_mb"] * MEBIBYTE),
            processes=min(limits.processes, given["processes"]),
        )
        # The pool has already tried the level: no second probe in every evaluator.
        known = next((known for known in levels.LEVELS if known == given["level"]), None)
        return cls(given["level"], limits, given["devices"], _resolved=known)

    def run(
        self,
        source: str,
        entry: str,
        inputs: Mapping[str, Any],
        *,
        files: Mapping[str, str] | None = None,
        read_only: Sequence[str] = (),
        hidden: Sequence[str] = (),
        on_progress: OnProgress | None = None,
        on_question: OnQuestion | None = None,
        limits: Limits | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Calls ``entry(**inputs)`` of a module with this source.

        Args:
            source: text of a Python module.
            entry: name of a function in it.
            inputs: arguments: JSON values, numpy arrays of bool, (u)int or float, and bytes.
            files: further text files by relative path, laid into the working directory, importable from there.
            read_only: absolute paths that can be read inside, at the same place.
            hidden: absolute paths of files that cannot be read inside although a directory around them can.
            on_progress: called with (fraction, note) for every message from :func:`asi_evolve.execution.progress`.
            on_question: answers what the code asks by :func:`asi_evolve.execution.ask`; called between two reads of
                the channel, so its time counts against the wall clock. What it raises ends the run and is raised here.
            limits: instead of the sandbox's own.
            cancel: kills the run when set.

        Returns:
            The result; whatever the code does, nothing is raised for it.

        Raises:
            FrameError, InvalidEdit: ``inputs`` or ``files`` cannot be passed.
        """
        limits = limits or self.limits
        bare = self.level == "bubblewrap"
        for path in files or {}:
            check_path(path)
        scratch = _SCRATCH if bare else tempfile.mkdtemp(prefix="asi-evolve-")
        visible = levels.outermost([*levels.python_paths(), *(os.path.abspath(p) for p in read_only)])
        masked = [p for p in map(os.path.abspath, hidden) if os.path.isfile(p)]
        readable, listable = levels.without([*visible, *levels.system_paths()], masked) if not bare else ([], [])
        request = {
            "level": self.level,
            "source": source,
            "entry": entry,
            "inputs": dict(inputs),
            "files": dict(files or {}),
            "path": [scratch],
            "limits": _rlimits(limits),
            "readable": readable,
            "listable": listable,
            "devices": self.devices,
            "asks": on_question is not None,
        }
        extra: list[int] = []
        try:
            parts = frames.encode("request", request)
            if bare and seccomp.available():
                extra.append(_memory_file(seccomp.program()))

            def command(request_fd: int, result_fd: int) -> list[str]:
                parent = 0 if bare else os.getpid()
                boot = _BOOT.format(
                    path=levels.import_paths(),
                    more=levels.package_paths(),
                    request=request_fd,
                    result=result_fd,
                    parent=parent,
                )
                python = [sys.executable, "-s", "-B", "-c", boot]
                return _bubblewrap(visible, masked, self.devices, limits, extra) + python if bare else python

            ending = supervise(
                command,
                parts,
                limits,
                env=_environment(limits, scratch),
                cwd=None if bare else scratch,
                pass_fds=extra,
                on_progress=on_progress,
                on_question=on_question,
                cancel=cancel,
            )
        finally:
            for fd in extra:
                os.close(fd)
            if not bare:
                shutil.rmtree(scratch, ignore_errors=True)
        stderr = ending.stderr.decode("utf-8", "replace")
        error = ending.message
        if ending.status in ("crash", "protocol") and stderr.strip():
            error = f"{error}: {stderr.strip()[-2000:]}"
        return Result(
            ending.status, ending.value, ending.stdout.decode("utf-8", "replace"), stderr, ending.usage, error
        )


def settings(level: str, memory_mb: int, processes: int, devices: Sequence[str]) -> str:
    """What :meth:`Sandbox.configured` reads from the environment variable :data:`SETTINGS`."""
    return json.dumps(
        {"level": level, "memory_mb": memory_mb, "processes": processes, "devices": list(devices)}, sort_keys=True
    )


def _environment(limits: Limits, scratch: str) -> dict[str, str]:
    """All of it: nothing of ours is passed on."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": scratch,
        "TMPDIR": scratch,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",  # set order must not change a result
        "PYTHONUNBUFFERED": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        **{f"{name}_NUM_THREADS": str(limits.threads) for name in _THREADS},
    }


def _rlimits(limits: Limits) -> dict[str, int]:
    values = {
        "RLIMIT_CPU": limits.cpu_limit,
        # Counts reserved private memory, of which an allocator takes more than it uses.
        "RLIMIT_DATA": limits.memory_bytes + limits.memory_bytes // 4 + 256 * MEBIBYTE,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_CORE": 0,
    }
    uid = os.getuid()
    if uid != 0:  # the kernel counts all of a user's processes, and does not hold root to it: then only we watch
        values["RLIMIT_NPROC"] = procfs.tasks_of_user(uid) + limits.processes
    return values


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("filter")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _bubblewrap(
    visible: Sequence[str], masked: Sequence[str], devices: Sequence[str], limits: Limits, filters: Sequence[int]
) -> list[str]:
    program = levels.bwrap_path()
    assert program is not None
    command = [program, "--die-with-parent", "--new-session"]
    command += ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for path in devices:
        command += ["--dev-bind", path, path]
    command += ["--size", str(limits.scratch_bytes), "--tmpfs", "/dev/shm"]
    command += ["--size", str(limits.scratch_bytes), "--perms", "0700", "--tmpfs", _SCRATCH]
    for path in levels.system_paths():
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        else:
            command += ["--ro-bind", path, path]
    for path in visible:
        command += ["--ro-bind", path, path]
    for path in masked:
        if any(path.startswith(shown + "/") for shown in (*visible, *levels.system_paths())):
            command += ["--ro-bind", "/dev/null", path]
    # The roots of / and /dev are in-memory file systems: without this they are scratch space without a limit.
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", _SCRATCH]
    for descriptor in filters:
        command += ["--seccomp", str(descriptor)]
    return [*command, "--"]
