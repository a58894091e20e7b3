"""The audit channel's words: a line per event, in order, nothing smuggled in, nothing left unsaid."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from access.audit import GENESIS, AuditEvent, Event, Head, Kind, chain
from handlers.audit_lines import MAX_LINE, MAX_MESSAGE, TEMPLATES, bundle, line
from sandbox.slack.mrkdwn import pings, plain
from tests.values import NOW, a_request, a_server

AT = NOW + timedelta(minutes=4, seconds=5)
REQUEST = a_request(servers=(a_server("web-1"),))


def an_event(kind: Kind, **changes: object) -> Event:
    event = Event(kind=kind, at=AT, actor="P-ben", actor_name="Ben Ito", request_id="AR-7F3K")
    return replace(event, **changes)  # type: ignore[arg-type]


def said(event: Event, *, sequence: int = 12) -> str:
    return line(AuditEvent(sequence=sequence, event=event, previous=GENESIS, hash=GENESIS), REQUEST)


def test_approval() -> None:
    event = an_event(Kind.REQUEST_APPROVED, details={"requester": "Ana Ruiz"})
    assert said(event) == "#12 03:04:05Z Ben Ito approved AR-7F3K (Ana Ruiz, web-1) · rule prod-root"


def test_submission_says_what_was_asked() -> None:
    details = {"servers": "web-1 (a/b/i-1)", "duration": "2 h", "reason": "INC-1", "rule": "prod-root"}
    details |= {"rights": "sudo", "email": "ana@example.com"}
    event = an_event(Kind.REQUEST_SUBMITTED, actor="P-ana", actor_name="Ana Ruiz", details=details)
    assert said(event) == ("#12 03:04:05Z Ana Ruiz asked for AR-7F3K (web-1) · 2 h · sudo · rule prod-root: “INC-1”")


def test_late_removal_is_shouted() -> None:
    event = an_event(
        Kind.GRANT_REMOVAL_LATE,
        actor="passport",
        actor_name="",
        server=REQUEST.servers[0].key,
        details={"reason": "web-1 does not answer.", "attempts": "3", "user": "pp-7f3k"},
    )
    assert said(event) == (
        "#12 03:04:05Z :rotating_light: web-1 does not answer. So I cannot prove that the user pp-7f3k of Ana Ruiz "
        "is gone from web-1 (AR-7F3K). I go on trying; attempts so far: 3"
    )


def test_what_the_sentence_leaves_out_is_added() -> None:
    event = an_event(Kind.GRANT_REMOVED, server=REQUEST.servers[0].key, details={"swept": "yes", "left_files": "3"})
    assert said(event).endswith("web-1 is closed to Ana Ruiz (AR-7F3K) · swept yes · left files 3")


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_its_words(kind: Kind) -> None:
    assert kind in TEMPLATES
    text = said(an_event(kind, details={"reason": "because", "extra": "all of it"}))
    assert text.startswith("#12 03:04:05Z ")
    assert "because" in text
    assert "extra all of it" in text


def test_somebody_unlinked_is_named_without_a_ping() -> None:
    text = said(an_event(Kind.REFUSED, actor="slack:T0/U0EVE", actor_name="", request_id=""))
    assert "Somebody unlinked (slack:T0/U0EVE)" in text
    assert pings(text) == ()


def test_a_reason_cannot_forge_a_line_or_a_ping() -> None:
    reason = "x\n#13 03:04:06Z Ben Ito approved\u2028AR-1 <!channel> <@U0BEN>\x85y"
    text = said(an_event(Kind.REQUEST_DENIED, details={"reason": reason}))
    assert len(text.splitlines()) == 1
    assert pings(text) == ()
    assert "<!channel> <@U0BEN>" in plain(text)


def test_a_long_reason_is_cut_visibly() -> None:
    text = said(an_event(Kind.REQUEST_DENIED, details={"reason": "why " * 250}))
    assert len(text) < 400
    assert "…”" in text


EVENTS = st.builds(
    an_event,
    st.sampled_from(Kind),
    actor_name=st.text(max_size=300),
    server=st.text(max_size=300),
    details=st.dictionaries(st.text(max_size=60), st.text(max_size=1000), max_size=30),
)


@settings(max_examples=100, deadline=None)
@given(event=EVENTS)
def test_a_line_is_one_line_within_bounds(event: Event) -> None:
    text = said(event)
    assert len(text.splitlines()) == 1
    assert len(text) <= MAX_LINE
    assert pings(text) == ()


@settings(max_examples=50, deadline=None)
@given(events=st.lists(EVENTS, min_size=1, max_size=60))
def test_bundles_hold_every_event_once_in_order_and_end_with_the_head(events: list[Event]) -> None:
    log: list[AuditEvent] = []
    for event in events:
        last = Head(sequence=log[-1].sequence, hash=log[-1].hash) if log else Head()
        log.append(chain(last, event))
    rest, seen = list(log), list[int]()
    while rest:
        made = bundle(rest, {REQUEST.id: REQUEST})
        *lines, witness = made.text.splitlines()
        seen += [int(found[1]) for text in lines if (found := re.match(r"#(\d+) ", text))]
        assert len(made.text) <= MAX_MESSAGE
        assert witness == f"`passport audit verify --head {made.head.sequence}:{made.head.hash}`"
        assert made.head.hash == log[made.head.sequence - 1].hash
        rest = [found for found in rest if found.sequence > made.head.sequence]
    assert seen == [found.sequence for found in log]
