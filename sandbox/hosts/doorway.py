"""A way into a host's port from this machine, for what does not go through Session Manager."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self


class Doorway:
    """A loopback port that leads to a port of a host, dialled by the host's own agent; use as a context manager."""

    def __init__(self, dial: Callable[[int], socket.socket], port: int = 22) -> None:
        self._dial = dial
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let nobody else in; who is inside stays."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._let_in, args=(caller,), daemon=True).start()

    def _let_in(self, caller: socket.socket) -> None:
        try:
            inside = self._dial(self._target)
        except Exception:  # a host that is off: the caller finds a closed door
            caller.close()
            return
        _join_sockets(caller, inside)


def _join_sockets(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways, in this thread and one more; return, with both closed, when either side has ended."""
    back = threading.Thread(target=_carry, args=(other, one), daemon=True)
    back.start()
    _carry(one, other)
    back.join()
    for each in (one, other):
        each.close()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
