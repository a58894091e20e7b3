"""A browser's cookie rules: Path, Domain, Secure, HttpOnly, SameSite, and the __Host- prefix."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True, slots=True)
class Cookie:
    """One cookie in the jar."""

    name: str
    value: str
    host: str
    path: str
    secure: bool
    http_only: bool
    same_site: str


class CookieJar:
    """Keeps cookies, and says which of them a request carries."""

    def __init__(self) -> None:
        self._cookies: dict[tuple[str, str, str], Cookie] = {}
        self.refused: list[str] = []

    def __iter__(self) -> Iterator[Cookie]:
        return iter(list(self._cookies.values()))

    def get(self, name: str) -> Cookie | None:
        """The cookie of this name."""
        return next((cookie for cookie in self if cookie.name == name), None)

    def clear(self) -> None:
        """Forget everything."""
        self._cookies.clear()

    def take(self, url: str, set_cookie: str) -> None:
        """Obey a Set-Cookie header, or refuse it as a browser does."""
        pair, *parts = [part.strip() for part in set_cookie.split(";")]
        name, _, value = pair.partition("=")
        attributes = {key.strip().lower(): val.strip() for key, _, val in (part.partition("=") for part in parts)}
        host = urlsplit(url).hostname or ""
        path = attributes.get("path", "")
        cookie = Cookie(
            name=name.strip(),
            value=value.strip().strip('"'),
            host=host,
            path=path if path.startswith("/") else _default_path(url),
            secure="secure" in attributes,
            http_only="httponly" in attributes,
            # Without the attribute browsers take Lax; the two-minute exception for POST is not made here.
            same_site=attributes.get("samesite", "lax").lower(),
        )
        if not _is_allowed(cookie, url, attributes):
            self.refused.append(cookie.name)
        elif attributes.get("max-age", "1").startswith(("0", "-")):
            self._cookies.pop((host, cookie.path, cookie.name), None)
        else:
            self._cookies[host, cookie.path, cookie.name] = cookie

    def header(self, url: str, *, method: str, initiator: str | None) -> str:
        """The Cookie header of a top-level navigation that a page at `initiator` began (None: the person)."""
        cross_site = initiator is not None and site_of(initiator) != site_of(url)
        sent = [
            cookie for cookie in self if _matches(cookie, url) and not (cross_site and _is_withheld(cookie, method))
        ]
        sent.sort(key=lambda cookie: -len(cookie.path))
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in sent)


def site_of(url: str) -> str:
    """Scheme and registrable domain; the port does not count."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not _is_address(host):
        host = ".".join(host.split(".")[-2:])
    return f"{parts.scheme}://{host}"


def is_trustworthy(url: str) -> bool:
    """Whether Secure cookies travel: https, or loopback, as Chrome and Firefox have it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" or host == "localhost" or (_is_address(host) and host.startswith("127."))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_allowed(cookie: Cookie, url: str, attributes: dict[str, str]) -> bool:
    if cookie.secure and not is_trustworthy(url):
        return False
    if cookie.same_site not in {"strict", "lax", "none"} or (cookie.same_site == "none" and not cookie.secure):
        return False
    if attributes.get("domain", cookie.host).lstrip(".") != cookie.host:
        return False
    if cookie.name.startswith("__Host-"):
        return cookie.secure and cookie.path == "/" and "domain" not in attributes
    return cookie.secure or not cookie.name.startswith("__Secure-")


def _matches(cookie: Cookie, url: str) -> bool:
    parts = urlsplit(url)
    path = parts.path or "/"
    under = path == cookie.path or path.startswith(cookie.path.rstrip("/") + "/")
    return cookie.host == parts.hostname and under and (not cookie.secure or is_trustworthy(url))


def _is_withheld(cookie: Cookie, method: str) -> bool:
    return cookie.same_site == "strict" or (cookie.same_site == "lax" and method != "GET")


def _default_path(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[0] or "/"
