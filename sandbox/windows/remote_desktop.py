"""What stands for Remote Desktop: a TCP service that takes a user and a password and says yes or no.

A line of JSON (``user``, ``password``) is answered by a line that begins with ``yes`` or ``no``. A yes stays open for
as long as the session does; closing it leaves the session disconnected, as closing the window does.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable

from sandbox.windows.machine import Machine


class RemoteDesktop:
    """A listener on loopback."""

    def __init__(self, machine: Machine, is_on: Callable[[], bool]) -> None:
        self._machine = machine
        self._is_on = is_on
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                threading.Thread(target=self._welcome, args=(caller,), daemon=True).start()

    def _welcome(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError, ValueError, KeyError):
            line = caller.makefile("r").readline(4096)
            given = json.loads(line)
            with self._machine.lock:
                why = (
                    "The server is off."
                    if not self._is_on()
                    else self._machine.refusal(given["user"], given["password"])
                )
                if why:
                    caller.sendall(f"no {why}\n".encode())
                    return
                desktop = self._machine.log_in(given["user"], lambda: _hang_up(caller))
            caller.sendall(f"yes {desktop.id}\n".encode())
            while caller.recv(1024):
                pass
            desktop.active = False


def _hang_up(caller: socket.socket) -> None:
    with contextlib.suppress(OSError):
        caller.shutdown(socket.SHUT_RDWR)


def knock(port: int, user: str, password: str) -> tuple[str, socket.socket]:
    """Log in through a forwarded port on loopback: the answer, and the connection that is the session; closed at a no."""
    return answer(socket.create_connection(("127.0.0.1", port), timeout=10), user, password)


def answer(connection: socket.socket, user: str, password: str) -> tuple[str, socket.socket]:
    """The same through a connection that is there already."""
    connection.settimeout(10)
    connection.sendall(json.dumps({"user": user, "password": password}).encode() + b"\n")
    said = b""
    while not said.endswith(b"\n"):
        piece = connection.recv(1)
        if not piece:
            break
        said += piece
    if not said.startswith(b"yes "):
        connection.close()
    return said.decode().strip(), connection
