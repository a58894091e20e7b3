"""Bad claims: what each tampering changes in a response before it is signed."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from lxml import etree

from sandbox.idp.tamper import Tamper
from sandbox.idp.wheel import SAML, SAMLP, Element

Change = Callable[[Element], None]

_FORMAT = "urn:oasis:names:tc:SAML:2.0:nameid-format:"
_EMAIL_FORMAT = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
_LEFT_OUT = "http://schemas.microsoft.com/claims/groups.link"


def assertion_of(root: Element) -> Element:
    """The response's first assertion."""
    return root.find(f"{SAML}Assertion")


def confirmation_of(root: Element) -> Element:
    """The assertion's SubjectConfirmationData."""
    return root.find(f".//{SAML}SubjectConfirmationData")


def stamp(offset: timedelta) -> str:
    """A SAML time, this far from now."""
    return (datetime.now(UTC) + offset).strftime("%Y-%m-%dT%H:%M:%SZ")


def set_times(root: Element, start: timedelta, end: timedelta) -> None:
    """Let the assertion hold from start to end, both counted from now."""
    conditions = root.find(f".//{SAML}Conditions")
    conditions.set("NotBefore", stamp(start))
    conditions.set("NotOnOrAfter", stamp(end))
    confirmation_of(root).set("NotOnOrAfter", stamp(end))


def values_of(root: Element, *words: str) -> list[Element]:
    """The AttributeValues of the attributes whose name has one of these words in it."""
    return [
        value
        for attribute in root.iter(f"{SAML}Attribute")
        if any(word in attribute.get("Name", "").lower() for word in words)
        for value in attribute
    ]


def email_values(root: Element) -> list[Element]:
    """The values that hold the email."""
    return values_of(root, "mail", "0.9.2342.19200300.100.1.3")


def group_values(root: Element) -> list[Element]:
    """The values that hold groups."""
    return values_of(root, "group", "1.3.6.1.4.1.5923.1.5.1.1")


def _set(path: str, name: str, value: str | None) -> Change:
    def change(root: Element) -> None:
        element = root if path == "." else root.find(path)
        if value is None:
            element.attrib.pop(name)
        else:
            element.set(name, value)

    return change


def _text(path: str, text: str) -> Change:
    def change(root: Element) -> None:
        for element in root.iterfind(path):
            element.text = text

    return change


def _remove(path: str) -> Change:
    def change(root: Element) -> None:
        for element in root.findall(path):
            element.getparent().remove(element)

    return change


def _in_response_to(value: str | None) -> Change:
    def change(root: Element) -> None:
        _set(".", "InResponseTo", value)(root)
        _set(f".//{SAML}SubjectConfirmationData", "InResponseTo", value)(root)

    return change


def _times(start: timedelta, end: timedelta) -> Change:
    return lambda root: set_times(root, start, end)


def _other_issuer(root: Element) -> None:
    for issuer in root.iter(f"{SAML}Issuer"):
        issuer.text = "https://idp.other.example/metadata"


def _second_restriction(root: Element) -> None:
    restriction = root.find(f".//{SAML}AudienceRestriction")
    other = copy.deepcopy(restriction)
    other.find(f"{SAML}Audience").text = "https://other.example/metadata"
    restriction.addnext(other)


def _name_id(format_: str, text: str | None) -> Change:
    def change(root: Element) -> None:
        name = root.find(f".//{SAML}NameID")
        name.set("Format", format_)
        name.text = text if text is not None else name.text

    return change


def _no_email(root: Element) -> None:
    for value in email_values(root):
        value.getparent().getparent().remove(value.getparent())


def _no_email_but_name_id(root: Element) -> None:
    email = email_values(root)[0].text
    _no_email(root)
    _name_id(_EMAIL_FORMAT, email)(root)


def _two_emails(root: Element) -> None:
    value = email_values(root)[0]
    other = copy.deepcopy(value)
    other.text = "mallory@example.org"
    value.addnext(other)


def _bad_email(root: Element) -> None:
    email_values(root)[0].text = "ana@example.com@example.org"


def _groups_left_out(root: Element) -> None:
    values = group_values(root)
    values[0].getparent().set("Name", _LEFT_OUT)
    values[0].getparent().attrib.pop("FriendlyName", None)


def _control_in_group(root: Element) -> None:
    group_values(root)[0].text = "payments\u202eleads"


def _two_assertions(root: Element) -> None:
    other = copy.deepcopy(assertion_of(root))
    other.set("ID", "_second")
    assertion_of(root).addnext(other)


def _nested(root: Element) -> None:
    inner = copy.deepcopy(assertion_of(root))
    inner.set("ID", "_inner")
    advice = etree.Element(f"{SAML}Advice")
    advice.append(inner)
    root.find(f".//{SAML}Conditions").addnext(advice)


def _repeated_id(root: Element) -> None:
    assertion_of(root).set("ID", root.get("ID"))


def _failed_status(root: Element) -> None:
    _set(f"{SAMLP}Status/{SAMLP}StatusCode", "Value", "urn:oasis:names:tc:SAML:2.0:status:Responder")(root)
    _remove(f"{SAML}Assertion")(root)


def _expired_confirmation(root: Element) -> None:
    confirmation_of(root).set("NotOnOrAfter", stamp(timedelta(minutes=-10)))


_DATA = f".//{SAML}SubjectConfirmationData"

CLAIMS: dict[Tamper, Change] = {
    Tamper.FAILED_STATUS: _failed_status,
    Tamper.OTHER_ISSUER: _other_issuer,
    Tamper.OTHER_AUDIENCE: _text(f".//{SAML}Audience", "https://other.example/metadata"),
    Tamper.NO_AUDIENCE: _remove(f".//{SAML}AudienceRestriction"),
    Tamper.TWO_AUDIENCE_RESTRICTIONS: _second_restriction,
    Tamper.NO_CONDITIONS: _remove(f".//{SAML}Conditions"),
    Tamper.OTHER_DESTINATION: _set(".", "Destination", "https://other.example/saml/acs"),
    Tamper.NO_DESTINATION: _set(".", "Destination", None),
    Tamper.OTHER_RECIPIENT: _set(_DATA, "Recipient", "https://other.example/saml/acs"),
    Tamper.NO_RECIPIENT: _set(_DATA, "Recipient", None),
    Tamper.UNSOLICITED: _in_response_to(None),
    Tamper.OTHER_IN_RESPONSE_TO: _in_response_to("_another-request"),
    Tamper.OTHER_CONFIRMATION_IN_RESPONSE_TO: _set(_DATA, "InResponseTo", "_another-request"),
    Tamper.ENCRYPTED_OTHER_REQUEST: _set(_DATA, "InResponseTo", "_another-request"),
    Tamper.NO_CONFIRMATION: _remove(f".//{SAML}SubjectConfirmation"),
    Tamper.HOLDER_OF_KEY: _set(
        f".//{SAML}SubjectConfirmation", "Method", "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"
    ),
    Tamper.NO_EXPIRY: _set(_DATA, "NotOnOrAfter", None),
    Tamper.EXPIRED: _times(timedelta(minutes=-15), timedelta(minutes=-10)),
    Tamper.EXPIRED_CONFIRMATION: _expired_confirmation,
    Tamper.NOT_YET_VALID: _times(timedelta(minutes=10), timedelta(minutes=15)),
    Tamper.SLIGHTLY_LATE: _times(timedelta(minutes=-5), timedelta(seconds=-20)),
    Tamper.MALFORMED_TIME: _set(f".//{SAML}Conditions", "NotOnOrAfter", "tomorrow"),
    Tamper.NO_TIME_ZONE: _set(f".//{SAML}Conditions", "NotOnOrAfter", "2999-01-01T00:00:00"),
    Tamper.TRANSIENT_NAME_ID: _name_id(f"{_FORMAT}transient", "_one-time-name"),
    Tamper.EMPTY_NAME_ID: _name_id(f"{_FORMAT}persistent", " "),
    Tamper.NO_NAME_ID: _remove(f".//{SAML}NameID"),
    Tamper.NO_EMAIL: _no_email,
    Tamper.NO_EMAIL_BUT_NAME_ID: _no_email_but_name_id,
    Tamper.TWO_EMAILS: _two_emails,
    Tamper.BAD_EMAIL: _bad_email,
    Tamper.GROUPS_LEFT_OUT: _groups_left_out,
    Tamper.CONTROL_IN_GROUP: _control_in_group,
    Tamper.TWO_ASSERTIONS: _two_assertions,
    Tamper.NO_ASSERTION: _remove(f"{SAML}Assertion"),
    Tamper.NESTED_ASSERTION: _nested,
    Tamper.REPEATED_ID: _repeated_id,
}
