"""Which SAML responses are believed, and which are refused, for what reason."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from saml2 import SAMLError

from access.errors import RefusedError
from identity import xml
from identity.conditions import CLOCK_SKEW, Expected
from identity.errors import AssertionRefusedError, UnknownProviderError
from identity.providers import IdentityProvider
from identity.response import StrictResponse
from identity.saml import MAX_RESPONSE_CHARACTERS, _decoded
from sandbox.idp import NAMING_STYLES, IdentityProviderDouble, Tamper
from sandbox.idp.keys import new_key_pair
from tests.integration.saml_desk import ANA, PUBLIC_URL, Desk, new_service_provider, open_desk

REFUSED = {
    Tamper.FAILED_STATUS: "status",
    Tamper.OTHER_ISSUER: "issuer",
    Tamper.OTHER_AUDIENCE: "audience",
    Tamper.NO_AUDIENCE: "audience",
    Tamper.TWO_AUDIENCE_RESTRICTIONS: "audience",
    Tamper.NO_CONDITIONS: "audience",
    Tamper.OTHER_DESTINATION: "destination",
    Tamper.NO_DESTINATION: "destination",
    Tamper.OTHER_RECIPIENT: "recipient",
    Tamper.NO_RECIPIENT: "recipient",
    Tamper.UNSOLICITED: "in_response_to",
    Tamper.OTHER_IN_RESPONSE_TO: "in_response_to",
    Tamper.OTHER_CONFIRMATION_IN_RESPONSE_TO: "in_response_to",
    Tamper.NO_CONFIRMATION: "subject_confirmation",
    Tamper.HOLDER_OF_KEY: "subject_confirmation",
    Tamper.NO_EXPIRY: "subject_confirmation",
    Tamper.EXPIRED: "expired",
    Tamper.EXPIRED_CONFIRMATION: "expired",
    Tamper.NOT_YET_VALID: "not_yet_valid",
    Tamper.MALFORMED_TIME: "signature",  # pysaml2 checks the schema before the signature
    Tamper.NO_TIME_ZONE: "malformed_time",
    Tamper.TRANSIENT_NAME_ID: "transient_subject",
    Tamper.EMPTY_NAME_ID: "subject",
    Tamper.NO_NAME_ID: "subject",
    Tamper.NO_EMAIL: "no_email",
    Tamper.TWO_EMAILS: "bad_email",
    Tamper.BAD_EMAIL: "bad_email",
    Tamper.GROUPS_LEFT_OUT: "groups_left_out",
    Tamper.CONTROL_IN_GROUP: "group_name",
    Tamper.TWO_ASSERTIONS: "several_assertions",
    Tamper.NO_ASSERTION: "no_assertion",
    Tamper.NESTED_ASSERTION: "several_assertions",
    Tamper.REPEATED_ID: "repeated_id",
    Tamper.UNSIGNED: "response_unsigned",
    Tamper.UNSIGNED_RESPONSE: "response_unsigned",
    Tamper.UNSIGNED_ASSERTION: "assertion_unsigned",
    Tamper.SHA1_SIGNATURE: "algorithm",
    Tamper.SHA1_DIGEST: "algorithm",
    Tamper.FOREIGN_KEY: "signature",
    Tamper.ENCRYPTED_UNSIGNED: "encryption",
    Tamper.ENCRYPTED_FOREIGN_KEY: "signature",
    Tamper.ENCRYPTED_FOR_ANOTHER: "encryption",
    Tamper.ENCRYPTED_TRIPLE_DES: "encryption",
    Tamper.ENCRYPTED_RSA_1_5: "encryption",
    Tamper.ENCRYPTED_COMMENT: "encryption",
    Tamper.ENCRYPTED_OTHER_REQUEST: "in_response_to",  # pysaml2 does not look there
    Tamper.CHANGED_EMAIL: "signature",
    Tamper.CHANGED_NAME_ID: "signature",
    Tamper.CHANGED_GROUP: "signature",
    Tamper.CHANGED_SIGNATURE: "signature",
    Tamper.STRIPPED_SIGNATURES: "response_unsigned",
    Tamper.COMMENT_IN_NAME_ID: "comment",
    Tamper.COMMENT_IN_EMAIL: "comment",
    Tamper.INSTRUCTION_IN_EMAIL: "comment",
    Tamper.DOCTYPE: "doctype",
    Tamper.ENTITY: "doctype",
    Tamper.EXTERNAL_ENTITY: "doctype",
    Tamper.WRAPPED_FORGED_RESPONSE: "several_assertions",
    Tamper.WRAPPED_SIGNED_IN_EXTENSIONS: "several_assertions",
    Tamper.WRAPPED_SIGNED_IN_OBJECT: "several_assertions",
    Tamper.WRAPPED_FORGED_FIRST: "several_assertions",
    Tamper.WRAPPED_FORGED_LAST: "several_assertions",
    Tamper.WRAPPED_FORGED_AROUND: "several_assertions",
    Tamper.WRAPPED_SAME_ID: "repeated_id",
    Tamper.TRUNCATED: "not_xml",
    Tamper.NOT_XML: "not_xml",
    Tamper.NOT_BASE64: "not_base64",
    Tamper.HUGE: "too_large",
    Tamper.DEEP: "not_xml",
}
GOOD = {Tamper.ENCRYPTED, Tamper.ENCRYPTED_CBC, Tamper.SLIGHTLY_LATE, Tamper.NO_EMAIL_BUT_NAME_ID}


@pytest.fixture(scope="module")
def module_desk() -> Iterator[Desk]:
    with IdentityProviderDouble() as idp:
        yield open_desk(idp, new_key_pair("passport"))


@pytest.fixture
def desk(module_desk: Desk) -> Iterator[Desk]:
    yield module_desk
    module_desk.idp.tamper = None
    module_desk.idp.naming = "okta"


def test_every_tampering_is_tested() -> None:
    assert set(Tamper) == {*REFUSED, *GOOD, Tamper.REPLAY}


def test_a_good_response_says_who_it_is(desk: Desk) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    ana = desk.sign_in()
    assert (ana.provider, ana.issuer) == ("corp", desk.idp.entity_id)
    assert (ana.subject, ana.email, ana.name) == ("subject-of-ana", ANA, "Ana Ruiz")
    assert ana.groups == {"payments", "ops"}
    assert ana.assertion_id
    assert ana.not_on_or_after.tzinfo is not None
    assert ana.not_on_or_after >= before + desk.idp.lifetime + CLOCK_SKEW


@pytest.mark.parametrize("naming", NAMING_STYLES)
def test_attribute_names_of_common_providers_are_known(desk: Desk, naming: str) -> None:
    desk.idp.naming = naming
    ana = desk.sign_in()
    assert (ana.email, ana.name) == (ANA, "Ana Ruiz")
    assert ana.groups == {"payments", "ops"}


@pytest.mark.parametrize("tamper", sorted(GOOD))
def test_good_variants_are_accepted(desk: Desk, tamper: Tamper) -> None:
    assert desk.sign_in(tamper).email == ANA


@pytest.mark.parametrize(("tamper", "reason"), REFUSED.items())
def test_refused(desk: Desk, tamper: Tamper, reason: str) -> None:
    with pytest.raises(AssertionRefusedError) as refused:
        desk.sign_in(tamper)
    assert refused.value.reason == reason
    assert isinstance(refused.value, RefusedError)
    assert refused.value.sentence.endswith(".")


def test_a_replay_is_the_same_assertion_id_and_not_an_answer_to_a_new_request(desk: Desk) -> None:
    request, answer = desk.ask()
    first = desk.sp.validate(answer.saml_response, request_id=request.id, provider="corp")
    again = desk.sp.validate(answer.saml_response, request_id=request.id, provider="corp")
    assert first.assertion_id == again.assertion_id  # which the database refuses
    with pytest.raises(AssertionRefusedError, match="does not belong"):
        desk.sign_in(Tamper.REPLAY)


@pytest.mark.parametrize("request_id", ["", "_another"])
def test_an_answer_counts_for_its_own_request_only(desk: Desk, request_id: str) -> None:
    _, answer = desk.ask()
    with pytest.raises(AssertionRefusedError) as refused:
        desk.sp.validate(answer.saml_response, request_id=request_id, provider="corp")
    assert refused.value.reason == "in_response_to"


def test_no_request_id_matches_no_in_response_to(desk: Desk) -> None:
    desk.idp.tamper = Tamper.UNSOLICITED
    _, answer = desk.ask()
    with pytest.raises(AssertionRefusedError) as refused:
        desk.sp.validate(answer.saml_response, request_id="", provider="corp")
    assert refused.value.reason == "in_response_to"


@pytest.mark.parametrize("text", ["", "====", "é", "<Response/>", "PGE+", "\x00"])
def test_what_is_no_response_at_all_is_refused(desk: Desk, text: str) -> None:
    with pytest.raises(AssertionRefusedError):
        desk.sp.validate(text, request_id="_x", provider="corp")


def test_size_is_checked_before_anything_is_parsed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml, "parse", lambda _: pytest.fail("parsed"))
    with pytest.raises(AssertionRefusedError) as refused:
        desk.sp.validate("A" * (MAX_RESPONSE_CHARACTERS + 1), request_id="_x", provider="corp")
    assert refused.value.reason == "too_large"


def test_a_thousand_groups_fit(desk: Desk) -> None:
    groups = {f"group-{number:04}-with-a-name-of-usual-length" for number in range(1000)}
    desk.idp.set_groups(ANA, groups)
    try:
        assert desk.sign_in().groups == groups
    finally:
        desk.idp.set_groups(ANA, {"payments", "ops"})


@pytest.mark.parametrize(
    ("offset", "reason"),
    [(timedelta(minutes=7), "expired"), (timedelta(minutes=-2), "not_yet_valid")],
)
def test_passports_own_clock_counts_too(desk: Desk, offset: timedelta, reason: str) -> None:
    sp = new_service_provider(
        desk.keys,
        IdentityProvider(name="corp", metadata=desk.idp.metadata),
        clock=lambda: datetime.now(UTC) + offset,
    )
    request, answer = desk.ask()
    with pytest.raises(AssertionRefusedError) as refused:
        sp.validate(answer.saml_response, request_id=request.id, provider="corp")
    assert refused.value.reason == reason


def test_a_transient_name_will_do_where_an_attribute_is_the_subject(desk: Desk) -> None:
    corp = IdentityProvider(name="corp", metadata=desk.idp.metadata, subject_attribute="displayName")
    sp = new_service_provider(desk.keys, corp)
    desk.idp.tamper = Tamper.TRANSIENT_NAME_ID
    request, answer = desk.ask()
    assert sp.validate(answer.saml_response, request_id=request.id, provider="corp").subject == "Ana Ruiz"


class TestTwoProviders:
    @pytest.fixture
    def other(self) -> Iterator[IdentityProviderDouble]:
        with IdentityProviderDouble() as other:
            other.add_person(ANA, name="Not Ana", groups={"admins"})
            yield other

    def test_each_signs_people_in(self, desk: Desk, other: IdentityProviderDouble) -> None:
        corp = IdentityProvider(name="corp", metadata=desk.idp.metadata)
        partner = IdentityProvider(name="partner", metadata=other.metadata)
        sp = new_service_provider(desk.keys, corp, partner)
        other.trust(sp.metadata())
        for name, idp, who in (("corp", desk.idp, "Ana Ruiz"), ("partner", other, "Not Ana")):
            request = sp.authn_request(name, "relay")
            answer = idp.answer_to(request.url, ANA)
            found = sp.validate(answer.saml_response, request_id=request.id, provider=name)
            assert (found.provider, found.issuer, found.name) == (name, idp.entity_id, who)

    def test_one_cannot_answer_for_the_other(self, desk: Desk, other: IdentityProviderDouble) -> None:
        corp = IdentityProvider(name="corp", metadata=desk.idp.metadata)
        partner = IdentityProvider(name="partner", metadata=other.metadata)
        sp = new_service_provider(desk.keys, corp, partner)
        other.trust(sp.metadata())
        asked = sp.authn_request("corp", "relay")
        person = other.person(ANA, "correct horse battery staple")
        assert person is not None
        answer = other.answer(desk.idp.read(asked.url), person)
        with pytest.raises(AssertionRefusedError) as refused:
            sp.validate(answer.saml_response, request_id=asked.id, provider="corp")
        assert refused.value.reason == "issuer"

    def test_nor_by_taking_its_name(self, desk: Desk) -> None:
        with IdentityProviderDouble(entity_id=desk.idp.entity_id) as impostor:
            mallory = impostor.add_person("mallory@example.org", name="Mallory", groups={"admins"})
            impostor.trust(desk.sp.metadata())
            asked = desk.sp.authn_request("corp", "relay")
            answer = impostor.answer(desk.idp.read(asked.url), mallory)
        with pytest.raises(AssertionRefusedError) as refused:
            desk.sp.validate(answer.saml_response, request_id=asked.id, provider="corp")
        assert refused.value.reason == "signature"

    def test_an_unknown_provider_is_said_to_be_one(self, desk: Desk) -> None:
        with pytest.raises(UnknownProviderError):
            desk.sp.authn_request("nobody", "relay")
        with pytest.raises(UnknownProviderError):
            desk.sp.validate("AAAA", request_id="_x", provider="nobody")


_CRYPTOGRAPHIC = sorted(
    tamper for tamper in REFUSED if tamper.startswith(("unsigned", "sha1", "foreign", "changed", "wrapped"))
)


@pytest.mark.parametrize("tamper", _CRYPTOGRAPHIC)
def test_the_second_wall_holds_alone(desk: Desk, tamper: Tamper) -> None:
    """Without the check of the document's shape, pysaml2 and the backend refuse the same responses."""
    desk.idp.tamper = tamper
    request, answer = desk.ask()
    expected = Expected(
        request_id=request.id,
        issuer=desk.idp.entity_id,
        entity_id=f"{PUBLIC_URL}/saml/metadata",
        acs_url=f"{PUBLIC_URL}/saml/acs",
        now=datetime.now(UTC),
    )
    response = StrictResponse(desk.sp._peers["corp"].security, expected)
    with pytest.raises((SAMLError, AssertionRefusedError)):
        response.check(_decoded(answer.saml_response).decode())
