"""Forwarded headers count only from proxies that the settings trust."""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]
_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST",
              "HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_PREFIX", "HTTP_X_REAL_IP")  # fmt: skip


class TrustedProxies:
    """WSGI middleware: sets REMOTE_ADDR to the client's own address, and drops every forwarded header."""

    def __init__(self, app: WSGI, trusted: Sequence[str]) -> None:
        self._app = app
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in trusted]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["REMOTE_ADDR"] = self._client(environ)
        for header in _FORWARDED:
            environ.pop(header, None)
        return self._app(environ, start_response)

    def _client(self, environ: dict[str, Any]) -> str:
        """The nearest address that is no trusted proxy; a forged header only reaches as far as that."""
        address = str(environ.get("REMOTE_ADDR", ""))
        hops = [hop.strip() for hop in environ.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
        while hops and self._is_trusted(address):
            address = hops.pop()
        return address

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)
