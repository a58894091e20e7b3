"""Run Command against a strict Systems Manager: batches, restarts, lost answers, every kind of end."""

from collections.abc import Iterator, Sequence

import pytest

from access.model import Grant
from access.steps import Waiting
from provisioning.command_intent import Order, Outcome
from provisioning.command_outcome import Answered, Unanswered
from provisioning.command_status import read_invocation
from provisioning.documents import create_document
from provisioning.run_command import MOST_SERVERS, RunCommand
from sandbox.aws import Server
from tests.integration.aws_desk import AUTHORITY, FAR, HOME, OTHER, AwsDesk, aws_desk, grants_of, keep
from tests.integration.aws_lab import client


@pytest.fixture(scope="module")
def shared() -> Iterator[AwsDesk]:
    with pytest.MonkeyPatch.context() as patch, aws_desk(patch) as made:
        yield made


@pytest.fixture
def desk(shared: AwsDesk) -> AwsDesk:
    shared.reset()
    return shared


ORDER = Order(
    request_id="AR-7F3K",
    document=create_document(),
    parameters={
        "RequestId": "AR-7F3K",
        "UserName": "pp-7f3k",
        "NotAfter": "1999999999",
        "CaPublicKey": AUTHORITY.public_key,
        "CaGeneration": "1",
    },
)


class Runner:
    """Runs one order."""

    def __init__(self, run_command: RunCommand, order: Order = ORDER) -> None:
        self._run_command = run_command
        self._order = order

    def __call__(self, grants: Sequence[Grant], /) -> dict[str, Outcome]:
        return self._run_command.run(self._order, grants)


def after(step: Runner, grants: Sequence[Grant]) -> list[Grant]:
    """The grants with the handles that a call answers, all of them waiting."""
    outcomes = step(grants)
    waiting = [outcomes[grant.id] for grant in grants]
    return [
        keep(grant, outcome) for grant, outcome in zip(grants, waiting, strict=True) if isinstance(outcome, Waiting)
    ]


def test_120_servers_in_three_places_take_the_fewest_commands_and_no_poll_names_a_server(desk: AwsDesk) -> None:
    servers = desk.servers(60) + desk.servers(30, region=FAR) + desk.servers(30, account=OTHER)
    ends = desk.drive(Runner(desk.run_command()), grants_of(servers))

    assert len(ends) == 120
    assert all(isinstance(end, Answered) for end in ends.values())
    sizes = sorted((command.account, command.region, len(command.instance_ids)) for command in desk.double.commands)
    assert sizes == [(HOME, "eu-west-1", 10), (HOME, "eu-west-1", 50), (HOME, FAR, 30), (OTHER, "eu-west-1", 30)]
    polls = desk.calls("ListCommandInvocations")
    assert polls
    assert not any("InstanceId" in poll for poll in polls)


def test_the_intent_is_saved_before_anything_is_sent_and_the_command_names_it(desk: AwsDesk) -> None:
    step, grants = Runner(desk.run_command()), grants_of(desk.servers(2))
    intended = after(step, grants)
    assert desk.double.commands == []
    (token,) = {grant.account.handle["intent"] for grant in intended}

    sent = after(step, intended)
    (command,) = desk.double.commands
    assert command.comment == f"passport AR-7F3K create {token}"
    assert len(command.comment) <= 100
    assert {grant.account.handle["command_id"] for grant in sent} == {command.id}


def test_a_restart_between_intent_and_sending_sends_once(desk: AwsDesk) -> None:
    intended = after(Runner(desk.run_command()), grants_of(desk.servers(3)))
    ends = desk.drive(Runner(desk.run_command()), intended)
    assert len(desk.double.commands) == 1
    assert desk.calls("ListCommands")
    assert all(isinstance(end, Answered) for end in ends.values())


def test_a_restart_between_sending_and_saving_finds_the_command_again(desk: AwsDesk) -> None:
    first = Runner(desk.run_command())
    intended = after(first, grants_of(desk.servers(3)))
    first(intended)
    found = after(Runner(desk.run_command()), intended)
    assert {grant.account.handle["command_id"] for grant in found} == {desk.double.commands[0].id}
    ends = desk.drive(Runner(desk.run_command()), found)
    assert len(desk.double.commands) == 1
    assert all(isinstance(end, Answered) for end in ends.values())


def test_a_restart_finds_its_own_command_among_many(desk: AwsDesk) -> None:
    servers = desk.servers(2)
    intended = [after(Runner(desk.run_command()), grants_of([server])) for server in servers]
    for grants in intended:
        desk.drive(Runner(desk.run_command()), grants)
    for _ in range(60):
        after(other := Runner(desk.run_command()), grants_of(servers[1:]))
        other(after(other, grants_of(servers[1:])))
    (found,) = after(Runner(desk.run_command()), intended[0])
    assert found.account.handle["command_id"] == desk.double.commands[0].id


def test_an_answer_that_is_lost_sends_nothing_twice(desk: AwsDesk) -> None:
    desk.double.faults.take_then_timeout("SendCommand")
    ends = desk.drive(Runner(desk.run_command()), grants_of(desk.servers(2)))
    assert len(desk.calls("SendCommand")) == 1
    assert all(isinstance(end, Answered) for end in ends.values())


def test_a_command_that_aws_does_not_list_in_time_is_sent_again_and_that_is_harmless(desk: AwsDesk) -> None:
    desk.double.faults.take_then_timeout("SendCommand")
    desk.double.faults.list_commands_lag(3600)
    step = Runner(desk.run_command())
    grants = after(step, after(step, grants_of(desk.servers(2))))
    desk.clock.forward(seconds=1)
    grants = after(step, grants)
    assert len(desk.double.commands) == 1
    desk.clock.forward(seconds=60)
    grants = after(step, grants)
    assert len(desk.double.commands) == 2
    desk.double.faults.clear()
    assert all(isinstance(end, Answered) for end in desk.drive(step, grants).values())


def test_a_server_error_is_looked_after_before_it_is_sent_again(desk: AwsDesk) -> None:
    desk.double.faults.fail("SendCommand", 500, times=1)
    ends = desk.drive(Runner(desk.run_command()), grants_of(desk.servers(1)))
    assert len(desk.calls("SendCommand")) == 2
    assert len(desk.double.commands) == 1
    assert desk.calls("ListCommands")
    assert isinstance(ends["AR-7F3K.1"], Answered)


def test_throttling_is_waited_out_without_a_search(desk: AwsDesk) -> None:
    desk.double.faults.throttle("SendCommand", times=4)
    ends = desk.drive(Runner(desk.run_command()), grants_of(desk.servers(2)))
    assert len(desk.calls("SendCommand")) == 5
    assert len(desk.double.commands) == 1
    assert not desk.calls("ListCommands")
    assert all(isinstance(end, Answered) for end in ends.values())


def test_throttling_without_end_is_left_to_the_reconciler_with_a_sentence(desk: AwsDesk) -> None:
    desk.double.faults.throttle("SendCommand")
    started = desk.clock.now
    (end,) = desk.drive(Runner(desk.run_command()), grants_of(desk.servers(1))).values()
    assert end == Unanswered(
        reason="AWS asks me to go slower in home eu-west-1. I try again by myself.", retryable=True
    )
    assert (desk.clock.now - started).total_seconds() > 60


def test_an_expired_token_is_renewed_and_the_command_goes_on(desk: AwsDesk) -> None:
    step, grants = Runner(desk.run_command()), grants_of(desk.servers(1, account=OTHER))
    desk.drive(step, grants)  # with a token that is good
    desk.double.faults.fail("SendCommand", 400, code="ExpiredTokenException", times=1)
    desk.double.calls.clear()
    desk.double.commands.clear()
    ends = desk.drive(step, grants)
    assert isinstance(ends["AR-7F3K.1"], Answered)
    assert len(desk.double.commands) == 1
    assert [call.operation for call in desk.double.calls].count("AssumeRole") == 1


def test_one_terminated_server_does_not_fail_the_other_49(desk: AwsDesk) -> None:
    servers = desk.servers(50)
    desk.double.terminate(servers[20])
    ends = desk.drive(Runner(desk.run_command()), grants_of(servers))
    bad = {grant_id: end for grant_id, end in ends.items() if not isinstance(end, Answered)}
    assert list(bad) == ["AR-7F3K.21"]
    assert bad["AR-7F3K.21"].reason.startswith("web-20 is not known to Systems Manager")
    assert len(ends) == MOST_SERVERS
    assert len(desk.calls("SendCommand")) == 2
    assert len(desk.double.commands) == 1


def test_when_aws_does_not_say_which_server_is_bad_the_good_ones_are_served_all_the_same(desk: AwsDesk) -> None:
    servers = desk.servers(9)
    desk.double.terminate(servers[3])
    desk.double.faults.fail("DescribeInstanceInformation", 400)
    ends = desk.drive(Runner(desk.run_command()), grants_of(servers))
    assert [grant_id for grant_id, end in ends.items() if isinstance(end, Unanswered)] == ["AR-7F3K.4"]
    assert all(len(command.invocations) == len(set(command.invocations)) for command in desk.double.commands)
    reached = sorted(instance_id for command in desk.double.commands for instance_id in command.invocations)
    assert reached == sorted(server.instance_id for server in servers if server is not servers[3])


def test_a_server_that_is_offline_fails_alone_when_its_time_to_start_is_over(desk: AwsDesk) -> None:
    servers = desk.servers(2)
    desk.double.set_online(servers[0], False)
    step = Runner(desk.run_command())
    grants = after(step, after(step, grants_of(servers)))
    assert desk.double.commands[0].timeout == 60
    desk.double.pass_start_deadline()
    ends = desk.drive(step, grants)
    assert ends["AR-7F3K.1"] == Unanswered(
        reason="web-0 does not answer: its SSM agent did not fetch the command in time.", retryable=True, silent=True
    )
    assert isinstance(ends["AR-7F3K.2"], Answered)


def test_an_agent_that_never_ends_is_given_up_after_the_documents_own_time(desk: AwsDesk) -> None:
    (server,) = desk.servers(1)
    desk.double.faults.stall(server)
    step = Runner(desk.run_command())
    grants = after(step, after(step, grants_of([server])))
    desk.clock.forward(seconds=ORDER.document.timeout_seconds)
    grants = after(step, grants)
    desk.clock.forward(seconds=200)
    assert step(grants) == {
        "AR-7F3K.1": Unanswered(reason="web-0 did not finish in time.", retryable=True, silent=True)
    }


def test_polls_come_at_once_and_then_less_often(desk: AwsDesk) -> None:
    (server,) = desk.servers(1)
    desk.double.faults.stall(server)
    step = Runner(desk.run_command())
    grants = after(step, after(step, grants_of([server])))
    pauses = []
    for _ in range(80):
        outcome = step(grants)["AR-7F3K.1"]
        assert isinstance(outcome, Waiting)
        pauses.append(outcome.retry_in.total_seconds())
        desk.clock.forward(seconds=pauses[-1])
    assert pauses[0] == 0.05
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0


def test_polling_survives_throttling_and_a_command_that_is_not_listed_yet(desk: AwsDesk) -> None:
    step = Runner(desk.run_command())
    grants = after(step, after(step, grants_of(desk.servers(1))))
    desk.double.faults.throttle("ListCommandInvocations", times=3)
    assert isinstance(step(grants)["AR-7F3K.1"], Waiting)
    desk.double.faults.fail("ListCommandInvocations", 400, code="InvalidCommandId", times=1)
    assert isinstance(step(grants)["AR-7F3K.1"], Waiting)
    desk.double.faults.clear()
    assert isinstance(desk.drive(step, grants)["AR-7F3K.1"], Answered)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDeniedException", "does not let Passport's role call SendCommand in home eu-west-1"),
        ("InvalidDocument", "`passport documents publish`"),
        ("InvalidParameters", "of another version"),
        ("UnsupportedPlatformType", "AWS refuses SendCommand"),
    ],
)
def test_a_refusal_that_stays_one_is_final(desk: AwsDesk, code: str, words: str) -> None:
    desk.double.faults.fail("SendCommand", 400, code=code)
    (end,) = desk.drive(Runner(desk.run_command()), grants_of(desk.servers(1))).values()
    assert isinstance(end, Unanswered)
    assert words in end.reason
    assert not end.retryable
    assert len(desk.calls("SendCommand")) == 1


def test_a_handle_of_another_act_is_no_handle(desk: AwsDesk) -> None:
    (grant,) = after(Runner(desk.run_command()), grants_of(desk.servers(1)))
    stale = Runner(desk.run_command())
    handle = {**grant.account.handle, "act": "remove"}
    (renewed,) = after(stale, [keep(grant, Waiting(handle=handle, retry_in=desk.clock.now - desk.clock.now))])
    assert renewed.account.handle["act"] == "create"
    assert renewed.account.handle["intent"] != grant.account.handle["intent"]


@pytest.mark.parametrize(
    ("status", "details", "retryable"),
    [
        ("TimedOut", "DeliveryTimedOut", True),
        ("TimedOut", "Delivery Timed Out", True),
        ("TimedOut", "ExecutionTimedOut", True),
        ("TimedOut", "TimedOut", True),
        ("Failed", "Undeliverable", True),
        ("Undeliverable", "", True),
        ("Failed", "Terminated", True),
        ("Failed", "InvalidPlatform", False),
        ("Failed", "AccessDenied", False),
        ("Cancelled", "Canceled", True),
        ("Failed", "RateExceeded", True),
        ("Incomplete", "Incomplete", True),
        ("NoInstancesInTag", "No Instances In Tag", True),
    ],
)
def test_every_end_has_a_sentence_about_the_server(status: str, details: str, retryable: bool) -> None:
    end = read_invocation("web-1", {"Status": status, "StatusDetails": details})
    assert isinstance(end, Unanswered)
    assert "web-1" in end.reason
    assert end.reason.endswith(".")
    assert end.retryable is retryable


@pytest.mark.parametrize(
    "status", ["Pending", "InProgress", "Delayed", "Cancelling", "In Progress", "", "SomethingNew"]
)
def test_anything_else_is_still_under_way(status: str) -> None:
    assert read_invocation("web-1", {"Status": status, "StatusDetails": status}) is None


def test_no_two_ends_read_alike() -> None:
    """Those of "Understanding command statuses", of an invocation and of a command."""
    ends = {
        *("DeliveryTimedOut", "ExecutionTimedOut", "TimedOut", "Failed", "Cancelled", "Undeliverable", "Terminated"),
        *("InvalidPlatform", "AccessDenied", "Incomplete", "RateExceeded", "NoInstancesInTag"),
    }
    said = [read_invocation("web-1", {"Status": end, "StatusDetails": end}) for end in ends]
    reasons = {end.reason for end in said if isinstance(end, Unanswered)}
    assert len(reasons) == len(ends)


def test_a_script_that_could_not_be_run_is_no_answer() -> None:
    plugin = {"Output": "\n", "ResponseCode": 127}
    end = read_invocation("web-1", {"Status": "Failed", "StatusDetails": "Failed", "CommandPlugins": [plugin]})
    assert end == Unanswered(
        reason="web-1's SSM agent could not run the script, and did not say why (exit status 127).", retryable=True
    )


def test_a_cancelled_command_says_so(desk: AwsDesk) -> None:
    servers: list[Server] = desk.servers(1)
    desk.double.set_online(servers[0], False)
    step = Runner(desk.run_command())
    grants = after(step, after(step, grants_of(servers)))
    client(desk.double, "ssm").cancel_command(CommandId=desk.double.commands[0].id)
    (end,) = desk.drive(step, grants).values()
    assert end == Unanswered(reason="Somebody cancelled the command for web-0 in AWS.", retryable=True)
