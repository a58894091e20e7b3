"""Reading who somebody is out of a validated assertion."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from identity import providers
from identity.conditions import Text
from identity.errors import AssertionRefusedError
from identity.providers import IdentityProvider

_TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
_EMAIL_FORMAT = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_EMAIL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+")
_MAX_EMAIL = 254  # RFC 5321, 4.5.3.1.3
_MAX_SUBJECT = 256  # SAML core, 8.3.7
_MAX_NAME = 200
_MAX_GROUP = 256

Attributes = Mapping[str, tuple[str, ...]]


class NameId(Protocol):
    """pysaml2's NameID."""

    text: str | None
    format: str | None


class Attribute(Protocol):
    """pysaml2's Attribute."""

    name: str | None
    friendly_name: str | None
    attribute_value: list[Text]


@dataclass(frozen=True, kw_only=True, slots=True)
class Identified:
    """Who the identity provider says somebody is."""

    subject: str
    email: str
    name: str
    groups: frozenset[str]


def identify(name_id: NameId | None, attributes: Iterable[Attribute], provider: IdentityProvider) -> Identified:
    """Read subject, email, name and groups; raises AssertionRefusedError for what is missing or unusable."""
    said = _by_name(attributes)
    if not _values(said, provider.group_attributes) and _values(said, providers.GROUPS_LEFT_OUT_ATTRIBUTES):
        raise AssertionRefusedError("groups_left_out")
    email = _email(name_id, said, provider)
    return Identified(
        subject=_subject(name_id, said, provider),
        email=email,
        name=_name(said, provider) or email,
        groups=_groups(said, provider),
    )


def _by_name(attributes: Iterable[Attribute]) -> dict[str, tuple[str, ...]]:
    said: dict[str, tuple[str, ...]] = {}
    for attribute in attributes:
        values = tuple(text for value in attribute.attribute_value if (text := (value.text or "").strip()))
        # One attribute may be named twice over; its friendly name adds nothing then.
        for name in {(attribute.name or "").lower(), (attribute.friendly_name or "").lower()} - {""}:
            said[name] = said.get(name, ()) + values
    return said


def _values(said: Attributes, names: Iterable[str]) -> tuple[str, ...]:
    """The values of the first of these names that has any."""
    return next((values for name in names if (values := said.get(name.lower()))), ())


def _email(name_id: NameId | None, said: Attributes, provider: IdentityProvider) -> str:
    found = {value.lower() for value in _values(said, provider.email_attributes)}
    if not found and name_id is not None and name_id.format == _EMAIL_FORMAT and name_id.text:
        found = {name_id.text.strip().lower()}
    if not found:
        raise AssertionRefusedError("no_email")
    email = found.pop()
    if found or len(email) > _MAX_EMAIL or not _EMAIL.fullmatch(email):
        raise AssertionRefusedError("bad_email")
    return email


def _subject(name_id: NameId | None, said: Attributes, provider: IdentityProvider) -> str:
    if provider.subject_attribute:
        values = set(_values(said, (provider.subject_attribute,)))
        subject = values.pop() if len(values) == 1 else ""
    elif name_id is not None and name_id.format == _TRANSIENT:
        raise AssertionRefusedError("transient_subject")
    else:
        subject = ((name_id.text if name_id else "") or "").strip()
    if not subject or len(subject) > _MAX_SUBJECT or subject != _printable(subject):
        raise AssertionRefusedError("subject")
    return subject


def _name(said: Attributes, provider: IdentityProvider) -> str:
    whole = _values(said, provider.name_attributes)[:1]
    parts = whole or (
        *_values(said, providers.GIVEN_NAME_ATTRIBUTES)[:1],
        *_values(said, providers.FAMILY_NAME_ATTRIBUTES)[:1],
    )
    return _printable(" ".join(parts))[:_MAX_NAME].strip()


def _groups(said: Attributes, provider: IdentityProvider) -> frozenset[str]:
    values = _values(said, provider.group_attributes)
    if any(len(value) > _MAX_GROUP or value != _printable(value) for value in values):
        raise AssertionRefusedError("group_name")
    return frozenset(values)


def _printable(text: str) -> str:
    """Without controls, line breaks and characters that turn the reading direction."""
    return "".join(char for char in text if unicodedata.category(char) not in {"Cc", "Cf", "Zl", "Zp", "Cs"})
