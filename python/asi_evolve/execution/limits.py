"""What a contained process may use, what it did use, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "timeout", "memory", "crash", "protocol", "error"]

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of one contained run.

    Attributes:
        wall_seconds: wall clock from start to result, interpreter start-up included.
        cpu_seconds: CPU time of one process (RLIMIT_CPU); None: ``wall_seconds * threads`` and a little.
        memory_bytes: resident memory of the whole process tree, watched by the parent every 50 ms, and the base of
            RLIMIT_DATA of each process. RLIMIT_AS is left alone: torch reserves address space it never touches.
        processes: processes and threads of the whole tree.
        threads: threads of the numerical libraries (OMP_NUM_THREADS and its kin).
        file_bytes: size of one written file.
        scratch_bytes: size of the private scratch file system (level ``bubblewrap`` only).
        open_files: open file descriptors per process.
        output_bytes: kept of each of stdout and stderr; the rest is read and dropped.
        result_bytes: size of the result.
    """

    wall_seconds: float = 60.0
    cpu_seconds: float | None = None
    memory_bytes: int = 4096 * MEBIBYTE
    processes: int = 64
    threads: int = 1
    file_bytes: int = 256 * MEBIBYTE
    scratch_bytes: int = 256 * MEBIBYTE
    open_files: int = 256
    output_bytes: int = 64 << 10
    result_bytes: int = 256 * MEBIBYTE

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name}: {value!r} is not positive")

    @property
    def cpu_limit(self) -> int:
        """RLIMIT_CPU, whole seconds."""
        seconds = self.wall_seconds * self.threads + 2 if self.cpu_seconds is None else self.cpu_seconds
        return max(1, int(seconds + 0.999))


@dataclass(frozen=True)
class Usage:
    """What a process tree used, by the kernel's count.

    Attributes:
        wall_seconds: from start to end.
        cpu_seconds: user and system time of the tree: ``wait4``, and /proc/pid/stat for what a namespace hides from it.
        max_rss_bytes: largest resident set of one process of the tree (VmHWM). Not ``ru_maxrss``, which a child
            inherits from the process that forked it.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0

    def to_json(self) -> dict[str, float]:
        """As a plain dictionary."""
        return dict(vars(self))


@dataclass(frozen=True)
class Result:
    """How a contained run ended.

    Attributes:
        status: ``ok``; ``timeout`` (wall or CPU time); ``memory``; ``crash`` (died of a signal or a non-zero exit, or
            had too many processes); ``protocol`` (answered something that is not a result, too much, or nothing);
            ``error`` (the code raised).
        value: what the entry returned, when ``ok``: JSON values, numpy arrays and bytes.
        stdout, stderr: the first ``limits.output_bytes`` of each, decoded with replacement.
        usage: by the kernel's count.
        error: what went wrong, with the traceback where the code raised; empty when ``ok``.
    """

    status: Status
    value: Any = None
    stdout: str = ""
    stderr: str = ""
    usage: Usage = field(default_factory=Usage)
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.status == "ok"
