"""The identity provider's pages over HTTP, on loopback only."""

import html
import secrets
import socket
import threading
from http import HTTPStatus
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlsplit

from sandbox.idp.people import Person
from sandbox.idp.scim import MEDIA_TYPE, ScimService
from sandbox.idp.sign_on import RequestRefusedError, SignOnRequest

if TYPE_CHECKING:
    from sandbox.idp.provider import Answer, IdentityProviderDouble

_COOKIE = "idp_session"
_MAX_BODY = 10_000


class WebServer:
    """Listens on a free port of 127.0.0.1; `host` may be "localhost", which is another site to a browser."""

    def __init__(self, idp: "IdentityProviderDouble", scim: ScimService, *, host: str) -> None:
        if host not in {"127.0.0.1", "localhost"}:
            raise ValueError("the double listens on loopback only")
        pages = type("Pages", (_Pages,), {"idp": idp, "scim": scim, "waiting": {}, "signed_in": {}})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), pages)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._serve, name="identity-provider", daemon=True)
        self.url = f"http://{host}:{self._http.server_address[1]}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and free the port."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()

    def _serve(self) -> None:
        self._http.serve_forever(poll_interval=0.05)


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    idp: ClassVar["IdentityProviderDouble"]
    scim: ClassVar[ScimService]
    waiting: ClassVar[dict[str, SignOnRequest]]
    signed_in: ClassVar[dict[str, Person]]

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or each call costs 40 ms

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: requests hold assertions."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/metadata":
            self._send(HTTPStatus.OK, self.idp.metadata, "application/samlmetadata+xml")
        elif parts.path == "/scim/v2/Users":
            status, body = self.scim.answer(parts.query, self.headers.get("Authorization"))
            self._send(status, body, MEDIA_TYPE)
        elif parts.path == "/sso":
            self._sign_on()
        else:
            self._page(HTTPStatus.NOT_FOUND, "Not found", "<p>There is nothing here.</p>")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        if length > _MAX_BODY or urlsplit(self.path).path != "/login":
            self.close_connection = True
            self._page(HTTPStatus.NOT_FOUND, "Not found", "<p>There is nothing here.</p>")
            return
        said = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
        self._log_in(said)

    def _sign_on(self) -> None:
        try:
            request = self.idp.read(self.path)
        except (RequestRefusedError, ValueError, KeyError) as refused:
            self._page(HTTPStatus.BAD_REQUEST, "Request refused", f"<p>{html.escape(str(refused))}</p>")
            return
        person = self.signed_in.get(self._session())
        if person is not None and not request.force:
            # The account may have changed since.
            person = self.idp.person(person.email, person.password)
        if person is not None and not request.force:
            self._post_back(self.idp.answer(request, person), "")
            return
        token = secrets.token_urlsafe(16)
        self.waiting[token] = request
        self._page(HTTPStatus.OK, "Sign in", _login_form(token))

    def _log_in(self, said: dict[str, str]) -> None:
        request = self.waiting.pop(said.get("request", ""), None)
        if request is None:
            self._page(HTTPStatus.BAD_REQUEST, "Request refused", "<p>Please start again.</p>")
            return
        person = self.idp.person(said.get("email", ""), said.get("password", ""))
        if person is None:
            token = secrets.token_urlsafe(16)
            self.waiting[token] = request
            self._page(HTTPStatus.FORBIDDEN, "Sign in", f"<p>Wrong email or password.</p>{_login_form(token)}")
            return
        session = secrets.token_urlsafe(16)
        self.signed_in[session] = person
        self._post_back(self.idp.answer(request, person), session)

    def _session(self) -> str:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get(_COOKIE)
        return cookie.value if cookie else ""

    def _post_back(self, answer: "Answer", session: str) -> None:
        fields = {"SAMLResponse": answer.saml_response, "RelayState": answer.relay_state}
        inputs = "".join(
            f'<input type="hidden" name="{name}" value="{html.escape(value)}">' for name, value in fields.items()
        )
        form = (
            f'<form method="post" action="{html.escape(answer.acs_url)}">{inputs}'
            '<noscript><button type="submit">Continue</button></noscript></form>'
            "<script>document.forms[0].submit()</script>"
        )
        cookie = f"{_COOKIE}={session}; Path=/; HttpOnly; SameSite=Lax" if session else ""
        self._page(HTTPStatus.OK, "Signing in", form, cookie)

    def _page(self, status: int, title: str, body: str, cookie: str = "") -> None:
        text = f"<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1>{body}</body></html>"
        self._send(status, text.encode(), "text/html; charset=utf-8", cookie)

    def _send(self, status: int, body: bytes, media_type: str, cookie: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body)


def _login_form(token: str) -> str:
    return (
        f'<form method="post" action="/login"><input type="hidden" name="request" value="{token}">'
        '<label>Email <input type="email" name="email"></label>'
        '<label>Password <input type="password" name="password"></label>'
        '<button type="submit">Sign in</button></form>'
    )
