"""What a SAML response must look like before anything in it is believed."""

from identity import algorithms
from identity.xml import DS, SAML, SAMLP, XENC, Element

_SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"


class BadShapeError(Exception):
    """The response is not built as a sign-in response must be; `reason` is a short code."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def check_response(root: Element) -> None:
    """Require a successful, signed response around exactly one assertion; raises BadShapeError."""
    if root.tag != f"{SAMLP}Response" or root.get("Version") != "2.0":
        raise BadShapeError("not_a_response")
    _require_success(root)
    assertion = _only_assertion(root)
    _check_signature_places(root, assertion)
    if root.find(f"{DS}Signature") is None:
        raise BadShapeError("response_unsigned")
    if assertion.tag == f"{SAML}Assertion":
        check_signature(assertion)
    check_signature(root)


def check_decrypted(root: Element) -> None:
    """Require exactly one assertion, signed itself, in a response whose assertion was decrypted."""
    found = list(root.iter(f"{SAML}Assertion"))
    wrapper = root.find(f"{SAML}EncryptedAssertion")
    if len(found) != 1 or wrapper is None or found[0].getparent() is not wrapper or len(wrapper) != 1:
        raise BadShapeError("several_assertions")
    _check_signature_places(root, found[0])
    check_signature(found[0])


def check_signature(signed: Element) -> Element:
    """Return an element's own enveloped signature; raises BadShapeError if it is missing, odd or weak."""
    signature = signed.find(f"{DS}Signature")
    if signature is None:
        raise BadShapeError("assertion_unsigned" if signed.tag == f"{SAML}Assertion" else "response_unsigned")
    _check_reference(signature, signed.get("ID"))
    _check_algorithms(signature)
    return signature


def check_encryption(encrypted: Element) -> None:
    """Require AES and RSA-OAEP in an encrypted element; raises BadShapeError."""
    allowed = {*algorithms.AES, *algorithms.KEY_TRANSPORTS}
    methods = {method.get("Algorithm") for method in encrypted.iter(f"{XENC}EncryptionMethod")}
    if not methods or not methods <= allowed:
        raise BadShapeError("algorithm")


def _require_success(root: Element) -> None:
    code = root.find(f"{SAMLP}Status/{SAMLP}StatusCode")
    if code is None or code.get("Value") != _SUCCESS:
        raise BadShapeError("status")


def _only_assertion(root: Element) -> Element:
    found = [*root.iter(f"{SAML}Assertion"), *root.iter(f"{SAML}EncryptedAssertion")]
    if not found:
        raise BadShapeError("no_assertion")
    if len(found) > 1:
        raise BadShapeError("several_assertions")
    if found[0].getparent() is not root:
        raise BadShapeError("structure")
    return found[0]


def _check_signature_places(root: Element, assertion: Element) -> None:
    """A signature anywhere but on the response and its assertion is how wrapping attacks begin."""
    parents = [signature.getparent() for signature in root.iter(f"{DS}Signature")]
    if any(parent is not root and parent is not assertion for parent in parents):
        raise BadShapeError("structure")
    if len(parents) != len(set(parents)):
        raise BadShapeError("structure")


def _check_reference(signature: Element, identifier: str | None) -> None:
    references = list(signature.iter(f"{DS}Reference"))
    if len(references) != 1 or not identifier or references[0].get("URI") != f"#{identifier}":
        raise BadShapeError("structure")
    if signature.find(f"{DS}Object") is not None:
        raise BadShapeError("structure")


def _check_algorithms(signature: Element) -> None:
    for tag, allowed in (
        ("SignatureMethod", algorithms.SIGNATURES),
        ("DigestMethod", algorithms.DIGESTS),
        ("CanonicalizationMethod", algorithms.CANONICALISATIONS),
        ("Transform", algorithms.TRANSFORMS),
    ):
        used = {element.get("Algorithm") for element in signature.iter(f"{DS}{tag}")}
        if not used or not used <= allowed:
            raise BadShapeError("algorithm")
    transforms = [element.get("Algorithm") for element in signature.iter(f"{DS}Transform")]
    if algorithms.ENVELOPED not in transforms:
        raise BadShapeError("structure")
