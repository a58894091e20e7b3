"""What the SAML tests start from: Passport's service provider and the identity provider double, joined."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from identity.providers import IdentityProvider
from identity.saml import Assertion, AuthnRequest, ServiceProvider
from sandbox.idp import IdentityProviderDouble, Tamper
from sandbox.idp.keys import KeyPair
from sandbox.idp.provider import Answer

PUBLIC_URL = "https://passport.example"
ANA = "ana@example.com"


def utc_now() -> datetime:
    return datetime.now(UTC)


def new_service_provider(
    keys: KeyPair, *providers: IdentityProvider, clock: Callable[[], datetime] = utc_now
) -> ServiceProvider:
    return ServiceProvider(
        public_url=PUBLIC_URL,
        entity_id=None,
        signing_key_pem=keys.key_pem,
        signing_certificate_pem=keys.certificate_pem,
        providers=providers,
        clock=clock,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    idp: IdentityProviderDouble
    sp: ServiceProvider
    keys: KeyPair

    def ask(self, email: str = ANA) -> tuple[AuthnRequest, Answer]:
        """Send a request to the identity provider, and return both halves."""
        request = self.sp.authn_request("corp", "relay")
        return request, self.idp.answer_to(request.url, email)

    def sign_in(self, tamper: Tamper | None = None, email: str = ANA) -> Assertion:
        """A whole sign-in, with the identity provider told what to do wrong."""
        self.idp.tamper = tamper
        request, answer = self.ask(email)
        return self.sp.validate(answer.saml_response, request_id=request.id, provider="corp")


def open_desk(idp: IdentityProviderDouble, keys: KeyPair) -> Desk:
    sp = new_service_provider(keys, IdentityProvider(name="corp", metadata=idp.metadata))
    idp.trust(sp.metadata())
    idp.add_person(ANA, name="Ana Ruiz", groups={"payments", "ops"}, subject="subject-of-ana")
    return Desk(idp=idp, sp=sp, keys=keys)
