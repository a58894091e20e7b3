"""A host's namespaces as this process holds and enters them."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

CLONE_NEWNET = 0x40000000
PF_EXITING = 0x4  # linux/sched.h
KINDS = ("mnt", "uts", "ipc", "net", "pid", "cgroup")
NSENTER = {"mnt": "mount", "uts": "uts", "ipc": "ipc", "net": "net", "pid": "pid", "cgroup": "cgroup"}
_libc = ctypes.CDLL(None, use_errno=True)


def pid_of(pidfd: int) -> int:
    """The PID of a pidfd as this process sees it, or -1 when that process is gone."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise ValueError(f"{pidfd} is not a pidfd")


def is_exiting(pid: int) -> bool:
    """Whether a process is on its way out: an init ends last, after everything in its PID namespace."""
    try:
        flags = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6])
    except OSError:
        return True
    return bool(flags & PF_EXITING)


class Namespaces:
    """A host's namespaces, held open.

    A PID may be used again by a process of the outer machine, and until a host has entered its own root its mount
    namespace shows the outer machine's files: whatever runs as root "inside" must never land there.
    """

    def __init__(self, pid: int, kinds: tuple[str, ...] = KINDS) -> None:
        """Open the namespaces of a process; raise OSError when it is gone or, with `mnt`, still in our own root."""
        if "mnt" in kinds and Path(f"/proc/{pid}/root").stat().st_dev == Path("/").stat().st_dev:
            raise OSError(f"{pid} has no root of its own yet")
        self._files = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds}

    def fds(self) -> tuple[int, ...]:
        """The file descriptors that a child needs for flags()."""
        return tuple(self._files.values())

    def flags(self, *kinds: str) -> list[str]:
        """nsenter's options that enter the namespaces, or some of them."""
        return [f"--{NSENTER[kind]}=/proc/self/fd/{self._files[kind]}" for kind in kinds or self._files]

    def socket(self, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """A TCP socket that lives in this network.

        A network namespace belongs to a thread and a socket keeps the one it was made in, so only this thread is
        elsewhere, and only for the one call.
        """
        with Path("/proc/thread-self/ns/net").open("rb") as here:
            _enter(self._files["net"])
            try:
                return socket.socket(family, socket.SOCK_STREAM)
            finally:
                _enter(here.fileno())

    def close(self) -> None:
        """Let go of them."""
        for file in self._files.values():
            os.close(file)
        self._files = {}


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
