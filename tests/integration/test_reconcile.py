"""The reconciler against real storage: every path from approved to ended, and what a crash leaves."""

from dataclasses import replace
from datetime import timedelta

import pytest

from access.audit import Kind
from access.errors import UnavailableError
from access.model import AccessRequest, EndCause, Grant, GrantState, Progress, RequestState
from access.ports import Store
from access.reconcile import Reconciler
from access.service.desk import Caller
from access.steps import Done, Failed, Step, Waiting
from tests.values import ANA
from tests.world import World, retag


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def a_running_request(world: World, *servers: str) -> AccessRequest:
    request = world.submit(*servers)
    world.approve(request)
    world.reconcile()
    return world.standing(request.id).request


def test_an_approved_request_becomes_active_and_ends_on_time(world: World) -> None:
    request = world.submit("web-1", "db-2")
    world.approve(request)
    world.clock.forward(seconds=30)
    world.reconcile()
    standing = world.standing(request.id)
    assert standing.request.state is RequestState.ACTIVE
    assert [grant.state for grant in standing.grants] == [GrantState.ACTIVE] * 2
    assert standing.request.expires_at == world.clock.now + request.duration  # from the start, not from the click
    world.clock.forward(minutes=59, seconds=59)
    assert world.reconcile() == []
    world.clock.forward(seconds=1)
    world.reconcile()
    ended = world.standing(request.id)
    assert (ended.request.state, ended.request.cause) == (RequestState.ENDED, EndCause.EXPIRED)
    assert [grant.state for grant in ended.grants] == [GrantState.REMOVED] * 2
    assert world.kinds(request.id) == [
        Kind.REQUEST_SUBMITTED, Kind.REQUEST_APPROVED, Kind.REQUEST_STARTED, Kind.GRANT_ACTIVE, Kind.GRANT_ACTIVE,
        Kind.REQUEST_ACTIVE, Kind.REQUEST_ENDING, Kind.GRANT_REMOVED, Kind.GRANT_REMOVED, Kind.REQUEST_ENDED,
    ]  # fmt: skip
    assert world.reconcile() == []


def test_a_route_opens_before_its_account_and_closes_after_it(world: World) -> None:
    order: list[str] = []
    world.route.on_provision = lambda *_: order.append("route up") or Done()  # type: ignore[func-returns-value]
    world.account.on_provision = lambda *_: order.append("account up") or Done()  # type: ignore[func-returns-value]
    world.account.on_remove = lambda *_: order.append("account down") or Done()  # type: ignore[func-returns-value]
    world.route.on_remove = lambda *_: order.append("route down") or Done()  # type: ignore[func-returns-value]
    request = a_running_request(world)
    world.ending.complete(Caller(slack_user=ANA), request.id)
    world.reconcile()
    assert order == ["route up", "account up", "account down", "route down"]


def test_a_removal_ends_account_and_route_independently(world: World) -> None:
    request = a_running_request(world)
    silent = Failed(reason="web-1 does not answer.", retryable=True)
    world.account.on_remove = lambda *_: silent
    world.route.on_remove = lambda *_: Done(details={"tunnel": "closed"})
    world.ending.complete(Caller(slack_user=ANA), request.id)
    world.reconcile()
    (grant,) = world.standing(request.id).grants
    assert (grant.state, grant.route.done, grant.account.done) == (GrantState.REMOVING, True, False)
    assert grant.proof == {"tunnel": "closed"}
    assert world.standing(request.id).request.problem == "web-1 does not answer."
    world.clock.forward(seconds=2)
    world.reconcile()
    assert world.route.asked.count(("remove", grant.id)) == 1  # what is done is not done again
    assert world.account.asked.count(("remove", grant.id)) == 2
    world.account.on_remove = lambda *_: Done(details={"verified": "yes"})
    world.clock.forward(seconds=4)
    world.reconcile()
    ended = world.standing(request.id)
    assert ended.request.state is RequestState.ENDED
    assert ended.grants[0].proof == {"tunnel": "closed", "verified": "yes"}


def test_a_route_that_cannot_close_holds_up_neither_the_account_nor_its_own_retries(world: World) -> None:
    request = a_running_request(world)
    world.route.on_remove = lambda *_: Failed(reason="AWS does not answer.", retryable=True)
    world.ending.complete(Caller(slack_user=ANA), request.id)
    world.reconcile()
    (grant,) = world.standing(request.id).grants
    assert (grant.state, grant.account.done) == (GrantState.REMOVING, True)
    for _ in range(12):
        world.clock.forward(minutes=5)
        world.reconcile()
    assert world.account.asked.count(("remove", grant.id)) == 1
    late = [kind for kind in world.kinds(request.id) if kind is Kind.TUNNEL_LATE]
    assert len(late) == 3  # the first, the third, the tenth
    assert Kind.GRANT_REMOVAL_LATE not in world.kinds(request.id)  # of the user nothing is in doubt
    world.route.on_remove = lambda *_: Done()
    world.clock.forward(minutes=5)
    world.reconcile()
    assert world.standing(request.id).request.state is RequestState.ENDED


def test_the_late_removal_says_that_the_tunnel_is_closed(world: World) -> None:
    request = a_running_request(world)
    world.account.on_remove = lambda *_: Failed(reason="web-1 does not answer.", retryable=True)
    world.ending.complete(Caller(slack_user=ANA), request.id)
    for _ in range(3):
        world.reconcile()
        world.clock.forward(minutes=5)
    with world.store.unit_of_work() as uow:
        events = [found.event for found in uow.audit.of(request.id) if found.event.kind is Kind.GRANT_REMOVAL_LATE]
    assert [event.details.get("tunnel") for event in events] == [None, "closed"]  # the first was recorded before it


def test_a_handle_is_saved_before_it_is_used(world: World) -> None:
    seen: list[dict[str, str]] = []

    def step_by_step(request: AccessRequest, grant: Grant) -> Step:
        saved = world.standing(request.id).grants[0].account.handle
        assert dict(saved) == dict(grant.account.handle)
        seen.append(dict(saved))
        if not saved:
            return Waiting(handle={"intent": "one"}, retry_in=timedelta())
        if "command" not in saved:
            return Waiting(handle={**saved, "command": "c-1"}, retry_in=timedelta(seconds=2))
        return Done(details={"uid": "200001"})

    world.account.on_provision = step_by_step
    request = a_running_request(world)
    assert seen == [{}, {"intent": "one"}]
    assert request.state is RequestState.APPROVED
    world.clock.forward(seconds=2)
    world.reconcile(world.reconciler("after a restart"))
    assert seen[-1] == {"intent": "one", "command": "c-1"}
    standing = world.standing(request.id)
    assert standing.request.state is RequestState.ACTIVE
    assert standing.grants[0].details["uid"] == "200001"


def test_what_an_account_intends_is_saved_with_the_start_and_with_the_end(world: World) -> None:
    saved = []

    def act(request: AccessRequest, grant: Grant) -> Step:
        standing = world.standing(request.id)
        saved.append((standing.request.state, grant.account.handle, standing.grants[0].account.handle))
        return Done()

    world.account.on_intend = lambda grant: Waiting(handle={"for": grant.state.value}, retry_in=timedelta())
    world.account.on_provision = world.account.on_remove = act
    request = a_running_request(world)
    world.clock.forward(minutes=60)
    world.reconcile()
    making, ending = {"for": "provisioning"}, {"for": "removing"}
    assert saved == [(RequestState.APPROVED, making, making), (RequestState.ENDING, ending, ending)]
    assert world.standing(request.id).request.state is RequestState.ENDED


def test_what_is_under_way_is_not_intended_again(world: World) -> None:
    intended = []

    def intend(grant: Grant) -> Waiting:
        intended.append(grant.id)
        return Waiting(handle={"intent": "first"}, retry_in=timedelta())

    world.account.on_intend = intend
    world.account.on_provision = lambda *_: Waiting(handle={"command": "sent"}, retry_in=timedelta(seconds=5))
    request = a_running_request(world)
    world.clock.forward(seconds=5)
    world.reconcile()
    assert intended == [f"{request.id}.1"]
    assert world.standing(request.id).grants[0].account.handle == {"command": "sent"}


def test_an_account_that_cannot_intend_begins_all_the_same(world: World) -> None:
    def broken(_: Grant) -> Waiting:
        raise RuntimeError("no intent today")

    world.account.on_intend = broken
    assert a_running_request(world).state is RequestState.ACTIVE


def test_one_server_that_fails_does_not_fail_the_others_and_is_cleaned_up(world: World) -> None:
    broken = "web-1 has an account of this name already."
    world.account.on_provision = lambda _, grant: (
        Failed(reason=broken, retryable=False) if grant.server.name == "web-1" else Done()
    )
    request = a_running_request(world, "web-1", "db-2")
    standing = world.standing(request.id)
    assert request.state is RequestState.ACTIVE
    assert [(grant.state, grant.outcome) for grant in standing.grants] == [
        (GrantState.REMOVED, broken),
        (GrantState.ACTIVE, ""),
    ]
    assert ("remove", f"{request.id}.1") in world.account.asked


def test_a_request_of_which_nothing_opens_ends_as_failed(world: World) -> None:
    world.account.on_provision = lambda *_: Failed(reason="No sshd runs on web-1.", retryable=False)
    request = a_running_request(world)
    assert (request.state, request.cause, request.cause_detail) == (
        RequestState.ENDED, EndCause.FAILED, "No sshd runs on web-1.",
    )  # fmt: skip


def test_a_retryable_failure_is_tried_again_with_backoff_and_said(world: World) -> None:
    answers = iter([Failed(reason="AWS is throttling.", retryable=True)] * 2 + [Done()])
    world.account.on_provision = lambda *_: next(answers)
    request = a_running_request(world)
    assert (request.state, request.problem) == (RequestState.APPROVED, "AWS is throttling.")
    assert world.reconcile() == []
    world.clock.forward(seconds=2)
    world.reconcile()
    world.clock.forward(seconds=4)
    world.reconcile()
    after = world.standing(request.id).request
    assert (after.state, after.problem) == (RequestState.ACTIVE, "")
    assert after.revision > request.revision


def test_a_removal_is_never_given_up_and_shouted_about(world: World) -> None:
    request = a_running_request(world)
    world.account.on_remove = lambda *_: Failed(reason="web-1 does not answer.", retryable=False)
    world.ending.complete(Caller(slack_user=ANA), request.id)
    for _ in range(12):
        world.reconcile()
        world.clock.forward(minutes=5)
    late = [kind for kind in world.kinds(request.id) if kind is Kind.GRANT_REMOVAL_LATE]
    assert len(late) == 3  # the first, the third, the tenth
    assert world.standing(request.id).request.state is RequestState.ENDING
    world.account.on_remove = lambda *_: Done(details={"verified": "yes"})
    world.reconcile()
    ended = world.standing(request.id)
    assert ended.request.state is RequestState.ENDED
    assert ended.grants[0].proof["verified"] == "yes"


def test_what_waits_with_a_problem_says_so_is_shouted_about_and_keeps_its_handle(world: World) -> None:
    request = a_running_request(world)
    said: list[str | None] = ["AWS does not answer.", None, "AWS does not answer.", ""]
    problems = iter(said)
    world.account.on_remove = lambda *_: Waiting(
        handle={"command": "c-1"}, retry_in=timedelta(seconds=8), problem=next(problems)
    )
    world.ending.complete(Caller(slack_user=ANA), request.id)
    read = []
    for _ in said:
        world.reconcile()
        standing = world.standing(request.id)
        read.append(standing.request.problem)
        assert dict(standing.grants[0].account.handle) == {"command": "c-1"}
        world.clock.forward(seconds=8)
    assert read == ["AWS does not answer."] * 3 + [""]
    assert standing.grants[0].account.attempts == 2
    assert world.kinds(request.id).count(Kind.GRANT_REMOVAL_LATE) == 1  # the first, and not yet the third


def test_a_tag_that_changed_since_submission_stops_the_start(world: World) -> None:
    request = world.submit("web-1")
    world.approve(request)
    server = request.servers[0]
    world.inventory.now = {server.key: retag(server, env="dev")}
    world.reconcile()
    ended = world.standing(request.id)
    assert (ended.request.state, ended.request.cause) == (RequestState.ENDED, EndCause.FAILED)
    assert ended.request.cause_detail == "The tag env of web-1 changed from prod to dev."
    assert ("provision", f"{request.id}.1") not in world.account.asked


@pytest.mark.parametrize("change", ["gone", "problem"])
def test_a_server_that_is_gone_or_off_does_not_keep_the_others_closed(world: World, change: str) -> None:
    request = world.submit("web-1", "db-2")
    world.approve(request)
    web, db = request.servers
    world.inventory.now = {db.key: db} | ({} if change == "gone" else {web.key: replace(web, problem="web-1 is off.")})
    world.account.on_provision = lambda _, grant: (
        Failed(reason="web-1 is off.", retryable=False) if grant.server.name == "web-1" else Done()
    )
    world.reconcile()
    standing = world.standing(request.id)
    assert standing.request.state is RequestState.ACTIVE
    assert [grant.outcome for grant in standing.grants] == ["web-1 is off.", ""]


def test_a_start_waits_for_aws_but_not_for_ever(world: World) -> None:
    request = world.submit("web-1")
    world.approve(request)
    world.inventory.is_down = True
    world.reconcile()
    waiting = world.standing(request.id).request
    assert (waiting.state, waiting.expires_at) == (RequestState.APPROVED, None)
    assert waiting.problem == "AWS does not answer. I go on trying."
    world.clock.forward(minutes=31)
    world.reconcile()
    assert world.standing(request.id).request.cause is EndCause.FAILED


def test_pending_requests_lapse(world: World) -> None:
    request = world.submit("web-1")
    world.clock.forward(minutes=29)
    assert world.reconcile() == []
    world.clock.forward(minutes=1)
    world.reconcile()
    assert world.standing(request.id).request.state is RequestState.LAPSED
    assert world.kinds(request.id)[-1] is Kind.REQUEST_LAPSED


def test_an_adapter_that_breaks_stops_neither_the_pass_nor_its_own_request(world: World) -> None:
    def breaks(request: AccessRequest, grant: Grant) -> Step:
        if grant.server.name == "web-1":
            raise ZeroDivisionError
        return Done()

    world.account.on_provision = breaks
    poisoned, fine = world.submit("web-1"), world.submit("db-2")
    world.approve(poisoned)
    world.approve(fine)
    world.reconcile()
    assert world.standing(fine.id).request.state is RequestState.ACTIVE
    assert world.standing(poisoned.id).request.problem == "Something broke on Passport's side."
    world.account.on_provision = lambda *_: Done()
    world.clock.forward(seconds=2)
    world.reconcile()
    assert world.standing(poisoned.id).request.state is RequestState.ACTIVE


def test_a_revoke_during_an_act_wins(world: World) -> None:
    def revoked_meanwhile(request: AccessRequest, grant: Grant) -> Step:
        world.ending.complete(Caller(slack_user=ANA), request.id)
        return Done(details={"uid": "200001"})

    world.account.on_provision = revoked_meanwhile
    request = a_running_request(world)
    assert (request.state, request.cause) == (RequestState.ENDED, EndCause.COMPLETED)
    assert Kind.GRANT_ACTIVE not in world.kinds(request.id)
    assert ("remove", f"{request.id}.1") in world.account.asked


def test_expiry_while_provisioning_removes(world: World) -> None:
    world.account.on_provision = lambda *_: Waiting(handle={"command": "c"}, retry_in=timedelta(seconds=5))
    request = a_running_request(world)
    world.clock.forward(hours=1)
    world.reconcile()
    after = world.standing(request.id).request
    assert (after.state, after.cause) == (RequestState.ENDED, EndCause.EXPIRED)


def test_removals_are_claimed_before_everything_else(world: World) -> None:
    first = a_running_request(world, "web-1")
    waiting = [world.submit("db-2") for _ in range(3)]
    for request in waiting:
        world.approve(request)
    world.ending.complete(Caller(slack_user=ANA), first.id)
    worker = world.reconciler()
    assert worker.claim(1, removals_only=False) == [first.id]
    assert worker.claim(9, removals_only=True) == []


def test_a_restarted_instance_takes_its_leases_back_at_once_and_others_wait(world: World) -> None:
    request = world.submit("web-1")
    world.approve(request)
    assert world.reconciler("one").claim(5, removals_only=False) == [request.id]  # and then it dies
    assert world.reconciler("two").claim(5, removals_only=False) == []
    restarted = world.reconciler("one")
    assert restarted.reclaim() == 1
    assert restarted.claim(5, removals_only=False) == [request.id]
    world.clock.forward(minutes=2, seconds=1)
    assert world.reconciler("two").claim(5, removals_only=False) == [request.id]


def test_what_ended_between_its_claim_and_the_work_on_it_is_removed(world: World) -> None:
    request = world.submit("web-1")
    world.approve(request)
    worker = world.reconciler()
    assert worker.claim(1, removals_only=False) == [request.id]
    world.ending.complete(Caller(slack_user=ANA), request.id)
    worker.work(request.id)
    world.reconcile(worker)
    assert world.standing(request.id).request.state is RequestState.ENDED
    assert world.account.asked[-1] == ("remove", f"{request.id}.1")
    assert Kind.REQUEST_STARTED not in world.kinds(request.id)


def test_the_work_that_follows_a_claim_reads_once_less(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    monkeypatch.setattr(Reconciler, "_look", lambda _, held: looks.append(held) or [])
    request = world.submit("web-1")
    world.approve(request)
    worker = world.reconciler()
    worker.work(*worker.claim(1, removals_only=False))
    assert world.standing(request.id).request.state is RequestState.ACTIVE
    assert looks == []


def test_what_nobody_else_has_changed_is_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    load = Reconciler._load
    monkeypatch.setattr(Reconciler, "_load", lambda *given, **more: read.append(more) or load(*given, **more))
    request = world.submit("web-1")
    world.approve(request)
    worker = world.reconciler()
    worker.work(*worker.claim(1, removals_only=False))
    assert world.standing(request.id).request.state is RequestState.ACTIVE
    assert read == [{}]  # by the claim


@pytest.mark.parametrize("owner", ["another", "the same"])
def test_who_lost_the_lease_during_an_act_overwrites_nothing(world: World, owner: str) -> None:
    def slow(_: AccessRequest, grant: Grant) -> Step:
        if grant.account.handle:
            return Waiting(handle=grant.account.handle, retry_in=timedelta(minutes=5))
        world.clock.forward(minutes=3)  # longer than a lease
        until = world.clock.now + timedelta(minutes=2)
        with world.store.unit_of_work() as uow:  # as who has the lease now would have it after a round, and goes on
            uow.requests.claim_due(world.clock.now, owner=owner, lease_until=until, limit=1, removals_only=False)
            uow.grants.save(replace(grant, account=Progress(handle={"command": "quick"})))
            uow.commit()
        return Waiting(handle={"command": "slow"}, retry_in=timedelta(minutes=5))

    world.account.on_provision = slow
    request = world.submit("web-1")
    world.approve(request)
    reconciler = world.reconciler("the same")
    reconciler.work(*reconciler.claim(1, removals_only=False))
    (grant,) = world.standing(request.id).grants
    assert dict(grant.account.handle) == {"command": "quick"}


def test_the_next_due_instant_is_the_earliest_end(world: World) -> None:
    request = a_running_request(world)
    assert world.reconciler().next_due_at() == request.expires_at
    other = world.submit("db-2", minutes=5)
    assert world.reconciler().next_due_at() == other.lapses_at


def test_a_database_that_fails_after_the_act_leaves_the_grant_to_be_found_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = world.submit("web-1")
    world.approve(request)
    worker = world.reconciler()
    monkeypatch.setattr(worker, "_record", lambda *_: (_ for _ in ()).throw(UnavailableError("gone")))
    assert worker.claim(1, removals_only=False) == [request.id]
    with pytest.raises(UnavailableError):
        worker.work(request.id)
    world.reconcile(world.reconciler("after"))
    assert world.standing(request.id).request.state is RequestState.ACTIVE
