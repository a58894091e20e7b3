"""The identity provider double: sign-in pages, signed responses and a SCIM directory on one loopback port."""

import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from types import TracebackType
from typing import Self

from sandbox.idp.keys import KeyPair, new_key_pair
from sandbox.idp.metadata import ServiceProvider, own_metadata, read_service_provider
from sandbox.idp.people import Directory, Person, new_person
from sandbox.idp.responses import NAMING_STYLES, Style, build_response
from sandbox.idp.saml_server import Server, new_server
from sandbox.idp.scim import ScimService
from sandbox.idp.sign_on import RequestRefusedError, SignOnRequest, read_request
from sandbox.idp.tamper import Tamper
from sandbox.idp.web import WebServer

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the browser posts to the service provider."""

    acs_url: str
    saml_response: str = field(repr=False)
    relay_state: str


class IdentityProviderDouble:
    """A SAML identity provider that really signs; `tamper` makes it answer badly, until set to None."""

    def __init__(
        self, *, entity_id: str | None = None, host: str = "127.0.0.1", sp_metadata: bytes | None = None
    ) -> None:
        self._keys = new_key_pair("identity provider double")
        self._people = Directory()
        self._lock = threading.RLock()
        self._sps: dict[str, ServiceProvider] = {}
        self._server: Server | None = None
        self._last: Answer | None = None
        self.scim = ScimService(directory=self._people, token=f"scim-{secrets.token_hex(16)}")
        self._web = WebServer(self, self.scim, host=host)
        self.entity_id = entity_id or f"{self.url}/metadata"
        self.tamper: Tamper | None = None
        self.naming = "okta"
        self.lifetime = timedelta(minutes=5)
        self.accepted: list[SignOnRequest] = []
        if sp_metadata is not None:
            self.trust(sp_metadata)

    def __enter__(self) -> Self:
        self._web.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._web.close()

    @property
    def url(self) -> str:
        """Where the identity provider is."""
        return self._web.url

    @property
    def sign_on_url(self) -> str:
        """Where AuthnRequests go."""
        return f"{self.url}/sso"

    @property
    def scim_url(self) -> str:
        """The base URL of the directory."""
        return f"{self.url}/scim/v2"

    @property
    def scim_token(self) -> str:
        """The directory's bearer token."""
        return self.scim.token

    @property
    def metadata(self) -> bytes:
        """Our metadata; it names a second key, as identity providers do while they change keys."""
        certificates = [_former_keys().certificate_base64, self._keys.certificate_base64]
        return own_metadata(entity_id=self.entity_id, sign_on_url=self.sign_on_url, certificates=certificates)

    def trust(self, sp_metadata: bytes) -> None:
        """Accept requests of this service provider; raises ValueError if its metadata will not do."""
        sp = read_service_provider(sp_metadata)
        with self._lock:
            self._sps[sp.entity_id] = sp
            self._server = new_server(
                entity_id=self.entity_id,
                sign_on_url=self.sign_on_url,
                service_providers=[known.metadata for known in self._sps.values()],
            )

    def add_person(
        self,
        email: str,
        *,
        name: str,
        groups: Iterable[str],
        subject: str | None = None,
        password: str = PASSWORD,
    ) -> Person:
        """Add somebody who can sign in."""
        person = new_person(email, name=name, groups=frozenset(groups), subject=subject, password=password)
        self._people.add(person)
        return person

    def set_groups(self, email: str, groups: Iterable[str]) -> None:
        """Change somebody's groups, from the next sign-in or lookup on."""
        self._people.change(email, groups=frozenset(groups))

    def deactivate(self, email: str) -> None:
        """Close somebody's account."""
        self._people.change(email, active=False)

    def remove(self, email: str) -> None:
        """Delete somebody's account."""
        self._people.remove(email)

    def read(self, url: str) -> SignOnRequest:
        """Check the URL of an AuthnRequest; raises RequestRefusedError."""
        with self._lock:
            if self._server is None:
                raise RequestRefusedError("no service provider is trusted yet")
            request = read_request(
                url, sign_on_url=self.sign_on_url, service_providers=self._sps.values(), server=self._server
            )
            self.accepted.append(request)
            return request

    def person(self, email: str, password: str) -> Person | None:
        """Somebody with an active account and this password."""
        person = self._people.get(email)
        allowed = person is not None and person.active and secrets.compare_digest(person.password, password)
        return person if allowed else None

    def answer(self, request: SignOnRequest, person: Person) -> Answer:
        """Answer a request for this person."""
        with self._lock:
            if self.tamper is Tamper.REPLAY and self._last is not None:
                return self._last
            assert self._server is not None
            if self.naming not in NAMING_STYLES:
                raise ValueError(f"no such naming style: {self.naming}")
            style = Style(naming=self.naming, tamper=self.tamper, lifetime=self.lifetime)
            self._last = Answer(
                acs_url=request.acs_url,
                saml_response=build_response(self._server, request, person, self._keys, style),
                relay_state=request.relay_state,
            )
            return self._last

    def answer_to(self, url: str, email: str) -> Answer:
        """Read a request's URL and answer it at once, without pages; raises RequestRefusedError, KeyError."""
        person = self._people.get(email)
        if person is None:
            raise KeyError(email)
        return self.answer(self.read(url), person)


@cache
def _former_keys() -> KeyPair:
    """Signs nothing any more; one for all doubles, because making keys takes a while."""
    return new_key_pair("identity provider double, before")
