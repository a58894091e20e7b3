"""AuthnRequests and metadata: what Passport sends, and what a strict identity provider makes of it."""

import base64
import re
import zlib
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from lxml import etree
from saml2.xml.schema import validate as validate_schema

from identity.errors import MetadataError
from identity.providers import IdentityProvider
from identity.saml import ServiceProvider
from sandbox.idp import IdentityProviderDouble, RequestRefusedError
from sandbox.idp.keys import new_key_pair
from tests.integration.saml_desk import ANA, PUBLIC_URL, Desk, new_service_provider, open_desk, utc_now


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with IdentityProviderDouble() as idp:
        yield open_desk(idp, new_key_pair("passport"))


def _request_xml(url: str) -> bytes:
    text = parse_qs(urlsplit(url).query)["SAMLRequest"][0]
    return zlib.decompress(base64.b64decode(text), -15)


def test_the_identity_provider_accepts_a_request(desk: Desk) -> None:
    asked = desk.sp.authn_request("corp", "a relay state & more=+")
    read = desk.idp.read(asked.url)
    assert (read.id, read.relay_state, read.force) == (asked.id, "a relay state & more=+", False)
    assert read.acs_url == f"{PUBLIC_URL}/saml/acs"
    assert desk.idp.read(desk.sp.authn_request("corp", "r", force=True).url).force


def test_a_request_fits_the_schema(desk: Desk) -> None:
    validate_schema(_request_xml(desk.sp.authn_request("corp", "r").url).decode())


def test_request_ids_are_never_the_same(desk: Desk) -> None:
    ids = {desk.sp.authn_request("corp", "r").id for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"_[0-9a-f]{40}", identifier) for identifier in ids)


def test_a_relay_state_has_at_most_80_bytes(desk: Desk) -> None:
    desk.idp.read(desk.sp.authn_request("corp", "r" * 80).url)
    with pytest.raises(ValueError, match="80 bytes"):
        desk.sp.authn_request("corp", "é" * 41)


@pytest.mark.parametrize("part", ["SAMLRequest", "RelayState", "SigAlg", "Signature"])
def test_every_part_of_a_request_is_signed_and_needed(desk: Desk, part: str) -> None:
    url = desk.sp.authn_request("corp", "relay").url
    for changed in (re.sub(rf"[?&]{part}=[^&]*", "", url), re.sub(rf"({part}=)[^&]{{4}}", r"\1AAAA", url)):
        with pytest.raises(RequestRefusedError):
            desk.idp.read(changed)


def test_a_request_signed_by_somebody_else_is_refused(desk: Desk) -> None:
    stranger = new_service_provider(new_key_pair("stranger"), IdentityProvider(name="corp", metadata=desk.idp.metadata))
    with pytest.raises(RequestRefusedError, match="does not verify"):
        desk.idp.read(stranger.authn_request("corp", "relay").url)


def test_a_stranger_is_not_known_to_the_identity_provider(desk: Desk) -> None:
    with IdentityProviderDouble() as other:
        with pytest.raises(RequestRefusedError, match="no service provider"):
            other.answer_to(desk.sp.authn_request("corp", "r").url, other.add_person(ANA, name="A", groups=()).email)
        other.trust(desk.sp.metadata())
        with pytest.raises(RequestRefusedError, match="Destination"):
            other.read(desk.sp.authn_request("corp", "r").url)


def test_own_metadata_fits_the_schema_and_names_both_keys(desk: Desk) -> None:
    validate_schema(desk.sp.metadata().decode().split("?>", 1)[1])
    root = etree.fromstring(desk.sp.metadata())
    assert root.get("entityID") == f"{PUBLIC_URL}/saml/metadata"
    uses = [key.get("use") for key in root.iter("{*}KeyDescriptor")]
    assert uses == ["signing", "encryption"]
    assert b"PRIVATE" not in desk.sp.metadata()


def test_an_entity_id_can_be_set(desk: Desk) -> None:
    sp = ServiceProvider(
        public_url=f"{PUBLIC_URL}/",
        entity_id="urn:passport:prod",
        signing_key_pem=desk.keys.key_pem,
        signing_certificate_pem=desk.keys.certificate_pem,
        providers=[IdentityProvider(name="corp", metadata=desk.idp.metadata)],
        clock=utc_now,
    )
    desk.idp.trust(sp.metadata())
    asked = sp.authn_request("corp", "relay")
    answer = desk.idp.answer_to(asked.url, ANA)
    assert answer.acs_url == f"{PUBLIC_URL}/saml/acs"
    assert sp.validate(answer.saml_response, request_id=asked.id, provider="corp").email == ANA


def test_a_key_and_another_keys_certificate_are_refused(desk: Desk) -> None:
    with pytest.raises(ValueError, match="does not belong"):
        ServiceProvider(
            public_url=PUBLIC_URL,
            entity_id=None,
            signing_key_pem=desk.keys.key_pem,
            signing_certificate_pem=new_key_pair("another").certificate_pem,
            providers=[],
            clock=utc_now,
        )


_BREAKS: dict[str, Callable[[bytes], bytes]] = {
    "not safe XML: not_xml": lambda text: text[:-20],
    "not safe XML: doctype": lambda text: b"<!DOCTYPE md>" + text.split(b"?>", 1)[1],
    "exactly one provider, not 0": lambda text: text.replace(b"IDPSSODescriptor", b"AttributeAuthorityDescriptor"),
    "no entityID": lambda text: re.sub(rb'entityID="[^"]*"', b'entityID=" "', text),
    "no HTTP-Redirect": lambda text: text.replace(b"HTTP-Redirect", b"HTTP-Artifact"),
    "no HTTP-Redirect sign-on URL with https": lambda text: text.replace(b"http://127.0.0.1", b"http://idp.example"),
    "malformed": lambda text: text.replace(b"<ds:X509Certificate>", b"<ds:X509Certificate>!"),
    "no signing certificate": lambda text: text.replace(b'use="signing"', b'use="encryption"'),
    "over 1000000 bytes": lambda text: text + b" " * 1_000_000,
}


@pytest.mark.parametrize("problem", _BREAKS)
def test_bad_provider_metadata_is_named_at_the_start(desk: Desk, problem: str) -> None:
    broken = _BREAKS[problem](desk.idp.metadata)
    with pytest.raises(MetadataError, match=f"corp.*{re.escape(problem)}"):
        new_service_provider(desk.keys, IdentityProvider(name="corp", metadata=broken))


def test_a_sign_on_url_may_have_a_query_of_its_own(desk: Desk) -> None:
    metadata = desk.idp.metadata.replace(b'/sso"', b'/sso?tenant=7"')
    sp = new_service_provider(desk.keys, IdentityProvider(name="corp", metadata=metadata))
    url = sp.authn_request("corp", "relay").url
    assert url.count("?") == 1
    assert parse_qs(urlsplit(url).query)["tenant"] == ["7"]
