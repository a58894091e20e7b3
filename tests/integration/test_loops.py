"""The loops: no wake-up is lost, no failure stops them, and removals always find a thread."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from access.model import AccessRequest, Grant, GrantState, RequestState
from access.ports import Store
from access.service.desk import Caller
from access.steps import Done, Step
from bot import loops
from bot.loops import Loop, ReconcilerTurns
from sandbox.reading import wait_for
from tests.values import ANA, NOW, FakeClock, a_policy, a_request
from tests.world import World

NEVER = timedelta(days=1)
SOON = 10  # seconds, of which a right loop needs none


@pytest.fixture(autouse=True)
def never_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens by itself: a lost wake-up would wait for a day."""
    monkeypatch.setattr(loops, "IDLE", NEVER)


@contextmanager
def running(turn: Callable[[], timedelta | None]) -> Iterator[Loop]:
    loop = Loop("test", turn)
    loop.start()
    try:
        yield loop
    finally:
        loop.stop()
        assert not loop.is_alive


# --- One loop ------------------------------------------------------------------------------------------------------


def test_the_first_turn_comes_at_once_and_then_one_a_wake() -> None:
    turns: list[int] = []
    took = threading.Semaphore(0)

    def turn() -> None:
        turns.append(1)
        took.release()

    with running(turn) as loop:
        assert took.acquire(timeout=SOON)
        for _ in range(20):
            loop.wake()
            assert took.acquire(timeout=SOON)
    assert len(turns) == 21


def test_a_wake_up_during_a_turn_is_not_lost() -> None:
    inside, go_on, took = threading.Event(), threading.Event(), threading.Semaphore(0)

    def turn() -> None:
        inside.set()
        assert go_on.wait(SOON)
        took.release()

    with running(turn) as loop:
        assert inside.wait(SOON)
        loop.wake()
        loop.wake()
        go_on.set()
        assert took.acquire(timeout=SOON)
        assert took.acquire(timeout=SOON)


def test_a_turn_that_asks_for_another_gets_it() -> None:
    left, done = [5], threading.Event()

    def turn() -> timedelta | None:
        left[0] -= 1
        if left[0] > 0:
            return timedelta(milliseconds=1) if left[0] % 2 else timedelta(seconds=-3)
        done.set()
        return None

    with running(turn):
        assert done.wait(SOON)


def test_a_turn_that_fails_is_logged_and_comes_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "AFTER_TROUBLE", timedelta())
    failures, done = [ValueError("first"), KeyError("second")], threading.Event()

    def turn() -> None:
        if failures:
            raise failures.pop(0)
        done.set()

    with running(turn) as loop:
        assert done.wait(SOON)
        assert loop.is_alive
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]
    assert "test: a turn failed; trying again" in caplog.text


def test_after_trouble_it_waits_but_a_wake_up_comes_first() -> None:
    took = threading.Semaphore(0)

    def turn() -> None:
        took.release()
        raise ValueError

    with running(turn) as loop:
        assert took.acquire(timeout=SOON)
        loop.wake()
        assert took.acquire(timeout=SOON)


def test_stop_waits_for_the_turn_under_way() -> None:
    inside, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def turn() -> None:
        inside.set()
        assert go_on.wait(SOON)
        ended.set()

    loop = Loop("test", turn)
    loop.start()
    assert inside.wait(SOON)
    stopping = threading.Thread(target=loop.stop, args=(SOON,))
    stopping.start()
    assert not ended.is_set()
    go_on.set()
    stopping.join(SOON)
    assert ended.is_set()
    assert not loop.is_alive


def test_stop_is_seen_even_just_before_a_turn() -> None:
    """At the one moment when its wake-up is wiped out: after a wake-up, before the turn."""
    took = threading.Event()

    class Woken(threading.Event):
        def clear(self) -> None:
            if took.is_set():  # stop() comes right now, on another thread
                loop._stopping.set()
                self.set()
            super().clear()

    loop = Loop("test", took.set)
    loop._woken = Woken()
    loop.start()
    assert took.wait(SOON)
    loop.wake()
    loop._thread.join(SOON)
    assert not loop.is_alive


def test_a_loop_that_never_began_can_be_stopped() -> None:
    loop = Loop("test", lambda: None)
    loop.stop()
    assert not loop.is_alive


# --- The reconciler's threads --------------------------------------------------------------------------------------


@contextmanager
def reconciling(world: World, *, threads: int, kept: int) -> Iterator[ReconcilerTurns]:
    """A running reconciler that every commit wakes, as in a running Passport."""
    turns = ReconcilerTurns(world.reconciler(), clock=world.clock, threads=threads, kept_for_removals=kept)
    world.store.on_commit(turns.wake_if_due)  # type: ignore[attr-defined]  # SqlStore's, not the port's
    turns.loop.start()
    try:
        yield turns
    finally:
        turns.stop()


@pytest.fixture
def world(sqlite_store: Store) -> World:
    return World(sqlite_store, a_policy(max_servers=1))


def state_of(world: World, request: AccessRequest) -> RequestState:
    return world.standing(request.id).request.state


def test_an_approval_is_carried_out_and_so_is_the_end(world: World) -> None:
    request = world.submit()
    with reconciling(world, threads=4, kept=1):
        world.approve(request)
        wait_for(lambda: state_of(world, request) is RequestState.ACTIVE, "the request to be active", seconds=SOON)
        world.ending.complete(Caller(slack_user=ANA), request.id)
        wait_for(lambda: state_of(world, request) is RequestState.ENDED, "the request to end", seconds=SOON)


def test_only_what_is_due_before_the_next_look_wakes_the_reconciler(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "IDLE", timedelta(seconds=5))
    turns = ReconcilerTurns(world.reconciler(), clock=world.clock)
    for at in (None, world.clock.now + timedelta(seconds=6)):
        turns.wake_if_due([a_request(due_at=at)])
        assert not turns.loop._woken.is_set()
    turns.wake_if_due([a_request(due_at=None), a_request(due_at=world.clock.now + timedelta(seconds=5))])
    assert turns.loop._woken.is_set()


def test_what_a_commit_says_is_due_is_claimed_without_a_look(world: World) -> None:
    looks: list[int] = []
    reconciler = world.reconciler()
    look = reconciler.next_due_at

    def counted() -> datetime | None:
        looks.append(1)
        return look()

    reconciler.next_due_at = counted  # type: ignore[method-assign]
    turns = ReconcilerTurns(reconciler, clock=world.clock)
    request = world.submit()
    world.approve(request)
    turns.wake_if_due([world.standing(request.id).request])
    turns.turn()
    wait_for(lambda: state_of(world, request) is RequestState.ACTIVE, "the request to be active", seconds=SOON)
    assert looks == [], "what was handed out is looked after soon, or when it is done"
    turns.turn()
    turns.stop()
    assert looks == [1], "told once, it looks again"


class Due:
    """A reconciler with so much to do, that writes down which piles are worked on together."""

    def __init__(self, removals: int, others: int) -> None:
        self.removals, self.others = [f"R{n}" for n in range(removals)], [f"O{n}" for n in range(others)]
        self.piles: list[tuple[str, ...]] = []
        self.hold = threading.Event()

    def next_due_at(self) -> datetime | None:
        return NOW if self.removals or self.others else None

    def claim(self, limit: int, *, removals_only: bool) -> list[str]:
        claimed = [*self.removals, *(() if removals_only else self.others)][:limit]
        self.removals = [each for each in self.removals if each not in claimed]
        self.others = [each for each in self.others if each not in claimed]
        return claimed

    def work(self, *request_ids: str) -> None:
        self.piles.append(request_ids)
        assert self.hold.wait(SOON)


@pytest.mark.parametrize(
    ("told", "claims"),
    [
        ((RequestState.APPROVED,), [False]),  # which takes ends first, should there be any
        ((RequestState.ENDING,), [True, False]),
        ((RequestState.ACTIVE, RequestState.ENDING), [True, False]),
    ],
)
def test_threads_kept_for_ends_are_only_asked_for_when_something_may_end(
    told: tuple[RequestState, ...], claims: list[bool]
) -> None:
    due, claimed = Due(0, 0), list[bool]()
    turns = ReconcilerTurns(due, clock=FakeClock())  # type: ignore[arg-type]
    due.claim = lambda _, *, removals_only: claimed.append(removals_only) or []  # type: ignore[method-assign,func-returns-value]
    turns.wake_if_due([a_request(state=state, due_at=NOW) for state in told])
    turns.turn()
    assert claimed == claims
    turns.stop()


@pytest.mark.parametrize(
    ("busy", "removals", "others", "sizes"),
    [
        (0, 0, 3, [1, 1, 1]),
        (0, 8, 0, [1] * 8),  # each end has a thread of its own
        (4, 10, 0, [2, 2, 3, 3]),  # and those that are kept take part
        (4, 1, 15, [1]),  # no end waits for others' beginnings; those come when a thread is free
        (0, 0, 200, [32] * 5),
        (0, 1000, 0, [32] * 8),
    ],
)
def test_ends_have_every_thread_and_share_as_little_as_they_can(
    busy: int, removals: int, others: int, sizes: list[int]
) -> None:
    due = Due(removals, others)
    turns = ReconcilerTurns(due, clock=FakeClock())  # type: ignore[arg-type]
    turns._busy = busy
    turns.turn()
    wait_for(lambda: len(due.piles) == len(sizes), "the piles to be worked on")
    due.hold.set()
    turns.stop()
    assert sorted(map(len, due.piles)) == sizes


@dataclass
class Hanging:
    """One request is active; the provisioning of any other hangs."""

    first: AccessRequest
    begun: threading.Semaphore  # released by each that hangs
    go_on: threading.Event


@contextmanager
def provisioning_hangs(world: World, others: int) -> Iterator[Hanging]:
    """On both threads for it, of so many others that are approved; the third thread is kept for ends."""
    hanging = Hanging(first=world.submit(minutes=10), begun=threading.Semaphore(0), go_on=threading.Event())

    def hangs(request: AccessRequest, grant: Grant) -> Step:
        if request.id != hanging.first.id:
            hanging.begun.release()
            assert hanging.go_on.wait(60)
        return Done()

    world.account.on_provision = hangs
    with reconciling(world, threads=3, kept=1):
        try:
            world.approve(hanging.first)
            wait_for(
                lambda: state_of(world, hanging.first) is RequestState.ACTIVE, "the first to be active", seconds=SOON
            )
            for _ in range(others):
                world.approve(world.submit())
            for _ in range(2):
                assert hanging.begun.acquire(timeout=SOON)
            yield hanging
        finally:
            hanging.go_on.set()


def test_removals_get_through_while_provisioning_hangs(world: World) -> None:
    with provisioning_hangs(world, others=6) as hanging:
        assert not hanging.begun.acquire(timeout=0.2)  # the third thread is kept
        world.ending.complete(Caller(slack_user=ANA), hanging.first.id)
        wait_for(lambda: state_of(world, hanging.first) is RequestState.ENDED, "the removal", seconds=SOON)
        hanging.go_on.set()
        for _ in range(4):
            assert hanging.begun.acquire(timeout=SOON)


def test_an_end_by_time_waits_for_no_thread_that_hangs(world: World) -> None:
    """Nothing is committed that could wake the loop."""
    with provisioning_hangs(world, others=3) as hanging:
        world.clock.forward(minutes=10)
        wait_for(lambda: state_of(world, hanging.first) is RequestState.ENDED, "the first to end", seconds=SOON)


def test_work_that_fails_is_logged_and_stops_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    poisoned = world.submit()
    reconciler = world.reconciler()
    work = reconciler.work

    def breaks(*request_ids: str) -> None:
        work(*(request_id for request_id in request_ids if request_id != poisoned.id))
        if poisoned.id in request_ids:
            raise ZeroDivisionError

    reconciler.work = breaks  # type: ignore[method-assign]
    turns = ReconcilerTurns(reconciler, clock=world.clock, threads=2, kept_for_removals=1)
    world.store.on_commit(turns.wake_if_due)  # type: ignore[attr-defined]
    turns.loop.start()
    try:
        world.approve(poisoned)
        other = world.submit()
        world.approve(other)
        wait_for(lambda: state_of(world, other) is RequestState.ACTIVE, "the other request", seconds=SOON)
    finally:
        turns.stop()
    assert "A piece of work failed and will be tried again" in caplog.text


def test_stopping_finishes_what_is_under_way_and_begins_nothing(world: World) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(request: AccessRequest, grant: Grant) -> Step:
        inside.set()
        assert go_on.wait(SOON)
        return Done()

    world.account.on_provision = slow
    request = world.submit()
    with reconciling(world, threads=2, kept=1) as turns:
        world.approve(request)
        assert inside.wait(SOON)
        stopping = threading.Thread(target=turns.stop)
        stopping.start()
        go_on.set()
        stopping.join(SOON)
        assert not stopping.is_alive()
        assert not turns.loop.is_alive
    [grant] = world.standing(request.id).grants
    assert grant.state is GrantState.ACTIVE
