"""Process trees as /proc shows them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def children(pid: int) -> list[int]:
    """Direct children of every thread of a process; empty when it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split())
        except OSError:
            continue
    return found


def descendants(pid: int) -> list[int]:
    """All processes below a process, parents before children."""
    found: list[int] = []
    queue = [pid]
    while queue:
        below = [c for c in children(queue.pop()) if c not in found]
        found += below
        queue += below
    return found


def start_time(pid: int) -> int | None:
    """When a process started (ticks since boot); with the pid it names one process. None for none and for a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def resident(pid: int) -> tuple[int, int, int]:
    """(resident bytes, largest ever resident bytes, threads) of a process; zeros when it is gone."""
    now = peak = threads = 0
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0, 0, 0
    for line in status.splitlines():
        if line.startswith(b"VmRSS:"):
            now = int(line.split()[1]) << 10
        elif line.startswith(b"VmHWM:"):
            peak = int(line.split()[1]) << 10
        elif line.startswith(b"Threads:"):
            threads = int(line.split()[1])
    return now, peak, threads


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children it has reaped; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS


def proportional(pid: int) -> int:
    """Resident bytes with shared pages divided among their users; 0 when not known."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def tasks_of_user(uid: int) -> int:
    """Processes and threads that count against the user's RLIMIT_NPROC."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


def kill_below(pid: int, patience: float = 5.0) -> None:
    """Kills all descendants of a process until there are none (zombies apart), at most ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        alive = [p for p in descendants(pid) if start_time(p) is not None]
        if not alive:
            return
        for p in alive:
            send(p, signal.SIGKILL)
        time.sleep(0.002)


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Has this process get a signal when the thread that started it ends; ends it at once if ``parent`` is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Makes orphans below this process its children, so that none escapes by daemonising."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
