"""Whoever may tag servers takes one out of Passport's reach: the others are opened and closed as ever."""

from collections.abc import Iterator

import pytest

from access.steps import Done, Failed
from provisioning.command_outcome import Unanswered
from sandbox.aws import AwsDouble
from tests.integration.aws_desk import AwsDesk, answer, grants_of, on, removing
from tests.integration.test_run_command import Runner, after


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsDesk]:
    with AwsDouble(servers="tagged") as double:
        for name, value in double.environment().items():
            monkeypatch.setenv(name, value)
        yield AwsDesk(double)


def test_one_server_without_the_tag_does_not_stop_the_others(desk: AwsDesk) -> None:
    servers = [desk.double.add_server(f"web-{n}", answers=answer, tags={"passport": "enabled"}) for n in range(6)]
    account = desk.account()
    opened = desk.drive(on(desk.request, account.provision), grants_of(servers))
    assert {type(step) for step in opened.values()} == {Done}
    for server in (servers[1], servers[4]):
        desk.double.retag(server, {"passport": "gone"})
    desk.double.commands.clear()
    closed = desk.drive(on(desk.request, account.remove), removing(grants_of(servers)))
    failed = {key: step for key, step in closed.items() if isinstance(step, Failed)}
    assert sorted(failed) == ["AR-7F3K.2", "AR-7F3K.5"]
    assert "AWS does not let Passport run commands on web-1. It may lack the tag" in failed["AR-7F3K.2"].reason
    assert [len(command.invocations) for command in desk.double.commands] == [4]


def test_without_any_permission_there_is_one_call(desk: AwsDesk) -> None:
    """A document that the policy does not allow is denied for all servers alike."""
    servers = [desk.double.add_server(f"web-{n}", answers=answer, tags={"passport": "enabled"}) for n in range(6)]
    desk.double.faults.fail("SendCommand", 400)
    step = Runner(desk.run_command())
    ends = step(after(step, grants_of(servers)))
    assert all(isinstance(end, Unanswered) and "look at the stack" in end.reason for end in ends.values())
    assert len([call for call in desk.double.calls if call.operation == "SendCommand"]) == 1
