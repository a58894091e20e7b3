"""The agent's end of a session's data channel (amazon-ssm-agent, agent/session/datachannel/datachannel.go)."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from websockets.exceptions import ConnectionClosed

from sandbox.aws.faults import Faults
from sandbox.aws.nodes import Server
from sandbox.aws.ports import BasicPort, MultiplexedPort, Port
from sandbox.data_channel.messages import (
    ACKNOWLEDGE,
    CLOSED,
    FLAG,
    INPUT,
    OUTPUT,
    Flag,
    Message,
    MessageError,
    Payload,
    acknowledged,
    acknowledgement,
    as_uuid,
    new_id,
    unpack,
)
from sandbox.data_channel.smux import SmuxError
from sandbox.data_channel.streams import Incoming, Outgoing
from sandbox.data_channel.versions import CLIENT_MULTIPLEXES, MULTIPLEXES, is_after

MOST_EARLY = 100_000  # IncomingMessageBufferCapacity
HANDSHAKE_WITHIN = 15.0  # handshakeTimeout
DRAINS_WITHIN = 2.0
ERROR = "\n----------ERROR-------\n"
TIMED_OUT = (
    "Encountered error while initiating handshake. Handshake timed out. "
    "Please ensure that you have the latest version of the session manager plugin."
)


class Client(Protocol):
    """A connected client's WebSocket."""

    def send(self, message: bytes) -> None: ...

    def close(self, code: int = 1000, reason: str = "") -> None: ...


class AgentEnd:
    """Outlives its clients: one that comes back finds the stream where it was. Serves one client at a time.

    `on_end` is called, once, with what the client is told, when the session is over for the agent.
    """

    def __init__(
        self,
        *,
        session_id: str,
        server: Server,
        properties: Mapping[str, str],
        faults: Faults,
        on_end: Callable[[str], None],
    ) -> None:
        self._session_id = session_id
        self._server = server
        self._properties = dict(properties)
        self._faults = faults
        self._on_end = on_end
        self._lock = threading.RLock()
        self._out = Outgoing(OUTPUT, begins_with_syn=True)
        self._in = Incoming(MOST_EARLY)
        self._client: Client | None = None
        self._client_id = ""
        self._present = threading.Event()
        self._ended = False
        self._port: Port | None = None
        self._asked_at: float | None = None  # of the handshake, by the monotonic clock
        self._completed = False
        self._held: bytes | None = None
        self.active_at = faults.now()
        self.rejected: list[str] = []  # why messages of the client were not taken

    @property
    def has_client(self) -> bool:
        """Whether somebody is connected now."""
        return self._client is not None

    def attach(self, client: Client, client_id: str) -> None:
        """A client has come: who was here before is sent away, and the handshake begins if it has not."""
        with self._lock:
            before, self._client, self._client_id = self._client, client, client_id
            if self._asked_at is None:
                self._asked_at = time.monotonic()
                self._present.set()
                self._ask()
        if before is not None:
            close_quietly(before)
        self._present.set()

    def hang_up(self) -> None:
        """Close the client's connection and nothing else, as the service does with each about once an hour."""
        if self._client is not None:
            close_quietly(self._client)

    def detach(self, client: Client) -> None:
        """A client has gone: the port waits for the next one."""
        with self._lock:
            if self._client is client:
                self._client = None
                self._present.clear()

    def take(self, data: bytes) -> None:
        """One binary message of the client."""
        try:
            message = unpack(data)
            if message.kind == ACKNOWLEDGE:
                with self._lock:
                    self._out.acknowledge(acknowledged(message), time.monotonic())
            elif message.kind == INPUT:
                if not self._faults.loses_stream_message(self._server.instance_id):
                    self._take_input(message)
            else:
                self.rejected.append(f"a client sends no {message.kind}")
        except MessageError as error:
            self.rejected.append(str(error))

    def tick(self) -> None:
        """Send again what was not acknowledged, and give up a handshake that takes too long."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            again = self._out.overdue(time.monotonic()) if self._client is not None else None
            if again is not None:
                self._send(again)
            late = self._asked_at is not None and time.monotonic() - self._asked_at > HANDSHAKE_WITHIN
        finally:
            self._lock.release()
        if late and not self._completed:
            self.end(ERROR + TIMED_OUT)

    def say(self, payload: bytes, payload_type: int = Payload.OUTPUT) -> None:
        """Send the client the next message of the stream, or keep it for when one is there."""
        if payload_type == Payload.OUTPUT:
            self.active_at = self._faults.now()
        with self._lock:
            packed = self._out.make(payload, payload_type, time.monotonic())
            if self._present.is_set():
                self._send_disordered(packed)

    def wait_for_client(self) -> bool:
        """Wait until a client is there; False when the session is over."""
        self._present.wait()
        return not self._ended

    def end(self, output: str = "") -> None:
        """The session is over for the agent: let the client have what it was sent, then tell."""
        deadline = time.monotonic() + DRAINS_WITHIN
        while len(self._out) and self._client is not None and not self._ended and time.monotonic() < deadline:
            time.sleep(0.005)
        self._on_end(output)

    def close(self, output: str) -> None:
        """Close the channel with channel_closed, and hang up on the port."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            client, self._client = self._client, None
        self._present.set()
        if client is not None:
            with contextlib.suppress(ConnectionClosed):
                client.send(self._closed(output))
            # The goodbye of WebSockets waits for the other side: not while somebody waits for TerminateSession.
            threading.Thread(target=close_quietly, args=(client,), daemon=True).start()
        if self._port is not None:
            self._port.close()

    def _ask(self) -> None:
        action = {"SessionType": "Port", "Properties": self._properties}
        request = {
            "AgentVersion": self._server.agent_version,
            "RequestedClientActions": [{"ActionType": "SessionType", "ActionParameters": action}],
        }
        self.say(json.dumps(request).encode(), Payload.HANDSHAKE_REQUEST)

    def _take_input(self, message: Message) -> None:
        if not self._in.is_next(message):
            if self._in.keep(message):
                self._send(acknowledgement(message))
            return
        if not self._work_off(message):
            return
        self._send(acknowledgement(message))
        following = self._in.advance()
        while following is not None and self._work_off(following):
            following = self._in.advance()

    def _work_off(self, message: Message) -> bool:
        """Whether this message is done with: one that is not is neither acknowledged nor counted."""
        if message.payload_type == Payload.HANDSHAKE_RESPONSE:
            self._shake(message)
            return True
        if not self._completed:
            return True  # it is acknowledged and lost, as the agent's own handler has it
        if self._port is None or self._ended:
            return False
        try:
            self._pass_on(self._port, message)
        except (OSError, SmuxError) as error:
            self.rejected.append(f"the port does not take it: {error}")
            return False
        return True

    def _pass_on(self, port: Port, message: Message) -> None:
        if message.payload_type == Payload.OUTPUT:
            self.active_at = self._faults.now()
            port.write(message.payload)
        elif message.payload_type == Payload.FLAG and len(message.payload) == FLAG.size:
            (flag,) = FLAG.unpack(message.payload)
            if flag == Flag.DISCONNECT_TO_PORT:
                port.disconnect()
            elif flag == Flag.TERMINATE_SESSION:
                threading.Thread(target=self.end, daemon=True).start()  # after this message is acknowledged
        else:
            raise MessageError(f"payload type {message.payload_type} is not for a port")

    def _shake(self, message: Message) -> None:
        try:
            response = json.loads(message.payload)
            actions = {action["ActionType"]: action for action in response["ProcessedClientActions"]}
            status, version = actions["SessionType"]["ActionStatus"], str(response["ClientVersion"])
        except (ValueError, TypeError, KeyError) as error:
            raise MessageError(f"the handshake's response is not readable: {error!r}") from None
        if self._completed:
            raise MessageError("the handshake is complete already")
        if status != 1:
            why = f"SessionType failed on client with status {status} error: {actions['SessionType'].get('Error')}"
            self._on_end(f"{ERROR}Encountered error while initiating handshake. {why}")
            return
        took = time.monotonic() - (self._asked_at or 0.0)
        complete = {"HandshakeTimeToComplete": int(took * 1e9), "CustomerMessage": ""}
        self.say(json.dumps(complete).encode(), Payload.HANDSHAKE_COMPLETE)
        self._open_port(version)

    def _open_port(self, client_version: str) -> None:
        """Dial before the client's next message is read: what comes before that would be sent again."""
        port = self._make_port(client_version)
        try:
            port.open()
        except Exception as error:
            why = "connect: connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
            address = f"127.0.0.1:{self._properties['portNumber']}"
            self._completed = True
            self._on_end(f"Unable to connect to specified port: dial tcp {address}: {why}")
            return
        self._port, self._completed = port, True
        if self._ended:
            port.close()

    def _make_port(self, client_version: str) -> Port:
        forwarded = self._properties.get("type") == "LocalPortForwarding"
        client_can = client_version == CLIENT_MULTIPLEXES or is_after(client_version, CLIENT_MULTIPLEXES)
        if forwarded and client_can and is_after(self._server.agent_version, MULTIPLEXES):
            return MultiplexedPort(self, self._dial)
        return BasicPort(self, self._dial, forwarded=forwarded)

    def _dial(self) -> socket.socket:
        if self._server.host is None:
            raise ConnectionRefusedError("this server has no host that could listen")
        return self._server.host.dial(int(self._properties["portNumber"]))

    def _send(self, packed: bytes) -> None:
        client = self._client
        if client is not None:
            with contextlib.suppress(ConnectionClosed):
                client.send(packed)

    def _send_disordered(self, packed: bytes) -> None:
        """Send a message; on a line in disorder two change places, and the earlier one arrives twice."""
        if not self._faults.disorders_stream(self._server.instance_id) or not self._completed:
            self._send(packed)
        elif self._held is None:
            self._held = packed
        else:
            for each in (packed, self._held, self._held):
                self._send(each)
            self._held = None

    def _closed(self, output: str) -> bytes:
        content = {
            "MessageId": as_uuid(new_id()),
            "CreatedDate": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
            "DestinationId": self._client_id,
            "SessionId": self._session_id,
            "MessageType": CLOSED,
            "SchemaVersion": 1,
            "Output": output,
        }
        return Message(kind=CLOSED, payload=json.dumps(content).encode()).pack()


def close_quietly(client: Client) -> None:
    """Close a WebSocket, whatever state it is in."""
    with contextlib.suppress(ConnectionClosed, OSError):
        client.close(1000, "Bye")
