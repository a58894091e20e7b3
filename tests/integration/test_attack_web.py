"""Attacks on the web server by whoever reaches its port."""

import socket
import threading
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

from bot.serve import _listen
from bot.settings import Settings

HALF = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "


def well(_: dict[str, Any], start: Any) -> Iterable[bytes]:
    start("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]


def test_a_hundred_and_fifty_connections_that_say_nothing_shut_nobody_out() -> None:
    settings = SimpleNamespace(address=("127.0.0.1", 0), listen="127.0.0.1:0", trusted_proxies=())
    server = _listen(cast("Settings", settings), well)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    address = ("127.0.0.1", server.effective_port)
    slow = [socket.create_connection(address) for _ in range(150)]
    try:
        for one in slow:
            one.sendall(HALF)
        with socket.create_connection(address, timeout=10) as honest:
            honest.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert honest.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for one in slow:
            one.close()
        server.close()
        thread.join(10)
