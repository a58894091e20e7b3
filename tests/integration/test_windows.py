"""Windows servers from the request to nothing left: real storage, real adapters, and the Windows double."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from access.errors import AlreadyDecidedError, RefusedError
from access.model import AccessRequest, GrantState, RequestState, Rights
from access.service.desk import Caller
from access.service.showing import Credentials, Showing
from access.service.submitting import Submitting
from provisioning.accounts.short_lived_user import ShortLivedUser
from provisioning.run_command import RunCommand
from sandbox.aws import Server
from sandbox.windows import ADMINISTRATORS, REMOTE_DESKTOP_USERS, WindowsHost
from sandbox.windows.remote_desktop import answer
from storage.unit_of_work import SqlStore
from tests.integration.aws_story import AwsGround, Story, aws_ground
from tests.values import ANA, BEN


class WindowsStory(Story):
    """A story with Windows servers, whose tasks run when the test says so."""

    hosts: dict[str, WindowsHost]

    def time(self) -> float:
        """What time it is on every server."""
        return self.clock.now.timestamp()

    def windows(self, name: str, **more: str) -> Server:
        """A Windows server of production."""
        host = WindowsHost(name, now=self.time, ticks=False).__enter__()
        self.hosts[name] = host
        return self.server(name, host=host, platform="Windows", **more)

    def allow(self, **changes: Any) -> None:
        """Change the policy."""
        self.desk = replace(self.desk, policy=replace(self.desk.policy, **changes))
        self.submitting = Submitting(self.desk)

    def show(self, request: AccessRequest, who=ANA) -> Credentials:
        """What the button shows."""
        return Showing(self.desk, None).look(Caller(slack_user=who), request.id)  # type: ignore[arg-type]

    def password(self, request: AccessRequest) -> str:
        """The only one of a request."""
        (password,) = self.show(request).passwords.values()
        return password

    def log_in(self, name: str, user: str, password: str) -> str:
        """What the server's Remote Desktop says."""
        said, connection = answer(self.hosts[name].dial(3389), user, password)
        connection.close()
        return said

    def rows(self) -> list[tuple[str | None, str | None]]:
        """The sealed columns of every grant that ever had a password."""
        with self.store.unit_of_work(read_only=True) as work:
            found = work._connection.execute(text("SELECT private_key, password FROM grant_passwords"))  # type: ignore[attr-defined]
            return [(row.private_key, row.password) for row in found]

    def everything_said(self, request: AccessRequest) -> str:
        """All that is on record or in Slack of it, or in AWS, or in a repr."""
        with self.store.unit_of_work(read_only=True) as work:
            events = [repr(event) for event in work.audit.of(request.id)]
            grants = [repr(grant) for grant in work.grants.of(request.id)]
        commands = [json.dumps([each.parameters, dict(each.values), each.comment]) for each in self.double.commands]
        outputs = [part.output + part.errors for each in self.double.commands for part in each.invocations.values()]
        return "\n".join([*events, *grants, *commands, *outputs, self.reads(request), self.card(request)])


@pytest.fixture(scope="module")
def ground() -> Iterator[AwsGround]:
    with aws_ground() as made:
        yield made


@pytest.fixture
def story(ground: AwsGround, sqlite_store: SqlStore) -> Iterator[WindowsStory]:
    ground.double.commands.clear()
    told = WindowsStory(ground, sqlite_store)
    told.hosts = {}
    yield told
    for host in told.hosts.values():
        host.__exit__(None, None, None)
        assert host.unknown == []


def test_from_the_request_to_nothing_left(story: WindowsStory) -> None:
    story.windows("win-1")
    request = story.opened("win-1")
    password = story.password(request)
    assert story.log_in("win-1", request.user_name, password).startswith("yes ")
    machine = story.hosts["win-1"].machine
    assert machine.accounts[request.user_name].sid in machine.groups[REMOTE_DESKTOP_USERS]
    story.ending.complete(Caller(slack_user=ANA), request.id)
    story.let(seconds=30)
    assert story.now(request).state is RequestState.ENDED
    assert set(machine.accounts) == {"administrator"}
    assert machine.profiles == {} and machine.desktops == {} and machine.tasks == {}
    assert story.log_in("win-1", request.user_name, password).startswith("no ")
    proof = story.grant(request).proof
    assert (proof["result"], proof["verified"], proof["vouched_by"]) == ("removed", "yes", "reported by the host")
    assert story.rows() == [(None, None)]
    with pytest.raises(AlreadyDecidedError):
        story.show(request)


def test_the_password_is_nowhere_but_in_the_answer_to_the_button(story: WindowsStory) -> None:
    story.windows("win-1")
    request = story.opened("win-1")
    shown = story.show(request)
    (password,) = shown.passwords.values()
    assert password not in repr(shown)
    said = story.everything_said(request)
    halves = (password, password[:14], password[14:])
    for part in halves:
        for form in (part, part.encode().hex(), base64.b64encode(part.encode()).decode().rstrip("=")[:-1]):
            assert form not in said
    ((private_key, sealed),) = story.rows()
    assert private_key and sealed and password not in sealed
    ciphertext = next(line for line in said.splitlines() if line.startswith("password=")).partition("=")[2]
    assert ciphertext not in said.replace(f"password={ciphertext}", "")  # in AWS's output, and on no record of ours


def test_only_the_requester_sees_it_and_each_look_is_on_record(story: WindowsStory) -> None:
    server = story.windows("win-1")
    request = story.opened("win-1")
    with pytest.raises(RefusedError, match="theirs alone"):
        story.show(request, BEN)
    assert story.password(request) == story.password(request)
    with story.store.unit_of_work(read_only=True) as work:
        looks = [found.event for found in work.audit.of(request.id) if found.event.kind == "credentials.shown"]
    assert [look.details for look in looks] == [{"passwords": server.instance_id}] * 2


def test_no_public_key_is_asked_for_where_none_is_used(story: WindowsStory) -> None:
    story.windows("win-1")
    shown = story.show(story.opened("win-1"))
    assert (shown.key, shown.certificate, list(shown.grants)) == (None, "", [])
    assert [grant.server.name for grant in shown.desktops] == ["win-1"]


def test_linux_and_windows_in_one_request(story: WindowsStory) -> None:
    story.windows("win-1")
    story.server("web-1")
    request = story.opened("win-1", "web-1")
    assert {grant.state for grant in story.standing(request.id).grants} == {GrantState.ACTIVE}
    assert sorted(command.document for command in story.double.commands) == [
        "Passport-CreateUser",
        "Passport-CreateWindowsUser",
    ]
    assert "as administrator" not in story.card(request) and "as root" in story.card(request)
    story.ending.complete(Caller(slack_user=ANA), request.id)
    story.let(seconds=30)
    assert story.now(request).state is RequestState.ENDED
    assert story.let_in(request) == []
    assert set(story.hosts["win-1"].machine.accounts) == {"administrator"}


def test_administrators_by_rule_and_what_their_proof_is_worth(story: WindowsStory) -> None:
    rules = tuple(replace(rule, rights=Rights(administrator=True)) for rule in story.desk.policy.rules)
    story.allow(rules=rules)
    story.windows("win-1")
    request = story.opened("win-1")
    machine = story.hosts["win-1"].machine
    assert machine.accounts[request.user_name].sid in machine.groups[ADMINISTRATORS]
    assert "as administrator" in story.card(request)
    assert "administrator on win-1" in story.reads(request)
    story.ending.complete(Caller(slack_user=ANA), request.id)
    story.let(seconds=30)
    assert story.grant(request).proof["vouched_by"] == "reported by the host; the person was administrator"
    assert "The servers say so themselves, and administrator rights were given on them." in story.reads(request)


def test_sixty_servers_are_two_commands_and_sixty_passwords(story: WindowsStory) -> None:
    story.allow(max_servers=60)
    names = [f"win-{number}" for number in range(60)]
    for name in names:
        story.windows(name)
    request = story.opened(*names)
    sent = [command for command in story.double.commands if command.document == "Passport-CreateWindowsUser"]
    assert sorted(len(command.invocations) for command in sent) == [10, 50]
    keys = [entry for command in sent for entry in command.parameters["PublicKeys"][0].split(",")]
    assert len({entry.partition(":")[2] for entry in keys}) == 60
    shown = story.show(request)
    assert len(set(shown.passwords.values())) == 60
    for grant in shown.desktops:
        assert story.log_in(grant.server.name, request.user_name, shown.passwords[grant.id]).startswith("yes ")


# -- bad days -----------------------------------------------------------------------------------------------------


def test_a_domain_controller_is_refused_and_says_so(story: WindowsStory) -> None:
    story.windows("dc-1")
    story.hosts["dc-1"].machine.domain_role = 5
    request = story.approved("dc-1")
    story.let(seconds=30)
    assert story.now(request).state is RequestState.ENDED
    assert "domain controller" in story.reads(request)
    assert set(story.hosts["dc-1"].machine.accounts) == {"administrator"}
    assert story.rows() == [(None, None)]


def test_an_old_agent_is_refused_before_anybody_approves(story: WindowsStory) -> None:
    story.windows("win-1", agent_version="2.3.671.9")
    with pytest.raises(RefusedError, match="too old"):
        story.submit("win-1")


def test_an_agent_that_substitutes_text_works_as_well(story: WindowsStory) -> None:
    story.windows("win-1", agent_version="3.2.1705.0")
    request = story.opened("win-1")
    assert story.log_in("win-1", request.user_name, story.password(request)).startswith("yes ")


def test_a_command_delivered_twice_does_not_change_the_password(story: WindowsStory) -> None:
    server = story.windows("win-1")
    story.double.faults.deliver_twice(server)
    request = story.opened("win-1")
    assert story.log_in("win-1", request.user_name, story.password(request)).startswith("yes ")


def test_an_answer_that_is_lost_is_given_again(story: WindowsStory) -> None:
    server = story.windows("win-1")
    story.double.faults.lose_answers(server)
    request = story.approved("win-1")
    story.let(minutes=15)
    assert story.now(request).state is RequestState.ACTIVE
    assert len([each for each in story.double.commands if each.document == "Passport-CreateWindowsUser"]) > 1
    assert story.log_in("win-1", request.user_name, story.password(request)).startswith("yes ")


def test_a_lost_answer_to_send_command_keeps_the_same_key(story: WindowsStory) -> None:
    story.windows("win-1")
    story.double.faults.take_then_timeout("SendCommand")
    request = story.approved("win-1")
    story.let(minutes=5)
    assert story.now(request).state is RequestState.ACTIVE
    assert len({str(each.parameters["PublicKeys"]) for each in story.double.commands}) == 1
    assert story.log_in("win-1", request.user_name, story.password(request)).startswith("yes ")


def test_a_restart_between_intent_and_answer_loses_nothing(story: WindowsStory) -> None:
    server = story.windows("win-1")
    story.double.faults.deliver_late(server, 20)
    request = story.approved("win-1")
    story.let(seconds=5)
    story.worker = story.reconciler("two")
    story.let(minutes=5)
    assert story.now(request).state is RequestState.ACTIVE
    assert story.log_in("win-1", request.user_name, story.password(request)).startswith("yes ")


def test_an_output_that_is_cut_opens_nothing(story: WindowsStory) -> None:
    story.windows("win-1")
    story.double.faults.truncate_output(300)
    request = story.approved("win-1")
    story.let(seconds=30)
    assert story.now(request).state is RequestState.APPROVED
    assert "was cut" in story.reads(request)
    story.double.faults.clear()
    story.let(minutes=10)
    assert story.log_in("win-1", request.user_name, story.password(request)).startswith("yes ")


@pytest.mark.parametrize("steps", [150, 500, 800])
def test_a_server_that_dies_half_way_is_opened_when_it_is_back(story: WindowsStory, steps: int) -> None:
    story.windows("win-1")
    host = story.hosts["win-1"]
    host.fail_after(steps)
    request = story.approved("win-1", minutes=120)
    story.let(minutes=2)
    assert not host.is_on
    host.power_on()
    story.let(minutes=20)
    assert story.now(request).state is RequestState.ACTIVE, story.reads(request)
    assert story.log_in("win-1", request.user_name, story.password(request)).startswith("yes ")


def test_a_create_that_comes_after_its_removal_makes_nothing(story: WindowsStory) -> None:
    server = story.windows("win-1")
    story.double.faults.deliver_late(server, 50, document="Passport-CreateWindowsUser")
    request = story.approved("win-1")
    story.let(seconds=20)
    story.ending.complete(Caller(slack_user=ANA), request.id)
    story.let(seconds=20)
    assert story.now(request).state is RequestState.ENDED
    story.let(seconds=12)
    created = [each for each in story.double.commands if each.document == "Passport-CreateWindowsUser"]
    assert "failed:tombstone" in created[0].invocations[server.instance_id].output
    assert set(story.hosts["win-1"].machine.accounts) == {"administrator"}
    assert story.rows() == [(None, None)]


def test_the_end_comes_with_passport_dead(story: WindowsStory) -> None:
    story.windows("win-1")
    request = story.opened("win-1", minutes=30)
    password, host = story.password(request), story.hosts["win-1"]
    assert story.log_in("win-1", request.user_name, password).startswith("yes ")
    story.clock.forward(minutes=30)  # and nobody reconciles
    assert story.log_in("win-1", request.user_name, password).startswith("no ")
    host.run_tasks()
    assert set(host.machine.accounts) == {"administrator"}
    assert host.machine.desktops == {} and host.machine.profiles == {}
    story.let(minutes=2)
    assert story.now(request).state is RequestState.ENDED
    assert (story.grant(request).proof["result"], story.rows()) == ("absent", [(None, None)])


def test_a_password_that_does_not_open_is_said_beside_those_that_do(story: WindowsStory) -> None:
    story.windows("win-1")
    story.windows("win-2")
    request = story.opened("win-1", "win-2")
    first, second = story.standing(request.id).grants
    with story.store.unit_of_work() as work:
        work.passwords.keep(first.id, base64.b64encode(bytes(256)).decode())
        work.commit()
    assert list(story.show(request).passwords) == [second.id]


def test_without_keys_no_windows_server_is_opened(story: WindowsStory) -> None:
    story.windows("win-1")
    request = story.approved("win-1")
    bare = ShortLivedUser(
        RunCommand(story.ground.sessions, clock=story.clock),
        story.ground.sessions,
        trust=lambda: pytest.fail("no Linux here"),
        clock=story.clock,
    )
    story.worker._acting._accounts = dict.fromkeys(story.worker._acting._accounts, bare)  # type: ignore[attr-defined]
    story.let(seconds=30)
    assert story.now(request).state is RequestState.APPROVED
    assert "keeps no keys" in story.reads(request)
    assert story.double.commands == []
