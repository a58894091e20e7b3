"""The client's side of WebSockets (RFC 6455), as much as a data channel needs; never blocks once it is open."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_READS = 1 << 16


class WebSocketError(Exception):
    """The connection could not be made, or it has ended."""


class WebSocket:
    """Connects at once; raises WebSocketError."""

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        address, slash, path = rest.partition("/")
        host, _, port = address.partition(":")
        try:
            self._socket = socket.create_connection((host, int(port or (443 if scheme == "wss" else 80))), timeout=45)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if scheme == "wss":
                import ssl

                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
            self._rest = self._shake_hands(address, slash + path)
        except OSError as error:
            raise WebSocketError(str(error)) from None
        self._socket.setblocking(False)
        self._unsent = bytearray()
        self._parts = b""
        self.goodbye: str | None = None  # what the other side closed with

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the network."""
        return len(self._unsent)

    def send(self, kind: int, data: bytes) -> None:
        """Send a message as soon as the network takes it; raises WebSocketError."""
        length = len(data)
        if length < 126:
            head = struct.pack(">BB", 0x80 | kind, 0x80 | length)
        elif length < 1 << 16:
            head = struct.pack(">BBH", 0x80 | kind, 0x80 | 126, length)
        else:
            head = struct.pack(">BBQ", 0x80 | kind, 0x80 | 127, length)
        key = os.urandom(4)
        mask = int.from_bytes((key * (length // 4 + 1))[:length], "big")
        self._unsent += head + key + (int.from_bytes(data, "big") ^ mask).to_bytes(length, "big")
        self.flush()

    def flush(self) -> None:
        """Send what the network takes now; raises WebSocketError."""
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError as error:
            raise WebSocketError(str(error)) from None

    def receive(self) -> list[bytes]:
        """The messages that have come; raises WebSocketError once the connection has ended without a goodbye."""
        try:
            data = self._socket.recv(_READS)
        except BlockingIOError:
            return []
        except OSError as error:
            raise WebSocketError(str(error)) from None
        if not data:
            raise WebSocketError("unexpected EOF")
        return self.feed(data)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages in what was read so far, up to the other side's goodbye."""
        self._rest += data
        found = []
        while (frame := self._next_frame()) is not None:
            final, kind, payload = frame
            if kind == CLOSE:
                self.goodbye = f"close {int.from_bytes(payload[:2], 'big')}: {payload[2:].decode()}"
                break
            if kind == PING:
                self.send(PONG, payload)
            elif kind != PONG:
                self._parts += payload
                if final:
                    found.append(self._parts)
                    self._parts = b""
        return found

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _next_frame(self) -> tuple[bool, int, bytes] | None:
        if len(self._rest) < 2:
            return None
        first, length = self._rest[0], self._rest[1] & 0x7F
        start = {126: 4, 127: 10}.get(length, 2)
        if len(self._rest) < start:
            return None
        if start > 2:
            length = int.from_bytes(self._rest[2:start], "big")
        if len(self._rest) < start + length:
            return None
        payload, self._rest = self._rest[start : start + length], self._rest[start + length :]
        return bool(first & 0x80), first & 0x0F, payload

    def _shake_hands(self, host: str, path: str) -> bytes:
        key = base64.b64encode(os.urandom(16))
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13",
        )
        self._socket.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = self._socket.recv(_READS)
            if not piece or len(answer) > _READS:
                raise WebSocketError("websocket: bad handshake")
            answer += piece
        head, _, rest = answer.partition(b"\r\n\r\n")
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        if not head.startswith(b"HTTP/1.1 101 ") or accept not in head:
            raise WebSocketError("websocket: bad handshake")
        return rest
