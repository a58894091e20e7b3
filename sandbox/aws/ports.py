"""What an agent does with a port of its host: one connection at a time, or many (agent/session/plugins/port)."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from sandbox.data_channel import smux
from sandbox.data_channel.messages import FLAG, Flag, Payload
from sandbox.data_channel.streams import PAUSE, PIECE


class Talks(Protocol):
    """The agent's end of a data channel, as much of it as a port needs."""

    def say(self, payload: bytes, payload_type: int = Payload.OUTPUT) -> None: ...

    def wait_for_client(self) -> bool: ...

    def end(self, output: str = "") -> None: ...


class Port(Protocol):
    """A port of the host, for one session."""

    def open(self) -> None: ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def disconnect(self) -> None: ...


class BasicPort:
    """One connection, dialled when the session begins; sshd's end of it ends the session (port_basic.go).

    A port that is `forwarded` is dialled again at the next byte after its connection has ended.
    """

    def __init__(self, agent: Talks, dial: Callable[[], socket.socket], *, forwarded: bool) -> None:
        self._agent = agent
        self._dial = dial
        self._forwarded = forwarded
        self._connection: socket.socket | None = None

    def open(self) -> None:
        """Dial; raises OSError or what the host says when it is off."""
        self._connection = connection = self._dial()
        threading.Thread(target=self._pump, args=(connection,), daemon=True).start()

    def write(self, data: bytes) -> None:
        """Pass the client's bytes on; raises OSError, and then the message is not acknowledged."""
        if self._connection is None:
            try:
                self.open()
            except Exception:
                self._agent.end()
                return
        assert self._connection is not None
        self._connection.sendall(data)

    def disconnect(self) -> None:
        """The client's own connection has ended."""
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            hang_up(self._connection)

    def _pump(self, connection: socket.socket) -> None:
        with connection:
            copy(connection, self._agent)
        if self._connection is connection:
            self._connection = None
        if not self._forwarded:
            self._agent.end()


class MultiplexedPort:
    """A connection for each smux stream that the client opens (port_mux.go)."""

    def __init__(self, agent: Talks, dial: Callable[[], socket.socket]) -> None:
        self._agent = agent
        self._dial = dial
        self._frames = smux.Frames()
        self._streams: dict[int, socket.socket] = {}

    def open(self) -> None:
        """Nothing is dialled before a stream is opened."""

    def write(self, data: bytes) -> None:
        """Take smux frames; raises SmuxError."""
        for command, stream, piece in self._frames.feed(data):
            if command == smux.SYN:
                self._begin(stream)
            elif stream in self._streams and command == smux.PUSH:
                with contextlib.suppress(OSError):
                    self._streams[stream].sendall(piece)
            elif stream in self._streams and command == smux.FIN:
                hang_up(self._streams[stream])

    def disconnect(self) -> None:
        """DisconnectToPort means nothing here: streams end one by one."""

    def close(self) -> None:
        """Hang up on all."""
        for connection in list(self._streams.values()):
            hang_up(connection)

    def _begin(self, stream: int) -> None:
        try:
            connection = self._dial()
        except Exception:
            self._agent.say(FLAG.pack(Flag.CONNECT_TO_PORT_ERROR), Payload.FLAG)
            self._say(smux.frame(smux.FIN, stream))
            return
        self._streams[stream] = connection
        threading.Thread(target=self._pump, args=(stream, connection), daemon=True).start()

    def _pump(self, stream: int, connection: socket.socket) -> None:
        with connection:
            copy(connection, self._agent, lambda data: smux.frame(smux.PUSH, stream, data))
        self._streams.pop(stream, None)
        self._say(smux.frame(smux.FIN, stream))

    def _say(self, data: bytes) -> None:
        self._agent.say(data)


def copy(connection: socket.socket, agent: Talks, wrap: Callable[[bytes], bytes] = bytes) -> None:
    """Send the client what a connection says, at the agent's pace, until either has ended."""
    with contextlib.suppress(OSError):
        while agent.wait_for_client() and (piece := connection.recv(PIECE)):
            agent.say(wrap(piece))
            time.sleep(PAUSE)


def hang_up(connection: socket.socket) -> None:
    """Wake whoever reads from a connection: it has ended, both ways."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
