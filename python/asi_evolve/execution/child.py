"""The program inside a contained process: takes one request, gives up its rights, runs the candidate's code, answers.

Started by :mod:`asi_evolve.execution.sandbox` with the numbers of two file descriptors and its parent's process id.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import resource
import select
import signal
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asi_evolve.execution import exchange, frames, procfs, reporting

_MAX_REQUEST = 1 << 33
_MODULE = "candidate"


def main(request_fd: int, result_fd: int, parent: int) -> None:
    """Runs the request to its end; never returns."""
    if parent:  # 0: bubblewrap sees to it
        procfs.die_with_parent(parent, signal.SIGTERM)
    request = read_frame(request_fd)
    if request["level"] != "bubblewrap":
        _fork_worker()
    os.set_inheritable(request_fd, False)
    os.set_inheritable(result_fd, False)
    _limit(request["limits"])
    write_files(request["files"])
    sys.path[:0] = request["path"]
    reporting.connect(lambda fraction, note: write_frame(result_fd, "progress", [fraction, note]))
    if request["asks"]:
        exchange.connect(lambda question: _ask(request_fd, result_fd, question))
    try:
        if request["level"] == "landlock":
            _landlock(request["readable"], request["listable"], request["devices"], os.getcwd())
        value = _call(request["source"], request["entry"], request["inputs"])
        frame = frames.encode("result", value)
    except BaseException as error:
        frame = frames.encode("error", {"message": _describe(error), "memory": _out_of_memory(error)})
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    write(result_fd, frame)
    os.read(request_fd, 1)  # the parent reads our memory use before we go
    os._exit(0)


def read_frame(fd: int) -> Any:
    """One frame's value. Exits when the parent is gone."""
    reader = frames.FrameReader(_MAX_REQUEST)
    while True:
        # Never a byte more than the frame: after it come other things.
        data = os.read(fd, 1 << 20)
        if not data:
            os._exit(1)
        for _, value in reader.feed(data):
            return value


def _ask(request_fd: int, result_fd: int, question: Any) -> Any:
    write_frame(result_fd, "question", question)
    return read_frame(request_fd)


def write(fd: int, parts: Sequence[bytes | memoryview]) -> None:
    """All of the parts, in order."""
    if sum(map(len, parts)) <= select.PIPE_BUF:  # one system call for a small frame
        parts = [b"".join(parts)]
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[os.write(fd, view[: 1 << 20]) :]


def write_frame(fd: int, kind: str, value: Any) -> None:
    """One frame."""
    write(fd, frames.encode(kind, value))


def write_files(files: Mapping[str, str]) -> None:
    """Writes files below the working directory."""
    for path, text in files.items():
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def _fork_worker() -> None:
    """Returns in a child. This process becomes its keeper: orphans fall to it; it kills all when the engine dies."""
    procfs.become_subreaper()
    keeper = os.getpid()
    worker = os.fork()
    if worker == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        procfs.die_with_parent(keeper)
        os.setpgid(0, 0)
        return

    def end(*_: object) -> None:
        procfs.kill_below(keeper)
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    status = 0
    while True:
        try:
            pid, ended = os.wait()
        except ChildProcessError:
            break
        except InterruptedError:
            continue
        if pid == worker:
            status = ended
            procfs.kill_below(keeper)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _limit(limits: Mapping[str, int]) -> None:
    for name, value in limits.items():
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        top = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (top, top + 1 if name == "RLIMIT_CPU" and top == value else top))


def _landlock(readable: Sequence[str], listable: Sequence[str], given: Sequence[str], scratch: str) -> None:
    from asi_evolve.execution import landlock, seccomp

    devices = ["/dev/null", "/dev/zero", "/dev/full"]
    system = ["/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu"]
    landlock.restrict([*readable, *system, "/dev/urandom", "/dev/random"], [scratch, *devices, *given], listable)
    seccomp.load()


def _call(source: str, entry: str, inputs: Mapping[str, Any]) -> Any:
    module = types.ModuleType(_MODULE)
    module.__file__ = f"<{_MODULE}>"
    sys.modules[_MODULE] = module  # dataclasses look their module up
    linecache.cache[module.__file__] = (len(source), None, source.splitlines(keepends=True), module.__file__)
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    function = getattr(module, entry, None)
    if not callable(function):
        raise NameError(f"the source defines no function {entry!r}")
    return function(**inputs)


def _describe(error: BaseException) -> str:
    """The traceback without our own frames."""
    try:
        shown = traceback.TracebackException.from_exception(error)
        first = next((i for i, f in enumerate(shown.stack) if f.filename != __file__), len(shown.stack))
        shown.stack = traceback.StackSummary.from_list(list(shown.stack)[first:])
        return "".join(shown.format())[-(32 << 10) :].encode("utf-8", "replace").decode("utf-8")
    except BaseException:
        return f"{type(error).__name__} (and its description failed)"


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    try:  # torch raises a RuntimeError
        text = str(error)
    except BaseException:
        return False
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
