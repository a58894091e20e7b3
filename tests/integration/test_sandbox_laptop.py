"""What AWS gives a laptop, as the sandbox has it: `aws ssm start-session` and `session-manager-plugin`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from sandbox.aws import AwsDouble, Server
from tests.integration.aws_lab import client
from tests.integration.channel_lab import FORWARD, SSH, EchoHost, message, read

BANNER = b"SSH-2.0-Echo\r\n"
RESPONSE = "AWS_SSM_START_SESSION_RESPONSE"


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


def run(program: Path, aws: AwsDouble, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    path = f"{program.parent}:{os.environ['PATH']}"
    given = {"PATH": path, **aws.environment(), **environment}
    return subprocess.run(
        [program, *words], input=b"", capture_output=True, check=False, env={k: v for k, v in given.items() if v}
    )


@contextlib.contextmanager
def plugin(
    program: Path, response: object, target: str, *, endpoint: str = "", by_environment: bool = True, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The plugin as Passport's script starts it: without any AWS credentials."""
    text = response if isinstance(response, str) else json.dumps(response)
    words = ["eu-west-1", "StartSession", "", json.dumps({"Target": target}), endpoint]
    with subprocess.Popen(
        [program.parent / "session-manager-plugin", RESPONSE if by_environment else text, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **({RESPONSE: text} if by_environment else {}), **environment},
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def answer_of(ssm: Any, server: Server, document: dict[str, Any] = SSH) -> dict[str, str]:
    started = ssm.start_session(Target=server.instance_id, **document)
    return {name: started[name] for name in ("SessionId", "StreamUrl", "TokenValue")}


def head(running: subprocess.Popen[bytes], lines: int) -> bytes:
    assert running.stdout is not None
    return b"".join(running.stdout.readline() for _ in range(lines))


def say(running: subprocess.Popen[bytes], words: bytes) -> None:
    assert running.stdin is not None
    running.stdin.write(words)
    running.stdin.flush()


def greeted(running: subprocess.Popen[bytes], session_id: str) -> None:
    assert head(running, 3) == f"\nStarting session with SessionId: {session_id}\n".encode() + BANNER


@pytest.mark.parametrize("by_environment", [True, False])
def test_the_plugin_carries_ssh(ssm: Any, program: Path, server: Server, by_environment: bool) -> None:
    answer = answer_of(ssm, server)
    with plugin(program, answer, server.instance_id, by_environment=by_environment) as running:
        greeted(running, answer["SessionId"])
        say(running, b"to and fro\n")
        assert head(running, 1) == b"to and fro\n"
        assert (answer["TokenValue"].encode() in Path(f"/proc/{running.pid}/cmdline").read_bytes()) != by_environment
        assert running.stdin is not None
        running.stdin.close()
        assert running.wait(10) == 0


def test_the_plugin_loses_nothing_on_a_bad_line(aws: AwsDouble, ssm: Any, program: Path, server: Server) -> None:
    """Messages that never arrive are sent again; what comes twice and out of order is put right."""
    answer = answer_of(ssm, server)
    with plugin(program, answer, server.instance_id) as running:
        greeted(running, answer["SessionId"])
        aws.faults.disorder_stream(server)
        aws.faults.lose_stream_messages(server, times=3)
        text = b"".join(b"line %d\n" % number for number in range(2_000))
        threading.Thread(target=say, args=(running, text), daemon=True).start()
        assert head(running, 2_000) == text
    assert aws.sessions[-1].agent.rejected == []


def test_the_plugin_says_how_the_session_ended(aws: AwsDouble, ssm: Any, program: Path, server: Server) -> None:
    answer = answer_of(ssm, server)
    with plugin(program, answer, server.instance_id) as running:
        greeted(running, answer["SessionId"])
        ssm.terminate_session(SessionId=answer["SessionId"])
        assert head(running, 4) == f"\n\nExiting session with sessionId: {answer['SessionId']}.\n\n".encode()
        assert running.wait(10) == 0


def test_the_plugin_passes_on_why_there_is_no_connection(
    ssm: Any, program: Path, server: Server, host: EchoHost
) -> None:
    host.listens = False
    answer = answer_of(ssm, server)
    with plugin(program, answer, server.instance_id) as running:
        output = head(running, 5).decode()
        assert running.wait(10) == 0
    assert f"SessionId: {answer['SessionId']} : Unable to connect to specified port: dial tcp" in output


def test_the_plugin_resumes_its_session_with_credentials(
    aws: AwsDouble, ssm: Any, program: Path, server: Server, host: EchoHost
) -> None:
    answer = answer_of(ssm, server)
    with plugin(program, answer, server.instance_id, endpoint=aws.url, **aws.environment("person")) as running:
        greeted(running, answer["SessionId"])
        aws.hang_up(server)
        say(running, b"still here\n")
        assert head(running, 1) == b"still here\n"
    assert [call.operation for call in aws.calls].count("ResumeSession") == 1
    assert host.dialled == [22]


def test_without_credentials_a_connection_that_is_closed_is_lost(
    aws: AwsDouble, ssm: Any, program: Path, server: Server
) -> None:
    answer = answer_of(ssm, server)
    with plugin(program, answer, server.instance_id, endpoint=aws.url) as running:
        greeted(running, answer["SessionId"])
        aws.hang_up(server)
        say(running, b"anybody?\n")
        assert head(running, 1) == b"Cannot perform start session: write tcp: broken pipe\n"
        assert running.wait(10) == 0


def test_a_used_token_gets_nothing(aws: AwsDouble, ssm: Any, program: Path, server: Server) -> None:
    answer = answer_of(ssm, server)
    with plugin(program, answer, server.instance_id) as running:
        greeted(running, answer["SessionId"])
        with plugin(program, answer, server.instance_id) as thief:
            assert head(thief, 2).endswith(answer["SessionId"].encode() + b"\n")
            while not aws.refused_channels:
                time.sleep(0.01)
            assert thief.stdin is not None
            thief.stdin.close()
            assert thief.wait(20) == 0
            assert thief.stdout is not None
            assert thief.stdout.read() == b""
        say(running, b"mine\n")
        assert head(running, 1) == b"mine\n"


def opened_port(running: subprocess.Popen[bytes]) -> int:
    found = re.search(rb"Port (\d+) opened for sessionId \S+\.\n", head(running, 3))
    assert found
    return int(found[1])


def said(connection: socket.socket, length: int) -> bytes:
    words = b""
    while len(words) < length and (piece := connection.recv(4096)):
        words += piece
    return words


def test_the_plugin_forwards_a_port_for_many_connections(
    aws: AwsDouble, ssm: Any, program: Path, server: Server, host: EchoHost
) -> None:
    answer = answer_of(ssm, server, FORWARD)
    with plugin(program, answer, server.instance_id) as running:
        port = opened_port(running)
        assert head(running, 1) == b"Waiting for connections...\n"
        assert host.dialled == []
        big = os.urandom(200_000).replace(b"\n", b"x")
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as one,
            socket.create_connection(("127.0.0.1", port), timeout=20) as two,
        ):
            assert head(running, 2) == f"\nConnection accepted for session [{answer['SessionId']}]\n".encode()
            assert said(one, len(BANNER)) == said(two, len(BANNER)) == BANNER
            threading.Thread(target=one.sendall, args=(big,), daemon=True).start()
            two.sendall(b"two")
            assert said(two, 3) == b"two"
            assert said(one, len(big)) == big
            one.sendall(b"bye\n")
            assert one.recv(10) == b""
            host.listens = False
            with socket.create_connection(("127.0.0.1", port), timeout=20) as three:
                assert three.recv(10) == b""
            assert head(running, 2) == b"\nConnection to destination port failed, check SSM Agent logs.\n"
        running.send_signal(signal.SIGINT)
        assert head(running, 5).startswith(b"Terminate signal received, exiting.\n\n\nExiting session with sessionId")
        assert running.wait(10) == 0
    while aws.sessions[-1].ended_at is None:
        time.sleep(0.01)
    assert host.dialled == [3389] * 3


def test_the_plugin_forwards_to_an_old_agent_one_connection_after_another(
    aws: AwsDouble, ssm: Any, program: Path, host: EchoHost
) -> None:
    old = aws.add_server("old", host=host, agent_version="3.0.196.0")
    answer = answer_of(ssm, old, FORWARD)
    with plugin(program, answer, old.instance_id) as running:
        port = opened_port(running)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
            assert head(running, 1) == f"Connection accepted for session {answer['SessionId']}.\n".encode()
            assert said(one, len(BANNER)) == BANNER
        while host.open:
            time.sleep(0.01)
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as two:
            two.sendall(b"again")
            assert said(two, len(BANNER) + 5) == BANNER + b"again"
    assert host.dialled == [3389, 3389]


def test_a_local_port_that_is_taken(ssm: Any, program: Path, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        parameters = {"portNumber": ["3389"], "localPortNumber": [port]}
        answer = answer_of(ssm, server, {**FORWARD, "Parameters": parameters})
        with plugin(program, answer, server.instance_id) as running:
            output, _ = running.communicate(timeout=10)
            assert running.returncode == 0
    expected = f"Cannot perform start session: listen tcp 127.0.0.1:{port}: bind: address already in use\n"
    assert output.decode().endswith(expected)


@pytest.mark.parametrize(
    ("words", "output", "code"),
    [
        ((), b"The Session Manager plugin was installed successfully.", 0),
        (("--version",), b"1.2.814.0\n", 0),
        (("--help",), b"Unknown operation --help.", 0),
        (("{}", "eu-west-1", "StopSession"), b"Invalid Operation", 0),
        (("no JSON", "eu-west-1", "StartSession"), b"Cannot perform start session: ", 0),
        (("AWS_SSM_START_SESSION_RESPONSE", "eu-west-1", "StartSession"), b"Cannot perform start session: ", 0),
        (('{"SessionId":"a"}', "eu-west-1", "StartSession"), b"", 2),
        (("{}", "eu-west-1", "StartSession", "", "{}", ""), b"", 2),
    ],
)
def test_the_plugin_reads_its_arguments_like_awss(
    program: Path, words: tuple[str, ...], output: bytes, code: int
) -> None:
    ran = subprocess.run(
        [program.parent / "session-manager-plugin", *words], capture_output=True, check=False, env={}, input=b""
    )
    assert ran.returncode == code
    assert output in ran.stdout
    assert b"Traceback" not in ran.stderr


def test_what_the_plugin_sends_is_what_awss_sends(program: Path) -> None:
    """Its first messages, taken apart by hand: a service of the test's own answers."""
    heard: list[Any] = []

    def service(connection: ServerConnection) -> None:
        heard.append(json.loads(connection.recv()))
        action = {"SessionType": "Port", "Properties": {"portNumber": "22"}}
        actions = [
            {"ActionType": "SessionType", "ActionParameters": action},
            {"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "k"}},
        ]
        request = json.dumps({"AgentVersion": "3.3.1.0", "RequestedClientActions": actions}).encode()
        connection.send(message(b"", kind="start_publication", payload_type=0))
        connection.send(message(request, kind="output_stream_data", payload_type=5, digest=bytes(32)))
        connection.send(message(request, kind="output_stream_data", payload_type=5))
        heard.extend(read(bytes(connection.recv())) for _ in range(3))  # type: ignore[arg-type]

    with serve(service, "127.0.0.1", 0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{listening.socket.getsockname()[1]}/v1/data-channel/s-1?role=publish_subscribe"
        with plugin(program, {"SessionId": "s-1", "StreamUrl": url, "TokenValue": "t"}, "i-1") as running:
            head(running, 2)
            while len(heard) < 4:
                time.sleep(0.01)
        listening.shutdown()
    opening, acknowledged, response, again = heard
    assert set(opening) == {"MessageSchemaVersion", "RequestId", "TokenValue", "ClientId", "ClientVersion"}
    assert (opening["TokenValue"], opening["MessageSchemaVersion"]) == ("t", "1.0")
    assert (acknowledged.kind, acknowledged.flags, acknowledged.payload_type) == ("acknowledge", 3, 0)
    assert acknowledged.content["AcknowledgedMessageSequenceNumber"] == 0
    assert (response.kind, response.sequence, response.flags, response.payload_type) == ("input_stream_data", 0, 0, 6)
    done = response.content["ProcessedClientActions"]
    assert [(each["ActionType"], each["ActionStatus"]) for each in done] == [("SessionType", 1), ("KMSEncryption", 2)]
    assert response.content["Errors"] == ["Unsupported action KMSEncryption"]
    assert again == response  # it was not acknowledged


def test_the_aws_command_hands_its_session_to_the_plugin(aws: AwsDouble, program: Path, server: Server) -> None:
    words = ["ssm", "start-session", "--target", server.instance_id, "--document-name", "AWS-StartSSHSession"]
    path = f"{program.parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        [program, *words, "--parameters", "portNumber=22"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**aws.environment(), "PATH": path},
    ) as running:
        head(running, 2)
        assert head(running, 1) == BANNER
        say(running, b"to and fro\n")
        assert head(running, 1) == b"to and fro\n"
        assert running.stdin is not None
        running.stdin.close()
        assert running.wait(10) == 0


def test_the_aws_command_ends_with_its_session(aws: AwsDouble, ssm: Any, program: Path, server: Server) -> None:
    words = ["ssm", "start-session", "--target", server.instance_id, "--document-name", "AWS-StartSSHSession"]
    path = f"{program.parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        [program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**aws.environment(), "PATH": path}
    ) as running:
        head(running, 3)
        ssm.terminate_session(SessionId=aws.sessions[-1].id)
        assert running.wait(10) == 0


def test_without_the_plugin_the_aws_command_ends_its_session(aws: AwsDouble, program: Path, server: Server) -> None:
    (program.parent / "session-manager-plugin").unlink()
    ran = run(program, aws, "ssm", "start-session", "--target", server.instance_id, *AS_SSH)
    assert ran.returncode == 255
    assert b"SessionManagerPlugin is not found. Please refer to" in ran.stderr
    assert aws.sessions[-1].ended_at


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
