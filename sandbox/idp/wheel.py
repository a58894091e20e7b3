"""Signing and encrypting SAML elements with the xmlsec wheel; there is no xmlsec1 program."""

from typing import TYPE_CHECKING, TypeAlias

import xmlsec
from lxml import etree
from lxml.etree import _Element
from xmlsec import constants

from sandbox.idp.keys import KeyPair

if TYPE_CHECKING:
    from xmlsec.constants import __Transform as Transform

Element: TypeAlias = _Element

SAML = "{urn:oasis:names:tc:SAML:2.0:assertion}"
SAMLP = "{urn:oasis:names:tc:SAML:2.0:protocol}"


def sign(
    element: Element,
    keys: KeyPair,
    *,
    method: "Transform" = constants.TransformRsaSha256,
    digest: "Transform" = constants.TransformSha256,
) -> None:
    """Put an enveloped signature behind the element's Issuer, in place."""
    signature = xmlsec.template.create(element, constants.TransformExclC14N, method, ns="ds")
    element.find(f"{SAML}Issuer").addnext(signature)
    reference = xmlsec.template.add_reference(signature, digest, uri=f"#{element.get('ID')}")
    xmlsec.template.add_transform(reference, constants.TransformEnveloped)
    xmlsec.template.add_transform(reference, constants.TransformExclC14N)
    xmlsec.template.add_x509_data(xmlsec.template.ensure_key_info(signature))
    root = element.getroottree().getroot()
    xmlsec.tree.add_ids(root, ["ID"])
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(keys.key_pem, constants.KeyDataFormatPem)
    context.key.load_cert_from_memory(keys.certificate_pem, constants.KeyDataFormatPem)
    context.sign(signature)


def encrypt(
    assertion: Element,
    certificate_pem: bytes,
    *,
    method: "Transform" = constants.TransformAes256Gcm,
    key_bits: int = 256,
    key_transport: "Transform" = constants.TransformRsaOaep,
) -> None:
    """Replace an assertion in its response by an EncryptedAssertion for this certificate."""
    response = assertion.getparent()
    wrapper = etree.Element(f"{SAML}EncryptedAssertion", nsmap={"saml": SAML.strip("{}")})
    response.replace(assertion, wrapper)
    wrapper.append(assertion)
    template = xmlsec.template.encrypted_data_create(
        wrapper, method, type="http://www.w3.org/2001/04/xmlenc#Element", ns="xenc"
    )
    xmlsec.template.encrypted_data_ensure_cipher_value(template)
    info = xmlsec.template.encrypted_data_ensure_key_info(template, ns="ds")
    encrypted_key = xmlsec.template.add_encrypted_key(info, key_transport)
    xmlsec.template.encrypted_data_ensure_cipher_value(encrypted_key)
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(certificate_pem, constants.KeyDataFormatCertPem))
    context = xmlsec.EncryptionContext(manager)
    kind = constants.KeyDataDes if method == constants.TransformDes3Cbc else constants.KeyDataAes
    context.key = xmlsec.Key.generate(kind, key_bits, constants.KeyDataTypeSession)
    context.encrypt_xml(template, assertion)
