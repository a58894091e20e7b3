"""Whoever may tag servers takes one out of Passport's reach: the others are opened and closed as ever."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from access.steps import Done, Failed
from provisioning.aws import Sessions
from provisioning.command_outcome import Unanswered
from provisioning.inventory import AwsInventory
from sandbox.aws import AwsDouble
from tests.integration.aws_desk import ACCOUNTS, AwsDesk, answer, grants_of, on, removing
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


def test_a_server_without_the_tag_is_refused_before_anybody_approves(desk: AwsDesk) -> None:
    desk.double.add_server("web-1", tags={"passport": "enabled"})
    for name, tags in (("web-2", {}), ("web-3", {"passport": "Enabled"}), ("web-4", {"Passport": "enabled"})):
        desk.double.add_server(name, tags=tags)
    accounts = [replace(ACCOUNTS[0], only_tagged=True)]
    inventory = AwsInventory(Sessions(accounts), accounts, clock=desk.clock)
    inventory.refresh()
    found = {server.name: server.problem for server in inventory.search("web", 9)}
    assert found.pop("web-1") == ""
    assert len(found) == 3
    for name, problem in found.items():
        assert problem == (
            f"{name} is not Passport's to open: it lacks the tag passport = enabled. Its owner sets it, then ask again."
        )
    (again,) = inventory.read_again(inventory.find("web-2")).values()
    assert again.problem == found["web-2"]


def test_without_any_permission_there_is_one_call(desk: AwsDesk) -> None:
    """A document that the policy does not allow is denied for all servers alike."""
    servers = [desk.double.add_server(f"web-{n}", answers=answer, tags={"passport": "enabled"}) for n in range(6)]
    desk.double.faults.fail("SendCommand", 400)
    step = Runner(desk.run_command())
    ends = step(after(step, grants_of(servers)))
    assert all(isinstance(end, Unanswered) and "look at the stack" in end.reason for end in ends.values())
    assert len([call for call in desk.double.calls if call.operation == "SendCommand"]) == 1
