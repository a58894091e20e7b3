"""Forwarded headers count only from proxies that the settings trust."""

from collections.abc import Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from bot.proxies import TrustedProxies

FORWARDED = {
    "HTTP_FORWARDED": "for=1.1.1.1;proto=https;host=evil.example",
    "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_X_FORWARDED_HOST": "evil.example",
    "HTTP_X_FORWARDED_PORT": "443",
    "HTTP_X_FORWARDED_PREFIX": "/evil",
    "HTTP_X_REAL_IP": "1.1.1.1",
}


def seen(trusted: list[str], peer: str, forwarded_for: str | None, **headers: str) -> dict[str, Any]:
    """What the application sees of a request."""
    environ: dict[str, Any] = {"REMOTE_ADDR": peer, "HTTP_HOST": "passport.example", **headers}
    if forwarded_for is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded_for
    setup_testing_defaults(environ)
    found: dict[str, Any] = {}

    def app(environ: dict[str, Any], _: Any) -> Iterable[bytes]:
        found.update(environ)
        return [b"ok"]

    assert TrustedProxies(app, trusted)(environ, None) == [b"ok"]
    return found


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded_for", "client"),
    [
        ([], "203.0.113.9", None, "203.0.113.9"),
        ([], "203.0.113.9", "1.1.1.1", "203.0.113.9"),
        (["10.0.0.0/8"], "203.0.113.9", "1.1.1.1", "203.0.113.9"),
        (["10.0.0.0/8"], "10.1.2.3", "198.51.100.7", "198.51.100.7"),
        (["10.0.0.0/8"], "10.1.2.3", "1.1.1.1, 198.51.100.7", "198.51.100.7"),  # the first is the client's own word
        (["10.0.0.0/8"], "10.1.2.3", "1.1.1.1, 198.51.100.7 , 10.9.9.9", "198.51.100.7"),
        (["10.1.2.3"], "10.1.2.3", "10.9.9.9", "10.9.9.9"),
        (["10.0.0.0/8"], "10.1.2.3", None, "10.1.2.3"),
        (["10.0.0.0/8"], "10.1.2.3", " , ", "10.1.2.3"),
        (["10.0.0.0/8"], "10.1.2.3", "10.4.4.4", "10.4.4.4"),
        (["10.0.0.0/8"], "10.1.2.3", "1.1.1.1, not-an-address", "not-an-address"),
        (["::1", "fd00::/8"], "fd00::5", "2001:db8::1", "2001:db8::1"),
        (["10.0.0.7/8"], "10.200.0.1", "198.51.100.7", "198.51.100.7"),
        (["0.0.0.0/0"], "", "1.1.1.1", ""),
    ],
)
def test_the_client_is_the_nearest_that_is_no_trusted_proxy(
    trusted: list[str], peer: str, forwarded_for: str | None, client: str
) -> None:
    assert seen(trusted, peer, forwarded_for)["REMOTE_ADDR"] == client


@pytest.mark.parametrize("peer", ["10.1.2.3", "203.0.113.9"])
def test_no_forwarded_header_reaches_the_application(peer: str) -> None:
    found = seen(["10.0.0.0/8"], peer, "1.1.1.1", **FORWARDED)
    assert not [name for name in found if "FORWARDED" in name or name == "HTTP_X_REAL_IP"]
    assert (found["HTTP_HOST"], found["wsgi.url_scheme"], found["SCRIPT_NAME"]) == ("passport.example", "http", "")
