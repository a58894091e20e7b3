"""The double's own metadata, and what it reads of a service provider's."""

import base64
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from sandbox.idp.wheel import Element

_MD = "{urn:oasis:names:tc:SAML:2.0:metadata}"
_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
_POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceProvider:
    """Who may ask for sign-ins."""

    entity_id: str
    acs_urls: tuple[str, ...]
    signing_certificates: tuple[x509.Certificate, ...]
    encryption_certificate_pem: bytes
    metadata: bytes


def own_metadata(*, entity_id: str, sign_on_url: str, certificates: list[str]) -> bytes:
    """Write the identity provider's metadata; the first certificate is the one in use."""
    keys = "".join(
        '<md:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>'
        f"{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"
        for certificate in certificates
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<md:EntityDescriptor xmlns:md={quoteattr(_MD.strip("{}"))} xmlns:ds={quoteattr(_DS.strip("{}"))}
    entityID={quoteattr(entity_id)}>
  <!-- {escape(entity_id).replace("--", "- -")}: a double, for tests and the demo only -->
  <md:IDPSSODescriptor WantAuthnRequestsSigned="true"
      protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">
    {keys}
    <md:NameIDFormat>urn:oasis:names:tc:SAML:2.0:nameid-format:persistent</md:NameIDFormat>
    <md:SingleSignOnService Binding="{_POST}" Location={quoteattr(sign_on_url + "/post")}/>
    <md:SingleSignOnService Binding="{_REDIRECT}" Location={quoteattr(sign_on_url)}/>
  </md:IDPSSODescriptor>
</md:EntityDescriptor>
""".encode()


def read_service_provider(metadata: bytes) -> ServiceProvider:
    """Read a service provider's metadata strictly; raises ValueError with what is missing."""
    root = etree.fromstring(metadata, etree.XMLParser(resolve_entities=False, no_network=True))
    if root.tag != f"{_MD}EntityDescriptor" or not root.get("entityID"):
        raise ValueError("not an EntityDescriptor with an entityID")
    role = root.find(f"{_MD}SPSSODescriptor")
    if role is None or role.get("AuthnRequestsSigned") != "true" or role.get("WantAssertionsSigned") != "true":
        raise ValueError("no SPSSODescriptor that signs its requests and wants signed assertions")
    services = role.findall(f"{_MD}AssertionConsumerService")
    urls = tuple(service.get("Location", "") for service in services if service.get("Binding") == _POST)
    signing, encryption = _certificates(role, "signing"), _certificates(role, "encryption")
    if not urls or not signing or not encryption:
        raise ValueError("an HTTP-POST AssertionConsumerService, a signing and an encryption key are needed")
    return ServiceProvider(
        entity_id=root.get("entityID"),
        acs_urls=urls,
        signing_certificates=tuple(signing),
        encryption_certificate_pem=encryption[0].public_bytes(Encoding.PEM),
        metadata=metadata,
    )


def _certificates(role: Element, use: str) -> list[x509.Certificate]:
    found = [
        x509.load_der_x509_certificate(base64.b64decode(element.text))
        for key in role.findall(f"{_MD}KeyDescriptor")
        if key.get("use", use) == use
        for element in key.iter(f"{_DS}X509Certificate")
    ]
    if not all(isinstance(certificate.public_key(), rsa.RSAPublicKey) for certificate in found):
        raise ValueError("only RSA keys are known here")
    return found
