"""Where clients open data channels: a WebSocket server on loopback that asks each for its token first."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from sandbox.aws.agent_end import AgentEnd

OPENS_WITHIN = 15.0
PATH = re.compile(r"/v1/data-channel/([A-Za-z0-9._=,@+-]{1,96})")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FIELDS = ("MessageSchemaVersion", "RequestId", "TokenValue", "ClientId", "ClientVersion")


class RefusedError(Exception):
    """This channel is not opened; says why."""


class Opens(Protocol):
    """A session, as much of it as the server needs."""

    def admit(self, token: str) -> AgentEnd: ...


class ChannelServer:
    """Listens until close(); `find` answers a session that is not over, or None."""

    def __init__(self, find: Callable[[str], Opens | None]) -> None:
        self._find = find
        self.refusals: list[str] = []
        self._server = serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._check_address,
            compression=None,
            ping_interval=None,
            max_size=1 << 17,
            close_timeout=2,
        )
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="data-channels", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._thread.join(timeout=5)

    def _check_address(self, connection: ServerConnection, request: Request) -> Response | None:
        url = urlsplit(request.path)
        found = PATH.fullmatch(url.path)
        if found is None or parse_qs(url.query).get("role") != ["publish_subscribe"]:
            self.refusals.append("this is not the address of a data channel")
            return connection.respond(HTTPStatus.BAD_REQUEST, "not the address of a data channel\n")
        if self._find(found[1]) is None:
            self.refusals.append("there is no such session")
            return connection.respond(HTTPStatus.NOT_FOUND, "no such session\n")
        return None

    def _serve(self, connection: ServerConnection) -> None:
        try:
            agent, client_id = self._admitted(connection)
        except RefusedError as error:
            self.refusals.append(str(error))
            connection.close(1008, str(error))
            return
        except (TimeoutError, ConnectionClosed):
            self.refusals.append("no opening message came")
            return
        agent.attach(connection, client_id)
        try:
            with contextlib.suppress(ConnectionClosed):  # an ssh that is killed says no goodbye
                for data in connection:
                    if isinstance(data, bytes):
                        agent.take(data)
                    else:
                        agent.rejected.append("a text message after the opening")
        finally:
            agent.detach(connection)

    def _admitted(self, connection: ServerConnection) -> tuple[AgentEnd, str]:
        said = _opening(connection.recv(timeout=OPENS_WITHIN))
        assert connection.request is not None
        session = self._find(urlsplit(connection.request.path).path.rpartition("/")[2])
        if session is None:
            raise RefusedError("the session is over")
        return session.admit(said["TokenValue"]), said["ClientId"]


def _opening(message: str | bytes) -> dict[str, str]:
    """Read OpenDataChannelInput; raise RefusedError (service.go of session-manager-plugin)."""
    if not isinstance(message, str):
        raise RefusedError("the opening message is text")
    try:
        said = json.loads(message)
    except ValueError:
        raise RefusedError("the opening message is not JSON") from None
    if not isinstance(said, dict) or any(not isinstance(said.get(name), str) for name in FIELDS):
        raise RefusedError(f"the opening message has {', '.join(FIELDS)}")
    if said["MessageSchemaVersion"] != "1.0":
        raise RefusedError("MessageSchemaVersion is 1.0")
    if not UUID.fullmatch(said["RequestId"]) or not UUID.fullmatch(said["ClientId"]):
        raise RefusedError("RequestId and ClientId are UUIDs")
    if not re.fullmatch(r"\d+(\.\d+){3}", said["ClientVersion"]):
        raise RefusedError("ClientVersion is a version")
    return said
