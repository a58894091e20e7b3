"""The conditions of an assertion at their edges, with the clock in our hand."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from identity.conditions import (
    BEARER,
    CLOCK_SKEW,
    ConfirmationText,
    Expected,
    Restriction,
    Text,
    check_conditions,
    check_confirmation,
    check_issuer,
    check_window,
)
from identity.errors import AssertionRefusedError

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
EXPECTED = Expected(request_id="_r", issuer="https://idp", entity_id="https://sp", acs_url="https://sp/acs", now=NOW)


@dataclass(kw_only=True)
class Words:
    text: str | None


@dataclass(kw_only=True)
class Audiences:
    audience: list[Text]


@dataclass(kw_only=True)
class Said:
    in_response_to: str | None = "_r"
    recipient: str | None = "https://sp/acs"
    not_before: str | None = None
    not_on_or_after: str | None = "2026-11-21T12:05:00Z"


@dataclass(kw_only=True)
class Confirmed:
    method: str | None = BEARER
    subject_confirmation_data: ConfirmationText | None = field(default_factory=Said)


@dataclass(kw_only=True)
class Limits:
    not_before: str | None = None
    not_on_or_after: str | None = None
    audience_restriction: list[Restriction] = field(default_factory=list)


def _stamp(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def _audiences(*names: str) -> Audiences:
    return Audiences(audience=[Words(text=name) for name in names])


@pytest.mark.parametrize("issuer", [None, Words(text=None), Words(text="https://idp/"), Words(text="https://IDP")])
def test_another_issuer(issuer: Words | None) -> None:
    with pytest.raises(AssertionRefusedError) as refused:
        check_issuer(issuer, EXPECTED)
    assert refused.value.reason == "issuer"


def test_the_issuer_that_was_asked() -> None:
    check_issuer(Words(text="\n https://idp "), EXPECTED)


def test_the_window_is_open_up_to_the_skew_and_no_longer() -> None:
    start, end = NOW + CLOCK_SKEW, NOW - CLOCK_SKEW + SECOND
    assert check_window(_stamp(start), _stamp(end), NOW) == end
    for before, after, reason in (
        (start + SECOND, NOW + CLOCK_SKEW, "not_yet_valid"),
        (NOW, end - SECOND, "expired"),
    ):
        with pytest.raises(AssertionRefusedError) as refused:
            check_window(_stamp(before), _stamp(after), NOW)
        assert refused.value.reason == reason


def test_no_window_is_always_open() -> None:
    assert check_window(None, None, NOW) is None


@pytest.mark.parametrize("text", ["2026-11-21T12:05:00.1234567Z", "2026-11-21T13:05:00+01:00"])
def test_fractions_and_offsets_are_understood(text: str) -> None:
    end = check_window(None, text, NOW)
    assert end is not None
    assert end - NOW < timedelta(minutes=5, seconds=1)


@pytest.mark.parametrize("text", ["tomorrow", "2026-11-21T12:05:00", "12:05", "2026-13-01T00:00:00Z", "-1"])
def test_malformed_times(text: str) -> None:
    with pytest.raises(AssertionRefusedError) as refused:
        check_window(None, text, NOW)
    assert refused.value.reason == "malformed_time"


def test_every_audience_restriction_must_name_us() -> None:
    ours = _audiences("https://other", "https://sp")
    check_conditions(Limits(audience_restriction=[ours, _audiences("https://sp")]), EXPECTED)
    for restrictions in ([], [_audiences()], [ours, _audiences("https://other")], [_audiences("https://sp.evil")]):
        with pytest.raises(AssertionRefusedError) as refused:
            check_conditions(Limits(audience_restriction=list(restrictions)), EXPECTED)
        assert refused.value.reason == "audience"


@pytest.mark.parametrize(
    ("confirmed", "reason"),
    [
        (Confirmed(method="urn:oasis:names:tc:SAML:2.0:cm:sender-vouches"), "subject_confirmation"),
        (Confirmed(subject_confirmation_data=None), "subject_confirmation"),
        (Confirmed(subject_confirmation_data=Said(not_on_or_after=None)), "subject_confirmation"),
        (Confirmed(subject_confirmation_data=Said(in_response_to=None)), "in_response_to"),
        (Confirmed(subject_confirmation_data=Said(in_response_to="_R")), "in_response_to"),
        (Confirmed(subject_confirmation_data=Said(recipient=None)), "recipient"),
        (Confirmed(subject_confirmation_data=Said(recipient="https://sp/acs/")), "recipient"),
    ],
)
def test_one_bad_confirmation_spoils_the_good_one(confirmed: Confirmed, reason: str) -> None:
    assert check_confirmation([Confirmed()], EXPECTED) == NOW + timedelta(minutes=5)
    with pytest.raises(AssertionRefusedError) as refused:
        check_confirmation([Confirmed(), confirmed], EXPECTED)
    assert refused.value.reason == reason
