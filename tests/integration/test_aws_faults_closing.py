"""AWS fails when access ends: nobody is in after the end, the removal is tried until it is proved, and it is said."""

from collections.abc import Iterator

import pytest

from access.audit import Kind
from access.model import EndCause, RequestState
from access.service.desk import Caller
from provisioning.tunnel_sessions import reason_of
from sandbox.aws import Server
from storage.unit_of_work import SqlStore
from tests.integration.aws_desk import HOME
from tests.integration.aws_story import HOME_URL, NOT_RENEWED, POLL_TROUBLES, Act, AwsGround, Story, aws_ground, heal
from tests.values import ANA

DENIED = (
    "AWS does not let Passport's role call SendCommand in home eu-west-1. "
    "An admin must allow it: look at the stack of deploy/passport-account.yaml."
)
SILENT = "web-1 does not answer: its SSM agent did not fetch the command in time."


@pytest.fixture(scope="module")
def ground() -> Iterator[AwsGround]:
    with aws_ground() as made:
        yield made


@pytest.fixture
def story(ground: AwsGround, sqlite_store: SqlStore) -> Story:
    return Story(ground, sqlite_store)


def refuse(code: str) -> Act:
    return lambda story, _: story.machines["web-1"].refuses.update(remove=code)


def mend(story: Story, _: Server) -> None:
    story.machines["web-1"].refuses.clear()


TROUBLES: dict[str, tuple[Act, Act, str]] = {
    "throttled": (
        lambda story, _: story.double.faults.throttle("SendCommand"),
        heal,
        "AWS asks me to go slower in home eu-west-1. I try again by myself.",
    ),
    "5xx": (
        lambda story, _: story.double.faults.fail("SendCommand", 500),
        heal,
        "AWS has trouble of its own in home eu-west-1 (InternalServerError). I try again by myself.",
    ),
    "every answer is lost": (
        lambda story, _: story.lose_every_answer(),
        heal,
        "AWS does not answer in home eu-west-1. I try again by myself.",
    ),
    "credentials run out": (
        lambda story, _: story.double.faults.expire_credentials(HOME),
        lambda story, _: story.renew_credentials(),
        NOT_RENEWED,
    ),
    "not allowed": (
        lambda story, _: story.double.faults.fail("SendCommand", 400),
        heal,
        DENIED,
    ),
    "agent is silent": (lambda story, server: story.double.faults.lose(server), heal, SILENT),
    "server is stopped": (
        lambda story, server: story.double.stop(server),
        lambda story, server: story.double.start(server),
        "web-1 is stopped.",
    ),
    "disk is full": (
        refuse("disk_full"),
        mend,
        "web-1: The server's disk is full. Free some space, then try again.",
    ),
    "/etc is read-only": (
        refuse("read_only"),
        mend,
        "web-1: The server's disk can only be read, so no user can be made or removed on it.",
    ),
    "something is left": (
        refuse("left_behind"),
        mend,
        "web-1: Access is ended, but something of the user is still on the server. I go on trying.",
    ),
    "answer is cut": (
        lambda story, _: story.double.faults.truncate_output(120),
        heal,
        "web-1: The server's answer has a line that is not mine, or was cut.",
    ),
    **POLL_TROUBLES,
}


def test_a_silent_agent_keeps_no_tunnel_open_and_the_proof_says_so(story: Story) -> None:
    server = story.server("web-1")
    request = story.opened("web-1")
    ssm = story.ground.sessions.client("home", server.region, "ssm")
    reason = reason_of(f"{request.id}.1", home=HOME_URL, person="ana@example.com")
    ssm.start_session(Target=server.instance_id, DocumentName="AWS-StartSSHSession", Reason=reason)
    (session,) = [each for each in story.double.sessions if each.server is server]
    story.double.faults.lose(server)
    story.ending.complete(Caller(slack_user=ANA), request.id)
    story.let(seconds=5)
    assert session.ended_at is not None
    story.let(minutes=20)
    for read in (story.reads(request), story.card(request)):
        assert f"I cannot prove that {request.user_name} is gone from web-1. The tunnel is closed." in read
    assert "tunnel closed" in story.late(request)[-1]
    story.double.faults.heal(server)
    story.let(minutes=6)
    assert story.grant(request).proof["tunnel"] == "closed"
    assert story.now(request).state is RequestState.ENDED


def test_a_throttled_listing_of_sessions_delays_no_removal_of_the_user(story: Story) -> None:
    story.server("web-1")
    request = story.opened("web-1")
    story.double.faults.throttle("DescribeSessions")
    story.ending.complete(Caller(slack_user=ANA), request.id)
    story.let(seconds=20)
    grant = story.grant(request)
    assert grant.account.done and grant.proof["verified"] == "yes" and not grant.route.done
    assert story.let_in(request) == []
    story.let(minutes=10)
    assert f"{request.user_name} is gone, but I cannot prove that the tunnel to web-1 is closed." in story.reads(
        request
    )
    story.double.faults.clear()
    story.let(minutes=6)
    assert story.now(request).state is RequestState.ENDED


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_late_removal_is_shouted_about_and_tried_until_it_is_proved(story: Story, trouble: str) -> None:
    begin, end, sentence = TROUBLES[trouble]
    server = story.server("web-1")
    story.server("db-2")
    request, other = story.opened("web-1"), story.opened("db-2", minutes=90)
    story.let(minutes=30)
    begin(story, server)
    story.let(minutes=38)

    assert story.now(request).state is RequestState.ENDING
    assert story.let_in(request) == []
    stuck = trouble in {"disk is full", "/etc is read-only", "something is left"}
    assert story.held_by(request) == (["web-1"] if stuck else [])
    late = story.late(request)
    assert len(late) >= 2
    for said in late:
        assert sentence in said
        assert said.count("cannot prove") == 1
    for read in (story.reads(request), story.card(request)):
        assert sentence in read
        assert read.count("cannot prove") == 1
        assert f"So I cannot prove that {request.user_name} is gone from web-1." in read
        assert ("the server's own timer ends the account" in read) is not stuck
        assert ("The timer on web-1 cannot finish either until that is mended." in read) is stuck

    end(story, server)
    story.let(minutes=6)  # the longest pause between two tries
    ended = story.now(request)
    assert (ended.state, ended.cause) == (RequestState.ENDED, EndCause.EXPIRED)
    assert story.grant(request).proof["verified"] == "yes"
    assert f"Closed: {request.user_name} removed from web-1, verified" in story.reads(request)
    assert request.user_name not in story.machines["web-1"].ends
    if trouble.startswith("polls"):
        assert story.machines["web-1"].ran[1:] == [f"remove {request.user_name}"]
    story.let(minutes=22)
    assert story.now(other).state is RequestState.ENDED
    assert story.late(other) == []


@pytest.mark.parametrize("operation", ["SendCommand", "ListCommandInvocations"])
def test_a_minute_of_throttling_is_no_reason_to_shout(story: Story, operation: str) -> None:
    story.server("web-1")
    request = story.opened("web-1")
    story.let(minutes=49, seconds=40)
    story.double.faults.throttle(operation, seconds=70)
    story.let(minutes=12)
    assert story.now(request).state is RequestState.ENDED
    assert story.late(request) == []


def test_a_server_in_trouble_keeps_nobody_elses_end_waiting(story: Story) -> None:
    server = story.server("web-1")
    story.server("db-2")
    troubled, other = story.opened("web-1"), story.opened("db-2")
    story.double.faults.lose(server)
    story.let(minutes=60, seconds=10)
    ended = story.now(other)
    assert ended.state is RequestState.ENDED
    assert ended.ended_at
    assert ended.expires_at
    assert (ended.ended_at - ended.expires_at).total_seconds() < 5
    assert story.now(troubled).state is RequestState.ENDING


def test_done_early_on_a_silent_server_says_until_when_the_user_may_be_there(story: Story) -> None:
    server = story.server("web-1")
    request = story.opened("web-1", minutes=10)
    story.double.faults.lose(server)
    story.ending.complete(Caller(slack_user=ANA), request.id)
    story.let(minutes=3)
    assert SILENT in story.reads(request)
    assert "The server ends the account itself at " in story.reads(request)
    assert story.let_in(request) == ["web-1"]  # what the sentence says, and no longer than it says
    story.let(minutes=8)
    assert story.let_in(request) == []


@pytest.mark.parametrize("operation", ["SendCommand", "ListCommandInvocations"])
def test_a_removal_whose_answer_is_lost_is_found_again(story: Story, operation: str) -> None:
    story.server("web-1")
    request = story.opened("web-1")
    story.double.faults.take_then_timeout(operation)
    story.let(hours=1)
    assert story.now(request).state is RequestState.ENDED
    assert story.machines["web-1"].ran == [f"create {request.user_name}", f"remove {request.user_name}"]
    assert story.late(request) == []


def test_a_removal_that_ran_and_was_never_reported_is_asked_for_again(story: Story) -> None:
    server = story.server("web-1")
    request = story.opened("web-1")
    story.double.faults.lose_answers(server)
    story.let(hours=1, minutes=20)
    assert story.machines["web-1"].ran[1:] == [f"remove {request.user_name}"] * 2
    assert "web-1 did not finish in time." in story.late(request)[0]
    assert story.now(request).state is RequestState.ENDED


def test_a_removal_that_comes_twice_or_late_ends_nobody_else(story: Story) -> None:
    server = story.server("web-1")
    first, second = story.opened("web-1", minutes=30), story.opened("web-1")
    story.double.faults.deliver_twice(server)
    story.double.faults.deliver_late(server, 40)
    story.let(minutes=32)
    assert story.now(first).state is RequestState.ENDED
    assert story.let_in(second) == ["web-1"]
    assert story.machines["web-1"].ran[-2:] == [f"remove {first.user_name}"] * 2


def test_an_agent_that_never_finishes_is_named_after_the_documents_own_time(story: Story) -> None:
    server = story.server("web-1")
    request = story.opened("web-1", minutes=15)
    story.double.faults.stall(server)
    story.let(minutes=35)
    assert "web-1 did not finish in time." in story.late(request)[0]
    assert story.let_in(request) == []
    story.double.faults.clear()
    story.let(minutes=1)
    assert story.now(request).state is RequestState.ENDED


@pytest.mark.parametrize("when", ["while it is open", "while it is being closed"])
def test_a_terminated_server_is_a_removed_one(story: Story, when: str) -> None:
    server = story.server("web-1")
    request = story.opened("web-1")
    if when == "while it is being closed":
        story.double.faults.lose(server)
        story.let(hours=1, minutes=10)
        assert SILENT in story.late(request)[0]
    story.double.terminate(server)
    story.let(hours=1, minutes=10)
    assert story.now(request).state is RequestState.ENDED
    proof = story.grant(request).proof
    assert (proof["result"], proof["vouched_by"]) == ("terminated", "EC2: the instance is terminated")
    for read in (story.reads(request), story.card(request)):
        assert "UTC. web-1 was terminated, says EC2, so nobody is on it." in read
        assert "removed" not in read
        assert "say so themselves" not in read


def test_of_several_servers_each_is_told_as_it_ended(story: Story) -> None:
    server = story.server("web-1")
    story.server("db-2")
    story.server("app-3")
    story.machines["app-3"].refuses["create"] = "no_sshd"
    request = story.opened("web-1", "db-2", "app-3")
    story.double.terminate(server)
    story.let(hours=1, minutes=10)
    for read in (story.reads(request), story.card(request)):
        assert f"Closed: {request.user_name} removed from db-2, verified at " in read
        assert "UTC. web-1 was terminated, says EC2, so nobody is on it. Nothing was ever made on app-3." in read
        assert "The servers say so themselves, and root was given on them." in read


def test_a_server_of_the_same_name_is_another_server(story: Story) -> None:
    server = story.server("web-1")
    request = story.opened("web-1")
    replacement = story.replace(server)
    story.let(hours=1, minutes=5)
    assert story.now(request).state is RequestState.ENDED
    assert story.grant(request).proof["terminated"] == server.instance_id
    assert story.machines["web-1"].ran == []
    assert "UTC. web-1 was terminated, says EC2, so nobody is on it." in story.reads(request)
    assert "removed" not in story.reads(request)
    assert not any(replacement.instance_id in command.instance_ids for command in story.double.commands)


def test_a_server_that_ec2_does_not_speak_of_is_not_believed_gone(story: Story) -> None:
    server = story.server("web-1")
    request = story.opened("web-1")
    story.double.terminate(server)
    story.double.faults.fail("DescribeInstances")
    story.let(hours=1, minutes=10)
    assert story.now(request).state is RequestState.ENDING
    assert "web-1 is not known to Systems Manager: it is terminated, or its SSM agent is gone." in story.reads(request)
    story.double.faults.clear()
    story.let(minutes=6)
    assert story.now(request).state is RequestState.ENDED


def test_a_restart_in_the_middle_of_the_trouble_goes_on_with_it(story: Story) -> None:
    server = story.server("web-1")
    request = story.opened("web-1")
    story.double.faults.lose(server)
    story.let(hours=1, minutes=10)
    story.worker = story.reconciler()
    story.worker.reclaim()
    story.double.faults.clear()
    story.let(minutes=6)
    assert story.now(request).state is RequestState.ENDED
    assert story.kinds(request.id).count(Kind.GRANT_REMOVED) == 1
