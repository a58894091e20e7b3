"""What the plugin does on the laptop's side of a port session (session-manager-plugin, …/session/portsession)."""

from __future__ import annotations

import os
import socket
import time
from typing import Protocol

from sandbox.data_channel import smux
from sandbox.data_channel.messages import FLAG, Flag, Message, Payload
from sandbox.data_channel.streams import PAUSE, PIECE
from sandbox.data_channel.versions import NEEDS_NO_KEEP_ALIVE
from sandbox.data_channel.versions import is_after as is_version_after
from sandbox.laptop.channel import Channel, show

KEEP_ALIVE_EVERY = 10.0  # smux's default


class FinishedError(Exception):
    """The program has nothing left to do."""


class LocalPort(Protocol):
    """One kind of port session."""

    @property
    def ready(self) -> bool: ...

    def start(self) -> None: ...

    def readers(self) -> list[int]: ...

    def writers(self) -> list[int]: ...

    def can_read(self, number: int, /) -> None: ...

    def can_write(self, number: int, /) -> None: ...

    def write(self, message: Message) -> None: ...

    def work(self) -> bool: ...

    def interrupt(self) -> None: ...


class StandardStream:
    """ssh on standard input and output (standardstreamforwarding.go)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.ready = True

    def start(self) -> None:
        """There is nothing to open."""

    def readers(self) -> list[int]:
        """Standard input."""
        return [0]

    def writers(self) -> list[int]:
        """None: ssh reads what it is written."""
        return []

    def can_read(self, number: int, /) -> None:
        """Send one piece on; raise FinishedError when ssh says no more."""
        piece = os.read(number, PIECE)
        if not piece:
            raise FinishedError
        self._channel.say(piece)
        time.sleep(PAUSE)

    def can_write(self, number: int, /) -> None:
        """Never asked for."""

    def write(self, message: Message) -> None:
        """Give ssh what came."""
        rest = message.payload
        while rest:
            rest = rest[os.write(1, rest) :]

    def work(self) -> bool:
        """Nothing waits."""
        return False

    def interrupt(self) -> None:
        """Leave at Ctrl-C."""
        raise FinishedError


class BasicForwarding:
    """One connection at a time to a local port (basicportforwarding.go)."""

    def __init__(self, channel: Channel, session_id: str, port: str) -> None:
        self._channel = channel
        self._session_id = session_id
        self._port = port
        self._listener: socket.socket | None = None
        self._connection: socket.socket | None = None
        self._unsent = bytearray()
        self._greeted = False

    @property
    def ready(self) -> bool:
        """Whether somebody is connected: what the agent sends before is left to be sent again."""
        return self._connection is not None

    def start(self) -> None:
        """Listen; raises OSError."""
        self._listener = listen(self._port)
        show(f"Port {self._listener.getsockname()[1]} opened for sessionId {self._session_id}.\n")

    def readers(self) -> list[int]:
        """The listener, or the one connection."""
        found = self._connection or self._listener
        return [found.fileno()] if found is not None else []

    def writers(self) -> list[int]:
        """The connection while something waits for it."""
        return [self._connection.fileno()] if self._connection is not None and self._unsent else []

    def can_read(self, _number: int, /) -> None:
        """Accept, or send one piece on."""
        if self._connection is None:
            self._accept()
            return
        piece = receive(self._connection, PIECE)
        if piece is None:
            return
        if piece:
            self._channel.say(piece)
            time.sleep(PAUSE)
            return
        self._connection.close()
        self._connection = None
        self._unsent.clear()
        self._channel.say_flag(Flag.DISCONNECT_TO_PORT)

    def can_write(self, _number: int, /) -> None:
        """Send what waits."""
        if self._connection is not None:
            send(self._connection, self._unsent)

    def write(self, message: Message) -> None:
        """Give the connection what came."""
        self._unsent += message.payload
        self.can_write(0)

    def work(self) -> bool:
        """Nothing waits."""
        return False

    def interrupt(self) -> None:
        """End the session at Ctrl-C."""
        end_session(self._channel, self._session_id)

    def _accept(self) -> None:
        assert self._listener is not None
        self._connection, _ = self._listener.accept()
        self._connection.setblocking(False)
        if not self._greeted:
            show(f"Connection accepted for session {self._session_id}.\n")
        self._greeted = True


class MultiplexedForwarding:
    """Any number of connections to a local port, a smux stream each (muxportforwarding.go)."""

    def __init__(self, channel: Channel, session_id: str, port: str) -> None:
        self._channel = channel
        self._session_id = session_id
        self._port = port
        self._listener: socket.socket | None = None
        self._frames = smux.Frames()
        self._next = 1
        self._streams: dict[int, socket.socket] = {}
        self._by_number: dict[int, int] = {}
        self._unsent: dict[int, bytearray] = {}
        self._ending: set[int] = set()
        self._bytes = bytearray()
        self._kept_alive = time.monotonic()
        self.ready = True

    def start(self) -> None:
        """Listen; raises OSError."""
        self._listener = listen(self._port)
        show(f"Port {self._listener.getsockname()[1]} opened for sessionId {self._session_id}.")
        show("\nWaiting for connections...\n")

    def readers(self) -> list[int]:
        """The listener and every connection."""
        assert self._listener is not None
        return [self._listener.fileno(), *self._by_number]

    def writers(self) -> list[int]:
        """The connections for which something waits."""
        return [self._streams[stream].fileno() for stream, waiting in self._unsent.items() if waiting]

    def can_read(self, number: int, /) -> None:
        """Accept, or frame what a connection says."""
        assert self._listener is not None
        if number == self._listener.fileno():
            self._accept()
            return
        stream = self._by_number.get(number)
        piece = receive(self._streams[stream], smux.LARGEST - 1) if stream is not None else None
        if stream is None or piece is None:
            return
        if piece:
            self._bytes += smux.frame(smux.PUSH, stream, piece)
        else:
            self._hang_up(stream)

    def can_write(self, number: int, /) -> None:
        """Send what waits for a connection."""
        stream = self._by_number.get(number)
        if stream is not None:
            self._send(stream)

    def write(self, message: Message) -> None:
        """Take frames, or a flag."""
        if message.payload_type == Payload.FLAG:
            if message.payload == FLAG.pack(Flag.CONNECT_TO_PORT_ERROR):
                show("\nConnection to destination port failed, check SSM Agent logs.\n")
            return
        for command, stream, piece in self._frames.feed(message.payload):
            if stream not in self._streams:
                continue
            if command == smux.PUSH:
                self._unsent[stream] += piece
            elif command == smux.FIN:
                self._ending.add(stream)
            self._send(stream)

    def work(self) -> bool:
        """Send a piece of what waits for the agent; whether more waits."""
        old = not is_version_after(self._channel.agent_version, NEEDS_NO_KEEP_ALIVE)
        if old and time.monotonic() - self._kept_alive > KEEP_ALIVE_EVERY:
            self._kept_alive = time.monotonic()
            self._bytes += smux.frame(smux.NOP, 0)
        if self._bytes:
            self._channel.say(bytes(self._bytes[:PIECE]))
            del self._bytes[:PIECE]
            time.sleep(PAUSE)
        return bool(self._bytes)

    def interrupt(self) -> None:
        """End the session at Ctrl-C."""
        end_session(self._channel, self._session_id)

    def _accept(self) -> None:
        assert self._listener is not None
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        if self._next == 1:
            show(f"\nConnection accepted for session [{self._session_id}]\n")
        self._next += 2  # the first stream of a client is 3
        self._streams[self._next] = connection
        self._by_number[connection.fileno()] = self._next
        self._unsent[self._next] = bytearray()
        self._bytes += smux.frame(smux.SYN, self._next)

    def _send(self, stream: int) -> None:
        if not send(self._streams[stream], self._unsent[stream]) or (
            stream in self._ending and not self._unsent[stream]
        ):
            self._hang_up(stream)

    def _hang_up(self, stream: int) -> None:
        connection = self._streams.pop(stream)
        del self._by_number[connection.fileno()], self._unsent[stream]
        self._ending.discard(stream)
        connection.close()
        self._bytes += smux.frame(smux.FIN, stream)


def listen(port: str) -> socket.socket:
    """Listen on localhost, or where SSM_PLUGIN_LOCAL_HOST says; a free port for 0. Raises OSError as Go words it."""
    host = os.environ.get("SSM_PLUGIN_LOCAL_HOST") or "127.0.0.1"
    try:
        return socket.create_server((host, int(port or 0)))
    except OSError as error:
        raise OSError(f"listen tcp {host}:{port}: bind: {os.strerror(error.errno or 0).lower()}") from None


def receive(connection: socket.socket, most: int) -> bytes | None:
    """What a connection says: nothing when it has ended, None when it says nothing now."""
    try:
        return connection.recv(most)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def send(connection: socket.socket, unsent: bytearray) -> bool:
    """Send what a connection takes now; False when it has ended."""
    try:
        while unsent:
            del unsent[: connection.send(unsent)]
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def end_session(channel: Channel, session_id: str) -> None:
    """What a forwarding does at Ctrl-C; raises FinishedError."""
    channel.say_flag(Flag.TERMINATE_SESSION)
    show(f"\n\nExiting session with sessionId: {session_id}.\n\n")
    raise FinishedError
