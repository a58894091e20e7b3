"""AWS fails while servers are being opened: what Ana reads, that it opens when it can, and that nobody else waits."""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest

from access.model import EndCause, RequestState
from access.service.desk import Caller
from storage.unit_of_work import SqlStore
from tests.integration.aws_desk import HOME, OTHER
from tests.integration.aws_story import NOT_RENEWED, POLL_TROUBLES, Act, AwsGround, Story, aws_ground, heal
from tests.values import ANA

SILENT = "web-1 does not answer: its SSM agent did not fetch the command in time."
NOTHING_MADE = "Nothing was ever made on web-1."


@pytest.fixture(scope="module")
def ground() -> Iterator[AwsGround]:
    with aws_ground() as made:
        yield made


@pytest.fixture
def story(ground: AwsGround, sqlite_store: SqlStore) -> Story:
    return Story(ground, sqlite_store)


def refuse(code: str) -> Act:
    return lambda story, _: story.machines["web-1"].refuses.update(create=code)


TROUBLES: dict[str, tuple[Act, Act, str]] = {
    "throttled": (
        lambda story, _: story.double.faults.throttle("SendCommand", seconds=150),
        lambda *_: None,
        "AWS asks me to go slower in home eu-west-1. I try again by myself.",
    ),
    "5xx": (
        lambda story, _: story.double.faults.fail("SendCommand", 503, code="ServiceUnavailable"),
        heal,
        "AWS has trouble of its own in home eu-west-1 (ServiceUnavailable). I try again by myself.",
    ),
    "AWS is away": (
        lambda story, _: story.double.faults.take_then_timeout("DescribeInstances", times=None),
        heal,
        "AWS does not answer in home eu-west-1. I try again by myself.",
    ),
    "credentials run out": (
        lambda story, _: story.double.faults.expire_credentials(HOME),
        lambda story, _: story.renew_credentials(),
        NOT_RENEWED,
    ),
    "agent is silent": (lambda story, server: story.once_sent(server, story.double.faults.lose), heal, SILENT),
    "server is stopped": (
        lambda story, server: story.once_sent(server, story.double.stop),
        lambda story, server: story.double.start(server),
        "web-1 is stopped.",
    ),
    "disk is full": (
        refuse("disk_full"),
        lambda story, _: story.machines["web-1"].refuses.clear(),
        "web-1: The server's disk is full. Free some space, then try again.",
    ),
    "/etc is read-only": (
        refuse("read_only"),
        lambda story, _: story.machines["web-1"].refuses.clear(),
        "web-1: The server's disk can only be read, so no user can be made or removed on it.",
    ),
    "answer is cut": (
        lambda story, _: story.double.faults.truncate_output(120),
        heal,
        "web-1: The server's answer was cut: its end is missing.",
    ),
    **POLL_TROUBLES,
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_trouble_is_said_and_the_server_opens_when_it_is_over(story: Story, trouble: str) -> None:
    begin, end, sentence = TROUBLES[trouble]
    server = story.server("web-1")
    request = story.approved("web-1", minutes=120)
    begin(story, server)
    story.let(seconds=140)
    assert story.now(request).state is RequestState.APPROVED
    last_answer = r"( It last answered at \d\d:\d\d UTC\.)" if sentence == SILENT else ""
    assert re.search(rf"{re.escape(sentence)}{last_answer} I go on trying\.", story.reads(request))
    assert sentence in story.card(request)

    end(story, server)
    story.let(minutes=6)  # the longest pause between two tries
    assert "web-1 is open until" in story.reads(request)
    assert sentence not in story.reads(request)
    assert story.let_in(request) == ["web-1"]
    if trouble.startswith("polls"):
        assert story.machines["web-1"].ran == [f"create {request.user_name}"]
    story.let(hours=2)
    assert story.now(request).state is RequestState.ENDED
    assert story.let_in(request) == []
    assert story.late(request) == []


@pytest.mark.parametrize("operation", ["SendCommand", "ListCommandInvocations"])
def test_a_minute_of_throttling_is_waited_out(story: Story, operation: str) -> None:
    story.server("web-1")
    story.double.faults.throttle(operation, seconds=60)
    request = story.approved("web-1")
    story.let(seconds=30)
    assert "I am opening web-1." in story.reads(request)
    story.let(seconds=60)
    assert "web-1 is open until" in story.reads(request)
    assert story.machines["web-1"].ran == [f"create {request.user_name}"]


def test_polls_that_work_again_take_the_trouble_back(story: Story) -> None:
    server = story.server("web-1")
    story.double.faults.stall(server)
    story.double.faults.fail("ListCommandInvocations", 500)
    request = story.approved("web-1")
    story.let(seconds=90)
    assert "AWS has trouble of its own in home eu-west-1" in story.reads(request)
    story.double.faults.clear()
    story.double.faults.stall(server)
    story.let(seconds=20)
    assert "AWS has trouble" not in story.reads(request)
    assert "I am opening web-1." in story.reads(request)
    story.double.faults.unstall(server)
    story.let(seconds=20)
    assert "web-1 is open until" in story.reads(request)
    assert story.machines["web-1"].ran == [f"create {request.user_name}"]


def test_the_time_is_counted_from_the_start_and_not_from_the_trouble(story: Story) -> None:
    story.server("web-1")
    story.double.faults.fail("DescribeInstances")
    request = story.approved("web-1")
    story.let(minutes=10)
    story.double.faults.clear()
    story.let(minutes=6)
    begun = story.now(request)
    assert begun.state is RequestState.ACTIVE
    assert begun.expires_at
    assert begun.expires_at - story.clock.now > timedelta(minutes=54)


def test_a_server_in_trouble_keeps_nobody_else_waiting(story: Story) -> None:
    server = story.server("web-1")
    story.server("db-2")
    troubled, both = story.approved("web-1"), story.approved("web-1", "db-2")
    story.once_sent(server, story.double.faults.lose)
    other = story.opened("db-2")
    story.let(seconds=90)
    assert SILENT in story.reads(troubled)
    read = story.reads(both)
    assert "1 of 2 is open until" in read
    assert re.search(rf"{re.escape(SILENT)} It last answered at \d\d:\d\d UTC\.\nI go on trying\.", read)
    assert story.let_in(other) == ["db-2"]


def test_a_server_that_was_stopped_before_the_start_opens_when_it_runs(story: Story) -> None:
    server = story.server("web-1")
    story.server("db-2")
    request = story.approved("web-1", "db-2")
    story.double.stop(server)
    story.let(minutes=3)
    read = story.reads(request)
    assert "1 of 2 is open until" in read
    assert "web-1 is stopped." in read
    story.double.start(server)
    story.let(minutes=6)
    assert "web-1 and db-2 are open until" in story.reads(request)


@pytest.mark.parametrize("operation", ["SendCommand", "ListCommandInvocations"])
def test_an_answer_that_is_lost_after_the_call_was_taken_makes_nothing_twice(story: Story, operation: str) -> None:
    story.server("web-1")
    story.double.faults.take_then_timeout(operation, times=3 if operation != "SendCommand" else 1)
    request = story.approved("web-1")
    story.let(seconds=60)
    assert "web-1 is open until" in story.reads(request)
    assert story.machines["web-1"].ran == [f"create {request.user_name}"]
    story.double.faults.take_then_timeout(operation)
    story.let(hours=1, seconds=30)
    assert story.machines["web-1"].ran[1:] == [f"remove {request.user_name}"]
    assert story.now(request).state is RequestState.ENDED


def test_a_script_that_ran_and_was_never_reported_runs_again_to_the_same_end(story: Story) -> None:
    server = story.server("web-1")
    story.double.faults.lose_answers(server)
    request = story.approved("web-1")
    story.let(minutes=9)
    assert story.machines["web-1"].ran == [f"create {request.user_name}"] * 2
    assert "web-1 is open until" in story.reads(request)
    story.let(hours=1)
    assert story.now(request).state is RequestState.ENDED


def test_an_agent_that_never_finishes_is_named_and_the_end_comes_all_the_same(story: Story) -> None:
    server = story.server("web-1")
    story.double.faults.stall(server)
    request = story.approved("web-1", minutes=15)
    story.let(minutes=8)
    assert "web-1 did not finish in time." in story.reads(request)
    story.let(minutes=8)
    ending = story.now(request)
    assert (ending.state, ending.cause) == (RequestState.ENDING, EndCause.EXPIRED)
    story.double.faults.clear()
    story.let(minutes=20)
    assert story.now(request).state is RequestState.ENDED
    assert story.let_in(request) == []


def test_a_create_that_arrives_after_the_end_makes_nobody(story: Story) -> None:
    server = story.server("web-1")
    story.double.faults.stall(server)
    request = story.approved("web-1", minutes=5)
    story.let(minutes=6)
    assert story.now(request).state is RequestState.ENDING
    assert story.machines["web-1"].ran == []
    story.double.faults.clear()
    story.let(minutes=1)
    assert sorted(story.machines["web-1"].ran) == [f"create {request.user_name}", f"remove {request.user_name}"]
    assert story.machines["web-1"].ends == {}
    assert story.now(request).state is RequestState.ENDED
    assert NOTHING_MADE in story.reads(request)
    assert "The time was up." in story.reads(request)


def test_a_command_that_comes_twice_opens_once_and_closes_for_good(story: Story) -> None:
    server = story.server("web-1")
    story.double.faults.deliver_twice(server)
    request = story.opened("web-1")
    story.let(hours=1, seconds=30)
    assert story.machines["web-1"].ran == [f"create {request.user_name}"] * 2 + [f"remove {request.user_name}"] * 2
    assert story.now(request).state is RequestState.ENDED
    assert story.machines["web-1"].ends == {}


def test_what_aws_surely_refused_to_send_is_no_user_to_be_looked_for(story: Story) -> None:
    story.server("web-1")
    story.double.faults.fail("SendCommand", 400)
    request = story.approved("web-1")
    story.let(seconds=10)
    ended = story.now(request)
    assert (ended.state, ended.cause) == (RequestState.ENDED, EndCause.FAILED)
    for read in (story.reads(request), story.card(request)):
        assert f"UTC. {NOTHING_MADE}" in read
        assert "AWS does not let Passport's role call SendCommand in home eu-west-1." in read
        assert "removed" not in read
    assert story.late(request) == []
    assert story.grant(request).proof["vouched_by"] == "Passport: nothing was sent to the server"


@pytest.mark.parametrize("lost", [True, False], ids=["an answer is lost", "AWS has trouble of its own"])
def test_what_may_have_been_sent_before_aws_refused_is_looked_for(story: Story, lost: bool) -> None:
    story.server("web-1")
    story.double.faults.list_commands_lag(60)
    if lost:
        story.double.faults.take_then_timeout("SendCommand")
    else:
        story.double.faults.fail("SendCommand", 500, times=1)
    request = story.approved("web-1")
    story.let(seconds=1)
    story.double.faults.throttle("SendCommand", times=1)
    story.double.faults.fail("SendCommand", 400)
    story.let(seconds=20)
    assert story.now(request).state is RequestState.ENDING
    assert f"I cannot prove that {request.user_name} is gone from web-1." in story.reads(request)
    assert story.let_in(request) == (["web-1"] if lost else [])
    story.double.faults.clear()
    story.let(minutes=6)
    assert story.now(request).state is RequestState.ENDED
    assert story.let_in(request) == []
    assert (NOTHING_MADE in story.reads(request)) is not lost


@pytest.mark.parametrize(
    ("happens", "sentence"),
    [
        (lambda story, server: story.double.terminate(server), "web-1 is terminated."),
        (lambda story, server: story.replace(server), "web-1 is terminated."),
        (lambda story, server: story.double.retag(server, {"env": "dev"}), "The tag env of web-1 changed from prod"),
    ],
    ids=["terminated", "replaced", "retagged"],
)
def test_a_server_that_is_no_longer_what_was_approved_is_not_opened(story: Story, happens: Act, sentence: str) -> None:
    server = story.server("web-1")
    request = story.approved("web-1")
    first = story.machines["web-1"]
    happens(story, server)
    story.let(minutes=1)
    ended = story.now(request)
    assert (ended.state, ended.cause) == (RequestState.ENDED, EndCause.FAILED)
    assert sentence in story.reads(request)
    assert first.ran == story.machines["web-1"].ran == []
    told = "web-1 was terminated, says EC2, so nobody is on it." if "terminated" in sentence else NOTHING_MADE
    for read in (story.reads(request), story.card(request)):
        assert re.search(rf"Closed at \d\d:\d\d UTC\. {re.escape(told)}", read)
        assert "removed" not in read
        assert "say so themselves" not in read


def test_a_server_that_is_terminated_while_it_is_being_opened(story: Story) -> None:
    server = story.server("web-1")
    story.double.faults.deliver_late(server, 30)
    request = story.approved("web-1")
    story.let(seconds=10)
    story.double.terminate(server)
    story.let(minutes=2)
    ended = story.now(request)
    assert (ended.state, ended.cause, ended.cause_detail) == (
        RequestState.ENDED,
        EndCause.FAILED,
        "web-1 is terminated.",
    )
    assert "web-1 is terminated." in story.reads(request)
    assert story.grant(request).proof["vouched_by"] == "EC2: the instance is terminated"
    assert "UTC. web-1 was terminated, says EC2, so nobody is on it." in story.reads(request)
    assert "removed" not in story.reads(request)
    assert "say so themselves" not in story.reads(request)


@pytest.mark.parametrize(
    ("minutes", "sentence"),
    [
        (45, "web-1's clock is 45 min behind mine, so it could not end the access on time by itself."),
        (-45, "web-1's clock is 45 min ahead of mine, so it would end the access too early."),
        (-90, "web-1's clock is ahead of mine, so it took the request for over. Nothing was made. Set it right,"),
    ],
)
def test_a_server_with_a_wrong_clock_is_not_left_open(story: Story, minutes: int, sentence: str) -> None:
    story.server("web-1")
    machine = story.machines["web-1"]
    machine.behind = timedelta(minutes=minutes)
    request = story.approved("web-1")
    story.let(minutes=2)
    ended = story.now(request)
    assert (ended.state, ended.cause) == (RequestState.ENDED, EndCause.FAILED)
    read = story.reads(request)
    assert sentence in read
    assert machine.ends == {}
    was_made = minutes > -60
    assert (f"{request.user_name} removed from web-1, verified" in read) is was_made
    assert ("The servers say so themselves, and root was given on them." in read) is was_made
    assert (NOTHING_MADE in read) is not was_made


def test_of_a_silent_server_is_told_when_it_last_answered_and_retry_opens_it_at_once(story: Story) -> None:
    story.server("web-1")
    server = story.server("db-7")
    seen_at = story.clock.now
    story.double.faults.lose(server)
    request = story.approved("web-1", "db-7")
    story.let(minutes=4)
    assert "1 of 2 is open" in story.reads(request)
    assert (
        "db-7 does not answer: its SSM agent did not fetch the command in time. "
        f"It last answered at {seen_at:%H:%M} UTC.\nI go on trying."
    ) in story.reads(request)
    story.double.faults.heal(server)
    story.retrying.retry(Caller(slack_user=ANA), request.id)
    story.let(seconds=3)
    assert story.let_in(request) == ["web-1", "db-7"]


def test_a_server_that_failed_is_opened_by_a_retry_and_closed_for_good_at_the_end(story: Story) -> None:
    story.server("web-1")
    story.server("db-7")
    machine = story.machines["db-7"]
    machine.refuses["create"] = "no_sshd"
    request = story.approved("web-1", "db-7")
    story.let(seconds=30)
    assert story.let_in(request) == ["web-1"]
    machine.refuses.clear()
    story.retrying.retry(Caller(slack_user=ANA), request.id)
    story.let(seconds=30)
    assert "web-1 and db-7 are open until" in story.reads(request)
    sent = [(command.parameters["Attempt"][0], len(command.instance_ids)) for command in story.double.commands[-1:]]
    assert sent == [("2", 1)]
    story.let(hours=1, minutes=1)
    assert story.now(request).state is RequestState.ENDED
    assert story.let_in(request) == []
    assert "verified" in story.reads(request)


def test_a_clock_that_is_a_minute_off_is_good_enough(story: Story) -> None:
    for name, minutes in (("web-1", 1), ("db-2", -1)):
        story.server(name)
        story.machines[name].behind = timedelta(minutes=minutes)
    request = story.opened("web-1", "db-2")
    assert "web-1 and db-2 are open until" in story.reads(request)


def test_credentials_of_a_role_that_run_out_are_renewed_and_nobody_notices(story: Story) -> None:
    story.server("web-1", account=OTHER)
    first = story.opened("web-1")
    story.double.faults.expire_credentials(OTHER)
    second = story.approved("web-1")
    story.let(seconds=30)
    assert "web-1 is open until" in story.reads(second)
    story.double.faults.expire_credentials(OTHER)
    story.let(hours=1, minutes=1)
    assert [story.now(request).state for request in (first, second)] == [RequestState.ENDED] * 2
    assert story.late(first) + story.late(second) == []
