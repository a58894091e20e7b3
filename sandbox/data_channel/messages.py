"""The messages of a data channel: a header of 116 bytes, the payload's length, the payload.

The layout is that of amazon-ssm-agent's agent/session/contracts/agentmessage.go.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from dataclasses import dataclass, field
from enum import IntEnum

# Header length, type, schema version, milliseconds since 1970, sequence number, flags, id, digest, payload type.
HEADER = struct.Struct(">I32sIQqQ16s32sI")
LENGTH = struct.Struct(">I")
FLAG = struct.Struct(">I")

INPUT = "input_stream_data"  # towards the agent
OUTPUT = "output_stream_data"  # towards the client
ACKNOWLEDGE = "acknowledge"
CLOSED = "channel_closed"
PUBLICATION = ("start_publication", "pause_publication")
KINDS = (INPUT, OUTPUT, ACKNOWLEDGE, CLOSED, *PUBLICATION)

SYN = 1  # the first message of a stream
SYN_AND_FIN = 3  # a message that belongs to no stream


class MessageError(Exception):
    """These bytes are no message; says why."""


class Payload(IntEnum):
    """What a stream's message holds."""

    NONE = 0
    OUTPUT = 1
    HANDSHAKE_REQUEST = 5
    HANDSHAKE_RESPONSE = 6
    HANDSHAKE_COMPLETE = 7
    FLAG = 10


class Flag(IntEnum):
    """What a payload of type FLAG says."""

    DISCONNECT_TO_PORT = 1
    TERMINATE_SESSION = 2
    CONNECT_TO_PORT_ERROR = 3


def new_id() -> bytes:
    """The 16 bytes of a random UUID, version 4."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def as_uuid(raw: bytes) -> str:
    """A UUID as people write it."""
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def now_in_milliseconds() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message, of either direction."""

    kind: str
    payload: bytes = field(repr=False)
    payload_type: int = Payload.NONE
    sequence: int = 0
    flags: int = 0
    id: bytes = field(default_factory=new_id)
    created: int = field(default_factory=now_in_milliseconds)

    def pack(self) -> bytes:
        """The bytes of a binary WebSocket message."""
        digest = hashlib.sha256(self.payload).digest()
        name, halves = self.kind.ljust(32).encode(), self.id[8:] + self.id[:8]
        numbers = (self.created, self.sequence, self.flags)
        header = HEADER.pack(HEADER.size, name, 1, *numbers, halves, digest, self.payload_type)
        return header + LENGTH.pack(len(self.payload)) + self.payload


def unpack(data: bytes) -> Message:
    """Read a message; raise MessageError for what either end refuses, a wrong digest included."""
    if len(data) < HEADER.size + LENGTH.size:
        raise MessageError(f"{len(data)} bytes are less than a header")
    size, name, schema, created, sequence, flags, halves, digest, payload_type = HEADER.unpack_from(data)
    (length,) = LENGTH.unpack_from(data, HEADER.size)
    payload = data[HEADER.size + LENGTH.size :]
    kind = name.decode(errors="replace").strip("\0 ")
    if size != HEADER.size:
        raise MessageError(f"the header's length is {size}, not {HEADER.size}")
    if schema != 1:
        raise MessageError(f"schema version {schema} is not known")
    if kind not in KINDS:
        raise MessageError(f"the type {kind!r} is not known")
    if created == 0:
        raise MessageError("CreatedDate is missing")
    if length != len(payload):
        raise MessageError(f"the payload has {len(payload)} bytes, and the header says {length}")
    if length and digest != hashlib.sha256(payload).digest():
        raise MessageError("the payload's digest is wrong")
    return Message(
        kind=kind,
        payload=payload,
        payload_type=payload_type,
        sequence=sequence,
        flags=flags,
        id=halves[8:] + halves[:8],
        created=created,
    )


def acknowledgement(message: Message) -> bytes:
    """The packed answer to a message of a stream."""
    content = {
        "AcknowledgedMessageType": message.kind,
        "AcknowledgedMessageId": as_uuid(message.id),
        "AcknowledgedMessageSequenceNumber": message.sequence,
        "IsSequentialMessage": True,
    }
    return Message(kind=ACKNOWLEDGE, payload=json.dumps(content).encode(), flags=SYN_AND_FIN).pack()


def acknowledged(message: Message) -> int:
    """The sequence number that an acknowledgement names; raise MessageError when it names none."""
    try:
        return int(json.loads(message.payload)["AcknowledgedMessageSequenceNumber"])
    except (ValueError, TypeError, KeyError) as error:
        raise MessageError(f"an acknowledgement of nothing: {error}") from None
