"""A client of a data channel that can misbehave: every message is made by hand, from the header's layout as AWS has it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

SSH = {"DocumentName": "AWS-StartSSHSession", "Parameters": {"portNumber": ["22"]}}
FORWARD = {"DocumentName": "AWS-StartPortForwardingSession", "Parameters": {"portNumber": ["3389"]}}
HEADER = ">I32sIQqQ16s32sI"


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """A message of the agent, taken apart."""

    kind: str
    sequence: int
    flags: int
    id: str
    payload_type: int
    payload: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.payload)


def message(
    payload: bytes,
    *,
    kind: str = "input_stream_data",
    sequence: int = 0,
    payload_type: int = 1,
    digest: bytes | None = None,
    header_length: int = 116,
    schema: int = 1,
    created: int | None = None,
    length: int | None = None,
) -> bytes:
    """The bytes of a message; what is given replaces what is right."""
    raw = uuid.uuid4().bytes
    return (
        struct.pack(
            HEADER,
            header_length,
            kind.ljust(32).encode(),
            schema,
            int(time.time() * 1000) if created is None else created,
            sequence,
            0,
            raw[8:] + raw[:8],
            hashlib.sha256(payload).digest() if digest is None else digest,
            payload_type,
        )
        + struct.pack(">I", len(payload) if length is None else length)
        + payload
    )


def read(data: bytes) -> Heard:
    """Take a message apart, its digest checked."""
    size, kind, schema, created, sequence, flags, raw, digest, payload_type = struct.unpack(HEADER, data[:116])
    (length,) = struct.unpack(">I", data[116:120])
    payload = data[120:]
    assert (size, schema, length) == (116, 1, len(payload))
    assert abs(created / 1000 - time.time()) < 60
    assert digest == hashlib.sha256(payload).digest()
    return Heard(
        kind=kind.decode().rstrip(),
        sequence=sequence,
        flags=flags,
        id=str(uuid.UUID(bytes=raw[8:] + raw[:8])),
        payload_type=payload_type,
        payload=payload,
    )


class EchoHost:
    """A host whose only service says a banner and echoes; a line `bye` ends the connection."""

    is_on = True

    def __init__(self) -> None:
        self.dialled: list[int] = []
        self.open = 0
        self.listens = True

    def run(self, *command: str, input: bytes = b"", timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:  # noqa: A002
        return subprocess.CompletedProcess(command, 0, b"", b"")

    def dial(self, port: int, timeout: float = 10.0) -> socket.socket:
        self.dialled.append(port)
        if not self.listens:
            raise ConnectionRefusedError
        near, far = socket.socketpair()
        threading.Thread(target=self._echo, args=(far,), daemon=True).start()
        return near

    def _echo(self, far: socket.socket) -> None:
        self.open += 1
        with far, contextlib.suppress(OSError):
            far.sendall(b"SSH-2.0-Echo\r\n")
            while (piece := far.recv(4096)) and piece != b"bye\n":
                far.sendall(piece)
        self.open -= 1


class RawClient:
    """Says only what it is told to say."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[Heard] = []
        self._sequence = 0

    def hear(self, seconds: float = 5) -> Heard:
        """The next message; raises TimeoutError, or ConnectionClosed."""
        data = self.socket.recv(timeout=seconds)
        assert isinstance(data, bytes)
        self.heard.append(read(data))
        return self.heard[-1]

    def await_kind(self, kind: str, *, seconds: float = 5) -> Heard:
        """The next message of a type; what comes before is acknowledged and kept in `heard`."""
        while True:
            found = self.hear(seconds)
            if found.kind == "output_stream_data":
                self.acknowledge(found)
            if found.kind == kind:
                return found

    def acknowledgements(self) -> list[int]:
        """The sequence numbers that were acknowledged so far."""
        return [h.content["AcknowledgedMessageSequenceNumber"] for h in self.heard if h.kind == "acknowledge"]

    def await_acknowledgement(self, number: int) -> Any:
        """The acknowledgement of a message, which may have come already."""
        while number not in self.acknowledgements():
            self.await_kind("acknowledge")
        return next(
            h.content
            for h in self.heard
            if h.kind == "acknowledge" and h.content["AcknowledgedMessageSequenceNumber"] == number
        )

    def acknowledge(self, heard: Heard) -> None:
        content = {
            "AcknowledgedMessageType": heard.kind,
            "AcknowledgedMessageId": heard.id,
            "AcknowledgedMessageSequenceNumber": heard.sequence,
            "IsSequentialMessage": True,
        }
        with contextlib.suppress(ConnectionClosed):  # what came before the end can still be read
            self.socket.send(message(json.dumps(content).encode(), kind="acknowledge", payload_type=0))

    def say(self, payload: bytes, payload_type: int = 1) -> int:
        """Send the next message of the stream; answers its sequence number."""
        self.socket.send(message(payload, sequence=self._sequence, payload_type=payload_type))
        self._sequence += 1
        return self._sequence - 1

    def shake_hands(self, *, status: int = 1, version: str = "1.2.814.0") -> Any:
        """Answer the handshake; answers what was asked."""
        request = self.await_kind("output_stream_data")
        assert (request.payload_type, request.sequence, request.flags) == (5, 0, 1)
        done = {"ActionType": "SessionType", "ActionStatus": status, "ActionResult": None, "Error": "no"}
        answer = {"ClientVersion": version, "ProcessedClientActions": [done], "Errors": None}
        self.say(json.dumps(answer).encode(), 6)
        if status == 1:
            complete = self.await_kind("output_stream_data")
            assert (complete.payload_type, complete.sequence, complete.flags) == (7, 1, 0)
            assert complete.content["CustomerMessage"] == ""
        return request.content


def opening(token: str, **changes: Any) -> str:
    """The first message of a client; None leaves a field out."""
    fields = {
        "MessageSchemaVersion": "1.0",
        "RequestId": str(uuid.uuid4()),
        "TokenValue": token,
        "ClientId": str(uuid.uuid4()),
        "ClientVersion": "1.2.814.0",
        **changes,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None})


@contextlib.contextmanager
def opened(
    answer: dict[str, str], token: str | None = None, *, first: str | bytes | None = None
) -> Iterator[RawClient]:
    """Open a session's channel; `first` replaces the opening message."""
    with connect(answer["StreamUrl"], compression=None, close_timeout=1) as socket:
        with contextlib.suppress(ConnectionClosed):
            socket.send(opening(token or answer["TokenValue"]) if first is None else first)
        yield RawClient(socket)
