"""What a signed assertion must say before it counts: from whom, for whom, when, in answer to what."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from identity.errors import AssertionRefusedError

BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
CLOCK_SKEW = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What the answer to one AuthnRequest has to be."""

    request_id: str
    issuer: str
    entity_id: str
    acs_url: str
    now: datetime


class Text(Protocol):
    """An element of pysaml2 with text in it."""

    text: str | None


class ConfirmationText(Protocol):
    """pysaml2's SubjectConfirmationData."""

    in_response_to: str | None
    recipient: str | None
    not_before: str | None
    not_on_or_after: str | None


class Confirmation(Protocol):
    """pysaml2's SubjectConfirmation."""

    method: str | None
    subject_confirmation_data: ConfirmationText | None


class Restriction(Protocol):
    """pysaml2's AudienceRestriction."""

    audience: list[Text]


class Conditions(Protocol):
    """pysaml2's Conditions."""

    not_before: str | None
    not_on_or_after: str | None
    audience_restriction: list[Restriction]


def check_issuer(issuer: Text | None, expected: Expected) -> None:
    """Require the identity provider that was asked; raises AssertionRefusedError."""
    if issuer is None or (issuer.text or "").strip() != expected.issuer:
        raise AssertionRefusedError("issuer")


def check_conditions(conditions: Conditions | None, expected: Expected) -> datetime | None:
    """Require our audience and a time that includes now, and return the end; raises AssertionRefusedError."""
    if conditions is None or not conditions.audience_restriction:
        raise AssertionRefusedError("audience")
    for restriction in conditions.audience_restriction:
        if expected.entity_id not in [(audience.text or "").strip() for audience in restriction.audience]:
            raise AssertionRefusedError("audience")
    return check_window(conditions.not_before, conditions.not_on_or_after, expected.now)


def check_confirmation(confirmations: list[Confirmation], expected: Expected) -> datetime:
    """Require bearer confirmations for us, now, and return the latest end; raises AssertionRefusedError."""
    ends = [_end_of(confirmation, expected) for confirmation in confirmations]
    if not ends:
        raise AssertionRefusedError("subject_confirmation")
    return max(ends)


def check_window(not_before: str | None, not_on_or_after: str | None, now: datetime) -> datetime | None:
    """Require now to lie between two SAML times, and return the later one; raises AssertionRefusedError."""
    if not_before and now + CLOCK_SKEW < _instant(not_before):
        raise AssertionRefusedError("not_yet_valid")
    if not not_on_or_after:
        return None
    end = _instant(not_on_or_after)
    if now - CLOCK_SKEW >= end:
        raise AssertionRefusedError("expired")
    return end


def _end_of(confirmation: Confirmation, expected: Expected) -> datetime:
    said = confirmation.subject_confirmation_data
    if confirmation.method != BEARER or said is None:
        raise AssertionRefusedError("subject_confirmation")
    if said.in_response_to != expected.request_id:
        raise AssertionRefusedError("in_response_to")
    if said.recipient != expected.acs_url:
        raise AssertionRefusedError("recipient")
    end = check_window(said.not_before, said.not_on_or_after, expected.now)
    if end is None:
        raise AssertionRefusedError("subject_confirmation")
    return end


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError:
        raise AssertionRefusedError("malformed_time") from None
    if instant.tzinfo is None:
        raise AssertionRefusedError("malformed_time")
    return instant
