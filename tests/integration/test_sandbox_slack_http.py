"""The double's HTTP side: a caller that dies before its answer leaves no socket behind."""

import socket
import struct
import threading
from typing import Any

import pytest

from sandbox.reading import wait_for
from sandbox.slack import http_server
from sandbox.slack.http_server import HttpServer, Request, Response


def test_a_caller_that_was_killed_leaves_no_open_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, gone, closed = threading.Event(), threading.Event(), list[bool]()
    finish = http_server._Handler.finish

    def noted(handler: Any) -> None:
        try:
            finish(handler)
        finally:
            closed.append(handler.rfile.closed and handler.wfile.closed)

    def answer(_: Request) -> Response:
        asked.set()
        assert gone.wait(10)
        return Response(status=200, body={"ok": True})

    monkeypatch.setattr(http_server._Handler, "finish", noted)
    server = HttpServer(answer)
    server.start()
    caller = socket.create_connection(("127.0.0.1", server.port))
    caller.sendall(b"GET /api/auth.test HTTP/1.1\r\nHost: x\r\n\r\n")
    assert asked.wait(10)
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, as of a killed process
    caller.close()
    gone.set()
    wait_for(lambda: closed, "the connection to be given up")
    server.close()
    assert closed == [True]
