"""What the tests of the sandbox's AWS share: real boto3 clients, a small document, and waiting for a command."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.aws import AwsDouble

# One try only: a test wants to see every answer.
ONCE = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20)
FINAL = {"Success", "Failed", "TimedOut", "Cancelled"}
PARAMETERS: dict[str, Any] = {
    "request": {"type": "String", "allowedPattern": "^AR-[0-9A-Z]{4}$", "interpolationType": "ENV_VAR"},
    "mode": {"type": "String", "allowedValues": ["soft", "hard"], "default": "soft"},
    "name": {"type": "String", "minChars": 2, "maxChars": 8, "default": "none"},
}
GOOD = {"request": ["AR-7F3K"]}


def client(aws: AwsDouble, service: Literal["ssm", "ec2", "sts"], account: str | None = None, region: str = "") -> Any:
    """A boto3 client of an account, which never tries twice."""
    keys = aws.keys(account)
    return boto3.client(
        service,
        endpoint_url=aws.url,
        region_name=region or aws.region,
        aws_access_key_id=keys.id,
        aws_secret_access_key=keys.secret,
        aws_session_token=keys.token,
        config=ONCE,
    )


def document(*commands: str, parameters: Mapping[str, Any] = PARAMETERS, **more: Any) -> str:
    """A document's text with one shell step."""
    step = {
        "action": "aws:runShellScript",
        "name": "run",
        "precondition": {"StringEquals": ["platformType", "Linux"]},
        "inputs": {"runCommand": list(commands) or ["true"], **more},
    }
    return json.dumps({"schemaVersion": "2.2", "parameters": dict(parameters), "mainSteps": [step]})


def publish(ssm: Any, name: str, *commands: str, **more: Any) -> None:
    """Create a document."""
    ssm.create_document(Name=name, Content=document(*commands, **more), DocumentType="Command")


def wait_for(ssm: Any, command_id: str, instance_id: str, *, states: set[str] = FINAL) -> Any:
    """Poll until the invocation has one of the states; the answer of GetCommandInvocation."""
    while True:
        answer = ssm.get_command_invocation(CommandId=command_id, InstanceId=instance_id)
        if answer["Status"] in states:
            return answer
        time.sleep(0.01)


@contextlib.contextmanager
def refused(code: str, words: str = "") -> Iterator[None]:
    """Expect AWS's refusal of that code."""
    with pytest.raises(ClientError) as caught:
        yield
    assert caught.value.response["Error"]["Code"] == code, caught.value
    assert words in caught.value.response["Error"]["Message"]
