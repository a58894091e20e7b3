"""Every test on the sandbox's AWS runs under the policies that are deployed: here is what these refuse."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from provisioning import documents
from provisioning.aws import Sessions
from provisioning.aws_errors import AwsError
from sandbox.aws import AwsDouble, Server
from tests.integration.aws_desk import ACCOUNTS, FAR, HOME, OTHER, REGION
from tests.integration.aws_lab import GOOD, client, publish, refused

PASSPORTS = "Passport-CreateUser"


@pytest.fixture(scope="module", params=["home", "other"])
def account(request: pytest.FixtureRequest) -> str:
    """Passport's own account, and one whose role it becomes."""
    return str(request.param)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsDouble]:
    with AwsDouble(servers="tagged") as double:
        become(double, monkeypatch, "passport")
        for id_ in (HOME, OTHER):
            publish(client(double, "ssm", id_, REGION), PASSPORTS)
        yield double


def become(double: AwsDouble, monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    assert user in {"passport", "admin", "person"}
    for name, value in double.environment(user).items():  # type: ignore[arg-type]
        monkeypatch.setenv(name, value)


@pytest.fixture
def server(aws: AwsDouble, account: str) -> Server:
    return aws.add_server("web-1", account=HOME if account == "home" else OTHER, tags={"passport": "enabled"})


def denied(account: str, operation: str, region: str = REGION, **parameters: object) -> None:
    with pytest.raises(AwsError, match="An admin must allow it") as caught:
        Sessions(ACCOUNTS).call(account, region, "ssm", operation, **parameters)
    assert caught.value.code == "AccessDeniedException"


def test_passport_runs_its_documents_on_tagged_servers_only(aws: AwsDouble, account: str, server: Server) -> None:
    wanted = {"DocumentName": PASSPORTS, "Parameters": GOOD}
    Sessions(ACCOUNTS).call(account, REGION, "ssm", "send_command", InstanceIds=[server.instance_id], **wanted)
    other = aws.add_server("web-2", account=server.account, tags={"passport": "no"})
    denied(account, "send_command", InstanceIds=[other.instance_id], **wanted)
    denied(account, "send_command", InstanceIds=[server.instance_id, other.instance_id], **wanted)
    aws.retag(server, {"passport": "no"})
    denied(account, "send_command", InstanceIds=[server.instance_id], **wanted)
    assert len(aws.commands) == 1


@pytest.mark.parametrize("name", ["AWS-RunShellScript", "AWS-RunPowerShellScript", "Passport-Evil"])
def test_no_other_document_runs(aws: AwsDouble, account: str, server: Server, name: str) -> None:
    publish(client(aws, "ssm", server.account, REGION), "Passport-Evil")
    denied(
        account, "send_command", InstanceIds=[server.instance_id], DocumentName=name, Parameters={"commands": ["id"]}
    )
    assert aws.commands == []


def test_a_tunnel_starts_and_a_shell_does_not(aws: AwsDouble, account: str, server: Server) -> None:
    denied(account, "start_session", Target=server.instance_id)
    denied(account, "start_session", Target=server.instance_id, DocumentName="SSM-SessionManagerRunShell")
    assert aws.sessions == []
    started = Sessions(ACCOUNTS).call(
        account, REGION, "ssm", "start_session", Target=server.instance_id, DocumentName="AWS-StartSSHSession"
    )
    # Another replica has another session name, and may end it all the same.
    replica = Sessions(ACCOUNTS, session_name="passport-b")
    replica.call(account, REGION, "ssm", "terminate_session", SessionId=started["SessionId"])
    assert aws.sessions[0].ended_at


def test_a_session_of_somebody_else_stays(aws: AwsDouble, account: str, server: Server) -> None:
    theirs = client(aws, "ssm", server.account, REGION).start_session(
        Target=server.instance_id, DocumentName="AWS-StartSSHSession"
    )
    denied(account, "terminate_session", SessionId=theirs["SessionId"])
    assert aws.sessions[0].ended_at is None


def test_passport_cannot_change_what_its_documents_do(aws: AwsDouble, account: str) -> None:
    content = json.dumps({"schemaVersion": "2.2", "mainSteps": []})
    for operation, more in (("create_document", {"DocumentType": "Command"}), ("update_document", {})):
        denied(account, operation, Name=PASSPORTS, Content=content, **more)


def test_what_no_policy_was_written_for_is_refused(aws: AwsDouble, account: str) -> None:
    with pytest.raises(AwsError) as caught:
        Sessions(ACCOUNTS).call(account, REGION, "ssm", "cancel_command", CommandId="c" * 36)
    assert caught.value.code == "NotKnownToTheSandbox"


def test_the_external_id_opens_the_other_account(aws: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (replace(ACCOUNTS[1], external_id="sesame"), replace(ACCOUNTS[1], external_id=None),
                  replace(ACCOUNTS[1], role_arn=f"arn:aws:iam::{OTHER}:role/PassportPublisher")):  # fmt: skip
        with pytest.raises(AwsError, match=r"deploy/passport-account\.yaml: PassportRoleArn, ExternalId"):
            Sessions([wrong]).call("other", REGION, "ssm", "list_commands")
    Sessions(ACCOUNTS).call("other", REGION, "ssm", "list_commands")


def test_ec2_says_no_as_ec2_does(aws: AwsDouble) -> None:
    with pytest.raises(AwsError) as caught:
        Sessions(ACCOUNTS).call("home", FAR, "ec2", "terminate_instances", InstanceIds=["i-0123456789abcdef0"])
    assert caught.value.code == "NotKnownToTheSandbox"


def test_an_admin_publishes_as_the_publisher(aws: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = replace(ACCOUNTS[1], role_arn=f"arn:aws:iam::{OTHER}:role/PassportPublisher")
    become(aws, monkeypatch, "admin")
    sessions = Sessions([publisher])
    assert documents.publish(sessions.client("other", REGION, "ssm"), "Passport-")
    with refused("AccessDeniedException", "ssm:UpdateDocument"):
        sessions.client("other", REGION, "ssm").update_document(Name="Somebody-Elses", Content="{}")
    with refused("AccessDeniedException", "ssm:SendCommand"):
        sessions.client("other", REGION, "ssm").send_command(
            InstanceIds=["i-0123456789abcdef0"], DocumentName=PASSPORTS
        )
