"""The XML parser and the cryptography backend on their own, and the words for a refusal."""

import pytest
from saml2.sigver import DecryptError, SignatureError

from identity.errors import _SENTENCES, AssertionRefusedError
from identity.urls import is_safe_url
from identity.xml import UnsafeXmlError, parse, serialised
from identity.xmlsec_backend import XmlsecBackend
from sandbox.idp import wheel
from sandbox.idp.keys import KeyPair, new_key_pair

_ASSERTION = (
    b'<s:Assertion xmlns:s="urn:oasis:names:tc:SAML:2.0:assertion" ID="_a" Version="2.0">'
    b"<s:Issuer>idp</s:Issuer><s:Subject>ana</s:Subject></s:Assertion>"
)
_NAME = "urn:oasis:names:tc:SAML:2.0:assertion:Assertion"


@pytest.fixture(scope="module")
def keys() -> KeyPair:
    return new_key_pair("idp")


@pytest.fixture(scope="module")
def signed(keys: KeyPair) -> str:
    root = parse(_ASSERTION)
    wheel.sign(root, keys)
    return serialised(root)


@pytest.fixture
def backend(keys: KeyPair) -> XmlsecBackend:
    return XmlsecBackend(decryption_key_pem=keys.key_pem)


def _verify(backend: XmlsecBackend, text: str, keys: KeyPair, node_id: str = "_a") -> bool:
    return backend.validate_signature(text, keys.certificate_pem.decode(), "pem", _NAME, node_id)


def test_a_good_signature_verifies(backend: XmlsecBackend, signed: str, keys: KeyPair) -> None:
    assert _verify(backend, signed, keys)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (">ana<", ">ben<"),
        ('ID="_a"', 'ID="_b"'),
        ("rsa-sha256", "rsa-sha1"),
        ("rsa-sha256", "hmac-sha256"),
        ("xmlenc#sha256", "xmldsig#sha1"),
        ("xml-exc-c14n#", "xml-exc-c14n#WithComments"),
        ('URI="#_a"', 'URI=""'),
        ('URI="#_a"', 'URI="file:///etc/passwd"'),
        ("</ds:Signature>", "<ds:Object/></ds:Signature>"),
        (">ana<", "><!-- -->ana<"),
        ("<s:Subject>", '<s:Subject ID="_a">'),
        ("</s:Assertion>", ""),
    ],
)
def test_a_changed_one_does_not(backend: XmlsecBackend, signed: str, keys: KeyPair, before: str, after: str) -> None:
    assert before in signed
    with pytest.raises(SignatureError):
        _verify(backend, signed.replace(before, after), keys)


def test_another_key_or_id_or_no_signature_does_not(backend: XmlsecBackend, signed: str, keys: KeyPair) -> None:
    with pytest.raises(SignatureError):
        _verify(backend, signed, new_key_pair("another"))
    with pytest.raises(SignatureError):
        _verify(backend, signed, keys, "_other")
    with pytest.raises(SignatureError):
        _verify(backend, _ASSERTION.decode(), keys)


@pytest.mark.parametrize("text", ["", "<a/>", "<a><b></a>", _ASSERTION.decode()])
def test_what_is_not_encrypted_does_not_decrypt(backend: XmlsecBackend, text: str) -> None:
    with pytest.raises(DecryptError) as refused:
        backend.decrypt(text, "")
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not_xml"),
        (b"<a>", "not_xml"),
        (b"<a>&b;</a>", "not_xml"),
        (b"\x00", "not_xml"),
        (b"<a/><!-- x -->", "comment"),
        (b"<!-- x --><a/>", "comment"),
        (b"<a><b><!-- x --></b></a>", "comment"),
        (b"<a><?x y?></a>", "comment"),
        (b"<!DOCTYPE a><a/>", "doctype"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "doctype"),
        (b'<a ID="x"><b ID="x"/></a>', "repeated_id"),
        (b'<a ID="x"><b Id="x"/></a>', "repeated_id"),
        (b'<a ID="x"><b xml:id="x"/></a>', "repeated_id"),
    ],
)
def test_unsafe_xml_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(UnsafeXmlError) as refused:
        parse(text)
    assert refused.value.reason == reason
    assert refused.value.__context__ is None


def test_character_data_and_encodings_become_plain_text() -> None:
    assert serialised(parse(b"<a><![CDATA[<b>]]></a>")) == "<a>&lt;b&gt;</a>"
    assert parse('<?xml version="1.0" encoding="UTF-16"?><a>é</a>'.encode("utf-16")).text == "é"


def test_every_refusal_has_a_sentence_that_says_what_to_do() -> None:
    for reason in [*_SENTENCES, "signature", "something new"]:
        sentence = AssertionRefusedError(reason).sentence
        assert sentence.endswith(".")
        assert any(words in sentence for words in ("Please", "Ask your", "tell your"))


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://idp.example/sso", True),
        ("http://127.0.0.1:8080/sso", True),
        ("http://[::1]/sso", True),
        ("http://localhost/sso", True),
        ("http://idp.example/sso", False),
        ("http://127.0.0.1.example/sso", False),
        ("javascript:alert(1)", False),
        ("https:///sso", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_safe_urls(url: str, safe: bool) -> None:
    assert is_safe_url(url) is safe
