"""pysaml2's cryptography by the xmlsec wheel: in memory, without the xmlsec1 program and temporary files."""

from dataclasses import dataclass

import xmlsec
from saml2 import sigver

from identity import shape
from identity.xml import SAML, XENC, Element, UnsafeXmlError, parse, serialised

_PEM_CERTIFICATE = xmlsec.constants.KeyDataFormatCertPem
_PEM_KEY = xmlsec.constants.KeyDataFormatPem


@dataclass(frozen=True, kw_only=True, slots=True)
class PemCertificate:
    """A certificate where pysaml2 expects an open file: it passes `name` on to the backend unread."""

    name: str


class XmlsecBackend(sigver.CryptoBackend):  # type: ignore[misc]  # pysaml2 has no types
    """Verifies signatures and decrypts assertions; keeps no state, so that threads can share it."""

    def __init__(self, *, decryption_key_pem: bytes) -> None:
        super().__init__()
        self._decryption_key_pem = decryption_key_pem

    def validate_signature(
        self,
        signedtext: str | bytes,
        cert_file: str,
        cert_type: str,  # noqa: ARG002  # pysaml2's signature
        node_name: str,  # noqa: ARG002
        node_id: str,
    ) -> bool:
        """Verify the one element with this id; raises SignatureError, never returns False."""
        try:
            signature = _signature_of(parse(_as_bytes(signedtext)), node_id)
            context = xmlsec.SignatureContext()
            context.key = xmlsec.Key.from_memory(cert_file, _PEM_CERTIFICATE)
            context.verify(signature)
        except (xmlsec.Error, shape.BadShapeError, UnsafeXmlError):
            valid = False
        else:
            valid = True
        if not valid:
            raise sigver.SignatureError("the signature does not verify")
        return True

    def decrypt(self, enctext: str | bytes, key_file: str) -> str:  # noqa: ARG002  # the key is ours
        """Decrypt a response's one assertion; raises DecryptError."""
        try:
            decrypted = self._decrypted(_as_bytes(enctext))
        except (xmlsec.Error, shape.BadShapeError, UnsafeXmlError):
            decrypted = None
        if decrypted is None:
            raise sigver.DecryptError("the assertion does not decrypt")
        return decrypted

    def _decrypted(self, text: bytes) -> str:
        root = parse(text)
        encrypted = root.findall(f"{SAML}EncryptedAssertion/{XENC}EncryptedData")
        if len(encrypted) != 1:
            raise shape.BadShapeError("several_assertions")
        shape.check_encryption(encrypted[0].getparent())
        keys = xmlsec.KeysManager()
        keys.add_key(xmlsec.Key.from_memory(self._decryption_key_pem, _PEM_KEY))
        xmlsec.tree.add_ids(root, ["Id"])
        xmlsec.EncryptionContext(keys).decrypt(encrypted[0])
        # What was inside has been seen by nobody yet: it passes the same strict parser and shape check.
        for key in root.findall(f"{SAML}EncryptedAssertion/{XENC}EncryptedKey"):
            key.getparent().remove(key)
        clear = serialised(root)
        shape.check_decrypted(parse(clear.encode()))
        return clear


def _signature_of(root: Element, node_id: str) -> Element:
    signed = [element for element in root.iter() if element.get("ID") == node_id]
    if len(signed) != 1:
        raise shape.BadShapeError("structure")
    signature = shape.check_signature(signed[0])
    xmlsec.tree.add_ids(root, ["ID"])
    return signature


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
