"""The browser and the identity provider's pages, against a small service provider over HTTP."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
import requests

from identity.providers import IdentityProvider
from identity.saml import ServiceProvider
from sandbox.idp import Browser, BrowserError, IdentityProviderDouble
from sandbox.idp.cookies import CookieJar
from sandbox.idp.keys import new_key_pair
from tests.integration.saml_desk import ANA


@dataclass(kw_only=True)
class Site:
    """A service provider that greets whoever its identity provider signs in."""

    url: str = ""
    sp: ServiceProvider | None = None
    force: bool = False
    request_ids: dict[str, str] = field(default_factory=dict)
    acs_cookies: list[str] = field(default_factory=list)
    acs_origins: list[str | None] = field(default_factory=list)


def _pages(site: Site) -> type[BaseHTTPRequestHandler]:
    class Pages(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

        def do_GET(self) -> None:
            self._answer(200, '<form method="post" action="/begin"><button>Link me</button></form>')

        def do_POST(self) -> None:
            said = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            assert site.sp is not None
            if self.path == "/begin":
                asked = site.sp.authn_request("corp", "relay", force=site.force)
                site.request_ids["relay"] = asked.id
                self._answer(303, "", Location=asked.url)
                return
            site.acs_cookies.append(self.headers.get("Cookie", ""))
            site.acs_origins.append(self.headers.get("Origin"))
            found = site.sp.validate(
                said["SAMLResponse"][0], request_id=site.request_ids[said["RelayState"][0]], provider="corp"
            )
            self._answer(200, f"<p>Hello, <b>{found.name}</b> of {','.join(sorted(found.groups))}</p>")

        def _answer(self, status: int, body: str, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            for policy in ("Lax", "Strict"):
                self.send_header("Set-Cookie", f"{policy.lower()}=1; Path=/; HttpOnly; SameSite={policy}")
            self.send_header("Set-Cookie", "none=1; Path=/saml; Secure; SameSite=None")
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    return Pages


@pytest.fixture(params=["127.0.0.1", "localhost"])
def idp(request: pytest.FixtureRequest) -> Iterator[IdentityProviderDouble]:
    """The same site as ours to a browser, and another."""
    with IdentityProviderDouble(host=request.param) as idp:
        yield idp


@pytest.fixture
def site(idp: IdentityProviderDouble) -> Iterator[Site]:
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _pages(site))
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    keys = new_key_pair("site")
    site.sp = ServiceProvider(
        public_url=site.url,
        entity_id=None,
        signing_key_pem=keys.key_pem,
        signing_certificate_pem=keys.certificate_pem,
        providers=[IdentityProvider(name="corp", metadata=idp.metadata)],
        clock=lambda: datetime.now(UTC),
    )
    idp.trust(site.sp.metadata())
    idp.add_person(ANA, name="Ana Ruiz", groups={"payments"})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def _begin(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/link").press("Link me")


def test_a_person_signs_in(site: Site, idp: IdentityProviderDouble) -> None:
    with Browser() as browser:
        _begin(browser, site)
        assert browser.page.title == "Sign in"
        page = browser.sign_in_as(ANA)
    assert page.text == "Hello, Ana Ruiz of payments"
    assert page.url == f"{site.url}/saml/acs"
    assert site.acs_origins == [idp.url]


def test_a_post_from_another_site_carries_no_lax_cookie(site: Site, idp: IdentityProviderDouble) -> None:
    with Browser() as browser:
        _begin(browser, site)
        browser.sign_in_as(ANA)
    same_site = "127.0.0.1" in idp.url
    sent = {pair.split("=")[0] for pair in site.acs_cookies[0].split("; ")}
    assert ("lax" in sent, "strict" in sent) == (same_site, same_site)
    assert "none" in sent


def test_a_second_sign_in_asks_nothing_unless_forced(site: Site) -> None:
    with Browser() as browser:
        _begin(browser, site)
        browser.sign_in_as(ANA)
        _begin(browser, site)
        assert browser.page.text.startswith("Hello")
        site.force = True
        _begin(browser, site)
        assert browser.page.title == "Sign in"


def test_who_is_deactivated_does_not_sign_in(site: Site, idp: IdentityProviderDouble) -> None:
    with Browser() as browser:
        _begin(browser, site)
        browser.sign_in_as(ANA)
        idp.deactivate(ANA)
        _begin(browser, site)
        page = browser.sign_in_as(ANA)
    assert (page.status, page.text.split(".")[0]) == (403, "Sign in Wrong email or password")


@pytest.mark.parametrize(("email", "password"), [(ANA, "wrong"), ("nobody@example.com", "x")])
def test_a_wrong_password_or_person_stays_on_the_page(site: Site, email: str, password: str) -> None:
    with Browser() as browser:
        _begin(browser, site)
        page = browser.sign_in_as(email, password)
        assert page.status == 403
        assert browser.sign_in_as(ANA).text.startswith("Hello")


def test_without_scripts_the_person_presses_continue(site: Site) -> None:
    with Browser(runs_scripts=False) as browser:
        _begin(browser, site)
        page = browser.sign_in_as(ANA)
        assert page.title == "Signing in"
        assert page.press("Continue").text.startswith("Hello")


def test_there_are_only_the_buttons_and_fields_of_the_page(site: Site) -> None:
    with Browser() as browser:
        page = browser.open(site.url)
        with pytest.raises(BrowserError, match="no button 'Sign in'"):
            page.press("Sign in")
        with pytest.raises(BrowserError, match="no field email"):
            page.press("Link me", email=ANA)


def test_a_sign_on_page_wants_a_signed_request(idp: IdentityProviderDouble) -> None:
    for query in ("", "SAMLRequest=x", "SAMLRequest=x&RelayState=y&SigAlg=z&Signature=w"):
        answer = requests.get(f"{idp.url}/sso?{query}", timeout=5)
        assert answer.status_code == 400
        assert "Request refused" in answer.text


def test_metadata_is_served(idp: IdentityProviderDouble) -> None:
    assert requests.get(f"{idp.url}/metadata", timeout=5).content == idp.metadata


def test_the_double_listens_on_loopback_only() -> None:
    with pytest.raises(ValueError, match="loopback"):
        IdentityProviderDouble(host="0.0.0.0")


@pytest.mark.parametrize(
    ("url", "set_cookie", "kept"),
    [
        ("http://shop.example/", "a=1; Secure", False),
        ("https://shop.example/", "a=1; Secure", True),
        ("http://127.0.0.1:8000/", "a=1; Secure", True),
        ("https://shop.example/", "a=1; SameSite=None", False),
        ("https://shop.example/", "a=1; SameSite=None; Secure", True),
        ("https://shop.example/", "a=1; Domain=other.example", False),
        ("https://shop.example/x/y", "__Host-a=1; Secure", False),
        ("https://shop.example/x/y", "__Host-a=1; Secure; Path=/", True),
        ("https://shop.example/", "__Host-a=1; Secure; Path=/; Domain=shop.example", False),
        ("http://127.0.0.1/", "__Secure-a=1", False),
        ("https://shop.example/", "a=1; Max-Age=0", False),
    ],
)
def test_cookies_are_taken_as_browsers_take_them(url: str, set_cookie: str, kept: bool) -> None:
    jar = CookieJar()
    jar.take(url, set_cookie)
    assert [cookie.value for cookie in jar] == (["1"] if kept else [])


@pytest.mark.parametrize(
    ("method", "url", "initiator", "sent"),
    [
        ("GET", "https://a.example/saml/acs", None, "deep=1; plain=1; strict=1"),
        ("GET", "https://a.example/samlx", None, "plain=1; strict=1"),
        ("GET", "https://b.example/saml", None, ""),
        ("GET", "http://a.example/saml", None, "plain=1; strict=1"),
        ("GET", "https://a.example/saml", "https://b.example/", "deep=1; plain=1"),
        ("POST", "https://a.example/saml", "https://b.example/", "deep=1"),
        ("POST", "https://a.example/saml", "https://a.example:8443/", "deep=1; plain=1; strict=1"),
        ("POST", "https://a.example/saml", "http://a.example/", "deep=1"),
    ],
)
def test_cookies_are_sent_as_browsers_send_them(method: str, url: str, initiator: str | None, sent: str) -> None:
    jar = CookieJar()
    jar.take("https://a.example/", "deep=1; Path=/saml; Secure; SameSite=None")
    jar.take("https://a.example/", "plain=1; Path=/")
    jar.take("https://a.example/", "strict=1; Path=/; SameSite=Strict")
    assert jar.header(url, method=method, initiator=initiator) == sent
