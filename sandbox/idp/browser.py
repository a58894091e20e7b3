"""A small browser for tests and the demo: pages, forms, redirects, and a browser's cookie rules."""

from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urldefrag, urljoin, urlsplit

import requests
from requests.cookies import RequestsCookieJar

from sandbox.idp.cookies import CookieJar
from sandbox.idp.page import Button, Form, Reading, read_page
from sandbox.idp.provider import PASSWORD

_MAX_STEPS = 20
_REDIRECTS = {301, 302, 303, 307, 308}


class BrowserError(Exception):
    """The person cannot do that on this page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Where the browser is."""

    browser: "Browser"
    url: str
    status: int
    headers: dict[str, str]
    source: str
    reading: Reading

    @property
    def text(self) -> str:
        """What the person reads, on one line."""
        return self.reading.text

    @property
    def title(self) -> str:
        """The page's title."""
        return self.reading.title

    @property
    def forms(self) -> list[Form]:
        """The page's forms."""
        return self.reading.forms

    @property
    def buttons(self) -> list[str]:
        """The words on the buttons."""
        return [button.text for form in self.forms for button in form.buttons]

    def press(self, words: str, **fields: str) -> "Page":
        """Fill in these fields and press the button; raises BrowserError if there is no such button."""
        for form in self.forms:
            for button in form.buttons:
                if button.text == words:
                    return self.browser.submit(self, form, button, fields)
        raise BrowserError(f"{self.url} has no button {words!r}, only {self.buttons}: {self.text}")


class Browser:
    """One person's browser. It runs no scripts, but sees when one submits the page's form, and does so."""

    def __init__(self, *, runs_scripts: bool = True, timeout: float = 15.0) -> None:
        self.cookies = CookieJar()
        self.visited: list[str] = []
        self.runs_scripts = runs_scripts
        self._timeout = timeout
        self._page: Page | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cookies.clear()

    @property
    def page(self) -> Page:
        """The page that is open; raises BrowserError if none is."""
        if self._page is None:
            raise BrowserError("no page is open")
        return self._page

    def open(self, url: str) -> Page:
        """Type a URL, or click a link in another program."""
        return self._go("GET", url, {}, initiator=None)

    def follow(self, url: str) -> Page:
        """Click a link on the open page."""
        return self._go("GET", urljoin(self.page.url, url), {}, initiator=self.page.url)

    def submit(self, page: Page, form: Form, button: Button | None, fields: dict[str, str]) -> Page:
        """Submit a form of a page; raises BrowserError for fields that it has not."""
        unknown = set(fields) - set(form.fields)
        if unknown:
            raise BrowserError(f"the form has no field {', '.join(sorted(unknown))}")
        sent = {**form.fields, **fields}
        if button is not None and button.name:
            sent[button.name] = button.value
        return self._go(form.method, urljoin(page.url, form.action), sent, initiator=page.url)

    def sign_in_as(self, email: str, password: str = PASSWORD) -> Page:
        """Sign in on the identity provider's page that is open, and go on to wherever that leads."""
        return self.page.press("Sign in", email=email, password=password)

    def _go(self, method: str, url: str, fields: dict[str, str], *, initiator: str | None) -> Page:
        for _ in range(_MAX_STEPS):
            answer = self._fetch(method, url, fields, initiator)
            self.visited.append(f"{method} {url}")
            if answer.status_code in _REDIRECTS and "Location" in answer.headers:
                if answer.status_code not in {307, 308}:
                    method, fields = "GET", {}
                url = urljoin(url, answer.headers["Location"])
                continue
            self._page = page = self._shown(url, answer)
            if not (self.runs_scripts and page.reading.submits_itself):
                return page
            form = page.forms[0]
            method, fields, initiator = form.method, dict(form.fields), url
            url = urljoin(url, form.action)
        raise BrowserError(f"too many steps: {self.visited[-_MAX_STEPS:]}")

    def _fetch(self, method: str, url: str, fields: dict[str, str], initiator: str | None) -> requests.Response:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise BrowserError(f"not a web address: {url}")
        headers = {"Accept": "text/html", "User-Agent": "sandbox browser"}
        cookies = self.cookies.header(url, method=method, initiator=initiator)
        if cookies:
            headers["Cookie"] = cookies
        if method == "POST" and initiator is not None:
            parts = urlsplit(initiator)
            headers["Origin"] = f"{parts.scheme}://{parts.netloc}"
        with requests.Session() as session:
            session.cookies = _NoCookies()
            session.trust_env = False
            answer = session.request(
                method,
                urldefrag(url).url,
                params=fields if method == "GET" else None,
                data=fields if method == "POST" else None,
                headers=headers,
                allow_redirects=False,
                timeout=self._timeout,
            )
        for set_cookie in answer.raw.headers.getlist("Set-Cookie"):
            self.cookies.take(url, set_cookie)
        return answer

    def _shown(self, url: str, answer: requests.Response) -> Page:
        is_html = "html" in answer.headers.get("Content-Type", "")
        reading = (
            read_page(answer.text)
            if is_html
            else Reading(title="", text=answer.text.strip(), forms=[], submits_itself=False)
        )
        return Page(
            browser=self,
            url=url,
            status=answer.status_code,
            headers=dict(answer.headers),
            source=answer.text,
            reading=reading,
        )


class _NoCookies(RequestsCookieJar):
    """Our own jar has the rules; requests' must not add cookies behind its back."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Take nothing."""
