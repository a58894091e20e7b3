"""Which AuthnRequests the identity provider accepts: signed, for it, from somebody it knows, for their ACS."""

import base64
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from lxml import etree
from saml2 import BINDING_HTTP_REDIRECT, SAMLError

from sandbox.idp.metadata import ServiceProvider
from sandbox.idp.saml_server import Server
from sandbox.idp.wheel import SAML, SAMLP, Element

_RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
_POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
_NAMES = {"SAMLRequest", "RelayState", "SigAlg", "Signature"}
_MAX_BYTES = 20_000


class RequestRefusedError(Exception):
    """The AuthnRequest is not acceptable; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SignOnRequest:
    """An accepted AuthnRequest."""

    id: str
    sp: ServiceProvider
    acs_url: str
    relay_state: str
    force: bool


def read_request(
    url: str, *, sign_on_url: str, service_providers: Iterable[ServiceProvider], server: Server
) -> SignOnRequest:
    """Check a sign-on URL as a browser brings it; raises RequestRefusedError."""
    query = urlsplit(url).query
    said = _fields(query)
    root = _inflated(said["SAMLRequest"])
    sp = _sender(root, service_providers)
    _check_signature(query, said, sp)
    _check_addresses(root, sign_on_url, sp)
    _ask_pysaml2(server, said)
    return SignOnRequest(
        id=root.get("ID"),
        sp=sp,
        acs_url=root.get("AssertionConsumerServiceURL"),
        relay_state=said["RelayState"],
        force=root.get("ForceAuthn") in {"true", "1"},
    )


def _fields(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    said = dict(pairs)
    if len(pairs) != len(said) or set(said) != _NAMES:
        raise RequestRefusedError("exactly SAMLRequest, RelayState, SigAlg and Signature are expected")
    if said["SigAlg"] != _RSA_SHA256:
        raise RequestRefusedError("requests are signed with RSA-SHA256")
    if len(said["RelayState"].encode()) > 80:
        raise RequestRefusedError("RelayState has at most 80 bytes")
    return said


def _inflated(text: str) -> Element:
    try:
        inflater = zlib.decompressobj(-15)
        xml = inflater.decompress(base64.b64decode(text, validate=True), _MAX_BYTES)
        root = etree.fromstring(xml, etree.XMLParser(resolve_entities=False, no_network=True))
    except (ValueError, zlib.error, etree.XMLSyntaxError) as broken:
        raise RequestRefusedError("SAMLRequest is not base64 of deflated XML") from broken
    if root.tag != f"{SAMLP}AuthnRequest" or root.get("Version") != "2.0" or not root.get("ID"):
        raise RequestRefusedError("SAMLRequest is not an AuthnRequest with an ID")
    return root


def _sender(root: Element, service_providers: Iterable[ServiceProvider]) -> ServiceProvider:
    issuer = root.findtext(f"{SAML}Issuer", "").strip()
    for sp in service_providers:
        if sp.entity_id == issuer:
            return sp
    raise RequestRefusedError(f"{issuer} is not known here")


def _check_signature(query: str, said: dict[str, str], sp: ServiceProvider) -> None:
    """The signature is over the query's own bytes, in the order that the binding lays down."""
    raw = dict(part.split("=", 1) for part in query.split("&"))
    signed = "&".join(f"{name}={raw[name]}" for name in ("SAMLRequest", "RelayState", "SigAlg"))
    if unquote_plus(raw["SAMLRequest"]) != unquote(raw["SAMLRequest"]):
        raise RequestRefusedError("a plus sign in SAMLRequest is not encoded")
    for certificate in sp.signing_certificates:
        key = certificate.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        try:
            signature = base64.b64decode(said["Signature"], validate=True)
            key.verify(signature, signed.encode(), padding.PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError):
            continue
        return
    raise RequestRefusedError("the signature does not verify")


def _check_addresses(root: Element, sign_on_url: str, sp: ServiceProvider) -> None:
    if root.get("Destination") != sign_on_url:
        raise RequestRefusedError("Destination is not this identity provider")
    if root.get("AssertionConsumerServiceURL") not in sp.acs_urls:
        raise RequestRefusedError("the ACS URL is not in the service provider's metadata")
    if root.get("ProtocolBinding", _POST) != _POST:
        raise RequestRefusedError("responses are posted")


def _ask_pysaml2(server: Server, said: dict[str, str]) -> None:
    try:
        parsed = server.parse_authn_request(
            said["SAMLRequest"],
            BINDING_HTTP_REDIRECT,
            relay_state=said["RelayState"],
            sigalg=said["SigAlg"],
            signature=said["Signature"],
        )
    except (SAMLError, ValueError) as refused:
        raise RequestRefusedError(f"pysaml2 refuses the request: {type(refused).__name__}") from refused
    if parsed is None:
        raise RequestRefusedError("pysaml2 refuses the request")
