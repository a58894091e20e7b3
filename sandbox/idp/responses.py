"""Building a response: pysaml2 writes it, the xmlsec wheel signs and encrypts it."""

import base64
from dataclasses import dataclass
from datetime import timedelta

from lxml import etree
from saml2.saml import NAMEID_FORMAT_PERSISTENT, NameID
from xmlsec import constants

from sandbox.idp import claims, wheel
from sandbox.idp.keys import KeyPair, new_key_pair
from sandbox.idp.people import Person
from sandbox.idp.saml_server import Server
from sandbox.idp.sign_on import SignOnRequest
from sandbox.idp.tamper import Tamper
from sandbox.idp.wheel import SAML, Element
from sandbox.idp.wire import BYTES, WIRE

_PASSWORD = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"
_URI = "urn:oasis:names:tc:SAML:2.0:attrname-format:uri"
_BASIC = "urn:oasis:names:tc:SAML:2.0:attrname-format:basic"
_WS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims"

# What each kind of identity provider calls email, name and groups: (Name, FriendlyName).
NAMING_STYLES: dict[str, tuple[tuple[str, str], tuple[str, str], tuple[str, str]]] = {
    "okta": (("email", ""), ("displayName", ""), ("groups", "")),
    "google": (("mail", ""), ("name", ""), ("memberOf", "")),
    "keycloak": (
        ("urn:oid:1.2.840.113549.1.9.1", "email"),
        ("urn:oid:2.5.4.42", "givenName"),
        ("member", ""),
    ),
    "shibboleth": (
        ("urn:oid:0.9.2342.19200300.100.1.3", "mail"),
        ("urn:oid:2.16.840.1.113730.3.1.241", "displayName"),
        ("urn:oid:1.3.6.1.4.1.5923.1.5.1.1", "isMemberOf"),
    ),
    "entra": (
        (f"{_WS}/emailaddress", ""),
        ("http://schemas.microsoft.com/identity/claims/displayname", ""),
        ("http://schemas.microsoft.com/ws/2008/06/identity/claims/groups", ""),
    ),
}

_ENCRYPTED = {
    Tamper.ENCRYPTED,
    Tamper.ENCRYPTED_CBC,
    Tamper.ENCRYPTED_UNSIGNED,
    Tamper.ENCRYPTED_FOREIGN_KEY,
    Tamper.ENCRYPTED_FOR_ANOTHER,
    Tamper.ENCRYPTED_TRIPLE_DES,
    Tamper.ENCRYPTED_RSA_1_5,
    Tamper.ENCRYPTED_COMMENT,
    Tamper.ENCRYPTED_OTHER_REQUEST,
}
_RESPONSE_UNSIGNED = {Tamper.UNSIGNED, Tamper.UNSIGNED_RESPONSE}
_ASSERTION_UNSIGNED = {Tamper.UNSIGNED, Tamper.UNSIGNED_ASSERTION, Tamper.ENCRYPTED_UNSIGNED}
_FOREIGN = {Tamper.FOREIGN_KEY, Tamper.ENCRYPTED_FOREIGN_KEY}


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How the identity provider answers now."""

    naming: str
    tamper: Tamper | None
    lifetime: timedelta


def build_response(server: Server, request: SignOnRequest, person: Person, keys: KeyPair, style: Style) -> str:
    """Answer a request for this person, in base64, with whatever tampering is asked for."""
    root = _draft(server, request, person, style)
    if style.tamper in claims.CLAIMS:
        claims.CLAIMS[style.tamper](root)
    _seal(root, request, keys, style.tamper)
    if style.tamper in WIRE:
        WIRE[style.tamper](root)
    text = etree.tostring(root)
    if style.tamper in BYTES:
        text = BYTES[style.tamper](text)
    encoded = base64.b64encode(text).decode()
    return f"<{encoded}>" if style.tamper is Tamper.NOT_BASE64 else encoded


def _draft(server: Server, request: SignOnRequest, person: Person, style: Style) -> Element:
    response = server.create_authn_response(
        {},
        request.id,
        request.acs_url,
        request.sp.entity_id,
        name_id=NameID(format=NAMEID_FORMAT_PERSISTENT, text=person.subject),
        authn={"class_ref": _PASSWORD},
        sign_response=False,
        sign_assertion=False,
    )
    root = etree.fromstring(str(response).encode())
    claims.set_times(root, timedelta(0), style.lifetime)
    assertion = claims.assertion_of(root)
    for empty in assertion.findall(f"{SAML}AttributeStatement"):
        assertion.remove(empty)
    assertion.append(_attributes(person, style.naming))
    return root


def _attributes(person: Person, naming: str) -> Element:
    statement = etree.Element(f"{SAML}AttributeStatement")
    said = ([person.email], [person.name], sorted(person.groups))
    for (name, friendly), values in zip(NAMING_STYLES[naming], said, strict=True):
        attribute = etree.SubElement(statement, f"{SAML}Attribute", Name=name)
        attribute.set("NameFormat", _URI if ":" in name else _BASIC)
        if friendly:
            attribute.set("FriendlyName", friendly)
        for value in values:
            etree.SubElement(attribute, f"{SAML}AttributeValue").text = value
    return statement


def _seal(root: Element, request: SignOnRequest, keys: KeyPair, tamper: Tamper | None) -> None:
    signing = new_key_pair("somebody else") if tamper in _FOREIGN else keys
    method = constants.TransformRsaSha1 if tamper is Tamper.SHA1_SIGNATURE else constants.TransformRsaSha256
    digest = constants.TransformSha1 if tamper is Tamper.SHA1_DIGEST else constants.TransformSha256
    if tamper not in _ASSERTION_UNSIGNED:
        for assertion in root.findall(f"{SAML}Assertion"):
            wheel.sign(assertion, signing, method=method, digest=digest)
    if tamper in _ENCRYPTED:
        _encrypt(root, request, tamper)
    if tamper not in _RESPONSE_UNSIGNED:
        # Only the assertion inside is foreign then: the response's own signature must not save it.
        outer = keys if tamper is Tamper.ENCRYPTED_FOREIGN_KEY else signing
        wheel.sign(root, outer, method=method, digest=digest)


def _encrypt(root: Element, request: SignOnRequest, tamper: Tamper | None) -> None:
    certificate = request.sp.encryption_certificate_pem
    if tamper is Tamper.ENCRYPTED_FOR_ANOTHER:
        certificate = new_key_pair("somebody else").certificate_pem
    if tamper is Tamper.ENCRYPTED_COMMENT:
        WIRE[Tamper.COMMENT_IN_EMAIL](root)
    method = constants.TransformAes256Gcm
    bits = 256
    if tamper is Tamper.ENCRYPTED_CBC:
        method, bits = constants.TransformAes128Cbc, 128
    if tamper is Tamper.ENCRYPTED_TRIPLE_DES:
        method, bits = constants.TransformDes3Cbc, 192
    transport = constants.TransformRsaPkcs1 if tamper is Tamper.ENCRYPTED_RSA_1_5 else constants.TransformRsaOaep
    wheel.encrypt(claims.assertion_of(root), certificate, method=method, key_bits=bits, key_transport=transport)
