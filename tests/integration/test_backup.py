"""Backup and restore as docs/installing.md says, taken while Passport writes, on both engines."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from access.audit import verify
from access.model import EndCause, GrantState, RequestState
from access.service.desk import Caller
from access.steps import Done
from storage.errors import SealError
from storage.migrations import check
from storage.sealing import Sealer
from storage.unit_of_work import SqlStore
from tests.postgres import PostgresServer
from tests.values import ANA
from tests.world import World

INSTALLING = Path("docs/installing.md")
Restore = Callable[[], SqlStore]
Backup = Callable[[], Restore]


def the_documented(marker: str) -> str:
    """The one command of the documentation that holds these words."""
    (found,) = [line for line in INSTALLING.read_text().splitlines() if marker in line and not line.startswith("#")]
    return found.strip()


@pytest.fixture
def backup(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path, open_store: Callable[[str], SqlStore]
) -> Backup:
    """Takes a backup of the test's database; the answer restores it as another one."""
    if database_url.startswith("sqlite"):
        return lambda: _back_up_sqlite(Path(database_url.removeprefix("sqlite:///")), tmp_path, open_store)
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return lambda: _back_up_postgres(server, database_url, tmp_path, open_store)


def _back_up_sqlite(database: Path, folder: Path, open_store: Callable[[str], SqlStore]) -> Restore:
    command = the_documented("VACUUM INTO").replace("python3", sys.executable)
    subprocess.run(["sh", "-ec", f"umask 077; {command}"], cwd=database.parent, check=True)
    (taken,) = database.parent.glob("passport-backup.db")
    assert taken.stat().st_mode & 0o077 == 0

    def restore() -> SqlStore:
        path = folder / "restored.db"
        shutil.copy(taken, path)
        check(f"sqlite:///{path}")
        return open_store(f"sqlite:///{path}")

    return restore


def _back_up_postgres(server: PostgresServer, url: str, folder: Path, open_store: Callable[[str], SqlStore]) -> Restore:
    environment = {**os.environ, "PATH": f"{server._binaries}:{os.environ['PATH']}", "URL": url}
    dump = the_documented("pg_dump")
    subprocess.run(["sh", "-ec", dump], cwd=folder, env=environment, check=True)

    def restore() -> SqlStore:
        empty = server.url(server.create_database(template="template0"))
        command = the_documented("pg_restore")
        subprocess.run(["sh", "-ec", command], cwd=folder, env=environment | {"URL": empty}, check=True)
        check(empty)
        return open_store(empty)

    return restore


@contextmanager
def busy(world: World) -> Iterator[list[str]]:
    """People ask, decide and finish all the time; the ids of what they asked for."""
    stop, ids = threading.Event(), list[str]()

    def live() -> None:
        while not stop.is_set():
            request = world.submit("web-1")
            ids.append(request.id)
            world.approve(request)
            world.reconcile()
            world.ending.complete(Caller(slack_user=ANA), request.id)
            world.reconcile()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield ids
    finally:
        stop.set()
        thread.join()


def wait_for_more(ids: list[str], count: int) -> None:
    enough, goal = threading.Event(), len(ids) + count
    while len(ids) < goal:
        enough.wait(0.01)


def test_a_backup_taken_under_load_is_whole(store: SqlStore, backup: Backup) -> None:
    world = World(store)
    with store.unit_of_work() as uow:
        uow.secrets.put("scaleft", b"a recognisable secret")
        uow.commit()
    with busy(world) as ids:
        wait_for_more(ids, 5)
        restore = backup()
        wait_for_more(ids, 5)
    restored = restore()

    with store.unit_of_work(read_only=True) as uow:
        seen_by_the_channel = uow.audit.head()
    with restored.unit_of_work(read_only=True) as uow:
        events = list(uow.audit.all())
        head = uow.audit.head()
        assert 0 < head.sequence < seen_by_the_channel.sequence
        assert verify(events) == []
        assert verify(events, witness=head) == []
        assert verify(events, witness=seen_by_the_channel)  # the channel tells that the end is missing
        assert uow.secrets.get("scaleft") == b"a recognisable secret"
        # Every request and its events were saved together or not at all.
        named = {event.event.request_id for event in events}
        assert {request.id for request in uow.requests.find(limit=10_000)} == named
    for request_id in named:
        states = [event.event.kind for event in events if event.event.request_id == request_id]
        assert ("request.ended" in states) == (_state(restored, request_id) is RequestState.ENDED), states


def test_the_log_stays_append_only_after_a_restore(store: SqlStore, backup: Backup) -> None:
    world = World(store)
    world.submit("web-1")
    restored = World(backup()())
    restored.submit("db-2")
    with restored.store.unit_of_work() as uow:
        assert verify(uow.audit.all()) == []
        assert uow.audit.head().sequence == 2
    with pytest.raises(Exception, match="append-only"), restored.store.unit_of_work() as uow:
        uow._connection.exec_driver_sql("DELETE FROM audit_events")  # type: ignore[attr-defined]


def test_the_sealing_keys_are_not_in_the_backup(store: SqlStore, backup: Backup) -> None:
    with store.unit_of_work() as uow:
        uow.secrets.put("scaleft", b"a recognisable secret")
        uow.commit()
    restored = backup()()
    thief = SqlStore(
        restored._engine.url.render_as_string(hide_password=False),
        sealing=Sealer([("test", bytes(32))]),
        exclusive=False,
    )
    with thief.unit_of_work(read_only=True) as uow, pytest.raises(SealError):
        uow.secrets.get("scaleft")
    thief.close()


def test_what_ended_since_the_backup_is_ended_again(store: SqlStore, backup: Backup) -> None:
    """The restored Passport takes it for open; the removal is repeated, which a server calls a success."""
    world = World(store)
    request = world.submit("web-1")
    world.approve(request)
    world.reconcile()
    restore = backup()
    world.ending.complete(Caller(slack_user=ANA), request.id)
    world.reconcile()
    assert world.standing(request.id).request.state is RequestState.ENDED

    again = _restarted(restore(), world)
    assert again.standing(request.id).request.state is RequestState.ACTIVE
    again.clock.now = world.clock.now + timedelta(hours=1)
    again.account.on_remove = lambda *_: Done(details={"result": "already removed"})
    again.reconcile()
    standing = again.standing(request.id)
    assert (standing.request.state, standing.request.cause) == (RequestState.ENDED, EndCause.EXPIRED)
    assert [grant.state for grant in standing.grants] == [GrantState.REMOVED]
    assert ("remove", standing.grants[0].id) in again.account.asked


def test_what_was_asked_since_the_backup_is_unknown(store: SqlStore, backup: Backup) -> None:
    """Nobody ends it but its server, by its own timer: docs/installing.md says so, test_scripts_timer shows it."""
    world = World(store)
    restore = backup()
    request = world.submit("web-1")
    world.approve(request)
    world.reconcile()
    again = _restarted(restore(), world)
    assert _state(again.store, request.id) is None
    again.clock.now = world.clock.now + timedelta(days=1)
    assert again.reconcile() == []
    text = re.sub(r"\s+", " ", INSTALLING.read_text())
    assert "Passport knows nothing of access given after the backup" in text


def _restarted(store: SqlStore, before: World) -> World:
    world = World(store)
    world.clock.now = before.clock.now
    return world


def _state(store: object, request_id: str) -> RequestState | None:
    assert isinstance(store, SqlStore)
    with store.unit_of_work(read_only=True) as uow:
        found = [request for request in uow.requests.find(limit=10_000) if request.id == request_id]
    return found[0].state if found else None
