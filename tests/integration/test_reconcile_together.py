"""Requests that are due together share their transactions, and still each has its own fate."""

from collections.abc import Callable

import pytest
from sqlalchemy import create_engine, event, text

from access.model import AccessRequest, Grant, RequestState
from access.ports import Store
from access.reconcile import LONGEST_ROUND
from access.service.desk import Caller
from access.steps import Done, Step
from bot.loops import MOST_TOGETHER, ReconcilerTurns
from storage.engine import parse_url
from storage.unit_of_work import SqlStore
from tests.values import ANA
from tests.world import World


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def active(world: World, count: int) -> list[str]:
    """Requests that run."""
    requests = [world.submit() for _ in range(count)]
    for request in requests:
        world.approve(request)
    world.reconcile()
    return [request.id for request in requests]


def states(world: World, request_ids: list[str]) -> set[RequestState]:
    return {world.standing(request_id).request.state for request_id in request_ids}


def commits_during(store: SqlStore, act: Callable[[], object]) -> int:
    commits: list[object] = []
    event.listen(store._engine, "commit", commits.append)
    act()
    return len(commits)


def test_many_ends_take_as_many_transactions_as_one(sqlite_store: SqlStore) -> None:
    world = World(sqlite_store)
    many = active(world, 12)
    world.clock.forward(hours=2)
    reconciler = world.reconciler()
    assert sorted(reconciler.claim(20, removals_only=True)) == sorted(many)
    commits = commits_during(sqlite_store, lambda: reconciler.work(*many))
    assert commits == 2  # their ends begin; their removals are recorded and their leases end
    assert states(world, many) == {RequestState.ENDED}
    assert reconciler.next_due_at() is None


def test_one_that_cannot_be_read_stops_none_of_those_beside_it(world: World, database_url: str) -> None:
    many = active(world, 5)
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE requests SET terms = '[]' WHERE id = :id"), {"id": many[2]})
    engine.dispose()
    world.clock.forward(hours=2)
    reconciler = world.reconciler()
    reconciler.work(*reconciler.claim(20, removals_only=True))
    assert states(world, many[:2] + many[3:]) == {RequestState.ENDED}
    assert reconciler.claim(20, removals_only=True) == []  # its lease stays, so that it is not tried again at once


def test_one_that_breaks_its_adapter_is_alone_in_its_trouble(world: World) -> None:
    many = active(world, 4)

    def breaks(request: AccessRequest, grant: Grant) -> Step:
        if request.id == many[1]:
            raise ZeroDivisionError
        return Done()

    world.account.on_remove = breaks
    world.clock.forward(hours=2)
    reconciler = world.reconciler()
    reconciler.work(*reconciler.claim(20, removals_only=True))
    assert states(world, [many[0], *many[2:]]) == {RequestState.ENDED}
    assert world.standing(many[1]).request.problem == "Something broke on Passport's side."


def test_a_slow_round_gives_back_what_it_has_not_begun(world: World) -> None:
    many = active(world, 3)

    def slow(request: AccessRequest, grant: Grant) -> Step:
        world.clock.forward(seconds=LONGEST_ROUND.total_seconds())
        return Done()

    world.account.on_remove = slow
    world.clock.forward(hours=2)
    reconciler = world.reconciler()
    reconciler.work(*reconciler.claim(20, removals_only=True))
    left = reconciler.claim(20, removals_only=True)  # at once: nobody waits until a lease runs out
    assert len(left) == 2
    assert states(world, [one for one in many if one not in left]) == {RequestState.ENDED}


def test_a_click_during_the_act_is_not_overwritten(world: World) -> None:
    many = [world.submit() for _ in range(2)]
    for request in many:
        world.approve(request)

    def clicks(request: AccessRequest, grant: Grant) -> Step:
        if request.id == many[0].id:
            world.ending.complete(Caller(slack_user=ANA), request.id)
        return Done()

    world.account.on_provision = clicks
    reconciler = world.reconciler()
    reconciler.work(*reconciler.claim(20, removals_only=False))
    assert ("remove", f"{many[0].id}.1") in world.account.asked
    assert states(world, [many[0].id]) == {RequestState.ENDED}
    assert states(world, [many[1].id]) == {RequestState.ACTIVE}


def test_a_turn_hands_out_piles_and_leaves_nothing(world: World) -> None:
    many = active(world, 2 * MOST_TOGETHER)
    world.clock.forward(hours=2)
    turns = ReconcilerTurns(world.reconciler(), clock=world.clock, threads=1, kept_for_removals=0)
    assert turns.turn() is not None
    turns.stop()
    ended = [one for one in many if states(world, [one]) == {RequestState.ENDED}]
    assert len(ended) == MOST_TOGETHER
