"""500 servers in two accounts and three regions: the fewest commands, few polls, and an outcome for each server."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from math import ceil

import pytest

from access.steps import Done, Failed, Waiting
from sandbox.aws import Scripted, Server
from tests.integration.aws_desk import (
    FAR,
    HOME,
    OTHER,
    REGION,
    AwsDesk,
    aws_desk,
    frame,
    grants_of,
    keep,
    on,
    refuses,
    removing,
)

# Of account and region; none is a multiple of 50, so that a batch too many would be seen.
PLACES = {(HOME, REGION): 201, (HOME, FAR): 176, (OTHER, REGION): 123}
FEWEST = sum(ceil(count / 50) for count in PLACES.values())


@pytest.fixture(scope="module")
def shared() -> Iterator[AwsDesk]:
    with pytest.MonkeyPatch.context() as patch, aws_desk(patch) as made:
        yield made


@pytest.fixture(scope="module")
def fleet(shared: AwsDesk) -> list[Server]:
    """500 servers, those of the places mixed."""
    made = [shared.servers(count, account=account, region=region) for (account, region), count in PLACES.items()]
    return sorted((server for servers in made for server in servers), key=lambda server: server.instance_id)


@pytest.fixture
def desk(shared: AwsDesk) -> AwsDesk:
    shared.reset()
    return shared


def sent(desk: AwsDesk) -> Counter[tuple[str, str, str]]:
    return Counter((command.account, command.region, command.document) for command in desk.double.commands)


def test_500_servers_take_the_fewest_commands_that_can_be(desk: AwsDesk, fleet: list[Server]) -> None:
    grants, account = grants_of(fleet), desk.account()
    steps = desk.drive(on(desk.request, account.provision), grants)
    assert len(steps) == 500
    assert all(isinstance(step, Done) for step in steps.values())
    assert len(desk.calls("SendCommand")) == FEWEST == 12
    assert sent(desk) == {(*place, "Passport-CreateUser"): ceil(count / 50) for place, count in PLACES.items()}
    reached = Counter(instance_id for command in desk.double.commands for instance_id in command.instance_ids)
    assert reached == {server.instance_id: 1 for server in fleet}

    desk.double.calls.clear()
    desk.drive(on(desk.request, account.remove), removing(grants))
    assert len(desk.calls("SendCommand")) == FEWEST
    assert len(desk.double.commands) == 2 * FEWEST


def test_a_poll_asks_for_a_command_and_never_for_a_server(desk: AwsDesk, fleet: list[Server]) -> None:
    grants, step = grants_of(fleet), on(desk.request, desk.account().provision)
    grants = desk.kept(step, desk.kept(step, grants))
    desk.double.settle()
    desk.double.calls.clear()
    assert all(isinstance(each, Done) for each in step(grants).values())
    assert {call.operation for call in desk.double.calls} == {"ListCommandInvocations"}
    asked = Counter(call["CommandId"] for call in desk.calls("ListCommandInvocations"))
    assert asked == {command.id: 1 for command in desk.double.commands}


def test_commands_that_were_sent_together_are_asked_about_together(desk: AwsDesk, fleet: list[Server]) -> None:
    for server in fleet:
        desk.double.faults.stall(server)
    step = on(desk.request, desk.account().provision)
    grants = desk.kept(step, desk.kept(step, grants_of(fleet)))
    desk.double.calls.clear()
    for looks in range(1, 30):
        outcomes = step(grants)
        pauses = {outcome.retry_in for outcome in outcomes.values() if isinstance(outcome, Waiting)}
        assert len(outcomes) == 500
        assert len(pauses) == 1
        assert len(desk.calls("ListCommandInvocations")) == looks * FEWEST
        desk.clock.now += pauses.pop()
    desk.double.faults.clear()
    desk.double.settle()


def test_polls_are_bounded_however_long_the_slowest_agent_takes(desk: AwsDesk, fleet: list[Server]) -> None:
    """50 ms at first, a twelfth of the age later, 5 s at last: under 75 looks at a command of a minute."""
    servers = fleet[:3]
    for server in servers:
        desk.double.faults.stall(server)
    step = on(desk.request, desk.account().provision)
    grants = desk.kept(step, desk.kept(step, grants_of(servers)))
    began, looks = desk.clock.now, 0
    while desk.clock.now - began < timedelta(minutes=1):
        (pause, *_) = (outcome.retry_in for outcome in step(grants).values() if isinstance(outcome, Waiting))
        age = desk.clock.now - began
        assert pause <= max(age / 12, timedelta(milliseconds=50))
        desk.clock.now += pause
        looks += 1
    assert looks < 75
    desk.double.faults.clear()
    desk.double.settle()


def test_each_of_500_has_its_own_outcome(desk: AwsDesk, fleet: list[Server]) -> None:
    def cut(_script: str, _environment: object) -> Scripted:
        return Scripted(output=frame("create")[:30])

    healthy = fleet[0].answers
    broken = {10: "no_sshd", 60: "disk_full", 499: "sshd_rejected"}
    try:
        for number, code in broken.items():
            fleet[number].answers = refuses("create", code)
        fleet[250].answers = cut
        steps = desk.drive(on(desk.request, desk.account().provision), grants_of(fleet))
    finally:
        for server in fleet:
            server.answers = healthy
    failed = {int(grant_id.partition(".")[2]) - 1: step for grant_id, step in steps.items() if isinstance(step, Failed)}
    assert sorted(failed) == sorted([*broken, 250])
    assert len({step.reason for step in failed.values()}) == 4
    assert all(step.reason.startswith(f"{fleet[number].name}: ") for number, step in failed.items())
    assert len(desk.calls("SendCommand")) == FEWEST


def test_throttling_for_a_minute_delays_500_servers_and_sends_nothing_twice(desk: AwsDesk, fleet: list[Server]) -> None:
    for operation in ("SendCommand", "ListCommandInvocations"):
        desk.double.faults.throttle(operation, times=60)
    steps = desk.drive(on(desk.request, desk.account().provision), grants_of(fleet))
    assert all(isinstance(step, Done) for step in steps.values())
    assert len(desk.double.commands) == FEWEST


def test_what_was_turned_away_comes_back_later_each_time_and_spread_out(desk: AwsDesk, fleet: list[Server]) -> None:
    step = on(desk.request, desk.account().provision)
    for operation in ("SendCommand", "ListCommandInvocations"):
        grants = desk.kept(step, grants_of(fleet))
        if operation == "ListCommandInvocations":
            grants = desk.kept(step, grants)
        desk.double.faults.throttle(operation)
        waits: list[set[timedelta]] = []
        for _ in range(5):
            outcomes = step(grants)
            grants = [keep(grant, _waiting(outcomes[grant.id])) for grant in grants]
            waits.append({_waiting(outcome).retry_in for outcome in outcomes.values()})
        assert all(len(together) > FEWEST // 2 for together in waits)
        assert all(max(early) < min(late) for early, late in pairwise(waits))
        desk.double.faults.clear()


def _waiting(outcome: object) -> Waiting:
    assert isinstance(outcome, Waiting)
    return outcome
