"""The audit log: chained in the order of the commits, and nothing in it can be changed."""

import sqlite3
import threading
from datetime import timedelta
from itertools import chain

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from access.audit import AuditEvent, Event, Head, Kind, verify
from storage.errors import UnreadableError
from storage.repositories import audit
from storage.unit_of_work import SqlStore
from tests.postgres import PostgresServer
from tests.stores import run_together
from tests.values import NOW

MINUTE = timedelta(minutes=1)
OVERWRITE = (
    "INSERT INTO audit_events (sequence, at, kind, actor, actor_name, request_id, server, details, previous, hash)"
    " SELECT sequence, at, kind, 'P-mallory', actor_name, request_id, server, details, previous, hash"
    " FROM audit_events WHERE sequence = 1"
)
CHANGES = [
    "UPDATE audit_events SET actor = 'P-mallory' WHERE sequence = 1",
    "UPDATE audit_events SET sequence = sequence + 100",
    "DELETE FROM audit_events WHERE sequence = 3",
    "DELETE FROM audit_events",
    OVERWRITE.replace("WHERE", "WHERE true AND") + " ON CONFLICT (sequence) DO UPDATE SET actor = 'P-mallory'",
]


def an_event(number: int = 1, **changes: object) -> Event:
    values: dict[str, object] = {
        "kind": Kind.REQUEST_SUBMITTED,
        "at": NOW + timedelta(microseconds=number),
        "actor": "P-ana",
        "actor_name": "Ana Ruiz",
        "request_id": f"AR-{number}",
        "server": "web-1",
        "details": {"reason": "disk full", "number": str(number)},
    }
    return Event(**(values | changes))  # type: ignore[arg-type]


def write(store: SqlStore, *events: Event) -> None:
    with store.unit_of_work() as work:
        for event in events:
            work.record(event)
        work.commit()


def read(store: SqlStore) -> list[AuditEvent]:
    with store.unit_of_work(read_only=True) as work:
        return list(work.audit.all())


def test_recorded_events_are_chained_in_their_order(store: SqlStore) -> None:
    write(store, an_event(1), an_event(2))
    write(store, an_event(3))

    events = read(store)
    assert [found.event for found in events] == [an_event(1), an_event(2), an_event(3)]
    assert [found.sequence for found in events] == [1, 2, 3]
    assert verify(events) == []
    with store.unit_of_work(read_only=True) as work:
        assert work.audit.head() == Head(sequence=3, hash=events[-1].hash)


def test_each_commit_of_a_unit_of_work_writes_its_own_events(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.record(an_event(1))
        work.commit()
        work.record(an_event(2))
        work.commit()
        work.record(an_event(3))

    assert [found.event for found in read(store)] == [an_event(1), an_event(2)]


def test_events_of_many_threads_make_one_chain_without_gaps(store: SqlStore) -> None:
    def run(thread: int) -> None:
        for number in range(20):
            write(store, an_event(number, actor=f"P-{thread}"), an_event(number, actor=f"P-{thread}"))

    run_together(*[lambda thread=thread: run(thread) for thread in range(8)])

    events = read(store)
    assert [found.sequence for found in events] == list(range(1, 321))
    assert verify(events) == []
    for thread in range(8):
        own = [found.event.at for found in events if found.event.actor == f"P-{thread}"]
        assert own == sorted(own)


def test_a_reader_with_a_cursor_misses_nothing_while_others_write(store: SqlStore) -> None:
    done = threading.Event()

    def write_many() -> list[int]:
        for number in range(60):
            write(store, an_event(number))
        return []

    def write_until_done() -> list[int]:
        run_together(*[write_many] * 3)
        done.set()
        return []

    def follow() -> list[int]:
        seen: list[int] = []
        last_look = False
        while not last_look:
            last_look = done.is_set()
            with store.unit_of_work(read_only=True) as work:
                seen += [found.sequence for found in work.audit.after(seen[-1] if seen else 0, 7)]
        with store.unit_of_work(read_only=True) as work:
            return seen + [found.sequence for found in work.audit.after(seen[-1], 1000)]

    assert list(chain.from_iterable(run_together(write_until_done, follow))) == list(range(1, 181))


@pytest.mark.postgres
def test_a_unit_of_work_that_recorded_nothing_leaves_the_head_alone(postgres_store: SqlStore) -> None:
    with postgres_store.unit_of_work() as holder:
        holder._log.append([an_event()])  # holds the head's lock
        with postgres_store.unit_of_work() as work:
            work.audit.advance("slack", 5)
            work.commit()
        assert work is not holder
        holder.commit()
    assert len(read(postgres_store)) == 1


def test_what_no_database_holds_is_chained_as_it_is_kept(store: SqlStore) -> None:
    write(
        store,
        an_event(actor_name="a\x00\ud800é💾", details={"k\x00": "\udfff v"}, server="\x00"),
        an_event(actor_name="e\u0301 \u202e <!channel>"),
    )

    events = read(store)
    assert verify(events) == []
    assert events[0].event.actor_name == "a\ufffd\ufffdé💾"
    assert events[0].event.details == {"k\ufffd": "\ufffd v"}
    assert events[1].event.actor_name == "e\u0301 \u202e <!channel>"


def test_the_log_is_read_by_request_and_page_by_page(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE", 3)
    write(store, *[an_event(number, request_id=f"AR-{number % 2}") for number in range(8)])

    assert [found.sequence for found in read(store)] == list(range(1, 9))
    with store.unit_of_work(read_only=True) as work:
        assert [found.sequence for found in work.audit.of("AR-1")] == [2, 4, 6, 8]
        assert [found.sequence for found in work.audit.after(5, 2)] == [6, 7]
        assert work.audit.after(8, 2) == []


def test_a_cursor_goes_forward_only(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        assert work.audit.cursor("slack") == 0
        work.audit.advance("slack", 5)
        work.audit.advance("slack", 3)
        work.audit.advance("other", 1)
        work.commit()
    with store.unit_of_work(read_only=True) as work:
        assert (work.audit.cursor("slack"), work.audit.cursor("other")) == (5, 1)


def test_a_readers_role_has_one_owner_at_a_time(store: SqlStore) -> None:
    def claim(owner: str, *, after: timedelta = timedelta()) -> bool:
        with store.unit_of_work() as work:
            claimed = work.audit.claim_reader("slack", owner=owner, now=NOW + after, until=NOW + after + MINUTE)
            work.commit()
        return claimed

    assert sorted(run_together(lambda: claim("one"), lambda: claim("two"), lambda: claim("three"))).count(True) == 1
    with store.unit_of_work() as work:
        work.audit.advance("slack", 4)
        work.commit()
    assert claim("four", after=MINUTE)
    assert not claim("one", after=MINUTE)
    assert claim("four", after=2 * MINUTE - timedelta(microseconds=1))
    with store.unit_of_work(read_only=True) as work:
        assert work.audit.cursor("slack") == 4


@pytest.mark.parametrize("change", [*CHANGES, OVERWRITE.replace("INSERT", "INSERT OR REPLACE", 1)])
@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_sqlite_refuses_to_change_the_log_on_any_connection(
    sqlite_store: SqlStore, sqlite_url: str, change: str, recursive: str
) -> None:
    write(sqlite_store, an_event(1), an_event(2), an_event(3))
    before = read(sqlite_store)
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute(f"PRAGMA recursive_triggers={recursive}")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(change)
    connection.close()

    assert read(sqlite_store) == before


@pytest.mark.postgres
@pytest.mark.parametrize("change", [*CHANGES, "TRUNCATE audit_events", "TRUNCATE audit_head, audit_events CASCADE"])
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_postgresql_refuses_to_change_the_log_in_any_session(
    postgres_store: SqlStore, postgres_server: PostgresServer, postgres_url: str, change: str, role: str
) -> None:
    write(postgres_store, an_event(1), an_event(2), an_event(3))
    before = read(postgres_store)
    with postgres_server.connect(postgres_url.rpartition("/")[2]) as connection:
        connection.execute(f"SET session_replication_role = {role}".encode())
        with pytest.raises(psycopg.IntegrityError, match="append-only"):
            connection.execute(change.encode())

    assert read(postgres_store) == before


def test_an_event_cannot_be_pushed_in_before_the_last(sqlite_store: SqlStore, sqlite_url: str) -> None:
    write(sqlite_store, an_event(1))
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(OVERWRITE.replace("SELECT sequence", "SELECT -5"))
    connection.close()


@pytest.mark.parametrize("place", ["SELECT sequence + 2", "SELECT sequence + 1"])
def test_an_event_that_does_not_follow_the_head_is_refused(store: SqlStore, place: str) -> None:
    """One further on leaves a gap; the next one would need the head's hash as its previous."""
    write(store, an_event(1))
    with store.unit_of_work() as work, pytest.raises(IntegrityError, match="append-only, after its head"):
        work._connection.execute(text(OVERWRITE.replace("SELECT sequence", place)))
    write(store, an_event(2))

    assert [found.sequence for found in read(store)] == [1, 2]
    assert verify(read(store)) == []


@pytest.mark.parametrize(
    ("tampering", "finding"),
    [
        ("UPDATE audit_events SET actor = 'P-mallory' WHERE sequence = 2", "Event 2 was altered"),
        ("DELETE FROM audit_events WHERE sequence = 2", "Between event 1 and event 3 something is missing"),
        ("UPDATE audit_events SET sequence = -1 WHERE sequence = 1", "something is missing"),
    ],
)
def test_who_gets_past_the_triggers_is_found_by_the_chain(store: SqlStore, tampering: str, finding: str) -> None:
    write(store, an_event(1), an_event(2), an_event(3))
    tamper(store, tampering)

    assert finding in verify(read(store))[0]


@pytest.mark.parametrize("change", ["SET kind = 'other'", "SET details = '[1]'"])
def test_a_row_that_passport_did_not_write_so_is_named(store: SqlStore, change: str) -> None:
    write(store, an_event(1), an_event(2))
    tamper(store, "UPDATE audit_events " + change + " WHERE sequence = 2")

    with pytest.raises(UnreadableError, match="holds an event that Passport did not write so"):
        read(store)


def tamper(store: SqlStore, statement: str) -> None:
    with store.unit_of_work() as work:
        if work._connection.dialect.name == "sqlite":
            work._connection.execute(text("DROP TRIGGER audit_events_no_update"))
            work._connection.execute(text("DROP TRIGGER audit_events_no_delete"))
        else:
            work._connection.execute(text("ALTER TABLE audit_events DISABLE TRIGGER ALL"))
        work._connection.execute(text(statement))
        work.commit()
