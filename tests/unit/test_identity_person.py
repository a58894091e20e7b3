"""Reading a person out of attributes: which names count, and what is refused."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.conditions import Text
from identity.errors import AssertionRefusedError
from identity.person import identify
from identity.providers import IdentityProvider

PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
EMAIL_FORMAT = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
CORP = IdentityProvider(name="corp", metadata=b"")


@dataclass(kw_only=True)
class Value:
    text: str | None


@dataclass(kw_only=True)
class Attribute:
    name: str | None
    friendly_name: str | None = None
    attribute_value: list[Text] = field(default_factory=list)


@dataclass(kw_only=True)
class NameId:
    text: str | None = "s-ana"
    format: str | None = PERSISTENT


def said(**attributes: str | tuple[str, ...]) -> list[Attribute]:
    return [attribute(name, *([values] if isinstance(values, str) else values)) for name, values in attributes.items()]


def attribute(name: str, *values: str, friendly: str | None = None) -> Attribute:
    return Attribute(name=name, friendly_name=friendly, attribute_value=[Value(text=value) for value in values])


def reason(attributes: list[Attribute], name_id: NameId | None = None, provider: IdentityProvider = CORP) -> str:
    with pytest.raises(AssertionRefusedError) as refused:
        identify(name_id or NameId(), attributes, provider)
    return refused.value.reason


def test_everything_is_read() -> None:
    ana = identify(
        NameId(), said(email="Ana@Example.COM", displayName=" Ana Ruiz ", groups=("ops", "dev", "ops")), CORP
    )
    assert (ana.subject, ana.email, ana.name, ana.groups) == (
        "s-ana",
        "ana@example.com",
        "Ana Ruiz",
        frozenset({"ops", "dev"}),
    )


def test_names_are_read_without_case_and_by_friendly_name() -> None:
    attributes = [attribute("urn:oid:9.9.9", "ana@example.com", friendly="MAIL"), attribute("Groups", "ops")]
    ana = identify(NameId(), attributes, CORP)
    assert (ana.email, ana.groups) == ("ana@example.com", frozenset({"ops"}))


def test_the_settings_names_replace_all_others() -> None:
    provider = IdentityProvider(name="corp", metadata=b"", email_attributes=("work",), group_attributes=("teams",))
    attributes = said(email="other@example.com", work="ana@example.com", groups="admins", teams="ops")
    ana = identify(NameId(), attributes, provider)
    assert (ana.email, ana.groups) == ("ana@example.com", frozenset({"ops"}))
    assert reason(said(email="other@example.com"), provider=provider) == "no_email"


def test_a_name_is_made_of_its_parts_or_the_email() -> None:
    email = said(email="ana@example.com")
    assert identify(NameId(), [*email, *said(firstName="Ana", lastName="Ruiz")], CORP).name == "Ana Ruiz"
    assert identify(NameId(), email, CORP).name == "ana@example.com"
    assert identify(NameId(), [*email, attribute("displayName", "Ana\u202e\x07 Ruiz")], CORP).name == "Ana Ruiz"


def test_no_groups_are_no_groups() -> None:
    assert identify(NameId(), said(email="ana@example.com"), CORP).groups == frozenset()


def test_the_subject_can_be_an_attribute() -> None:
    provider = IdentityProvider(name="corp", metadata=b"", subject_attribute="employeeNumber")
    email = said(email="ana@example.com")
    assert identify(None, [*email, *said(employeeNumber="0042")], provider).subject == "0042"
    assert reason([*email], provider=provider) == "subject"
    assert reason([*email, *said(employeeNumber=("1", "2"))], provider=provider) == "subject"


@pytest.mark.parametrize("subject", ["", " ", "a\nb", "a\u202eb", "x" * 257, None])
def test_an_odd_subject_is_refused(subject: str | None) -> None:
    assert reason(said(email="ana@example.com"), NameId(text=subject)) == "subject"


def test_an_email_as_name_id_is_an_email_only_if_it_says_so() -> None:
    assert identify(NameId(text="Ana@example.com", format=EMAIL_FORMAT), [], CORP).email == "ana@example.com"
    assert reason([], NameId(text="ana@example.com")) == "no_email"


@pytest.mark.parametrize(
    "email",
    [
        "ana", "ana@", "@example.com", "ana@example", "ana@@example.com", "ana@exa mple.com", "ana@example.com,ben@example.com",
        "ana@-example.com", "ana@example.com.", ".ana@example.com", "a..b@example.com", "ana@example.com\n",
        "ana\u202e@example.com", "аna@example.com", "ana@[127.0.0.1]", "<ana@example.com>", "a" * 250 + "@b.cc",
    ],
)  # fmt: skip
def test_a_bad_email_is_refused(email: str) -> None:
    # Surrounding white space is the XML's, not the name's.
    expected = "" if email != email.strip() else "bad_email"
    if expected:
        assert reason([attribute("email", email)]) == expected
    else:
        assert identify(NameId(), [attribute("email", email)], CORP).email == email.strip()


def test_one_email_twice_is_one_email_and_two_are_refused() -> None:
    twice = [attribute("email", "ana@example.com", "ANA@example.com")]
    assert identify(NameId(), twice, CORP).email == "ana@example.com"
    assert reason([attribute("email", "ana@example.com"), attribute("Email", "ben@example.com")]) == "bad_email"


def test_a_link_instead_of_groups_is_said() -> None:
    link = attribute("http://schemas.microsoft.com/claims/groups.link", "https://graph.example/ana")
    assert reason([*said(email="ana@example.com"), link]) == "groups_left_out"
    assert identify(NameId(), [*said(email="ana@example.com", groups="ops"), link], CORP).groups == {"ops"}


@given(st.text(), st.text(), st.text())
def test_whatever_is_said_is_clean_or_refused(email: str, name: str, group: str) -> None:
    attributes = [attribute("email", email), attribute("name", name), attribute("groups", group)]
    try:
        found = identify(NameId(), attributes, CORP)
    except AssertionRefusedError:
        return
    assert found.email == found.email.lower()
    assert found.email.isascii()
    assert found.name
    assert "\n" not in found.name + "".join(found.groups)
