"""The client's end of a data channel (session-manager-plugin, src/datachannel/streaming.go)."""

from __future__ import annotations

import json
import sys
import time

from sandbox.data_channel.messages import (
    ACKNOWLEDGE,
    CLOSED,
    FLAG,
    INPUT,
    OUTPUT,
    Message,
    MessageError,
    Payload,
    acknowledged,
    acknowledgement,
    as_uuid,
    new_id,
    unpack,
)
from sandbox.data_channel.streams import Incoming, Outgoing
from sandbox.laptop.web_socket import BINARY, PING, TEXT, WebSocket

VERSION = "1.2.814.0"
MOST_EARLY = 10_000  # IncomingMessageBufferCapacity
PING_EVERY = 300.0


class ChannelClosedError(Exception):
    """The session is over; everything that is to be said was said."""


class Channel:
    """One session's messages; works off those that come in order."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._client_id = as_uuid(new_id())
        self._out = Outgoing(INPUT, begins_with_syn=False)
        self._in = Incoming(MOST_EARLY)
        self._pinged = 0.0
        self.socket: WebSocket | None = None
        self.agent_version = ""
        self.properties: dict[str, str] | None = None
        self.complete = False

    def open(self, url: str, token: str) -> None:
        """Connect and show the token; raises WebSocketError. Everything else goes on where it was."""
        self.socket = WebSocket(url)
        opening = {
            "MessageSchemaVersion": "1.0",
            "RequestId": as_uuid(new_id()),
            "TokenValue": token,
            "ClientId": self._client_id,
            "ClientVersion": VERSION,
        }
        self.socket.send(TEXT, json.dumps(opening).encode())
        self._pinged = 0.0

    def say(self, payload: bytes, payload_type: int = Payload.OUTPUT) -> None:
        """Send the next message of the stream."""
        # The plugin takes a lone newline for the Enter key, in port sessions as well (SendInputDataMessage).
        if payload == b"\n":
            payload = b"\r"
        self._send(self._out.make(payload, payload_type, time.monotonic()))

    def say_flag(self, flag: int) -> None:
        """Send a flag."""
        self.say(FLAG.pack(flag), Payload.FLAG)

    def tick(self) -> None:
        """Send again what was not acknowledged; keep the connection alive."""
        now = time.monotonic()
        again = self._out.overdue(now)
        if again is not None:
            self._send(again)
        if self.socket is not None and now - self._pinged > PING_EVERY:
            self.socket.send(PING, b"keepalive")
            self._pinged = now

    def take(self, data: bytes, *, ready: bool) -> list[Message]:
        """One message of the agent; answers the session's own messages that are next, of any payload type.

        Unless `ready`, those are left to be sent again. Raises ChannelClosedError when the channel is closed.
        """
        try:
            message = unpack(data)
            if message.kind == ACKNOWLEDGE:
                self._out.acknowledge(acknowledged(message), time.monotonic())
        except MessageError:
            return []  # the plugin logs these, and waits for a better one
        if message.kind == CLOSED:
            self._end(message)
        return self._in_order(message, ready=ready) if message.kind == OUTPUT else []

    def _in_order(self, message: Message, *, ready: bool) -> list[Message]:
        handshake = message.payload_type in {Payload.HANDSHAKE_REQUEST, Payload.HANDSHAKE_COMPLETE}
        if not self._in.is_next(message):
            if self._in.keep(message):
                self._send(acknowledgement(message))
            return []
        if not handshake and not ready:
            return []
        self._send(acknowledgement(message))
        found: list[Message] = []
        following: Message | None = message
        while following is not None:
            if following.payload_type == Payload.HANDSHAKE_REQUEST:
                self._answer(following)
            elif following.payload_type == Payload.HANDSHAKE_COMPLETE:
                self._complete(following)
            else:
                found.append(following)
            following = self._in.advance()
        return found

    def _answer(self, message: Message) -> None:
        """Process the actions that the agent asks for, and say how it went."""
        request = json.loads(message.payload)
        self.agent_version = str(request["AgentVersion"])
        done, errors = [], []
        for action in request["RequestedClientActions"]:
            error = self._process(action)
            answer = {"ActionType": action["ActionType"], "ActionStatus": 2 if error else 1, "ActionResult": None}
            done.append({**answer, "Error": error})
            errors += [error] if error else []
        response = {"ClientVersion": VERSION, "ProcessedClientActions": done, "Errors": errors or None}
        self.say(json.dumps(response).encode(), Payload.HANDSHAKE_RESPONSE)

    def _process(self, action: dict[str, object]) -> str:
        """Do what one action asks for; answers why not."""
        kind, asked = action["ActionType"], action.get("ActionParameters")
        if kind != "SessionType" or not isinstance(asked, dict):
            return f"Unsupported action {kind}"
        if asked.get("SessionType") != "Port":
            error = f"Unknown session type {asked.get('SessionType')}"
            return f"Failed to process action SessionType: {error}"
        self.properties = {str(name): str(value) for name, value in (asked.get("Properties") or {}).items()}
        return ""

    def _complete(self, message: Message) -> None:
        self.complete = True
        words = json.loads(message.payload).get("CustomerMessage")
        if words:
            show(f"{words}\n")

    def _end(self, message: Message) -> None:
        output = json.loads(message.payload).get("Output", "")
        if output:
            show(f"\n\nSessionId: {self._session_id} : {output}\n\n")
        else:
            show(f"\n\nExiting session with sessionId: {self._session_id}.\n\n")
        raise ChannelClosedError

    def _send(self, packed: bytes) -> None:
        if self.socket is not None:
            self.socket.send(BINARY, packed)


def show(words: str) -> None:
    """Say something on standard output, at once; ssh skips it before the server's banner."""
    sys.stdout.write(words)
    sys.stdout.flush()
