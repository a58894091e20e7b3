"""The SAML service provider: asks an identity provider who somebody is, and believes only a proper answer."""

import base64
import binascii
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from saml2.response import StatusError, UnsolicitedResponse
from saml2.sigver import DecryptError, MissingKey, SecurityContext, SignatureError
from saml2.validate import ResponseLifetimeExceed, ToEarly

from identity import redirect, shape, xml
from identity.conditions import Expected
from identity.errors import AssertionRefusedError, UnknownProviderError
from identity.metadata import ProviderMetadata, read_provider_metadata, write_own_metadata
from identity.person import identify
from identity.providers import IdentityProvider
from identity.response import StrictResponse, mute_pysaml2
from identity.xmlsec_backend import XmlsecBackend

# A response with 1,000 groups has about 150,000 characters.
MAX_RESPONSE_CHARACTERS = 512_000

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (UnsolicitedResponse, "in_response_to"),
    (DecryptError, "encryption"),
    (MissingKey, "issuer"),
    (SignatureError, "signature"),
    (ResponseLifetimeExceed, "expired"),
    (ToEarly, "not_yet_valid"),
    (StatusError, "status"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Assertion:
    """What a validated response says about somebody."""

    provider: str
    issuer: str
    subject: str
    email: str
    name: str
    groups: frozenset[str]
    assertion_id: str
    not_on_or_after: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthnRequest:
    """A signed request to sign in: send the browser to `url`, and keep `id` for the answer."""

    id: str
    url: str


class ServiceProvider:
    """Passport towards its identity providers; holds no state of a sign-in, so that threads share it.

    Two things are left to the caller's database: a request id counts once, and an assertion id is refused
    again until `Assertion.not_on_or_after`. pysaml2 reads the time itself; `clock` dates the requests and
    is checked as well.
    """

    def __init__(
        self,
        *,
        public_url: str,
        entity_id: str | None,
        signing_key_pem: bytes,
        signing_certificate_pem: bytes,
        providers: Sequence[IdentityProvider],
        clock: Callable[[], datetime],
    ) -> None:
        mute_pysaml2()
        base = public_url.rstrip("/")
        self._acs_url = f"{base}/saml/acs"
        self._entity_id = entity_id or f"{base}/saml/metadata"
        self._clock = clock
        self._key = _rsa_key(signing_key_pem, signing_certificate_pem)
        self._certificate_pem = signing_certificate_pem
        backend = XmlsecBackend(decryption_key_pem=signing_key_pem)
        self._peers = {provider.name: _Peer.of(provider, backend) for provider in providers}

    def metadata(self) -> bytes:
        """Return Passport's own metadata, served at /saml/metadata."""
        return write_own_metadata(
            entity_id=self._entity_id, acs_url=self._acs_url, certificate_pem=self._certificate_pem
        )

    def authn_request(self, provider: str, relay_state: str, force: bool = False) -> AuthnRequest:  # noqa: FBT001
        """Make a signed request to sign in; `force` asks for a fresh login. Raises UnknownProviderError."""
        if len(relay_state.encode()) > redirect.MAX_RELAY_STATE_BYTES:
            raise ValueError(f"a relay state has at most {redirect.MAX_RELAY_STATE_BYTES} bytes")
        destination = self._peer(provider).metadata.sign_on_url
        request_id = f"_{secrets.token_hex(20)}"
        request = redirect.authn_request_xml(
            request_id=request_id,
            issued_at=self._clock(),
            entity_id=self._entity_id,
            acs_url=self._acs_url,
            destination=destination,
            force=force,
        )
        url = redirect.signed_url(destination=destination, request_xml=request, relay_state=relay_state, key=self._key)
        return AuthnRequest(id=request_id, url=url)

    def validate(self, saml_response: str, *, request_id: str, provider: str) -> Assertion:
        """Validate the answer to a request; raises AssertionRefusedError, UnknownProviderError."""
        peer = self._peer(provider)
        expected = Expected(
            request_id=request_id,
            issuer=peer.metadata.entity_id,
            entity_id=self._entity_id,
            acs_url=self._acs_url,
            now=self._clock(),
        )
        response = StrictResponse(peer.security, expected)
        reason = _refusal(response, saml_response)
        if reason:
            # Raised here, outside any except block, so that no exception with the assertion hangs on it.
            raise AssertionRefusedError(reason)
        person = identify(response.subject_name, response.attributes, peer.provider)
        return Assertion(
            provider=provider,
            issuer=peer.metadata.entity_id,
            subject=person.subject,
            email=person.email,
            name=person.name,
            groups=person.groups,
            assertion_id=response.assertion_id,
            not_on_or_after=response.remember_until,
        )

    def _peer(self, provider: str) -> "_Peer":
        if provider not in self._peers:
            raise UnknownProviderError("Passport knows no identity provider of that name.")
        return self._peers[provider]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Peer:
    """An identity provider with its own keys: one provider's signature never counts for another."""

    provider: IdentityProvider
    metadata: ProviderMetadata
    security: SecurityContext

    @classmethod
    def of(cls, provider: IdentityProvider, backend: XmlsecBackend) -> "_Peer":
        metadata = read_provider_metadata(provider.name, provider.metadata)
        security = SecurityContext(
            backend,
            metadata=metadata,
            only_use_keys_in_metadata=True,
            enc_key_files=["the backend's own key"],  # a name: pysaml2 tries each, and the backend ignores it
        )
        return cls(provider=provider, metadata=metadata, security=security)


def _refusal(response: StrictResponse, saml_response: str) -> str | None:
    """Check a response, and return why it is refused."""
    try:
        root = xml.parse(_decoded(saml_response))
        shape.check_response(root)
        response.check(xml.serialised(root))
    except (AssertionRefusedError, xml.UnsafeXmlError, shape.BadShapeError) as refused:
        return refused.reason
    except Exception as failed:  # noqa: BLE001  # pysaml2 raises bare Exceptions, too; all of them refuse
        return next((reason for kind, reason in _REASONS if isinstance(failed, kind)), "invalid")
    return None


def _decoded(saml_response: str) -> bytes:
    if len(saml_response) > MAX_RESPONSE_CHARACTERS:
        raise AssertionRefusedError("too_large")
    try:
        return base64.b64decode("".join(saml_response.split()), validate=True)
    except (binascii.Error, ValueError):
        raise AssertionRefusedError("not_base64") from None


def _rsa_key(key_pem: bytes, certificate_pem: bytes) -> rsa.RSAPrivateKey:
    key = load_pem_private_key(key_pem, password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("the SAML signing key must be an RSA key")
    if x509.load_pem_x509_certificate(certificate_pem).public_key() != key.public_key():
        raise ValueError("the SAML signing certificate does not belong to the signing key")
    return key
