"""The pages of the sign-in, in a browser: with a real identity provider double, storage and Slack profiles."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from flask import Flask, Response
from slack_sdk import WebClient
from werkzeug.serving import make_server

from access.audit import AuditEvent, Kind
from access.errors import UnavailableError
from access.model import Link, SlackUser, Submission
from access.ports import Store
from access.service.desk import Caller
from access.service.linking import Linking
from access.service.submitting import Parked
from bot.web import MOST_BYTES, Site, build_site
from handlers.members import Members, inline
from identity.providers import IdentityProvider
from identity.saml import ServiceProvider
from sandbox.idp import Browser, IdentityProviderDouble, Tamper
from sandbox.idp.browser import Page
from sandbox.idp.cookies import CookieJar
from sandbox.idp.keys import KeyPair, new_key_pair
from sandbox.slack import SlackDouble
from tests.integration.saml_desk import utc_now
from tests.values import a_person
from tests.world import World

MAX = SlackUser(team_id="T0PASSPORT", user_id="U0MAX")
EMAIL = "max@example.com"
SECURE = "https://passport.example.com"


class SilentSlack:
    """Slack's endpoint has tests of its own."""

    def handle(self, req: Any) -> Response:
        return Response("acked")


@dataclass(kw_only=True)
class Lab:
    """The site on loopback, and all it talks to."""

    url: str
    world: World
    slack: SlackDouble
    idps: dict[str, IdentityProviderDouble]
    linking: Linking
    app: Flask
    problem: list[str] = field(default_factory=list)  # why /readyz says no

    @property
    def idp(self) -> IdentityProviderDouble:
        return self.idps["corp"]

    def token(self) -> str:
        """As ``/passport link`` makes it."""
        return self.linking.begin(Caller(slack_user=MAX))

    def link(self) -> str:
        """The address that Slack shows."""
        return f"{self.url}/link/{self.token()}"

    def linked(self) -> Link | None:
        with self.world.store.unit_of_work(read_only=True) as uow:
            return uow.people.link_of(MAX)

    def events(self, kind: Kind) -> list[AuditEvent]:
        with self.world.store.unit_of_work(read_only=True) as uow:
            return [found for found in uow.audit.all() if found.event.kind is kind]


@pytest.fixture(scope="module")
def keys() -> KeyPair:
    return new_key_pair("passport")


@pytest.fixture
def open_lab(sqlite_store: Store, keys: KeyPair) -> Callable[..., Any]:
    """Opens a lab: ``idp_hosts`` names a provider and its host each."""

    @contextmanager
    def opening(*, public_url: str = "", **idp_hosts: str) -> Iterator[Lab]:
        names = idp_hosts or {"corp": "127.0.0.1"}
        with SlackDouble() as slack:
            idps = {name: IdentityProviderDouble(host=host) for name, host in names.items()}
            for idp in idps.values():
                idp.__enter__()
                idp.add_person(EMAIL, name="Max Voss", groups={"payments"})
            try:
                yield from _lab(sqlite_store, keys, slack, idps, public_url)
            finally:
                for idp in idps.values():
                    idp.close()

    return opening


def _lab(
    store: Store, keys: KeyPair, slack: SlackDouble, idps: dict[str, IdentityProviderDouble], public_url: str
) -> Iterator[Lab]:
    world = World(store)
    world.clock.now = utc_now()  # SAML has the real time
    slack.add_member(MAX.user_id, name="max", real_name="Max Voss", email=EMAIL)
    client = WebClient(token=slack.bot_token, base_url=slack.url)
    server = make_server("127.0.0.1", 0, Flask("not yet"), threaded=True)
    url = public_url or f"http://127.0.0.1:{server.server_port}"
    sp = ServiceProvider(
        public_url=url,
        entity_id=None,
        signing_key_pem=keys.key_pem,
        signing_certificate_pem=keys.certificate_pem,
        providers=[IdentityProvider(name=name, metadata=idp.metadata) for name, idp in idps.items()],
        clock=utc_now,
    )
    for idp in idps.values():
        idp.trust(sp.metadata())
    problem: list[str] = []
    site = Site(
        public_url=url,
        providers=list(idps),
        slack=SilentSlack(),
        service_provider=sp,
        linking=Linking(world.desk),
        submitting=world.submitting,
        members=Members(inline(client), team_id="T0PASSPORT", clock=world.clock),
        is_ready=lambda: "".join(problem),
    )
    lab = Lab(
        url=f"http://127.0.0.1:{server.server_port}",
        world=world,
        slack=slack,
        idps=idps,
        linking=site.linking,
        app=build_site(site),
        problem=problem,
    )
    server.app = lab.app  # made last: the pages know the port
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield lab
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def lab(open_lab: Callable[..., Any]) -> Iterator[Lab]:
    with open_lab() as lab:
        yield lab


def answered(lab: Lab, browser: Browser) -> Page:
    """The identity provider's last page, whose form carries its answer to Passport."""
    assert not browser.runs_scripts
    browser.open(lab.link()).press("Sign in")
    return browser.sign_in_as(EMAIL)


# --- It works ------------------------------------------------------------------------------------------------------


def test_a_person_signs_in_and_is_linked(lab: Lab) -> None:
    with Browser() as browser:
        page = browser.open(lab.link())
        assert "link the Slack user Max Voss (max@example.com)" in page.text
        assert page.buttons == ["Sign in"]
        page.press("Sign in")
        page = browser.sign_in_as(EMAIL)
    assert (page.status, page.title) == (200, "You are signed in · Passport")
    link = lab.linked()
    assert link is not None
    assert f"Max Voss (max@example.com), until {link.expires_at:%H:%M} UTC." in page.text
    [event] = lab.events(Kind.LINK_MADE)
    assert event.event.details == {"slack": "slack:T0PASSPORT/U0MAX", "email": EMAIL, "provider": "corp"}
    with lab.world.store.unit_of_work(read_only=True) as uow:
        assert uow.people.get(link.person_id).groups == {"payments"}


def test_what_waited_for_the_sign_in_is_sent_and_the_page_says_so(lab: Lab) -> None:
    for server in ("web-1", "nowhere"):
        words = Submission(servers=(server,), reason="INC-7", duration=None)
        assert isinstance(lab.world.submitting.submit(Caller(slack_user=MAX), words), Parked)
    with Browser() as browser:
        browser.open(lab.link()).press("Sign in")
        page = browser.sign_in_as(EMAIL)
    [event] = lab.events(Kind.REQUEST_SUBMITTED)
    assert f"I have sent your request {event.event.request_id} for web-1." in page.text
    assert "I could not send your request for nowhere: " in page.text
    assert lab.world.standing(event.event.request_id).request.reason == "INC-7"


def test_what_cannot_be_sent_yet_is_kept_and_the_page_says_so(lab: Lab) -> None:
    lab.world.inventory.is_listed = False
    lab.world.submitting.submit(Caller(slack_user=MAX), Submission(servers=("web-9",), reason="INC-7", duration=None))
    with Browser() as browser:
        browser.open(lab.link()).press("Sign in")
        page = browser.sign_in_as(EMAIL)
    assert "I cannot send your request for web-9 yet. I keep it and try again by myself each minute." in page.text
    with lab.world.store.unit_of_work(read_only=True) as uow:
        assert len(uow.sign_ins.parked_of(MAX)) == 1


def test_with_several_providers_the_person_chooses(open_lab: Callable[..., Any]) -> None:
    with open_lab(corp="127.0.0.1", partner="127.0.0.1") as lab, Browser() as browser:
        page = browser.open(lab.link())
        assert page.buttons == ["Sign in with corp", "Sign in with partner"]
        page.press("Sign in with partner")
        assert browser.page.url.startswith(lab.idps["partner"].url)
        assert browser.sign_in_as(EMAIL).status == 200
        [event] = lab.events(Kind.LINK_MADE)
        assert event.event.details["provider"] == "partner"


def test_an_exception_of_an_admin_lets_another_email_in(lab: Lab) -> None:
    admin = SlackUser(team_id="T0PASSPORT", user_id="U0ADMIN")
    ada = a_person("Ada Admin", groups=frozenset({"passport-admins"}), groups_read_at=lab.world.clock())
    lab.world.add_person(ada, admin)
    lab.slack.add_member(MAX.user_id, name="max", real_name="Max Voss", email="max.voss@other.example")
    with Browser() as browser:
        browser.open(lab.link()).press("Sign in")
        page = browser.sign_in_as(EMAIL)
        assert page.status == 403
        assert "You signed in as max@example.com, but your Slack profile says max.voss@other.example" in page.text
        assert lab.linked() is None
        lab.linking.record_exception(Caller(slack_user=admin), MAX, EMAIL, "contractor")
        page = browser.open(lab.link()).press("Sign in")
    assert page.title.startswith("You are signed in")
    [refused] = lab.events(Kind.LINK_REFUSED)
    assert refused.event.details["email"] == EMAIL


# --- The link is used up by its button alone -----------------------------------------------------------------------


def test_looking_at_the_link_uses_nothing_up(lab: Lab) -> None:
    link = lab.link()
    for _ in range(5):
        assert requests.get(link, timeout=5).status_code == 200
        assert requests.head(link, timeout=5).status_code == 200
    with Browser() as browser:
        browser.open(link).press("Sign in")
        assert browser.sign_in_as(EMAIL).status == 200
    page = requests.get(link, timeout=5)
    assert page.status_code == 404
    assert "used before or has run out" in page.text


def test_the_button_counts_once(lab: Lab) -> None:
    link = lab.link()
    with Browser() as first, Browser() as second:
        page, other = first.open(link), second.open(link)
        page.press("Sign in")
        refused = other.press("Sign in")
        assert (refused.status, refused.title) == (404, "Not signed in · Passport")
        assert first.sign_in_as(EMAIL).status == 200


def test_a_link_that_ran_out(lab: Lab) -> None:
    link = lab.link()
    lab.world.clock.forward(minutes=10)
    with Browser() as browser:
        page = browser.open(link)
    assert page.status == 404
    assert "Type /passport link in Slack for a new one." in page.text


def test_a_link_that_never_was(lab: Lab) -> None:
    with Browser() as browser:
        assert browser.open(f"{lab.url}/link/{'x' * 43}").status == 404
    assert [call for call in lab.slack.calls if call.method == "users.info"] == []


def test_names_are_text_not_html(lab: Lab) -> None:
    name = '<img src=x onerror="alert(1)">&{{7*7}}'
    lab.slack.add_member(MAX.user_id, name="max", real_name=name, email=EMAIL)
    with Browser() as browser:
        page = browser.open(lab.link())
    assert name in page.text
    assert "<img" not in page.source
    assert "{{7*7}}" in page.source


def test_a_guest_gets_no_page(lab: Lab) -> None:
    link = lab.link()
    lab.slack.add_member(MAX.user_id, name="max", real_name="Max", email=EMAIL, guest="restricted")
    with Browser() as browser:
        page = browser.open(link)
    assert (page.status, page.buttons) == (403, [])
    assert "Guests cannot use Passport" in page.text


def test_slack_being_down_is_said(lab: Lab) -> None:
    link = lab.link()
    lab.slack.close()
    with Browser() as browser:
        page = browser.open(link)
    assert (page.status, page.buttons) == (503, [])


def test_a_provider_that_is_not_there(lab: Lab) -> None:
    link = lab.link()
    for provider in ("", "other"):
        answer = requests.post(link, data={"provider": provider}, timeout=5)
        assert (answer.status_code, "no such identity provider" in answer.text) == (400, True)
        assert "Set-Cookie" not in answer.headers
    assert requests.get(link, timeout=5).status_code == 200


# --- Only the browser that began, only its own answer, only once ---------------------------------------------------


def test_another_browser_is_refused_and_locks_nobody_out(lab: Lab) -> None:
    with Browser(runs_scripts=False) as mine, Browser() as theirs:
        page = answered(lab, mine)
        refused = theirs.submit(page, page.forms[0], None, {})
        assert refused.status == 403
        assert "This sign-in began in another browser." in refused.text
        assert lab.linked() is None
        assert page.press("Continue").status == 200
    assert lab.linked() is not None


def test_the_same_answer_twice_is_refused(lab: Lab) -> None:
    with Browser(runs_scripts=False) as browser:
        page = answered(lab, browser)
        assert page.press("Continue").status == 200
        again = page.press("Continue")
    assert again.status == 403
    assert "used before" in again.text
    assert len(lab.events(Kind.LINK_MADE)) == 1


def test_an_answer_too_late_is_refused(lab: Lab) -> None:
    with Browser(runs_scripts=False) as browser:
        page = answered(lab, browser)
        lab.world.clock.forward(minutes=10)
        assert page.press("Continue").status == 403
    assert lab.linked() is None


def test_the_answer_of_another_provider_is_refused(open_lab: Callable[..., Any]) -> None:
    with open_lab(corp="127.0.0.1", partner="127.0.0.1") as lab, Browser(runs_scripts=False) as browser:
        browser.open(lab.link()).press("Sign in with partner")
        theirs = browser.sign_in_as(EMAIL).forms[0].fields["SAMLResponse"]
        browser.open(lab.link()).press("Sign in with corp")
        page = browser.sign_in_as(EMAIL)
        swapped = browser.submit(page, page.forms[0], None, {"SAMLResponse": theirs})
        assert swapped.status == 403
        assert len(lab.events(Kind.LINK_REFUSED)) == 1
        assert lab.linked() is None


@pytest.mark.parametrize(
    "tamper",
    [
        Tamper.CHANGED_EMAIL,
        Tamper.CHANGED_GROUP,
        Tamper.UNSIGNED,
        Tamper.UNSIGNED_ASSERTION,
        Tamper.SHA1_SIGNATURE,
        Tamper.FOREIGN_KEY,
        Tamper.OTHER_AUDIENCE,
        Tamper.OTHER_IN_RESPONSE_TO,
        Tamper.UNSOLICITED,
        Tamper.EXPIRED,
        Tamper.TWO_EMAILS,
        Tamper.COMMENT_IN_EMAIL,
        Tamper.EXTERNAL_ENTITY,
        Tamper.WRAPPED_FORGED_FIRST,
        Tamper.NOT_XML,
        Tamper.NOT_BASE64,
    ],
)
def test_a_bad_answer_is_refused_on_the_page_and_on_the_record(
    lab: Lab, tamper: Tamper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    lab.idp.tamper = tamper
    with Browser(runs_scripts=False) as browser:
        page = answered(lab, browser)
        sent = page.forms[0].fields["SAMLResponse"]
        refused = page.press("Continue")
    assert (refused.status, refused.title) == (403, "Not signed in · Passport")
    assert lab.linked() is None
    [event] = lab.events(Kind.LINK_REFUSED)
    assert event.event.actor == "slack:T0PASSPORT/U0MAX"
    assert event.event.details["reason"] in refused.text
    for leaked in ("Traceback", sent[:200] or "SAMLResponse", "Assertion"):
        assert leaked not in caplog.text
        assert leaked not in refused.source


def test_an_old_answer_to_a_new_question_is_refused(lab: Lab) -> None:
    with Browser(runs_scripts=False) as browser:
        assert answered(lab, browser).press("Continue").status == 200
        lab.idp.tamper = Tamper.REPLAY
        browser.open(lab.link()).press("Sign in")  # signed in at the provider already
        assert browser.page.press("Continue").status == 403
    assert len(lab.events(Kind.LINK_MADE)) == 1


@pytest.mark.parametrize("form", [{}, {"RelayState": "x"}, {"SAMLResponse": "x"}, {"RelayState": "é\x00", "x": "y"}])
def test_a_post_out_of_nowhere_is_refused(lab: Lab, form: dict[str, str]) -> None:
    answer = requests.post(f"{lab.url}/saml/acs", data=form, timeout=5)
    assert answer.status_code == 403
    assert "Type /passport link in Slack" in answer.text


# --- Cookies -------------------------------------------------------------------------------------------------------


def test_over_https_the_cookie_returns_from_another_site(open_lab: Callable[..., Any]) -> None:
    with open_lab(public_url=SECURE) as lab:
        client, jar = lab.app.test_client(use_cookies=False), CookieJar()
        began = client.post(f"/link/{lab.token()}", data={"provider": "corp"})
        assert began.status_code == 303
        cookie = began.headers["Set-Cookie"]
        assert cookie.startswith("__Host-passport-sign-in=")
        assert set(cookie.split("; ")[1:]) == {"Secure", "HttpOnly", "Path=/", "SameSite=None", "Max-Age=600"} | {
            part for part in cookie.split("; ") if part.startswith("Expires=")
        }
        jar.take(f"{SECURE}/link/x", cookie)
        answer = lab.idp.answer_to(began.headers["Location"], EMAIL)
        assert answer.acs_url == f"{SECURE}/saml/acs"
        form = {"SAMLResponse": answer.saml_response, "RelayState": answer.relay_state}
        assert client.post("/saml/acs", data=form).status_code == 403
        sent = jar.header(answer.acs_url, method="POST", initiator="https://corp.okta.example/")
        assert client.post("/saml/acs", data=form, headers={"Cookie": sent}).status_code == 200
        assert lab.linked() is not None


def test_over_http_the_cookie_is_lax_and_stays_on_this_host(open_lab: Callable[..., Any]) -> None:
    with open_lab(corp="localhost") as lab, Browser() as browser:
        browser.open(lab.link()).press("Sign in")
        cookie = browser.cookies.get("passport-sign-in")
        assert cookie is not None
        page = browser.sign_in_as(EMAIL)
        assert page.status == 403  # development only: public_url without https is refused off loopback
        assert "began in another browser" in page.text


# --- Headers, limits, health ---------------------------------------------------------------------------------------


def test_pages_are_hardened(lab: Lab) -> None:
    for path in (f"/link/{lab.token()}", "/link/x", "/nowhere"):
        headers = requests.get(f"{lab.url}{path}", timeout=5).headers
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'nonce-")
        assert "frame-ancestors 'none'" in policy
    first, second = (requests.get(f"{lab.url}/nowhere", timeout=5) for _ in range(2))
    assert first.headers["Content-Security-Policy"] != second.headers["Content-Security-Policy"]
    nonce = first.headers["Content-Security-Policy"].split("'nonce-")[1].split("'")[0]
    assert f'<style nonce="{nonce}">' in first.text
    began = requests.post(lab.link(), data={"provider": "corp"}, allow_redirects=False, timeout=5)
    assert (began.headers["Cache-Control"], began.headers["Referrer-Policy"]) == ("no-store", "no-referrer")


def test_a_huge_answer_is_not_read(lab: Lab) -> None:
    lab.idp.tamper = Tamper.HUGE
    with Browser(runs_scripts=False) as browser:
        page = answered(lab, browser)
        assert page.press("Continue").status == 413
        lab.idp.tamper = None
        assert browser.open(lab.link()).press("Sign in").press("Continue").status == 200


@pytest.mark.parametrize("path", ["/saml/acs", "/link/x"])
def test_too_much_is_not_read(lab: Lab, path: str) -> None:
    answer = lab.app.test_client().post(path, data={"provider": "x" * MOST_BYTES, "RelayState": "x"})
    assert answer.status_code == 413
    assert "I do not read that much" in answer.text


def test_an_address_where_nothing_is(lab: Lab) -> None:
    with Browser() as browser:
        page = browser.open(f"{lab.url}/wp-login.php")
    assert (page.status, page.text) == (404, "Nothing is here Start in Slack: /passport help")


def test_health_and_readiness(lab: Lab) -> None:
    assert requests.get(f"{lab.url}/readyz", timeout=5).text == "ready\n"
    lab.problem.append("The servers have not been listed yet.")
    answer = requests.get(f"{lab.url}/readyz", timeout=5)
    assert (answer.status_code, answer.text) == (503, "The servers have not been listed yet.\n")
    assert requests.get(f"{lab.url}/healthz", timeout=5).status_code == 200


def test_metadata_is_served_for_the_identity_provider(lab: Lab) -> None:
    answer = requests.get(f"{lab.url}/saml/metadata", timeout=5)
    assert answer.headers["Content-Type"].startswith("application/samlmetadata+xml")
    assert f'Location="{lab.url}/saml/acs"'.encode() in answer.content


def test_a_failure_of_ours_is_a_page_and_its_log_holds_no_token(
    lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(lab.linking, "look", breaks)
    answer = requests.get(f"{lab.url}/link/very-secret-token", timeout=5)
    assert (answer.status_code, "Something broke on my side" in answer.text) == (500, True)
    assert "ZeroDivisionError" in caplog.text
    assert "very-secret-token" not in caplog.text


def test_the_database_being_away_is_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: str) -> None:
        raise UnavailableError("The database does not answer.")

    monkeypatch.setattr(lab.linking, "look", breaks)
    answer = requests.get(lab.link(), timeout=5)
    assert (answer.status_code, "The database does not answer." in answer.text) == (503, True)
