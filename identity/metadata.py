"""SAML metadata: reading the identity provider's, writing Passport's own."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from identity import algorithms
from identity.errors import MetadataError
from identity.urls import is_safe_url
from identity.xml import DS, MD, Element, UnsafeXmlError, parse
from identity.xmlsec_backend import PemCertificate

PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol"
HTTP_REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
HTTP_POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"

_MIN_RSA_BITS = 2048
_MAX_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderMetadata:
    """What Passport needs of an identity provider's metadata."""

    entity_id: str
    sign_on_url: str
    certificates: tuple[PemCertificate, ...]

    def certs(self, entity_id: str | None, descriptor: str, use: str) -> list[tuple[str, PemCertificate]]:  # noqa: ARG002
        """Answer pysaml2's question for an issuer's keys: only this provider has any; raises KeyError."""
        if entity_id != self.entity_id:
            raise KeyError(entity_id)
        return [("", certificate) for certificate in self.certificates]


def read_provider_metadata(name: str, text: bytes) -> ProviderMetadata:
    """Read the metadata of the provider of this name; raises MetadataError with what is wrong."""
    entity, role = _provider_entity(name, text)
    entity_id = entity.get("entityID", "").strip()
    if not entity_id:
        raise MetadataError(f"The metadata of {name} has no entityID.")
    certificates = tuple(_signing_certificates(name, role))
    if not certificates:
        raise MetadataError(f"The metadata of {name} has no signing certificate.")
    return ProviderMetadata(entity_id=entity_id, sign_on_url=_sign_on_url(name, role), certificates=certificates)


def write_own_metadata(*, entity_id: str, acs_url: str, certificate_pem: bytes) -> bytes:
    """Write Passport's metadata, which the identity provider is configured with."""
    names = {"md": MD.strip("{}"), "ds": DS.strip("{}")}
    entity = etree.Element(f"{MD}EntityDescriptor", nsmap=names, entityID=entity_id)
    role = etree.SubElement(
        entity,
        f"{MD}SPSSODescriptor",
        AuthnRequestsSigned="true",
        WantAssertionsSigned="true",
        protocolSupportEnumeration=PROTOCOL,
    )
    certificate = _base64_of(certificate_pem)
    _add_key(role, "signing", certificate)
    encryption = _add_key(role, "encryption", certificate)
    for algorithm in (*algorithms.AES, *algorithms.KEY_TRANSPORTS):
        etree.SubElement(encryption, f"{MD}EncryptionMethod", Algorithm=algorithm)
    etree.SubElement(role, f"{MD}NameIDFormat").text = PERSISTENT
    etree.SubElement(
        role,
        f"{MD}AssertionConsumerService",
        Binding=HTTP_POST,
        Location=acs_url,
        index="0",
        isDefault="true",
    )
    written: bytes = etree.tostring(entity, xml_declaration=True, encoding="UTF-8")
    return written


def _provider_entity(name: str, text: bytes) -> tuple[Element, Element]:
    if len(text) > _MAX_BYTES:
        raise MetadataError(f"The metadata of {name} is over {_MAX_BYTES} bytes.")
    try:
        root = parse(text, comments=True)
    except UnsafeXmlError as unsafe:
        raise MetadataError(f"The metadata of {name} is not safe XML: {unsafe.reason}.") from None
    entities = list(root.iter(f"{MD}EntityDescriptor"))
    found = [(entity, role) for entity in entities for role in entity.findall(f"{MD}IDPSSODescriptor")]
    if len(found) != 1:
        raise MetadataError(f"The metadata of {name} must describe exactly one provider, not {len(found)}.")
    return found[0]


def _sign_on_url(name: str, role: Element) -> str:
    for service in role.findall(f"{MD}SingleSignOnService"):
        url: str = service.get("Location", "")
        if service.get("Binding") == HTTP_REDIRECT and is_safe_url(url):
            return url
    raise MetadataError(f"The metadata of {name} has no HTTP-Redirect sign-on URL with https.")


def _signing_certificates(name: str, role: Element) -> Iterable[PemCertificate]:
    for key in role.findall(f"{MD}KeyDescriptor"):
        if key.get("use", "signing") != "signing":
            continue
        for element in key.iter(f"{DS}X509Certificate"):
            yield _certificate(name, element.text or "")


def _certificate(name: str, text: str) -> PemCertificate:
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode("".join(text.split()), validate=True))
    except ValueError:
        raise MetadataError(f"A certificate in the metadata of {name} is malformed.") from None
    key = certificate.public_key()
    strong = isinstance(key, ec.EllipticCurvePublicKey) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS
    )
    if not strong:
        raise MetadataError(f"A signing key of {name} is too weak: use RSA from {_MIN_RSA_BITS} bits, or EC.")
    return PemCertificate(name=certificate.public_bytes(Encoding.PEM).decode())


def _add_key(role: Element, use: str, certificate: str) -> Element:
    key = etree.SubElement(role, f"{MD}KeyDescriptor", use=use)
    holder = etree.SubElement(etree.SubElement(key, f"{DS}KeyInfo"), f"{DS}X509Data")
    etree.SubElement(holder, f"{DS}X509Certificate").text = certificate
    return key


def _base64_of(certificate_pem: bytes) -> str:
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
