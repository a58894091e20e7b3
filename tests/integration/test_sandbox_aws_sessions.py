"""Sessions of the sandbox's Session Manager, and the `aws` command that ssh uses."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sandbox.aws import AwsDouble, Server
from tests.integration.aws_lab import GOOD, client, publish, refused

SSH = {"DocumentName": "AWS-StartSSHSession", "Parameters": {"portNumber": ["22"]}}


class EchoHost:
    """A host whose only service says a banner and echoes."""

    is_on = True

    def __init__(self) -> None:
        self.dialled: list[int] = []

    def run(self, *command: str, input: bytes = b"", timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:  # noqa: A002
        return subprocess.CompletedProcess(command, 0, b"", b"")

    def dial(self, port: int, timeout: float = 10.0) -> socket.socket:
        self.dialled.append(port)
        near, far = socket.socketpair()
        threading.Thread(target=self._echo, args=(far,), daemon=True).start()
        return near

    @staticmethod
    def _echo(far: socket.socket) -> None:
        with far, contextlib.suppress(OSError):
            far.sendall(b"SSH-2.0-Echo\r\n")
            while piece := far.recv(4096):
                far.sendall(piece)


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsDouble]:
    with AwsDouble() as aws:
        yield aws


@pytest.fixture
def ssm(aws: AwsDouble) -> Iterator[Any]:
    aws.faults.quotas = {}
    found = client(aws, "ssm")
    yield found
    aws.faults.clear()
    found.close()


@pytest.fixture
def host() -> EchoHost:
    return EchoHost()


@pytest.fixture
def server(aws: AwsDouble, host: EchoHost) -> Server:
    return aws.add_server("web-1", host=host)


@pytest.fixture
def program(aws: AwsDouble, tmp_path: Path) -> Path:
    return aws.install_cli(tmp_path / "bin")


def opened(answer: dict[str, str], token: str | None = None) -> socket.socket:
    url = urlsplit(answer["StreamUrl"])
    stream = socket.create_connection((url.hostname or "", url.port or 0), timeout=10)
    stream.sendall(f"{answer['SessionId']} {token or answer['TokenValue']}\n".encode())
    return stream


def run(program: Path, aws: AwsDouble, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    given = {"PATH": os.environ["PATH"], **aws.environment(), **environment}
    return subprocess.run(
        [program, *words], input=b"", capture_output=True, check=False, env={k: v for k, v in given.items() if v}
    )


def test_a_session_carries_bytes_to_the_hosts_own_port(ssm: Any, server: Server, host: EchoHost) -> None:
    answer = ssm.start_session(Target=server.instance_id, Reason="AR-7F3K", **SSH)
    with opened(answer) as stream:
        assert stream.recv(64) == b"SSH-2.0-Echo\r\n"
        stream.sendall(b"hello")
        assert stream.recv(64) == b"hello"
        mine = [{"key": "SessionId", "value": answer["SessionId"]}]
        active = ssm.describe_sessions(State="Active", Filters=mine)["Sessions"]
        assert [(row["SessionId"], row["Status"]) for row in active] == [(answer["SessionId"], "Connected")]
        assert active[0]["Owner"] == "arn:aws:iam::111111111111:user/admin"
        assert active[0]["Reason"] == "AR-7F3K"
        ssm.terminate_session(SessionId=answer["SessionId"])
        assert stream.recv(64) == b""
    assert host.dialled == [22]
    wanted = [{"key": "Target", "value": server.instance_id}]
    assert ssm.describe_sessions(State="Active", Filters=wanted)["Sessions"] == []
    assert ssm.describe_sessions(State="History", Filters=wanted)["Sessions"][0]["Status"] == "Terminated"
    ssm.terminate_session(SessionId=answer["SessionId"])


def test_a_session_ends_when_its_stream_does(aws: AwsDouble, ssm: Any, server: Server) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer) as stream:
        assert stream.recv(64)
    session = next(each for each in aws.sessions if each.id == answer["SessionId"])
    while session.ended_at is None:
        threading.Event().wait(0.01)
    with opened(answer) as stream:
        assert stream.recv(64) == b""


def test_a_stream_needs_its_token(ssm: Any, server: Server, host: EchoHost) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer, token="wrong") as stream:
        assert stream.recv(64) == b""
    assert host.dialled == []


def test_refusals(aws: AwsDouble, ssm: Any, server: Server) -> None:
    with refused("TargetNotConnected", "i-0123456789abcdef0 is not connected"):
        ssm.start_session(Target="i-0123456789abcdef0", **SSH)
    with refused("InvalidDocument"):
        ssm.start_session(Target=server.instance_id, DocumentName="Passport-Tunnel")
    publish(ssm, "Passport-Create")
    with refused("InvalidDocument"):
        ssm.start_session(Target=server.instance_id, DocumentName="Passport-Create", Parameters=GOOD)
    with refused("InvalidParameters"):
        ssm.start_session(
            Target=server.instance_id, DocumentName="AWS-StartSSHSession", Parameters={"portNumber": ["99999"]}
        )
    with refused("TargetNotConnected"):
        client(aws, "ssm", "222222222222").start_session(Target=server.instance_id, **SSH)
    with refused("InvalidFilterKey"):
        ssm.describe_sessions(State="Active", Filters=[{"key": "AccessType", "value": "Standard"}])
    with refused("ValidationException", "enum"):
        ssm.describe_sessions(State="All")
    aws.set_online(server, False)
    with refused("TargetNotConnected"):
        ssm.start_session(Target=server.instance_id, **SSH)


def test_stopping_an_instance_ends_its_sessions(aws: AwsDouble, ssm: Any, server: Server) -> None:
    with opened(ssm.start_session(Target=server.instance_id, **SSH)) as stream:
        assert stream.recv(64)
        aws.stop(server)
        assert stream.recv(64) == b""
    wanted = [{"key": "Target", "value": server.instance_id}]
    assert ssm.describe_sessions(State="Active", Filters=wanted)["Sessions"] == []


def test_three_new_sessions_a_second(aws: AwsDouble, ssm: Any, server: Server) -> None:
    aws.faults.quotas = {"StartSession": 3}
    for _ in range(3):
        ssm.start_session(Target=server.instance_id, **SSH)
    with refused("ThrottlingException", "Rate exceeded"):
        ssm.start_session(Target=server.instance_id, **SSH)


def test_the_aws_command_carries_ssh(aws: AwsDouble, program: Path, server: Server) -> None:
    words = ["ssm", "start-session", "--target", server.instance_id, "--document-name", "AWS-StartSSHSession"]
    with subprocess.Popen(
        [program, *words, "--parameters", "portNumber=22"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **aws.environment()},
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == b"SSH-2.0-Echo\r\n"
        running.stdin.write(b"to and fro\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"to and fro\n"
        running.stdin.close()
        assert running.wait(10) == 0


def test_the_aws_command_ends_with_its_session(aws: AwsDouble, ssm: Any, program: Path, server: Server) -> None:
    words = ["ssm", "start-session", "--target", server.instance_id, "--document-name", "AWS-StartSSHSession"]
    with subprocess.Popen(
        [program, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **aws.environment()},
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        ssm.terminate_session(SessionId=aws.sessions[-1].id)
        assert running.wait(10) == 0


def test_the_aws_command_is_patient_when_throttled(aws: AwsDouble, ssm: Any, program: Path, server: Server) -> None:
    aws.faults.throttle("StartSession", times=1)
    assert run(program, aws, "ssm", "start-session", "--target", server.instance_id, *AS_SSH).returncode == 0
    assert [call.operation for call in aws.calls[-2:]] == ["StartSession", "StartSession"]


AS_SSH = ("--document-name", "AWS-StartSSHSession", "--parameters", "portNumber=22")


@pytest.mark.parametrize(
    ("words", "environment", "code", "message"),
    [
        (("s3", "ls"), {}, 252, b"Found invalid choice 's3'"),
        (("ssm", "start-session"), {}, 252, b"the following arguments are required: --target"),
        (("ssm", "start-session", "--target"), {}, 252, b"argument --target: expected one argument"),
        (("ssm", "start-session", "--tarrget", "x"), {}, 252, b"Unknown options: --tarrget"),
        (
            ("ssm", "start-session", "--target", "i-1", "--parameters", "portNumber"),
            {},
            252,
            b"Error parsing parameter '--parameters'",
        ),
        (
            ("ssm", "start-session", "--target", "i-0123456789abcdef0"),
            {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""},
            253,
            b"You must specify a region",
        ),
        (
            ("ssm", "start-session", "--target", "i-0123456789abcdef0"),
            {"AWS_ACCESS_KEY_ID": ""},
            253,
            b"Unable to locate credentials",
        ),
        (
            ("ssm", "start-session", "--target", "i-0123456789abcdef0", "--profile", "nope"),
            {},
            255,
            b"The config profile (nope) could not be found",
        ),
        (
            ("ssm", "start-session", "--target", "i-0123456789abcdef0", *AS_SSH),
            {},
            254,
            b"(TargetNotConnected) when calling the StartSession operation: i-0123456789abcdef0 is not connected.",
        ),
    ],
)
def test_the_aws_command_fails_like_awss(
    aws: AwsDouble, program: Path, words: tuple[str, ...], environment: dict[str, str], code: int, message: bytes
) -> None:
    ran = run(program, aws, *words, **environment)
    assert (ran.returncode, ran.stdout) == (code, b"")
    assert message in ran.stderr
    assert b"Traceback" not in ran.stderr


def test_the_aws_command_knows_profiles(aws: AwsDouble, program: Path, server: Server, tmp_path: Path) -> None:
    keys = aws.keys()
    config = tmp_path / "config"
    config.write_text(
        f"[profile me]\nregion = {aws.region}\naws_access_key_id = {keys.id}\naws_secret_access_key = {keys.secret}\n"
    )
    bare = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
    words = ("ssm", "start-session", f"--target={server.instance_id}", "--profile", "me", *AS_SSH)
    assert run(program, aws, *words, AWS_CONFIG_FILE=str(config), **bare).returncode == 0


def test_no_secret_is_in_a_repr(aws: AwsDouble, ssm: Any, server: Server) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    assert answer["TokenValue"] not in repr(aws.sessions[-1])
    assert aws.keys().secret not in repr(aws.keys())
