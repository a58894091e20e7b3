"""Making and removing users through a strict Systems Manager: what a grant gets to know, and what proves its end."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from access.authorities import Trust
from access.errors import UnavailableError
from access.model import Grant, GrantState, Rights
from access.model import Server as Asked
from access.steps import Done, Failed, Step
from provisioning.accounts.short_lived_user import NEVER_SENT, ShortLivedUser
from provisioning.aws import Sessions
from provisioning.run_command import RunCommand
from provisioning.ssh_ca import SshCertificateAuthority
from sandbox.aws import Scripted, Server
from tests.authorities import a_trust
from tests.integration.aws_desk import (
    ACCOUNTS,
    AUTHORITY,
    HOME,
    OTHER,
    AwsDesk,
    answer,
    aws_desk,
    frame,
    grants_of,
    keep,
    on,
    refuses,
    removing,
)
from tests.unit.test_ssh_keys import ED25519


@pytest.fixture(scope="module")
def shared() -> Iterator[AwsDesk]:
    with pytest.MonkeyPatch.context() as patch, aws_desk(patch) as made:
        yield made


@pytest.fixture
def desk(shared: AwsDesk) -> AwsDesk:
    shared.reset()
    return shared


def provision(desk: AwsDesk, grants: list[Grant], account: ShortLivedUser | None = None) -> dict[str, Step]:
    return desk.drive(on(desk.request, (account or desk.account()).provision), grants)


def remove(desk: AwsDesk, grants: list[Grant]) -> dict[str, Step]:
    return desk.drive(on(desk.request, desk.account().remove), removing(grants))


def a_refusal(steps: Mapping[str, Step]) -> Failed:
    (step,) = steps.values()
    assert isinstance(step, Failed)
    return step


def a_proof(steps: Mapping[str, Step]) -> Mapping[str, str]:
    (step,) = steps.values()
    assert isinstance(step, Done)
    return step.details


def test_a_user_is_made_and_the_grant_learns_what_the_person_needs(desk: AwsDesk) -> None:
    assert provision(desk, grants_of(desk.servers(1))) == {
        "AR-7F3K.1": Done(
            details={
                "user": "pp-7f3k",
                "uid": "200000",
                "port": "22",
                "host_keys": ED25519,
                "authorities": AUTHORITY.fingerprint,
            }
        )
    }
    (command,) = desk.double.commands
    assert command.document == "Passport-CreateUser"
    assert {name: values[0] for name, values in command.parameters.items()} == {
        "RequestId": "AR-7F3K",
        "Attempt": "1",
        "UserName": "pp-7f3k",
        "NotAfter": str(int((desk.clock.now + timedelta(hours=2)).timestamp())),
        "Sudo": "all",
        "CaPublicKey": AUTHORITY.public_key,
        "CaGeneration": "1",
        "Forwarding": "no",
        "Metadata": "closed",
        "KeepHome": "0",
        "UidFirst": "200000",
        "UidLast": "524287",
    }


def test_rights_and_two_authorities_reach_the_server_as_policy_says(desk: AwsDesk) -> None:
    desk.request = replace(desk.request, terms=replace(desk.request.terms, rights=Rights(sudo=False, forwarding=True)))
    later = SshCertificateAuthority.generate()
    both = a_trust(AUTHORITY, later, generation=7)
    account = ShortLivedUser(desk.run_command(), desk.sessions, trust=lambda: both, clock=desk.clock)
    details = a_proof(provision(desk, grants_of(desk.servers(1)), account))
    parameters = desk.double.commands[0].parameters
    assert (parameters["Sudo"], parameters["Forwarding"]) == (["none"], ["yes"])
    assert parameters["CaPublicKey"] == [f"{AUTHORITY.public_key},{later.public_key}"]
    assert parameters["CaGeneration"] == ["7"]
    assert details["authorities"] == f"{AUTHORITY.fingerprint} {later.fingerprint}"


def test_a_server_that_trusts_only_keys_that_were_replaced_is_not_opened(desk: AwsDesk) -> None:
    grants = grants_of(desk.servers(1))
    trusts = [a_trust(AUTHORITY)]
    account = ShortLivedUser(desk.run_command(), desk.sessions, trust=lambda: trusts[-1], clock=desk.clock)
    waiting = desk.kept(on(desk.request, account.provision), desk.kept(on(desk.request, account.provision), grants))
    trusts.append(a_trust(SshCertificateAuthority.generate(), generation=2))  # while the command was under way
    refusal = a_refusal(desk.drive(on(desk.request, account.provision), waiting))
    assert "trusts only keys of Passport's that were replaced" in refusal.reason
    assert not refusal.retryable


def test_while_the_database_is_away_nothing_is_sent(desk: AwsDesk) -> None:
    def away() -> Trust:
        raise UnavailableError("The database does not answer.")

    account = ShortLivedUser(desk.run_command(), desk.sessions, trust=away, clock=desk.clock)
    with pytest.raises(UnavailableError):
        account.provision(desk.request, grants_of(desk.servers(1)))
    assert desk.calls("SendCommand") == []


def test_named_commands_the_metadata_and_kept_homes_reach_the_server_as_policy_says(desk: AwsDesk) -> None:
    commands = ("/usr/bin/systemctl restart nginx", "/usr/sbin/nginx -t")
    terms = replace(desk.request.terms, rights=Rights(commands=commands, metadata=True), keep_home_days=7)
    desk.request = replace(desk.request, terms=terms)
    provision(desk, grants_of(desk.servers(1)))
    parameters = desk.double.commands[0].parameters
    assert parameters["Sudo"] == ["/usr/bin/systemctl restart nginx,/usr/sbin/nginx -t"]
    assert (parameters["Metadata"], parameters["KeepHome"]) == (["open"], ["7"])


def test_a_retry_of_a_server_says_which_attempt_it_is_and_the_others_share_their_command(desk: AwsDesk) -> None:
    servers = desk.servers(5)
    again = replace(grants_of(servers)[4], details={"attempt": "2"})
    provision(desk, [*grants_of(servers)[:4], again])
    sent = sorted((command.parameters["Attempt"][0], len(command.instance_ids)) for command in desk.double.commands)
    assert sent == [("1", 4), ("2", 1)]


def test_commands_of_a_request_bear_the_requesters_name_and_looking_after_them_passports_own(desk: AwsDesk) -> None:
    desk.double.trust_source_identity(OTHER)
    desk.sessions = Sessions([ACCOUNTS[0], replace(ACCOUNTS[1], source_identity=True)])
    grants = grants_of([*desk.servers(1, account=OTHER), *desk.servers(1)])
    provision(desk, grants)
    remove(desk, grants)
    named = {(call.operation, call.account): call.source_identity for call in desk.double.calls}
    assert named["SendCommand", OTHER] == desk.request.person_email
    assert named["SendCommand", HOME] == named["ListCommandInvocations", OTHER] == ""
    sent = [call for call in desk.double.calls if (call.operation, call.account) == ("SendCommand", OTHER)]
    assert [call.source_identity for call in sent] == [desk.request.person_email] * 2


def test_each_server_has_its_own_outcome(desk: AwsDesk) -> None:
    servers = [*desk.servers(1), desk.double.add_server("full", answers=refuses("create", "disk_full"))]
    steps = provision(desk, grants_of(servers))
    assert isinstance(steps["AR-7F3K.1"], Done)
    full = "full: The server's disk is full. Free some space, then try again."
    assert steps["AR-7F3K.2"] == Failed(reason=full, retryable=True, server_cannot=True)
    assert len(desk.double.commands) == 1


@pytest.mark.parametrize("code", ["tombstone", "after_end", "foreign_account", "sshd_rejected", "no_sshd"])
def test_what_only_people_can_mend_is_not_tried_again(desk: AwsDesk, code: str) -> None:
    server = desk.double.add_server("web-1", answers=refuses("create", code))
    refusal = a_refusal(provision(desk, grants_of([server])))
    assert refusal.reason.startswith("web-1's clock is ahead" if code == "after_end" else "web-1: ")
    assert not refusal.retryable


def test_a_command_that_comes_at_the_end_is_late_and_no_clock_is_blamed(desk: AwsDesk) -> None:
    desk.request = replace(desk.request, expires_at=desk.clock.now + timedelta(minutes=2))
    server = desk.double.add_server("web-1", answers=refuses("create", "after_end"))
    refusal = a_refusal(provision(desk, grants_of([server])))
    assert refusal.reason.startswith("web-1: The command reached the server after the end of the request.")


def test_an_answer_that_was_cut_is_no_answer(desk: AwsDesk) -> None:
    desk.double.faults.truncate_output(120)
    refusal = a_refusal(provision(desk, grants_of(desk.servers(1))))
    assert "cut" in refusal.reason
    assert refusal.retryable


def create_answer(**changes: str) -> Any:
    def lying(script: str, environment: Mapping[str, str]) -> Scripted:
        honest = answer(script, environment).output.splitlines()
        lines = [
            f"{name}={changes.get(name, value)}" for name, _, value in (line.partition("=") for line in honest[1:-1])
        ]
        return Scripted(output="\n".join([honest[0], *lines, honest[-1], ""]))

    return lying


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"request": "AR-9999"}, "about another request"),
        ({"user": "root"}, "about another user"),
        ({"not_after": "1999999999"}, "too late"),
        ({"host_key": f"@cert-authority * {ED25519}"}, "host key"),
        ({"host_key": "ssh-ed25519 AAAA"}, "host key"),
        ({"host_key": "`id`"}, "not mine"),
        ({"uid": "0x0"}, "number"),
        ({"authority": "MD5:00"}, "which of Passport's keys"),
        ({"authority": f"SHA256:{'A' * 43}"}, "trusts only keys of Passport's that were replaced"),
    ],
)
def test_a_server_that_lies_is_not_opened(desk: AwsDesk, lie: dict[str, str], words: str) -> None:
    server = desk.double.add_server("web-1", answers=create_answer(**lie))
    refusal = a_refusal(provision(desk, grants_of([server])))
    assert words in refusal.reason


def test_a_server_that_was_terminated_meanwhile_is_not_tried_again(desk: AwsDesk) -> None:
    (server,) = desk.servers(1)
    desk.double.terminate(server)
    refusal = a_refusal(provision(desk, grants_of([server])))
    assert refusal == Failed(reason="web-0 is terminated.", retryable=False)


def test_nothing_is_made_after_the_end(desk: AwsDesk) -> None:
    desk.clock.forward(hours=2)
    assert not a_refusal(provision(desk, grants_of(desk.servers(1)))).retryable
    assert not desk.double.calls


def test_a_removal_brings_its_proof_and_who_vouches_for_it(desk: AwsDesk) -> None:
    desk.request = replace(desk.request, terms=replace(desk.request.terms, rights=Rights()))
    assert a_proof(remove(desk, grants_of(desk.servers(1)))) == {
        "result": "removed",
        "verified": "yes",
        "user": "pp-7f3k",
        "uid": "200000",
        "processes": "3",
        "files": "2",
        "mounts": "0",
        "jobs": "1",
        "ended_at": "2025-11-21T03:40:00Z",
        "swept_at": "2025-11-21T03:40:02Z",
        "vouched_by": "reported by the host",
    }
    assert desk.double.commands[0].document == "Passport-RemoveUser"


def test_a_host_on_which_the_person_had_root_is_not_believed_blindly(desk: AwsDesk) -> None:
    proof = a_proof(remove(desk, grants_of(desk.servers(1))))
    assert proof["vouched_by"] == "reported by the host; the person had root"


def test_whoever_had_named_commands_is_named_in_the_proof_with_the_wall_and_the_kept_home(desk: AwsDesk) -> None:
    desk.request = replace(
        desk.request, terms=replace(desk.request.terms, rights=Rights(commands=("/usr/sbin/nginx -t",)))
    )

    def named(script: str, environment: Mapping[str, str]) -> Scripted:
        more = "sudo=named\nfirewall=removed\nkept_until=1763700000\npassport:end:ok"
        return Scripted(output=answer(script, environment).output.replace("passport:end:ok", more))

    server = desk.double.add_server("web-1", answers=named)
    proof = a_proof(remove(desk, grants_of([server])))
    assert proof["vouched_by"] == "reported by the host; the person had sudo for named commands"
    assert proof["firewall"] == "removed"
    assert proof["home_kept_until"] == "2025-11-21T04:40:00Z"


def test_what_is_left_behind_is_named_and_tried_again(desk: AwsDesk) -> None:
    def left(_script: str, environment: Mapping[str, str]) -> Scripted:
        about = {"request": environment["SSM_RequestId"], "user": environment["SSM_UserName"]}
        return Scripted(output=frame("remove", "failed:left_behind", **about, left="files,mounts"), code=1)

    refusal = a_refusal(remove(desk, grants_of([desk.double.add_server("web-1", answers=left)])))
    assert refusal.reason.endswith("Left: files, mounts.")
    assert refusal.retryable


def test_a_terminated_server_is_a_removed_one(desk: AwsDesk) -> None:
    servers: list[Server] = desk.servers(2)
    grants = grants_of(servers)
    provision(desk, grants)
    desk.double.terminate(servers[0])
    steps = remove(desk, grants)
    assert steps["AR-7F3K.1"] == Done(
        details={
            "result": "terminated",
            "terminated": servers[0].instance_id,
            "vouched_by": "EC2: the instance is terminated",
        }
    )
    assert isinstance(steps["AR-7F3K.2"], Done)


def test_what_was_intended_in_time_is_sent_by_the_first_call_a_command_for_each_attempt(desk: AwsDesk) -> None:
    account, (first, again) = desk.account(), (grants_of(desk.servers(2)), grants_of(desk.servers(1), attempt="2"))
    grants = [*first, replace(again[0], id="AR-7F3K.3")]
    intents = account.intend(desk.request, grants)
    assert desk.double.calls == []
    desk.kept(on(desk.request, account.provision), [keep(grant, intents[grant.id]) for grant in grants])
    assert [len(command.instance_ids) for command in desk.double.commands] == [2, 1]
    assert [command.parameters["Attempt"] for command in desk.double.commands] == [["1"], ["2"]]
    assert not desk.calls("ListCommands")


def test_a_removal_that_was_intended_in_time_is_sent_by_the_first_call(desk: AwsDesk) -> None:
    account, grants = desk.account(), removing(grants_of(desk.servers(1)))
    intents = account.intend(desk.request, grants)
    desk.kept(on(desk.request, account.remove), [keep(grants[0], intents[grants[0].id])])
    assert [command.document for command in desk.double.commands] == ["Passport-RemoveUser"]


def test_nothing_is_intended_where_nothing_will_be_sent(desk: AwsDesk) -> None:
    """Before the start, on Windows before its key is sealed, and where AWS refused the only command."""
    account, grants = desk.account(), grants_of(desk.servers(1))
    assert account.intend(replace(desk.request, expires_at=None), grants) == {}
    windows = replace(grants[0], server=replace(grants[0].server, platform="windows"))
    assert account.intend(desk.request, [windows]) == {}
    assert account.intend(desk.request, removing([replace(grants[0], details={NEVER_SENT: "yes"})])) == {}
    assert account.intend(desk.request, removing([windows])) != {}
    assert account.intend(desk.request, [replace(grants[0], state=GrantState.ACTIVE)]) == {}


def unknown_grant(account: str) -> Grant:
    server = Asked(account=account, region="eu-west-1", instance_id="i-00000000000000bad", name="web-9")
    return Grant(id="AR-7F3K.1", request_id="AR-7F3K", server=server)


@pytest.mark.parametrize("account", ["home", "other"])
def test_a_server_that_ec2_has_forgotten_is_a_removed_one(desk: AwsDesk, account: str) -> None:
    assert a_proof(remove(desk, [unknown_grant(account)]))["result"] == "terminated"


def test_a_server_that_another_account_does_not_know_is_not_believed_gone(desk: AwsDesk) -> None:
    sessions = Sessions([replace(ACCOUNTS[0], id=OTHER)])
    account = ShortLivedUser(
        RunCommand(sessions, clock=desk.clock), sessions, trust=lambda: a_trust(AUTHORITY), clock=desk.clock
    )
    steps = desk.drive(on(desk.request, account.remove), removing([unknown_grant("home")]))
    assert a_refusal(steps).retryable


def test_a_server_that_ec2_does_not_speak_of_is_not_believed_gone(desk: AwsDesk) -> None:
    (server,) = desk.servers(1)
    desk.double.terminate(server)
    desk.double.faults.fail("DescribeInstances", 500)
    assert a_refusal(remove(desk, grants_of([server]))).retryable


def test_a_server_out_of_reach_is_no_proof(desk: AwsDesk) -> None:
    (server,) = desk.servers(1)
    desk.double.set_online(server, False)
    account, grants = desk.account(), removing(grants_of([server]))
    step = on(desk.request, account.remove)
    grants = [desk.kept(step, grants)[0]]
    grants = [desk.kept(step, grants)[0]]
    desk.double.pass_start_deadline()
    failed = desk.drive(step, grants)["AR-7F3K.1"]
    assert isinstance(failed, Failed)
    assert failed.retryable
    silent = "web-0 does not answer: its SSM agent did not fetch the command in time."
    assert re.fullmatch(rf"{re.escape(silent)} It last answered at \d\d:\d\d UTC\.", failed.reason)


def test_a_stopped_server_is_called_stopped(desk: AwsDesk) -> None:
    (server,) = desk.servers(1)
    desk.double.stop(server)
    step = on(desk.request, desk.account().remove)
    grants = desk.kept(step, desk.kept(step, removing(grants_of([server]))))
    desk.double.pass_start_deadline()
    desk.clock.forward(hours=3)
    assert a_refusal(desk.drive(step, grants)) == Failed(reason="web-0 is stopped.", retryable=True)


def test_a_restart_in_the_middle_of_a_removal_goes_on_where_it_was(desk: AwsDesk) -> None:
    first = on(desk.request, desk.account().remove)
    grants = desk.kept(first, desk.kept(first, removing(grants_of(desk.servers(3)))))
    steps = desk.drive(on(desk.request, desk.account().remove), grants)
    assert len(desk.double.commands) == 1
    assert all(isinstance(step, Done) for step in steps.values())


def test_the_handle_of_a_create_is_not_taken_for_that_of_a_remove(desk: AwsDesk) -> None:
    grants = desk.kept(on(desk.request, desk.account().provision), grants_of(desk.servers(1)))
    steps = desk.drive(on(desk.request, desk.account().remove), grants)
    assert a_proof(steps)["result"] == "removed"
