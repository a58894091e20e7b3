"""Attacks on the reconciler and the feed: rows that nobody can read, and adapters that break, stop nobody else."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import pytest
from sqlalchemy import create_engine, text

from access.audit import Kind
from access.model import AccessRequest, EndCause, Grant, GrantState, RequestState, Server
from access.ports import Store
from access.reconcile import LEASE, Reconciler
from access.service.desk import Caller
from access.steps import Done, Step
from bot.loops import ReconcilerTurns
from sandbox.reading import wait_for
from storage.engine import parse_url
from tests.values import ANA
from tests.world import World

THREADS = 8


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


UNHEARD_OF = """UPDATE requests SET servers = '[{"unheard"\\: "of"}]' WHERE id = :id"""


def poison(database_url: str, *request_ids: str, by: str = UNHEARD_OF) -> None:
    """What a newer Passport wrote before it was taken back, say: this one cannot read it."""
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        for request_id in request_ids:
            connection.execute(text(by), {"id": request_id})
    engine.dispose()


def one_turn(reconciler: Reconciler) -> list[str]:
    """What is claimed in one turn of the loop, whose threads outlive whatever breaks."""
    claimed = reconciler.claim(THREADS, removals_only=True)
    for request_id in claimed:
        with suppress(Exception):
            reconciler.work(request_id)
    return list(claimed)


def take_a_turn(world: World) -> None:
    """One of the loop, with its threads."""
    turns = ReconcilerTurns(world.reconciler(), clock=world.clock)
    turns.turn()
    wait_for(lambda: not turns._busy, "the work to be done")
    turns.stop()


def running(world: World, count: int) -> list[str]:
    requests = [world.submit() for _ in range(count)]
    for request in requests:
        world.approve(request)
    world.reconcile()
    return [request.id for request in requests]


def test_unreadable_requests_keep_nobody_from_their_end(world: World, database_url: str) -> None:
    unreadable = running(world, THREADS)
    (well,) = running(world, 1)
    poison(database_url, *unreadable)
    world.clock.forward(hours=1, seconds=1)
    reconciler = world.reconciler()
    turns = [one_turn(reconciler) for _ in range(3)]
    assert well in turns[1], turns
    assert turns[2] == []  # and no thread spins on what cannot be done
    assert world.standing(well).request.state is RequestState.ENDED
    world.clock.forward(seconds=LEASE.total_seconds() + 1)
    assert set(one_turn(reconciler)) == set(unreadable)  # never given up either


@pytest.mark.parametrize(
    "by",
    [
        UNHEARD_OF,
        "UPDATE requests SET terms = '[]' WHERE id = :id",
        "UPDATE grants SET route = '{}' WHERE request_id = :id",
    ],
)
def test_a_row_that_cannot_be_read_keeps_nobody_from_their_access(world: World, database_url: str, by: str) -> None:
    unreadable, well = world.submit("web-1"), world.submit("db-2")
    for request in (unreadable, well):
        world.approve(request)
    poison(database_url, unreadable.id, by=by)
    take_a_turn(world)
    assert world.standing(well.id).request.state is RequestState.ACTIVE


def test_a_column_that_is_no_json_keeps_nobody_from_their_access(sqlite_store: Store, sqlite_url: str) -> None:
    """PostgreSQL takes none."""
    world = World(sqlite_store)
    unreadable, well = world.submit("web-1"), world.submit("db-2")
    for request in (unreadable, well):
        world.approve(request)
    poison(sqlite_url, unreadable.id, by="UPDATE requests SET servers = '[' WHERE id = :id")
    take_a_turn(world)
    assert world.standing(well.id).request.state is RequestState.ACTIVE


def test_a_broken_inventory_is_a_failed_start_and_no_silence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(servers: Sequence[Server]) -> Mapping[str, Server]:
        raise KeyError("InstanceId")

    monkeypatch.setattr(world.inventory, "read_again", broken)
    request = world.submit()
    world.approve(request)
    world.reconcile()
    assert world.standing(request.id).request.problem == "Something broke on Passport's side."
    for _ in range(200):
        world.clock.forward(seconds=15)
        world.reconcile()
    ended = world.standing(request.id).request
    assert (ended.state, ended.cause) == (RequestState.ENDED, EndCause.FAILED)


def test_a_worker_that_outlives_its_lease_brings_nothing_back(world: World) -> None:
    """Its create was under way while somebody revoked, and another worker removed and ended everything."""
    request = world.submit()
    world.approve(request)
    quick = world.reconciler("two")

    def stalled(_request: AccessRequest, _grant: Grant) -> Step:
        world.ending.complete(Caller(slack_user=ANA), request.id)
        world.clock.forward(seconds=LEASE.total_seconds() + 1)
        assert quick.claim(1, removals_only=True) == [request.id]
        quick.work(request.id)
        assert world.standing(request.id).request.state is RequestState.ENDED
        return Done(details={"uid": "200001"})

    world.account.on_provision = stalled
    slow = world.reconciler("one")
    slow.claim(1, removals_only=False)
    slow.work(request.id)
    after = world.standing(request.id)
    assert (after.request.state, after.request.due_at) == (RequestState.ENDED, None)
    assert [(grant.state, dict(grant.details)) for grant in after.grants] == [(GrantState.REMOVED, {})]
    assert Kind.GRANT_ACTIVE not in world.kinds(request.id)
