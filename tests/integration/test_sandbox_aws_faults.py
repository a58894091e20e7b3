"""The bad days of the sandbox's AWS, each on request."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from sandbox.aws import AwsDouble, Scripted, Server
from tests.integration.aws_lab import GOOD, client, publish, refused, wait_for

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
def runs() -> list[str]:
    return []


@pytest.fixture
def server(aws: AwsDouble, runs: list[str]) -> Server:
    def answer(script: str, _environment: Mapping[str, str]) -> Scripted:
        runs.append(script)
        return Scripted(output="x" * 100)

    return aws.add_server("web-1", answers=answer)


def send(ssm: Any, server: Server) -> str:
    answer = ssm.send_command(InstanceIds=[server.instance_id], DocumentName=DOCUMENT, Parameters=GOOD)
    return str(answer["Command"]["CommandId"])


def test_throttling_for_a_number_of_calls_and_for_a_while(aws: AwsDouble, ssm: Any) -> None:
    aws.faults.throttle("ListCommands", times=2)
    for _ in range(2):
        with refused("ThrottlingException", "Rate exceeded"):
            ssm.list_commands()
    ssm.list_commands()
    aws.faults.throttle("ListCommands", seconds=3600)
    with refused("ThrottlingException"):
        ssm.list_commands()
    ssm.describe_instance_information()
    aws.faults.clear()
    ssm.list_commands()


def test_failures(aws: AwsDouble, ssm: Any) -> None:
    aws.faults.fail("SendCommand", 500, times=1)
    aws.faults.fail("ListCommands", 400)
    aws.faults.fail("ListDocuments", 400, code="ExpiredTokenException")
    with refused("InternalServerError"):
        ssm.send_command(InstanceIds=["i-0123456789abcdef0"], DocumentName=DOCUMENT)
    with refused("AccessDeniedException"):
        ssm.list_commands()
    with refused("ExpiredTokenException"):
        ssm.list_documents()


def test_a_call_that_was_taken_and_whose_answer_is_lost(aws: AwsDouble, ssm: Any, server: Server) -> None:
    aws.faults.take_then_timeout("SendCommand")
    before = len(aws.commands)
    with pytest.raises(BotoCoreError):
        send(ssm, server)
    assert len(aws.commands) == before + 1
    wait_for(ssm, aws.commands[-1].id, server.instance_id)


def test_a_stalled_agent_is_in_progress_until_it_is_healed(
    aws: AwsDouble, ssm: Any, server: Server, runs: list[str]
) -> None:
    aws.faults.stall(server)
    command = send(ssm, server)
    wait_for(ssm, command, server.instance_id, states={"InProgress"})
    assert runs == []
    aws.faults.heal(server)
    assert wait_for(ssm, command, server.instance_id)["Status"] == "Success"
    assert len(runs) == 1


def test_a_lost_agent(aws: AwsDouble, ssm: Any, server: Server, runs: list[str]) -> None:
    aws.faults.lose(server)
    command = send(ssm, server)
    rows = ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [server.instance_id]}])
    assert rows["InstanceInformationList"][0]["PingStatus"] == "ConnectionLost"
    with refused("TargetNotConnected"):
        ssm.start_session(Target=server.instance_id, DocumentName="AWS-StartSSHSession")
    aws.pass_start_deadline()
    assert wait_for(ssm, command, server.instance_id)["StatusDetails"] == "DeliveryTimedOut"
    assert runs == []


def test_a_late_delivery(aws: AwsDouble, ssm: Any, server: Server, runs: list[str]) -> None:
    aws.faults.deliver_late(server, 3600)
    command = send(ssm, server)
    assert wait_for(ssm, command, server.instance_id, states={"Pending"})
    aws.faults.deliver_late(server, 0)
    assert wait_for(ssm, command, server.instance_id)["Status"] == "Success"
    assert len(runs) == 1


def test_a_delivery_that_comes_twice(aws: AwsDouble, ssm: Any, server: Server, runs: list[str]) -> None:
    aws.faults.deliver_twice(server)
    wait_for(ssm, send(ssm, server), server.instance_id)
    while len(runs) < 2:
        threading.Event().wait(0.01)


def test_a_script_that_ran_and_was_never_reported(aws: AwsDouble, ssm: Any, server: Server, runs: list[str]) -> None:
    aws.faults.lose_answers(server)
    command = send(ssm, server)
    while not runs:
        threading.Event().wait(0.01)
    assert wait_for(ssm, command, server.instance_id, states={"InProgress"})
    assert wait_for(ssm, send(ssm, server), server.instance_id)["Status"] == "Success"


def test_truncated_output(aws: AwsDouble, ssm: Any, server: Server) -> None:
    aws.faults.truncate_output(10)
    assert wait_for(ssm, send(ssm, server), server.instance_id)["StandardOutputContent"] == "x" * 10


def test_lists_that_lag_behind(aws: AwsDouble, ssm: Any, server: Server) -> None:
    aws.faults.list_commands_lag(3600)
    command = send(ssm, server)
    assert ssm.list_commands(CommandId=command)["Commands"] == []
    assert ssm.list_command_invocations(CommandId=command)["CommandInvocations"] == []
    with refused("InvocationDoesNotExist"):
        ssm.get_command_invocation(CommandId=command, InstanceId=server.instance_id)
    aws.faults.clear()
    assert len(ssm.list_commands(CommandId=command)["Commands"]) == 1


@pytest.mark.parametrize(
    ("service", "operation", "throttled", "failed"),
    [
        ("ec2", "DescribeInstances", (503, "RequestLimitExceeded"), (500, "InternalError")),
        ("sts", "GetCallerIdentity", (400, "Throttling"), (500, "InternalFailure")),
    ],
)
def test_services_that_answer_in_xml_fail_in_their_own_words(
    aws: AwsDouble,
    ssm: Any,
    service: Literal["ec2", "sts"],
    operation: str,
    throttled: tuple[int, str],
    failed: tuple[int, str],
) -> None:
    aws.faults.throttle(operation, times=1)
    aws.faults.fail(operation, times=1)
    aws.faults.take_then_timeout(operation)
    called = client(aws, service)
    call = called.describe_instances if service == "ec2" else called.get_caller_identity
    for status, code in (throttled, failed):
        with pytest.raises(ClientError) as error:
            call()
        said = error.value.response
        assert (said["ResponseMetadata"]["HTTPStatusCode"], said["Error"]["Code"]) == (status, code)
    with pytest.raises(BotoCoreError):
        call()
    assert call()["ResponseMetadata"]["HTTPStatusCode"] == 200
