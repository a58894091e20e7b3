"""Transactions: all or nothing, one process on SQLite, and what a database that fails looks like."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from access.audit import Event, Head, Kind
from access.errors import NotFoundError, UnavailableError
from access.model import AccessRequest
from access.ports import Leased, Store, UnitOfWork
from storage import engine, unit_of_work
from storage.errors import StoreBusyError, StoreUrlError
from storage.unit_of_work import AT_ONCE, NO_ANSWER, NO_ANSWER_TO_COMMIT, SqlStore, SqlUnitOfWork
from tests.postgres import PostgresServer
from tests.stores import SEALER, run_together
from tests.values import NOW, a_person, a_request

HOUR = timedelta(hours=1)
EVENT = Event(kind=Kind.KEY_ADDED, at=NOW, actor="P-ana")
OPEN_AND_SAVE = """
import sys
from access.audit import Event, Kind
from storage.unit_of_work import SqlStore
from tests.stores import SEALER
from tests.values import NOW, a_person
with SqlStore(sys.argv[1], sealing=SEALER).unit_of_work() as work:
    work.people.save(a_person())
    work.record(Event(kind=Kind.KEY_ADDED, at=NOW, actor="P-ana"))
    if "commit" in sys.argv:
        work.commit()
    else:
        work._log.append(work._events)
    print("saved", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(url: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN_AND_SAVE, url, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def save(store: SqlStore, name: str = "Ana Ruiz") -> None:
    with store.unit_of_work() as work:
        work.people.save(a_person(name))
        work.record(EVENT)
        work.commit()


def save_and_fail(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.people.save(a_person())
        work.record(EVENT)
        _ = 1 // 0


def add_twice(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.requests.add(a_request())
        work.requests.add(a_request())


def save_across_a_cut(store: SqlStore, cut: Callable[[], object]) -> None:
    with store.unit_of_work() as work:
        work.people.save(a_person())
        cut()
        work.people.save(a_person("Ben Ode"))


def events_and_people(store: SqlStore) -> tuple[int, int]:
    with store.unit_of_work(read_only=True) as work:
        people = work._connection.execute(text("SELECT count(*) FROM people")).scalar_one()
        return work.audit.head().sequence, people


def test_without_a_commit_nothing_happened(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.people.save(a_person())
        work.record(EVENT)
    with pytest.raises(ZeroDivisionError):
        save_and_fail(store)

    assert events_and_people(store) == (0, 0)


def test_a_killed_process_leaves_nothing_undone_half_way(
    database_url: str, open_store: Callable[[str], SqlStore]
) -> None:
    with another_process(database_url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        process.kill()
        process.wait()

    store = open_store(database_url)
    assert events_and_people(store) == (0, 0)
    save(store)
    assert events_and_people(store) == (1, 1)


def test_what_is_committed_survives_the_kill(database_url: str, open_store: Callable[[str], SqlStore]) -> None:
    with another_process(database_url, "commit") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        process.kill()
        process.wait()

    assert events_and_people(open_store(database_url)) == (1, 1)


def test_sqlite_serves_one_process(sqlite_url: str, open_store: Callable[[str], SqlStore]) -> None:
    with another_process(sqlite_url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        with pytest.raises(StoreBusyError, match=r"Another Passport process uses .*passport.db"):
            open_store(sqlite_url)
    open_store(sqlite_url).close()


def test_a_command_beside_the_server_reads_and_writes(sqlite_store: SqlStore, sqlite_url: str) -> None:
    beside = SqlStore(sqlite_url, sealing=SEALER, exclusive=False)
    save(sqlite_store)
    save(beside, "Ben Ode")

    assert events_and_people(beside) == events_and_people(sqlite_store) == (2, 2)
    beside.close()


def test_a_unit_of_work_on_sqlite_has_the_write_lock_from_its_first_look(
    sqlite_store: SqlStore, sqlite_url: str
) -> None:
    beside = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
    with sqlite_store.unit_of_work() as work:
        assert work.requests.next_due_at() is None
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            beside.execute("BEGIN IMMEDIATE")
    beside.execute("BEGIN IMMEDIATE")
    beside.close()


def test_a_read_only_unit_of_work_does_not_wait_for_a_writer(store: SqlStore) -> None:
    with store.unit_of_work() as writing:
        writing.people.save(a_person())
        assert run_together(lambda: events_and_people(store)) == [(0, 0)]
        writing.commit()
    assert events_and_people(store) == (0, 1)


def test_a_read_only_unit_of_work_changes_nothing(store: SqlStore) -> None:
    with pytest.raises(DBAPIError, match=r"(?i)read-?only"), store.unit_of_work(read_only=True) as work:
        work.people.save(a_person())
    with pytest.raises(RuntimeError, match="read-only"), store.unit_of_work(read_only=True) as work:
        work.record(EVENT)

    save(store)  # the connection, used again, writes
    assert events_and_people(store) == (1, 1)


def test_a_writer_inside_a_writer_is_a_mistake_found_at_once_on_sqlite(sqlite_store: SqlStore) -> None:
    with (
        sqlite_store.unit_of_work(),
        pytest.raises(RuntimeError, match="inside another"),
        sqlite_store.unit_of_work(),
    ):
        pass
    save(sqlite_store)


def test_a_writer_waits_only_so_long_on_sqlite(sqlite_store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_of_work, "_WAIT_FOR_WRITERS", 0.05)

    def refused() -> str:
        with pytest.raises(UnavailableError) as caught:
            save(sqlite_store)
        return caught.value.sentence

    with sqlite_store.unit_of_work():
        assert run_together(refused) == [NO_ANSWER]
    save(sqlite_store)


def test_sqlite_is_told_to_be_durable_and_strict(sqlite_store: SqlStore, sqlite_url: str) -> None:
    with sqlite_store.unit_of_work() as work:
        told = {
            name: work._connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers", "busy_timeout")
        }

    assert told == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "busy_timeout": 10000,
    }


def test_a_new_sqlite_database_is_its_owners_alone(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'new.db'}", sealing=SEALER)
    with pytest.raises(UnavailableError, match="not with Passport's tables"):
        store.ping()
    store.close()

    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {
        "new.db": "0o600",
        "new.db.lock": "0o600",
    }


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("what", "cannot be read"),
        ("mysql://localhost/passport", "begins with mysql"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////nowhere/at/all/passport.db", "The directory /nowhere/at/all for the database does not exist"),
    ],
)
def test_a_url_that_cannot_be_used_is_explained(url: str, sentence: str) -> None:
    with pytest.raises(StoreUrlError, match=sentence):
        SqlStore(url, sealing=SEALER)


def test_commits_that_recorded_events_wake_whoever_listens(store: SqlStore) -> None:
    told: list[object] = []
    store.on_commit(told.append)
    events_and_people(store)
    with store.unit_of_work() as work:
        work.record(EVENT)
    with store.unit_of_work() as work:
        work.people.save(a_person())
        work.commit()
    assert told == []
    save(store)
    assert len(told) == 1


def leased(request: AccessRequest, *, is_finished: bool) -> Leased:
    return Leased(request=request, until=NOW, revision=1, is_finished=is_finished)


def test_whoever_listens_is_told_which_requests_were_saved_unless_their_lease_goes_on(store: SqlStore) -> None:
    told: list[list[str]] = []
    store.on_commit(lambda saved: told.append([request.id for request in saved]))
    with store.unit_of_work() as work:
        work.people.save(a_person())
        work.commit()
    first, second = a_request(id="AR-1", due_at=NOW + HOUR), a_request(id="AR-2", due_at=None)
    acts: list[Callable[[SqlUnitOfWork], object]] = [
        lambda work: (work.requests.add(second), work.requests.add(first)),
        lambda work: work.requests.add_all_if_free([a_request(id="AR-3", due_at=NOW + 2 * HOUR)]),
        lambda work: work.requests.save_all([second, replace(first, due_at=NOW)]),
        lambda work: work.requests.save(replace(first, due_at=None)),
        lambda work: work.requests.get("AR-1"),
        lambda work: work.requests.claim_due(NOW, owner="one", lease_until=NOW, limit=9, removals_only=False),
        lambda work: work.requests.save_leased(
            [leased(first, is_finished=False), leased(second, is_finished=True)], owner="one"
        ),
    ]
    for act in acts:
        with store.unit_of_work() as work:
            act(work)
            work.record(EVENT)
            work.commit()
    assert told == [["AR-2", "AR-1"], ["AR-3"], ["AR-2", "AR-1"], ["AR-1"], [], [], ["AR-2"]]


def test_two_who_add_the_same_at_once_are_told_so(store: SqlStore) -> None:
    save(store)
    with pytest.raises(UnavailableError) as caught:
        add_twice(store)
    assert caught.value.sentence == AT_ONCE
    with store.unit_of_work() as work, pytest.raises(NotFoundError):
        work.requests.get("AR-7F3K")


def test_a_missing_table_is_not_called_an_outage(sqlite_store: SqlStore, sqlite_url: str) -> None:
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        connection.execute("DROP TABLE ssh_keys")
    connection.close()
    with pytest.raises(DBAPIError, match="no such table"), sqlite_store.unit_of_work() as work:
        work.people.keys_of("P-ana")


@pytest.mark.postgres
def test_a_cut_connection_is_told_and_the_next_unit_of_work_has_a_new_one(
    postgres_store: SqlStore, postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = postgres_url.rpartition("/")[2]
    with pytest.raises(UnavailableError) as caught:
        save_across_a_cut(postgres_store, lambda: postgres_server.cut_connections(database))
    assert caught.value.sentence == NO_ANSWER

    save(postgres_store)
    assert events_and_people(postgres_store) == (1, 1)


@pytest.mark.postgres
@pytest.mark.parametrize(("recorded", "sentence"), [(True, NO_ANSWER), (False, NO_ANSWER_TO_COMMIT)])
def test_a_connection_cut_before_the_commit_is_told_as_far_as_it_is_known(
    postgres_store: SqlStore, postgres_server: PostgresServer, postgres_url: str, recorded: bool, sentence: str
) -> None:
    with postgres_store.unit_of_work() as work:
        work.people.save(a_person())
        if recorded:
            work.record(EVENT)
        postgres_server.cut_connections(postgres_url.rpartition("/")[2])
        with pytest.raises(UnavailableError) as caught:
            work.commit()
    assert caught.value.sentence == sentence
    assert events_and_people(postgres_store) == (0, 0)


@pytest.mark.postgres
def test_connections_that_died_in_the_pool_are_replaced_unnoticed(
    postgres_store: SqlStore, postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "REST", 0.0)
    save(postgres_store)
    assert postgres_server.cut_connections(postgres_url.rpartition("/")[2]) == 1
    save(postgres_store, "Ben Ode")
    assert events_and_people(postgres_store) == (2, 2)


@pytest.mark.postgres
def test_a_connection_that_died_right_after_its_use_is_told_once(
    postgres_store: SqlStore, postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "REST", 60.0)
    save(postgres_store)
    assert postgres_server.cut_connections(postgres_url.rpartition("/")[2]) == 1
    with pytest.raises(UnavailableError) as caught:
        save(postgres_store, "Ben Ode")
    assert caught.value.sentence == NO_ANSWER
    save(postgres_store, "Ben Ode")
    assert events_and_people(postgres_store) == (2, 2)


@pytest.mark.postgres
def test_a_restarted_server_heals_by_itself(postgres_store: SqlStore, postgres_server: PostgresServer) -> None:
    save(postgres_store)
    postgres_server.stop()
    try:
        with pytest.raises(UnavailableError, match="does not answer"):
            postgres_store.ping()
        with pytest.raises(UnavailableError, match="does not answer"):
            save(postgres_store)
    finally:
        postgres_server.start()

    postgres_store.ping()
    save(postgres_store, "Ben Ode")
    assert events_and_people(postgres_store) == (2, 2)


@pytest.mark.postgres
def test_a_row_that_stays_locked_is_not_waited_for_without_end(
    postgres_url: str, open_store: Callable[[str], SqlStore]
) -> None:
    patient, hasty = open_store(postgres_url), open_store(f"{postgres_url}?options=-c%20lock_timeout%3D100ms")
    save(patient)
    with patient.unit_of_work() as work:
        work.requests.add(a_request())
        work.commit()
    with patient.unit_of_work() as holder:
        holder.requests.get("AR-7F3K", lock=True)
        with pytest.raises(UnavailableError) as caught, hasty.unit_of_work() as work:
            work.requests.get("AR-7F3K", lock=True)
    assert caught.value.sentence == NO_ANSWER


@pytest.mark.postgres
def test_the_password_is_never_shown(postgres_store: SqlStore, postgres_server: PostgresServer) -> None:
    assert postgres_server._password not in repr(postgres_store)
    assert "postgres:***@" in repr(postgres_store)


def test_the_store_plays_the_roles_of_the_ports(store: SqlStore) -> None:
    port: Store = store
    work: UnitOfWork
    with port.unit_of_work() as work:
        assert work.requests.next_due_at() is None


def test_the_chain_starts_empty(store: SqlStore) -> None:
    with store.unit_of_work(read_only=True) as work:
        assert work.audit.head() == Head()
        assert list(work.audit.all()) == []
