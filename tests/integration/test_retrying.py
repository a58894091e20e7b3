"""Retry: who may, when, once; that the tags are read again first; and that every attempt leaves nothing behind."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from access.audit import AuditEvent, Kind
from access.errors import AlreadyDecidedError, RefusedError, SignInNeededError
from access.model import AccessRequest, Grant, GrantState, RequestState, SlackUser
from access.ports import Store
from access.service.desk import Caller
from access.service.retrying import Retrying
from access.steps import Done, Failed, Step, Waiting
from tests.values import ANA, BEN, a_server
from tests.world import Answer, World, done, retag

NO_SSHD = "db-2: The server has no sshd."


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def fails(*names: str, retryable: bool = False, reason: str = NO_SSHD) -> Answer:
    """An account that cannot open these servers."""

    def answer(_: AccessRequest, grant: Grant) -> Step:
        return Failed(reason=reason, retryable=retryable) if grant.server.name in names else Done()

    return answer


def half_open(world: World, answer: Answer | None = None) -> AccessRequest:
    """A request of which web-1 is open and db-2 is not."""
    world.account.on_provision = answer or fails("db-2")
    request = world.submit("web-1", "db-2")
    world.approve(request)
    world.reconcile()
    return world.standing(request.id).request


def retry(world: World, request: AccessRequest, who: SlackUser = ANA, delivery: str = "") -> list[str]:
    """The ids of the grants that are tried again."""
    retried = world.retrying.retry(Caller(slack_user=who, delivery=delivery), request.id)
    return [grant.id.removeprefix(request.id) for grant in retried.grants]


def states(world: World, request: AccessRequest) -> dict[str, GrantState]:
    return {grant.id.removeprefix(request.id): grant.state for grant in world.standing(request.id).grants}


def events(world: World, request: AccessRequest, kind: Kind) -> list[AuditEvent]:
    with world.store.unit_of_work() as uow:
        return [found for found in uow.audit.of(request.id) if found.event.kind is kind]


def test_a_failed_server_is_opened_by_a_new_attempt_and_the_others_are_left_alone(world: World) -> None:
    request = half_open(world)
    assert states(world, request) == {".1": GrantState.ACTIVE, ".2": GrantState.REMOVED}
    world.account.asked.clear()
    world.account.on_provision = done

    assert retry(world, request) == [".3"]
    assert world.standing(request.id).request.due_at == world.clock.now
    world.reconcile()
    after = world.standing(request.id)
    assert states(world, request) == {".1": GrantState.ACTIVE, ".2": GrantState.REMOVED, ".3": GrantState.ACTIVE}
    assert after.grants[2].server == after.grants[1].server
    assert after.grants[2].details["attempt"] == "2"
    assert after.request.revision > request.revision
    assert world.account.asked == [("provision", f"{request.id}.3")]


def test_each_retry_is_on_record_with_its_attempt_and_who_wanted_it(world: World) -> None:
    request = half_open(world)
    retry(world, request)
    world.reconcile()
    retry(world, request)
    found = [each.event for each in events(world, request, Kind.GRANT_RETRIED)]
    assert [(each.actor, each.server) for each in found] == [(world.ana.id, a_server("db-2").key)] * 2
    assert [each.details for each in found] == [
        {"grant": f"{request.id}.3", "attempt": "2"},
        {"grant": f"{request.id}.4", "attempt": "3"},
    ]


def test_clicked_twice_it_is_one_retry(world: World) -> None:
    request = half_open(world)
    assert retry(world, request, delivery="one") == [".3"]
    with pytest.raises(AlreadyDecidedError, match=r"waits for a retry\. Nothing changed"):
        retry(world, request, delivery="two")
    assert list(states(world, request)) == [".1", ".2", ".3"]


def test_clicked_at_the_same_moment_it_is_one_retry(world: World) -> None:
    request = half_open(world)
    barrier = threading.Barrier(4)

    def click(number: int) -> bool:
        barrier.wait()
        try:
            return bool(Retrying(world.desk).retry(Caller(slack_user=ANA, delivery=f"click-{number}"), request.id))
        except AlreadyDecidedError:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(click, range(4))) == [False, False, False, True]
    assert list(states(world, request)) == [".1", ".2", ".3"]
    assert len(events(world, request, Kind.GRANT_RETRIED)) == 1


def test_nobody_else_can_retry_and_the_attempt_is_on_record(world: World) -> None:
    request = half_open(world)
    with pytest.raises(RefusedError, match=f"Only Ana Ruiz can try the servers of {request.id} again"):
        retry(world, request, BEN)
    (refused,) = events(world, request, Kind.REFUSED)
    assert (refused.event.actor, refused.event.details) == (world.ben.id, {"act": "retry"})
    with pytest.raises(SignInNeededError):
        retry(world, request, SlackUser(team_id="T0PASSPORT", user_id="U0MAX"))
    assert list(states(world, request)) == [".1", ".2"]


def test_without_a_live_sign_in_there_is_no_retry(world: World) -> None:
    request = half_open(world)
    with world.store.unit_of_work() as uow:
        link = uow.people.link_of(ANA)
        assert link
        uow.people.save_link(replace(link, expires_at=world.clock.now))
        uow.commit()
    with pytest.raises(SignInNeededError):
        retry(world, request)


def test_only_while_the_request_runs(world: World) -> None:
    pending = world.submit("web-1")
    with pytest.raises(AlreadyDecidedError, match="is not running"):
        retry(world, pending)
    request = half_open(world)
    world.clock.forward(hours=1)  # its end has come, and no reconciler has looked yet
    with pytest.raises(AlreadyDecidedError, match="is not running"):
        retry(world, request)
    world.reconcile()
    with pytest.raises(AlreadyDecidedError, match="is not running"):
        retry(world, request)
    assert not events(world, request, Kind.GRANT_RETRIED)


def test_with_everything_open_there_is_nothing_to_retry(world: World) -> None:
    request = half_open(world, done)
    with pytest.raises(AlreadyDecidedError, match=r"No server of .* waits for a retry"):
        retry(world, request)


def test_tags_are_read_again_first_and_a_change_stops_that_server(world: World) -> None:
    request = half_open(world)
    world.account.on_provision = done
    test = retag(a_server("db-2"), env="test")
    world.inventory.now = {test.key: test, a_server("web-1").key: a_server("web-1")}
    world.account.asked.clear()
    retry(world, request)
    world.reconcile()
    after = world.standing(request.id)
    assert ("provision", f"{request.id}.3") not in world.account.asked
    assert after.grants[2].outcome == "The tag env of db-2 changed from prod to test."
    assert after.request.state is RequestState.ACTIVE
    assert after.grants[0].state is GrantState.ACTIVE
    assert [each.event.details["reason"] for each in events(world, request, Kind.GRANT_FAILED)][1:] == [
        "The tag env of db-2 changed from prod to test."
    ]


def test_tags_that_cannot_be_read_hold_the_retry_up_and_open_nothing(world: World) -> None:
    request = half_open(world)
    world.account.on_provision = done
    world.inventory.is_down = True
    world.account.asked.clear()
    retry(world, request)
    world.reconcile()
    assert world.account.asked == []
    assert world.standing(request.id).request.problem == "AWS does not answer. I go on trying."
    world.inventory.is_down = False
    world.clock.forward(seconds=5)
    world.reconcile()
    assert states(world, request)[".3"] is GrantState.ACTIVE
    assert world.standing(request.id).request.problem == ""


def test_tags_are_read_once_an_attempt_and_not_at_every_look(world: World) -> None:
    request = half_open(world)
    looks: list[int] = []
    world.account.on_provision = lambda *_: Waiting(handle={"command": "c"}, retry_in=timedelta(seconds=1))
    read = world.inventory.read_again
    world.inventory.read_again = lambda servers: looks.append(len(servers)) or read(servers)  # type: ignore[method-assign,func-returns-value]
    retry(world, request)
    for _ in range(4):
        world.reconcile()
        world.clock.forward(seconds=1)
    assert looks == [1]


def test_a_server_that_is_held_up_is_tried_at_once(world: World) -> None:
    silent = "db-2 does not answer: its SSM agent did not fetch the command in time."
    request = half_open(world, fails("db-2", retryable=True, reason=silent))
    world.reconcile()
    assert world.standing(request.id).request.problem == silent
    world.account.on_provision = done
    assert world.reconcile() == []  # its next try is seconds away
    assert retry(world, request) == [".2"]
    with pytest.raises(AlreadyDecidedError):
        retry(world, request)
    world.reconcile()
    assert states(world, request) == {".1": GrantState.ACTIVE, ".2": GrantState.ACTIVE}
    (event,) = events(world, request, Kind.GRANT_RETRIED)
    assert event.event.details == {"grant": f"{request.id}.2", "attempt": "1"}


def test_the_end_removes_every_attempt(world: World) -> None:
    request = half_open(world)
    world.account.on_provision = done
    retry(world, request)
    world.reconcile()
    world.account.asked.clear()
    world.ending.complete(Caller(slack_user=ANA), request.id)
    world.reconcile()
    assert world.standing(request.id).request.state is RequestState.ENDED
    assert world.account.asked == [("remove", f"{request.id}.1"), ("remove", f"{request.id}.3")]


def test_a_retry_while_the_failed_attempt_is_still_being_removed(world: World) -> None:
    world.account.on_remove = lambda *_: Failed(reason="db-2 does not answer.", retryable=True)
    request = half_open(world)
    assert states(world, request)[".2"] is GrantState.REMOVING
    world.account.on_provision = done
    retry(world, request)
    world.reconcile()
    assert states(world, request) == {".1": GrantState.ACTIVE, ".2": GrantState.REMOVING, ".3": GrantState.ACTIVE}
    with pytest.raises(AlreadyDecidedError):  # the latest attempt on the server is what counts
        retry(world, request)


def test_a_process_that_dies_after_the_click_loses_no_retry(world: World) -> None:
    request = half_open(world)
    world.account.on_provision = done
    claimed = world.reconciler("dead")
    retry(world, request)
    assert claimed.claim(5, removals_only=False) == [request.id]
    world.clock.forward(minutes=3)  # its lease runs out
    world.reconcile(world.reconciler("other"))
    assert states(world, request)[".3"] is GrantState.ACTIVE
