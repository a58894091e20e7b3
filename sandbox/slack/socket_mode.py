"""Socket Mode on loopback: tickets, hello, envelopes and acks (page "Using Socket Mode")."""

import contextlib
import itertools
import json
import queue
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from sandbox.slack.deliveries import Answer, Delivery
from sandbox.slack.faults import Faults
from sandbox.slack.wire import Json

MOST_CONNECTIONS = 10
_TAKES_ANSWERS = ("command", "view_submission", "block_suggestion")


@dataclass(eq=False, slots=True)
class _Socket:
    connection: ServerConnection
    acks: dict[str, "queue.SimpleQueue[Json]"] = field(default_factory=dict)


class SocketMode:
    """The app's WebSockets; a delivery goes to any one of them, in turn."""

    def __init__(self, app_id: str, notify: Callable[[], None], faults: Faults) -> None:
        self._app_id = app_id
        self._faults = faults
        faults.when_down(self.cut)
        self._notify = notify
        self._lock = threading.Lock()
        self._sockets: list[_Socket] = []
        self._tickets: set[str] = set()
        self._turns = itertools.count()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def connections(self) -> int:
        """How many connections the app has."""
        with self._lock:
            return len(self._sockets)

    def make_url(self) -> str:
        """The answer of apps.connections.open: an address that can be used once."""
        ticket = secrets.token_urlsafe(24)
        with self._lock:
            self._tickets.add(ticket)
            port = self._started().socket.getsockname()[1]
        return f"ws://127.0.0.1:{port}/link/?ticket={ticket}&app_id={self._app_id}"

    def carry(self, delivery: Delivery, envelope: str, seconds: float) -> Answer:
        """Send an envelope and wait for its ack; raises TimeoutError, or OSError without a connection."""
        found, envelope_id = self._next(), secrets.token_hex(16)
        acks: queue.SimpleQueue[Json] = queue.SimpleQueue()
        found.acks[envelope_id] = acks
        try:
            found.connection.send(json.dumps(_envelope(delivery, envelope, envelope_id)))
            payload = acks.get(timeout=seconds)
        except ConnectionClosed as error:
            raise ConnectionError("the socket was closed") from error
        except queue.Empty:
            raise TimeoutError from None
        finally:
            found.acks.pop(envelope_id, None)
        body = json.dumps(payload).encode() if payload else b""
        return Answer(status=200, body=body, content_type="application/json", headers={})

    def refresh(self, reason: str = "refresh_requested", *, close: bool = True) -> None:
        """Ask every connection to reconnect, as Slack does every few hours; it leaves it some seconds, or none."""
        for found in self._all():
            _say(found.connection, {"type": "disconnect", "reason": reason, "debug_info": {"host": "sandbox"}})
            if close:
                self._forget(found)  # nothing is delivered to a connection that Slack has ended
                found.connection.close()

    def cut(self) -> None:
        """End every connection without a word, as when something on the way restarts."""
        for found in self._all():
            found.connection.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close every connection and stop."""
        for found in self._all():
            found.connection.close()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()

    def _started(self) -> Server:
        if self._server is None:
            self._server = serve(self._serve, "127.0.0.1", 0, process_request=self._admit)
            self._thread = threading.Thread(target=self._server.serve_forever, name="slack-sockets", daemon=True)
            self._thread.start()
        return self._server

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self._faults.is_down:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "down\n")
        ticket = request.path.partition("ticket=")[2].partition("&")[0]
        with self._lock:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                return None
        return connection.respond(HTTPStatus.NOT_FOUND, "no such ticket\n")

    def _serve(self, connection: ServerConnection) -> None:
        found = _Socket(connection)
        with self._lock:
            full = len(self._sockets) >= MOST_CONNECTIONS
            if not full:
                self._sockets.append(found)
            number = len(self._sockets)
        if full:
            _say(connection, {"type": "disconnect", "reason": "too_many_websockets"})
            return
        try:
            _say(connection, _hello(self._app_id, number))
            self._notify()
            with contextlib.suppress(ConnectionClosed):  # an app that is killed says no goodbye
                for text in connection:
                    _take_ack(found, str(text))
        finally:
            self._forget(found)
            self._notify()

    def _next(self) -> _Socket:
        with self._lock:
            if not self._sockets:
                raise ConnectionError("the app has no socket open")
            return self._sockets[next(self._turns) % len(self._sockets)]

    def _forget(self, found: _Socket) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._sockets.remove(found)

    def _all(self) -> list[_Socket]:
        with self._lock:
            return list(self._sockets)


def _hello(app_id: str, number: int) -> Json:
    return {
        "type": "hello",
        "num_connections": number,
        "connection_info": {"app_id": app_id},
        "debug_info": {"host": "sandbox", "approximate_connection_time": 18060},
    }


def _envelope(delivery: Delivery, kind: str, envelope_id: str) -> Json:
    envelope: Json = {
        "envelope_id": envelope_id,
        "type": kind,
        "payload": delivery.payload,
        "accepts_response_payload": delivery.kind in _TAKES_ANSWERS,
    }
    if kind == "events_api":
        envelope["retry_attempt"] = int(delivery.headers.get("x-slack-retry-num", "0"))
        envelope["retry_reason"] = delivery.headers.get("x-slack-retry-reason", "")
    return envelope


def _take_ack(socket: _Socket, text: str) -> None:
    try:
        ack = json.loads(text)
    except ValueError:
        return
    waiting = socket.acks.get(str(ack.get("envelope_id"))) if isinstance(ack, dict) else None
    if waiting is not None:
        waiting.put(ack.get("payload") or {})


def _say(connection: ServerConnection, words: Json) -> None:
    try:
        connection.send(json.dumps(words))
    except ConnectionClosed:
        return
