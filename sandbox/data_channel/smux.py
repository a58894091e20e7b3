"""smux, version 1: many connections in one stream of bytes (github.com/xtaci/smux, frame.go)."""

from __future__ import annotations

import struct

HEADER = struct.Struct("<BBHI")  # version, command, length, stream
VERSION = 1
SYN, FIN, PUSH, NOP = range(4)
LARGEST = 32_768  # MaxFrameSize of its default configuration


class SmuxError(Exception):
    """These bytes are no smux."""


def frame(command: int, stream: int, data: bytes = b"") -> bytes:
    """One frame; its data has at most LARGEST bytes."""
    return HEADER.pack(VERSION, command, len(data), stream) + data


class Frames:
    """Reads frames out of bytes that come in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that are complete now: command, stream, data; raise SmuxError for anything else."""
        self._rest += data
        found = []
        while len(self._rest) >= HEADER.size:
            version, command, length, stream = HEADER.unpack_from(self._rest)
            if version != VERSION or command > NOP:
                raise SmuxError(f"version {version}, command {command}")
            end = HEADER.size + length
            if len(self._rest) < end:
                break
            found.append((command, stream, self._rest[HEADER.size : end]))
            self._rest = self._rest[end:]
        return found
