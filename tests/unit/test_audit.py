"""The chain finds an altered, missing, re-chained or cut event."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from access.audit import AuditEvent, Event, Head, Kind, as_json, chain, verify
from tests.values import NOW


def a_log(count: int) -> list[AuditEvent]:
    log: list[AuditEvent] = []
    head = Head()
    for number in range(count):
        event = Event(kind=Kind.REQUEST_SUBMITTED, at=NOW, actor="P-ana", details={"number": str(number)})
        log.append(chain(head, event))
        head = Head(sequence=log[-1].sequence, hash=log[-1].hash)
    return log


def head_of(log: list[AuditEvent]) -> Head:
    return Head(sequence=log[-1].sequence, hash=log[-1].hash)


def test_a_whole_log_is_whole() -> None:
    log = a_log(20)
    assert verify(log) == []
    assert verify(log, witness=head_of(log)) == []
    assert verify(log, witness=head_of(log[:7])) == []
    assert verify([]) == []


@given(at=st.integers(0, 9), what=st.sampled_from(["actor", "actor_name", "request_id", "server", "details", "at"]))
def test_any_alteration_is_found(at: int, what: str) -> None:
    log = a_log(10)
    changed = {"details": {"number": "x"}, "at": NOW.replace(microsecond=1)}.get(what, "somebody else")
    log[at] = replace(log[at], event=replace(log[at].event, **{what: changed}))  # type: ignore[arg-type]
    assert verify(log) == [f"Event {at + 1} was altered: its content does not match its hash."]


@given(at=st.integers(0, 8))
def test_a_missing_event_is_found(at: int) -> None:
    log = a_log(10)
    del log[at]
    assert verify(log)


def test_a_cut_end_is_found_against_the_channel_only() -> None:
    log = a_log(10)
    assert verify(log[:6]) == []
    assert verify(log[:6], witness=head_of(log)) == [
        "The log ends at event 6, the channel saw event 10: the end is cut off."
    ]


def test_a_chain_written_anew_is_found_against_the_channel_only() -> None:
    forged: list[AuditEvent] = []
    head = Head()
    for old in a_log(10):
        forged.append(chain(head, replace(old.event, actor="P-mallory")))
        head = Head(sequence=forged[-1].sequence, hash=forged[-1].hash)
    assert verify(forged) == []
    assert verify(forged, witness=head_of(a_log(10))) == [
        "Event 10 is not the one the channel saw: the chain was rewritten."
    ]


def test_the_export_holds_everything_the_hash_covers() -> None:
    exported = as_json(a_log(1)[0])
    assert set(exported) == {
        "sequence", "previous", "at", "kind", "actor", "actor_name", "request_id", "server", "details", "hash",
    }  # fmt: skip
