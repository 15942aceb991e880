"""Runs one process tree to its end: request in, frames out, output captured, limits enforced, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asi_evolve.execution import procfs
from asi_evolve.execution.frames import FrameError, FrameReader, encode
from asi_evolve.execution.limits import Limits, Status, Usage

OnProgress = Callable[[float, str], None]
OnQuestion = Callable[[Any], Any]

_TICK = 0.05  # seconds between two looks at the tree
_CHUNK = 1 << 20
_GRACE = 2.0  # seconds for an orderly exit after the result
_PROGRESS_RATE = 50  # messages a second passed on; more are dropped


@dataclass
class Ending:
    """How a supervised process ended. ``value`` is the result frame's when ``status`` is ``ok``."""

    status: Status = "crash"
    value: Any = None
    message: str = ""
    stdout: bytes = b""
    stderr: bytes = b""
    usage: Usage = field(default_factory=Usage)
    cancelled: bool = False


def supervise(
    command: Callable[[int, int], Sequence[str]],
    request: Sequence[bytes | memoryview],
    limits: Limits,
    *,
    env: Mapping[str, str],
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
    on_progress: OnProgress | None = None,
    on_question: OnQuestion | None = None,
    cancel: threading.Event | None = None,
    watch_memory: bool = True,
) -> Ending:
    """Starts a process, speaks frames with it, and ends its whole tree.

    Call it from a thread that lives until it returns: children ask the kernel to die with the *thread* that made them.

    Args:
        command: the command line, given the numbers of the file descriptors to read the request from and to write
            frames to.
        request: what to send, see :func:`asi_evolve.execution.frames.encode`.
        limits: wall clock, memory, processes, output and result size are enforced here, the rest by the process.
        env: the whole environment.
        cwd: working directory.
        pass_fds: further descriptors to inherit.
        on_progress: gets every progress frame (fraction, note).
        on_question: answers question frames; what it raises is raised here, after the tree has been ended.
        cancel: when set, the tree is killed.
        watch_memory: False leaves memory and process limits to others.
    """
    request_read, request_write = os.pipe2(os.O_CLOEXEC)
    result_read, result_write = os.pipe2(os.O_CLOEXEC)
    start = time.monotonic()
    try:
        process = subprocess.Popen(
            command(request_read, result_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            pass_fds=(request_read, result_write, *pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        for fd in (request_write, result_read):
            os.close(fd)
        return Ending("crash", message=f"cannot start: {error}")
    finally:
        os.close(request_read)
        os.close(result_write)
    run = _Run(
        process,
        request,
        limits,
        on_progress=on_progress,
        on_question=on_question,
        cancel=cancel,
        watch_memory=watch_memory,
        start=start,
    )
    try:
        run.loop(request_write, result_read)
    finally:
        run.finish()
        for fd in (request_write, result_read):
            with contextlib.suppress(OSError):
                os.close(fd)
    return run.ending


class _Run:
    def __init__(
        self,
        process: subprocess.Popen[bytes],
        request: Sequence[bytes | memoryview],
        limits: Limits,
        *,
        on_progress: OnProgress | None,
        on_question: OnQuestion | None,
        cancel: threading.Event | None,
        watch_memory: bool,
        start: float,
    ) -> None:
        self.process, self.limits, self.start = process, limits, start
        self.on_progress, self.on_question, self.cancel = on_progress, on_question, cancel
        self.watch_memory = watch_memory
        self.answer: Callable[[Any], None] | None = None
        self.pending = [memoryview(part).cast("B") for part in request if len(part)]
        self.reader = FrameReader(limits.result_bytes)
        self.ending = Ending()
        self.output: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self.decided = False
        self.peak = 0
        self.cpu = 0.0
        self.tree: dict[int, int] = {}  # pid -> start time of everything seen below
        self.messages = 0

    def decide(self, status: Status, message: str, value: Any = None) -> None:
        if not self.decided:
            self.decided = True
            self.ending.status, self.ending.message, self.ending.value = status, message, value

    # -- the loop -----------------------------------------------------------------------------------------------------

    def loop(self, request_write: int, result_read: int) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        exited = os.pidfd_open(self.process.pid)
        deadline = self.start + self.limits.wall_seconds
        next_look = self.start + _TICK
        with selectors.DefaultSelector() as selector:
            for fd in (request_write, result_read, self.process.stdout.fileno(), self.process.stderr.fileno()):
                os.set_blocking(fd, False)
            selector.register(result_read, selectors.EVENT_READ, "result")
            selector.register(self.process.stdout, selectors.EVENT_READ, "stdout")
            selector.register(self.process.stderr, selectors.EVENT_READ, "stderr")
            selector.register(exited, selectors.EVENT_READ, "exit")
            if self.pending:
                selector.register(request_write, selectors.EVENT_WRITE, "request")

            def answer(value: Any) -> None:
                self.pending = [memoryview(b"".join(encode("answer", value)))]
                if self.write(request_write):
                    selector.register(request_write, selectors.EVENT_WRITE, "request")

            self.answer = answer
            try:
                while not self.decided:
                    now = time.monotonic()
                    if now >= deadline:
                        self.decide("timeout", f"still running after {self.limits.wall_seconds:g} s")
                        break
                    if self.cancel is not None and self.cancel.is_set():
                        self.ending.cancelled = True
                        self.decide("crash", "cancelled")
                        break
                    if now >= next_look:
                        self.look()
                        next_look = time.monotonic() + _TICK
                    for key, _ in selector.select(max(0.0, min(deadline, next_look) - time.monotonic())):
                        self.handle(selector, key.data, key.fd)
                if self.ending.status == "ok":
                    self.release(request_write, exited)
                self.drain()
            finally:
                os.close(exited)

    def handle(self, selector: selectors.BaseSelector, what: str, fd: int) -> None:
        if self.decided:
            return
        if what == "request":
            if not self.write(fd):
                selector.unregister(fd)
        elif what == "result":
            self.read_result(selector, fd)
        elif what == "exit":
            # What it wrote before it ended may still be in the pipe. Do not wait for end of file: a daemonised child
            # may hold the other end open.
            while not self.decided and self.read_result(selector, self.result_fd(selector)):
                pass
            self.drain()
            self.decide_by_exit()
        elif not self.read_output(what, fd):
            selector.unregister(fd)

    @staticmethod
    def result_fd(selector: selectors.BaseSelector) -> int:
        for key in selector.get_map().values():
            if key.data == "result":
                return int(key.fd)
        return -1

    def write(self, fd: int) -> bool:
        """Sends more of the request; False when there is no more to send."""
        try:
            while self.pending:
                sent = os.write(fd, self.pending[0][:_CHUNK])
                self.pending[0] = self.pending[0][sent:]
                if not len(self.pending[0]):
                    self.pending.pop(0)
        except BlockingIOError:
            return True
        except OSError:
            self.pending.clear()
        return False

    def read_result(self, selector: selectors.BaseSelector, fd: int) -> bool:
        if fd < 0:
            return False
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            selector.unregister(fd)
            return False
        try:
            frames = self.reader.feed(data)
        except FrameError as error:
            self.decide("protocol", str(error))
            return False
        for kind, value in frames:
            self.take(kind, value)
        return True

    def take(self, kind: str, value: Any) -> None:
        if self.decided:
            return
        if kind == "progress" and isinstance(value, list) and len(value) == 2:
            fraction, note = value
            self.messages += 1
            known = isinstance(fraction, float | int) and 0 <= fraction <= 1 and isinstance(note, str)
            allowed = self.messages <= 20 + _PROGRESS_RATE * (time.monotonic() - self.start)
            if self.on_progress is not None and known and allowed:
                self.on_progress(float(fraction), note[:120])
        elif kind == "question" and self.on_question is not None and self.answer is not None:
            if self.pending:  # whoever waits for an answer has read everything before it
                self.decide("protocol", "a question before the answer to the last one was read")
            else:
                self.answer(self.on_question(value))
        elif kind == "result":
            self.decide("ok", "", value)
        elif kind == "error" and isinstance(value, dict):
            status: Status = "memory" if value.get("memory") is True else "error"
            self.decide(status, str(value.get("message", ""))[: 64 << 10])
        else:
            self.decide("protocol", f"unexpected frame of kind {kind[:40]!r}")

    def read_output(self, what: str, fd: int) -> bool:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        kept = self.output[what]
        kept += data[: max(0, self.limits.output_bytes - len(kept))]
        return bool(data)

    def drain(self) -> None:
        """Takes what is in the pipes now, but no flood of it."""
        for what, stream in (("stdout", self.process.stdout), ("stderr", self.process.stderr)):
            assert stream is not None
            for _ in range(4):
                if not self.read_output(what, stream.fileno()):
                    break

    # -- limits -------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """One look at the tree: its memory and its size."""
        below = procfs.descendants(self.process.pid)
        total = tasks = 0
        sizes = []
        for pid in below:
            if pid not in self.tree:
                moment = procfs.start_time(pid)
                if moment is not None:
                    self.tree[pid] = moment
            now, peak, threads = procfs.resident(pid)
            total, tasks = total + now, tasks + threads
            self.peak = max(self.peak, peak)
            sizes.append(pid)
        # bwrap does not wait for the namespace it made, so wait4 alone would miss the time spent inside.
        self.cpu = max(self.cpu, sum(map(procfs.cpu_seconds, (self.process.pid, *below))))
        own, peak, threads = procfs.resident(self.process.pid)
        if not below:
            self.peak = max(self.peak, peak)
        total, tasks = total + own, tasks + threads
        if not self.watch_memory:
            return
        if tasks > self.limits.processes + 3:  # ours: the supervisor, the init of the namespace, the interpreter
            self.decide("crash", f"more than {self.limits.processes} processes and threads")
        elif total > self.limits.memory_bytes:
            # Pages shared after a fork are counted once per process above; look closer before judging.
            exact = sum(procfs.proportional(pid) or procfs.resident(pid)[0] for pid in sizes)
            if exact > self.limits.memory_bytes:
                self.peak = max(self.peak, exact)
                self.decide("memory", f"resident memory over {self.limits.memory_bytes >> 20} MiB")

    def release(self, request_write: int, exited: int) -> None:
        """The process waits with its result until its memory has been read; then it may go."""
        self.look()
        with contextlib.suppress(OSError):
            os.write(request_write, b"!")
        with selectors.DefaultSelector() as selector:
            selector.register(exited, selectors.EVENT_READ)
            selector.select(_GRACE)

    # -- the end ------------------------------------------------------------------------------------------------------

    def decide_by_exit(self) -> None:
        if self.decided:
            return
        code = self.wait(block=True)
        number = -code if code < 0 else code - 128 if code > 128 else 0
        if self.reader.started:
            self.decide("protocol", "ended in the middle of a frame")
        elif number in (signal.SIGXCPU,):
            self.decide("timeout", f"CPU time over {self.limits.cpu_limit} s")
        elif number == signal.SIGKILL and self.peak > 0.8 * self.limits.memory_bytes:
            self.decide("memory", "killed by the system near its memory limit")
        elif number:
            name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
            self.decide("crash", f"killed by signal {name}")
        elif code:
            self.decide("crash", f"exit status {code}")
        else:
            self.decide("protocol", "ended without a result")

    def wait(self, block: bool) -> int:
        """Reaps the process; keeps its resource usage. A negative signal number when it died of one."""
        if self.process.returncode is None:
            pid, status, usage = os.wait4(self.process.pid, 0 if block else os.WNOHANG)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.ending.usage = Usage(0.0, usage.ru_utime + usage.ru_stime, 0)
        return self.process.returncode if self.process.returncode is not None else 0

    def finish(self) -> None:
        """Kills what is left of the tree and waits until it is gone."""
        root = self.process.pid
        if self.process.returncode is None:
            for pid in procfs.descendants(root):
                moment = procfs.start_time(pid)
                if moment is not None:
                    self.tree[pid] = moment
            # The init of a PID namespace takes everything in it along; the root reaps it, so that its CPU time counts.
            procfs.kill_below(root)
            deadline = time.monotonic() + 0.05
            while self.process.returncode is None and time.monotonic() < deadline:
                self.wait(block=False)
                if self.process.returncode is None:
                    time.sleep(0.002)
            if self.process.returncode is None:
                procfs.send(root, signal.SIGKILL)
                self.wait(block=True)
        deadline = time.monotonic() + 5.0
        left = dict(self.tree)
        while left and time.monotonic() < deadline:
            left = {p: t for p, t in left.items() if procfs.start_time(p) == t}
            for pid in left:
                procfs.send(pid, signal.SIGKILL)
            if left:
                time.sleep(0.002)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        used = self.ending.usage
        wall = time.monotonic() - self.start
        self.ending.usage = Usage(wall, max(used.cpu_seconds, self.cpu), self.peak)
        self.ending.stdout, self.ending.stderr = bytes(self.output["stdout"]), bytes(self.output["stderr"])
