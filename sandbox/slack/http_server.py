"""Slack's HTTP side on loopback: /api/<method> and the response_urls."""

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sandbox.slack.faults import BrokenAnswerError, RateLimitedError
from sandbox.slack.wire import Json


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What came in."""

    path: str
    query: str
    content_type: str
    body: bytes = field(repr=False)
    bearer: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What goes out."""

    status: int
    body: Json
    headers: dict[str, str] = field(default_factory=dict)


Route = Callable[[Request], Response]


class HttpServer(ThreadingHTTPServer):
    """A thread per connection, on 127.0.0.1 and a free port; `close` ends every connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, route: Route, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.route = route
        self.port = int(self.server_address[1])
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="slack-http", daemon=True)

    def start(self) -> None:
        """Serve from now on, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving and cut what is still open."""
        self.shutdown()
        self._thread.join()
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:  # as socketserver has it
        """Note the connection, then serve it in its own thread."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection and close it."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that went away is no news; a mistake of ours is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise every small answer waits 40 ms for an acknowledgement
    wbufsize = -1
    server: HttpServer

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def finish(self) -> None:
        """Close both files, also where the last words reach nobody: the socket lives as long as one is open."""
        try:
            super().finish()
        finally:
            self.rfile.close()

    def log_message(self, *_args: object) -> None:
        """Silence: the calls are kept elsewhere."""

    def _answer(self) -> None:
        try:
            self._reply(self.server.route(self._request()))
        except RateLimitedError as error:
            body = {"ok": False, "error": "ratelimited"}
            self._reply(Response(status=429, body=body, headers={"Retry-After": str(error.retry_after)}))
        except BrokenAnswerError as error:
            self.close_connection = True
            if error.status is not None:
                self.send_error(error.status)

    def _request(self) -> Request:
        path, _, query = self.path.partition("?")
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return Request(
            path=path,
            query=query,
            content_type=self.headers.get("Content-Type", ""),
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
            bearer=token if scheme == "Bearer" and token else None,
        )

    def _reply(self, response: Response) -> None:
        body = json.dumps(response.body).encode()
        self.send_response(response.status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
