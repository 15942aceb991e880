"""The system-call filter of contained processes (seccomp-BPF, made with libseccomp).

It allows by default and denies what gives a foothold in the kernel or in other processes: the namespaces and Landlock
contain, this narrows the surface they have to hold.
"""

from __future__ import annotations

import errno
import os
from functools import lru_cache
from typing import Any

# Denied with EPERM.
DENIED = (
    # other processes
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
    # kernel keyrings, programs, tracing
    "add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd", "lookup_dcookie", "fanotify_init",
    # asynchronous I/O that bypasses system-call filters
    "io_uring_setup", "io_uring_enter", "io_uring_register",
    # mounts and namespaces
    "mount", "umount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr", "fsopen",
    "fsconfig", "fsmount", "fspick", "mount_setattr", "unshare", "setns",
    # the machine
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon", "swapoff",
    "acct", "quotactl", "quotactl_fd", "nfsservctl", "syslog", "iopl", "ioperm", "settimeofday", "clock_settime",
    "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "vhangup", "open_by_handle_at",
    "name_to_handle_at", "uselib", "personality", "modify_ldt", "migrate_pages", "move_pages", "set_mempolicy",
    "mbind",
    # no network and no path to a local server, whatever namespace we are in (socketpair stays)
    "socket",
)  # fmt: skip
_CLONE_NEW = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00000080)
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C


def available() -> bool:
    """Whether libseccomp can be used here."""
    try:
        _filter()
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def _filter() -> Any:
    import pyseccomp as s

    rules = s.SyscallFilter(s.ALLOW)
    refuse = s.ERRNO(errno.EPERM)
    for name in DENIED:
        try:
            rules.add_rule(refuse, name)
        except (ValueError, OSError):  # unknown to this libseccomp or this architecture
            continue
    for flag in _CLONE_NEW:
        rules.add_rule(refuse, "clone", s.Arg(0, s.MASKED_EQ, flag, flag))
    # clone3 has its flags in memory, out of a filter's sight: libc falls back to clone.
    rules.add_rule(s.ERRNO(errno.ENOSYS), "clone3")
    for request in (_TIOCSTI, _TIOCLINUX):
        rules.add_rule(refuse, "ioctl", s.Arg(1, s.MASKED_EQ, 0xFFFFFFFF, request))
    return rules


@lru_cache(maxsize=1)
def program() -> bytes:
    """The filter as a BPF program, as ``bwrap --seccomp`` takes it."""
    descriptor = os.memfd_create("seccomp")
    with os.fdopen(descriptor, "w+b") as file:
        _filter().export_bpf(file)
        file.seek(0)
        return file.read()


def load() -> None:
    """Puts this process, for ever, under the filter (sets no_new_privs)."""
    _filter().load()
