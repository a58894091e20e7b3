"""Run Command in the sandbox: whom it reaches, what comes back, and what moto would have got wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from moto.sts.models import sts_backends

from sandbox.aws import AwsDouble, Scripted, Server
from tests.integration.aws_lab import GOOD, client, document, publish, refused, wait_for

DOCUMENT = "Passport-Create"


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsDouble]:
    with AwsDouble() as aws:
        publish(client(aws, "ssm"), DOCUMENT, "true")
        yield aws


@pytest.fixture
def ssm(aws: AwsDouble) -> Iterator[Any]:
    found = client(aws, "ssm")
    yield found
    aws.faults.clear()
    found.close()


@pytest.fixture
def server(aws: AwsDouble) -> Server:
    return aws.add_server("web-1", tags={"env": "prod"})


def send(ssm: Any, *servers: Server, **more: Any) -> str:
    wish = {"DocumentName": DOCUMENT, "Parameters": GOOD, **more}
    answer = ssm.send_command(InstanceIds=[server.instance_id for server in servers], **wish)
    return str(answer["Command"]["CommandId"])


def test_a_command_is_pending_first_and_ends_later(aws: AwsDouble, ssm: Any) -> None:
    go = threading.Event()

    def answer(_script: str, _environment: Mapping[str, str]) -> Scripted:
        go.wait(10)
        return Scripted(output="done")

    server = aws.add_server("slow-1", answers=answer)
    command = ssm.send_command(InstanceIds=[server.instance_id], DocumentName=DOCUMENT, Parameters=GOOD)["Command"]
    assert (command["Status"], command["TargetCount"]) == ("Pending", 1)
    running = wait_for(ssm, command["CommandId"], server.instance_id, states={"InProgress"})
    assert (running["ResponseCode"], running["StandardOutputContent"]) == (-1, "")
    go.set()
    ended = wait_for(ssm, command["CommandId"], server.instance_id)
    assert (ended["Status"], ended["ResponseCode"], ended["StandardOutputContent"]) == ("Success", 0, "done")
    assert ssm.list_commands(CommandId=command["CommandId"])["Commands"][0]["Status"] == "Success"


def test_only_the_named_instances_get_it(aws: AwsDouble, ssm: Any, server: Server) -> None:
    bystander = aws.add_server("web-2")
    command = send(ssm, server)
    wait_for(ssm, command, server.instance_id)
    assert list(aws.commands[-1].invocations) == [server.instance_id]
    with refused("InvocationDoesNotExist"):
        ssm.get_command_invocation(CommandId=command, InstanceId=bystander.instance_id)


def test_a_failing_script_says_how(aws: AwsDouble, ssm: Any) -> None:
    server = aws.add_server("bad-1", answers=lambda _script, _environment: Scripted(errors="no", code=7))
    ended = wait_for(ssm, send(ssm, server), server.instance_id)
    assert (ended["Status"], ended["StatusDetails"], ended["ResponseCode"]) == ("Failed", "Failed", 7)
    assert ended["StandardErrorContent"] == "no"


def test_lists_cut_the_output_at_2500_and_the_single_answer_at_24000(aws: AwsDouble, ssm: Any) -> None:
    server = aws.add_server("loud-1", answers=lambda _script, _environment: Scripted(output="x" * 30_000))
    command = send(ssm, server)
    assert len(wait_for(ssm, command, server.instance_id)["StandardOutputContent"]) == 24_000
    listed = ssm.list_command_invocations(CommandId=command, Details=True)["CommandInvocations"][0]
    plugin = listed["CommandPlugins"][0]
    assert (plugin["Name"], plugin["Status"], len(plugin["Output"])) == ("aws:runShellScript", "Success", 2_500)
    assert plugin["Output"].endswith("---Output truncated---")
    assert ssm.list_command_invocations(CommandId=command)["CommandInvocations"][0]["CommandPlugins"] == []


def test_fifty_at_once_and_no_more(aws: AwsDouble, ssm: Any) -> None:
    servers = [aws.add_server(f"many-{number}", account="444444444444") for number in range(51)]
    away = client(aws, "ssm", "444444444444")
    publish(away, DOCUMENT)
    with refused("ThrottlingException"):
        send(away, *servers)
    command = send(away, *servers[:50])
    for server in servers[:50]:
        wait_for(away, command, server.instance_id)
    first = away.list_command_invocations(CommandId=command, MaxResults=30)
    rest = away.list_command_invocations(CommandId=command, MaxResults=30, NextToken=first["NextToken"])
    assert [len(page["CommandInvocations"]) for page in (first, rest)] == [30, 20]
    assert aws.commands[-1].described()["CompletedCount"] == 50
    page = away.describe_instance_information(MaxResults=50)
    assert (len(page["InstanceInformationList"]), "NextToken" in page) == (50, True)
    with refused("ValidationException"):
        away.describe_instance_information(MaxResults=51)


def test_refusals_about_instances(aws: AwsDouble, ssm: Any, server: Server) -> None:
    with refused("InvalidInstanceId", "not in a valid state for account 111111111111"):
        ssm.send_command(InstanceIds=["i-0123456789abcdef0"], DocumentName=DOCUMENT, Parameters=GOOD)
    with refused("ValidationException", "pattern"):
        ssm.send_command(InstanceIds=["web-1"], DocumentName=DOCUMENT, Parameters=GOOD)
    with refused("InvalidInstanceId"):
        send(ssm, aws.add_server("elsewhere", region="us-east-1"))
    with refused("InvalidInstanceId"):
        send(ssm, aws.add_server("of-others", account="222222222222"))
    with refused("InvalidInstanceId"):
        send(ssm, aws.add_server("no-agent", registered=False))
    with refused("DuplicateInstanceId"):
        send(ssm, server, server)
    with refused("UnsupportedPlatformType"):
        send(ssm, aws.add_server("win-1", platform="Windows"))
    aws.terminate(server)
    with refused("InvalidInstanceId"):
        send(ssm, server)


def test_refusals_about_the_command(aws: AwsDouble, ssm: Any, server: Server) -> None:
    with refused("InvalidDocument"):
        send(ssm, server, DocumentName="Passport-Nothing")
    with refused("InvalidDocument"):
        send(ssm, server, DocumentName="AWS-StartSSHSession", Parameters={})
    with refused("InvalidDocumentVersion"):
        send(ssm, server, DocumentVersion="9")
    with refused("ValidationException", "less than or equal to 100"):
        send(ssm, server, Comment="x" * 101)
    with pytest.raises(Exception, match="valid min value: 30"):
        send(ssm, server, TimeoutSeconds=29)
    with refused("InvalidParameters", "either InstanceIds or Targets"):
        ssm.send_command(DocumentName=DOCUMENT, Parameters=GOOD)
    with refused("InvalidCommandId"):
        ssm.list_command_invocations(CommandId="0" * 36)
    with refused("InvalidCommandId"):
        client(aws, "ssm", "222222222222").get_command_invocation(
            CommandId=send(ssm, server), InstanceId=server.instance_id
        )


def test_targets_by_tag(aws: AwsDouble, ssm: Any) -> None:
    chosen = [aws.add_server(name, tags={"role": "cache"}) for name in ("cache-1", "cache-2")]
    aws.retag(chosen[1], {"role": "queue"})
    targets = [{"Key": "tag:role", "Values": ["cache"]}]
    ssm.send_command(Targets=targets, DocumentName=DOCUMENT, Parameters=GOOD)
    assert list(aws.commands[-1].invocations) == [chosen[0].instance_id]


def test_an_offline_agent_keeps_it_pending_until_the_start_deadline(aws: AwsDouble, ssm: Any, server: Server) -> None:
    aws.set_online(server, False)
    command = send(ssm, server, TimeoutSeconds=30)
    assert wait_for(ssm, command, server.instance_id, states={"Pending"})["StatusDetails"] == "Pending"
    aws.pass_start_deadline()
    ended = wait_for(ssm, command, server.instance_id)
    assert (ended["Status"], ended["StatusDetails"], ended["ResponseCode"]) == ("TimedOut", "DeliveryTimedOut", -1)


def test_a_stopped_instance_gets_it_when_it_is_back(aws: AwsDouble, ssm: Any, server: Server) -> None:
    aws.stop(server)
    command = send(ssm, server)
    assert wait_for(ssm, command, server.instance_id, states={"Pending"})
    rows = ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [server.instance_id]}])
    assert rows["InstanceInformationList"][0]["PingStatus"] == "ConnectionLost"
    aws.start(server)
    assert wait_for(ssm, command, server.instance_id)["Status"] == "Success"


def test_a_command_for_an_instance_that_is_terminated_is_undeliverable(
    aws: AwsDouble, ssm: Any, server: Server
) -> None:
    aws.set_online(server, False)
    command = send(ssm, server)
    aws.terminate(server)
    ended = wait_for(ssm, command, server.instance_id)
    assert (ended["Status"], ended["StatusDetails"]) == ("Failed", "Undeliverable")


def test_a_pending_command_can_be_cancelled(aws: AwsDouble, ssm: Any, server: Server) -> None:
    aws.set_online(server, False)
    command = send(ssm, server)
    ssm.cancel_command(CommandId=command)
    assert wait_for(ssm, command, server.instance_id)["Status"] == "Cancelled"


def test_commands_are_found_by_their_comment(aws: AwsDouble, ssm: Any, server: Server) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    command = send(ssm, server, Comment="passport intent 0001")
    wait_for(ssm, command, server.instance_id)
    recent = [{"key": "InvokedAfter", "value": before.strftime("%Y-%m-%dT%H:%M:%SZ")}]
    named = [{"key": "DocumentName", "value": DOCUMENT}]
    found = ssm.list_commands(InstanceId=server.instance_id, Filters=[*recent, *named])["Commands"]
    assert [(row["CommandId"], row["Comment"]) for row in found] == [(command, "passport intent 0001")]
    assert ssm.list_commands(Filters=[{"key": "DocumentName", "value": "Other"}])["Commands"] == []
    assert aws.calls[-1].operation == "ListCommands"
    assert aws.commands[-1].comment == "passport intent 0001"
    assert aws.commands[-1].parameters == GOOD


def test_the_inventory_can_be_filtered(aws: AwsDouble, ssm: Any) -> None:
    server = aws.add_server("old-1", agent_version="3.1.0.0", tags={"team": "payments"})

    def ids(*filters: tuple[str, str]) -> list[str]:
        wanted = [{"Key": key, "Values": [value]} for key, value in filters]
        rows = ssm.describe_instance_information(Filters=wanted)["InstanceInformationList"]
        return [row["InstanceId"] for row in rows]

    assert ids(("tag:team", "payments")) == [server.instance_id]
    assert ids(("AgentVersion", "3.1.0.0"), ("PlatformTypes", "Linux"), ("PingStatus", "Online")) == [
        server.instance_id
    ]
    assert ids(("PlatformTypes", "MacOS")) == []
    aws.terminate(server)
    assert ids(("tag:team", "payments")) == []
    with refused("InvalidFilterKey"):
        ids(("Colour", "red"))


def test_who_may_call(aws: AwsDouble) -> None:
    role = client(aws, "ssm", "222222222222")
    role.list_commands()
    assert aws.calls[-1].account == "222222222222"
    for account in sts_backends.values():
        for backend in account.values():
            for assumed in backend.assumed_roles:
                assumed.expiration = datetime.now(UTC) - timedelta(seconds=1)
    with refused("ExpiredTokenException"):
        role.list_commands()
    known = {"endpoint_url": aws.url, "region_name": aws.region}
    with refused("UnrecognizedClientException"):
        boto3.client("ssm", **known, aws_access_key_id="AKIANOBODY", aws_secret_access_key="x").list_commands()  # type: ignore[call-overload]
    with refused("MissingAuthenticationTokenException"):
        boto3.client("ssm", **known, config=Config(signature_version=UNSIGNED)).list_commands()  # type: ignore[call-overload]


def test_ec2_shows_the_same_servers(aws: AwsDouble, server: Server) -> None:
    ec2 = client(aws, "ec2")
    found = ec2.describe_instances(InstanceIds=[server.instance_id])["Reservations"][0]["Instances"][0]
    assert {tag["Key"]: tag["Value"] for tag in found["Tags"]} == {"Name": "web-1", "env": "prod"}
    assert aws.calls[-1].operation == "DescribeInstances"


def test_an_old_agent_knows_no_environment_parameters(aws: AwsDouble, ssm: Any) -> None:
    seen: list[tuple[str, Mapping[str, str]]] = []

    def answer(script: str, environment: Mapping[str, str]) -> Scripted:
        seen.append((script, environment))
        return Scripted()

    publish(ssm, "Passport-Env", "echo '{{ request }}' {{mode}}")
    for name, version in (("new-1", "3.3.2746.0"), ("old-2", "3.3.2745.9")):
        server = aws.add_server(name, agent_version=version, answers=answer)
        wait_for(ssm, send(ssm, server, DocumentName="Passport-Env"), server.instance_id)
    assert [script for script, _ in seen] == ["echo 'AR-7F3K' soft"] * 2
    assert seen[0][1]["SSM_request"] == "AR-7F3K"
    assert "SSM_mode" not in seen[0][1]
    assert not [name for name in seen[1][1] if name.startswith("SSM_")]


def test_five_commands_at_a_time_on_a_server(aws: AwsDouble, ssm: Any) -> None:
    running, most, lock, go = [0], [0], threading.Lock(), threading.Event()

    def answer(_script: str, _environment: Mapping[str, str]) -> Scripted:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        go.wait(10)
        with lock:
            running[0] -= 1
        return Scripted()

    server = aws.add_server("busy-1", answers=answer)
    sent = [send(ssm, server) for _ in range(7)]
    for command in sent[:1]:
        wait_for(ssm, command, server.instance_id, states={"InProgress"})
    while running[0] < 5:
        threading.Event().wait(0.01)
    states = [ssm.get_command_invocation(CommandId=each, InstanceId=server.instance_id)["Status"] for each in sent]
    assert sorted(states) == ["InProgress"] * 5 + ["Pending"] * 2
    go.set()
    for command in sent:
        assert wait_for(ssm, command, server.instance_id)["Status"] == "Success"
    assert most[0] == 5


def test_documents_of_the_same_text_stay_apart_from_later_versions(aws: AwsDouble, ssm: Any, server: Server) -> None:
    publish(ssm, "Passport-Versions", "echo one")
    ssm.update_document(Name="Passport-Versions", Content=document("echo two"), DocumentVersion="$LATEST")
    for wanted, text in ((None, "echo one"), ("$LATEST", "echo two"), ("2", "echo two")):
        more = {} if wanted is None else {"DocumentVersion": wanted}
        send(ssm, server, DocumentName="Passport-Versions", **more)
        assert aws.commands[-1].content.steps[0].commands == (text,)
