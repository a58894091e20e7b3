"""Stepping into a host's network from this process, one thread at a time."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def pid_of(pidfd: int) -> int:
    """The PID of a pidfd as this process sees it, or -1 when that process is gone."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise ValueError(f"{pidfd} is not a pidfd")


def socket_inside(pid: int, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    """A TCP socket that lives in another process's network.

    A network namespace belongs to a thread and a socket keeps the one it was made in, so only this thread is
    elsewhere, and only for the one call. Raises OSError when the process is gone.
    """
    with Path(f"/proc/{pid}/ns/net").open("rb") as there, Path("/proc/thread-self/ns/net").open("rb") as here:
        _enter(there.fileno())
        try:
            return socket.socket(family, socket.SOCK_STREAM)
        finally:
            _enter(here.fileno())


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
