"""The web server's pages: Slack's endpoint, the sign-in, health."""

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Flask, Request, Response, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from access.errors import NotFoundError, PassportError, UnavailableError
from access.model import Login, SignIn
from access.service.linking import Linked, Linking
from access.service.submitting import Submitting, Unparked
from bot import bundle_page
from handlers.members import Members
from identity.errors import AssertionRefusedError
from identity.saml import ServiceProvider

_log = logging.getLogger(__name__)

SIGN_IN_LASTS = 600  # seconds that the browser's cookie lives: as long as the login
MOST_BYTES = 1_000_000  # of one request: Slack's and SAML's are far smaller


class SlackEndpoint(Protocol):
    """Answers a Flask request of Slack's."""

    def handle(self, req: Request) -> Response: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What the pages need."""

    public_url: str
    providers: Sequence[str]
    slack: SlackEndpoint | None  # None: Slack comes over Socket Mode, and nothing here is Slack's
    service_provider: ServiceProvider
    linking: Linking
    submitting: Submitting
    members: Members
    is_ready: Callable[[], str]  # why not, as a sentence; "" when it is
    bundles: bundle_page.BundleSite | None = None  # None: people have no AWS credentials of their own


class _Cookie:
    """Binds a sign-in to the browser that began it.

    The answer of the identity provider is a cross-site POST, which carries no SameSite=Lax cookie: over https
    the cookie is SameSite=None and host-only. Over http, which is for development on loopback alone, browsers
    take no such cookie; a Lax one comes back from an identity provider at the same host, whatever its port.
    """

    def __init__(self, public_url: str) -> None:
        self._secure = public_url.startswith("https://")
        self.name = "__Host-passport-sign-in" if self._secure else "passport-sign-in"

    def set(self, response: BaseResponse, value: str) -> None:
        response.set_cookie(
            self.name,
            value,
            max_age=SIGN_IN_LASTS,
            secure=self._secure,
            httponly=True,
            samesite="None" if self._secure else "Lax",
            path="/",
        )


def build_site(site: Site) -> Flask:
    """The Flask application."""
    app = _Flask("bot", template_folder="pages", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = MOST_BYTES
    _health(app, site)
    if site.slack is not None:
        _slack(app, site.slack)
    _sign_in(app, site)
    if site.bundles is not None:
        bundle_page.register(app, site.bundles, _page)
    app.register_error_handler(404, lambda _: _page("Nothing is here", ["Start in Slack: /passport help"], status=404))
    app.register_error_handler(413, lambda _: _page("Too much", ["I do not read that much at once."], status=413))
    app.register_error_handler(
        500, lambda _: _page("Something broke on my side", ["Try again in a minute."], status=500)
    )
    app.after_request(_harden)
    return app


class _Flask(Flask):
    def log_exception(self, exc_info: Any) -> None:
        """Log a failure without the address, which may hold a one-time token."""
        _log.error("The page %s failed", request.endpoint, exc_info=exc_info)


def _harden(response: Response) -> Response:
    response.headers["Referrer-Policy"] = "no-referrer"  # the address may hold a one-time token
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _health(app: Flask, site: Site) -> None:
    @app.get("/healthz")
    def healthz() -> tuple[str, int]:
        return "ok\n", 200

    @app.get("/readyz")
    def readyz() -> tuple[str, int]:
        problem = site.is_ready()
        return (f"{problem}\n", 503) if problem else ("ready\n", 200)


def _slack(app: Flask, slack: SlackEndpoint) -> None:
    @app.post("/slack/events")
    def slack_events() -> Response:
        return slack.handle(request)


def _sign_in(app: Flask, site: Site) -> None:
    cookie = _Cookie(site.public_url)

    @app.get("/saml/metadata")
    def metadata() -> Response:
        return Response(site.service_provider.metadata(), mimetype="application/samlmetadata+xml")

    @app.get("/link/<token>")
    def link_page(token: str) -> Response:
        try:
            ticket = site.linking.look(token)
            profile = site.members.profile(ticket.slack_user.user_id)
        except PassportError as error:
            return _problem(error)
        lines = [
            f"You are about to link the Slack user {profile.name} ({profile.email}) to whoever signs in next.",
            "If that is not you, close this page.",
        ]
        return _page("Sign in to Passport", lines, providers=site.providers)

    @app.post("/link/<token>")
    def link_go_on(token: str) -> BaseResponse:
        provider = request.form.get("provider", "")
        if provider not in site.providers:
            return _page(
                "Not signed in", ["I know no such identity provider. Go back and press the button."], status=400
            )
        relay_state, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        authn = site.service_provider.authn_request(provider, relay_state)
        try:
            site.linking.go_on(token, provider=provider, request_id=authn.id, relay_state=relay_state, browser=browser)
        except PassportError as error:
            return _problem(error)
        response = redirect(authn.url, code=303)
        cookie.set(response, browser)
        return response

    @app.post("/saml/acs")
    def acs() -> Response:
        try:
            login = site.linking.take_login(request.form.get("RelayState", ""), request.cookies.get(cookie.name, ""))
            linked, unparked = _finish(site, login, request.form.get("SAMLResponse", ""))
        except PassportError as error:
            return _problem(error)
        return _page("You are signed in", _welcome(linked, unparked))


def _finish(site: Site, login: Login, response: str) -> tuple[Linked, list[Unparked]]:
    try:
        said = site.service_provider.validate(response, request_id=login.request_id, provider=login.provider)
    except AssertionRefusedError as error:
        site.linking.refused(login, error.sentence)
        raise
    sign_in = SignIn(
        provider=said.provider,
        subject=said.subject,
        email=said.email,
        name=said.name,
        groups=said.groups,
        assertion_id=f"{said.issuer} {said.assertion_id}",  # ids are unique per provider only
        not_on_or_after=said.not_on_or_after,
    )
    profile = site.members.profile(login.slack_user.user_id)
    linked = site.linking.link(login, sign_in, profile_email=profile.email)
    return linked, site.submitting.unpark(login.slack_user)


def _welcome(linked: Linked, unparked: Sequence[Unparked]) -> list[str]:
    lines = [f"{linked.person.name} ({linked.person.email}), until {linked.link.expires_at:%H:%M} UTC."]
    for result in unparked:
        servers = ", ".join(result.parked.submission.servers)
        if result.request:
            lines.append(
                f"I have sent your request {result.request.id} for {servers}. Slack tells you when it is decided."
            )
        elif result.is_kept:
            lines.append(
                f"I cannot send your request for {servers} yet. I keep it and try again by myself each minute."
            )
        else:
            lines.append(f"I could not send your request for {servers}: {result.sentence}")
    return [*lines, "You can close this page."]


def _problem(error: PassportError) -> Response:
    statuses = {NotFoundError: 404, UnavailableError: 503}
    status = next((status for kind, status in statuses.items() if isinstance(error, kind)), 403)
    return _page("Not signed in", [error.sentence], status=status)


def _page(
    title: str, lines: Sequence[str], *, providers: Sequence[str] = (), action: str = "", status: int = 200
) -> Response:
    nonce = secrets.token_urlsafe(16)
    text = render_template("page.html", title=title, lines=lines, providers=providers, action=action, nonce=nonce)
    response = make_response(text, status)
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; frame-ancestors 'none'; base-uri 'none'"
    )
    return response
