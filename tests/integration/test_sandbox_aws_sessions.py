"""Sessions of the sandbox's Session Manager: their data channel, held to what AWS's agent does."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from sandbox.aws import AwsDouble, Server
from tests.integration.aws_lab import GOOD, client, publish, refused
from tests.integration.channel_lab import FORWARD, SSH, EchoHost, RawClient, message, opened, opening

OUTPUT, FLAG = "output_stream_data", 10


class Clock:
    """AWS's time, which a test can move on."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def __call__(self) -> float:
        return time.time() + self._skipped

    def skip(self, seconds: float) -> None:
        self._skipped += seconds


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def aws(clock: Clock) -> Iterator[AwsDouble]:
    with AwsDouble(now=clock) as aws:
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


def until(so: Callable[[], object]) -> None:
    """Wait for something that happens at once; the test's own timeout is the limit."""
    while not so():
        time.sleep(0.01)


def session_of(aws: AwsDouble, answer: dict[str, str]) -> Any:
    return next(each for each in aws.sessions if each.id == answer["SessionId"])


def greeted(client: RawClient) -> RawClient:
    """After the handshake and the host's banner."""
    client.shake_hands()
    assert client.await_kind(OUTPUT).payload == b"SSH-2.0-Echo\r\n"
    return client


def test_a_session_carries_bytes_to_the_hosts_own_port(ssm: Any, server: Server, host: EchoHost) -> None:
    answer = ssm.start_session(Target=server.instance_id, Reason="AR-7F3K", **SSH)
    assert f"/v1/data-channel/{answer['SessionId']}?role=publish_subscribe&cell-number=" in answer["StreamUrl"]
    with opened(answer) as stream:
        asked = stream.shake_hands()
        assert asked["AgentVersion"] == server.agent_version
        assert asked["RequestedClientActions"] == [
            {
                "ActionType": "SessionType",
                "ActionParameters": {"SessionType": "Port", "Properties": {"portNumber": "22"}},
            }
        ]
        assert stream.await_kind(OUTPUT).payload == b"SSH-2.0-Echo\r\n"
        assert stream.say(b"hello") == 1
        assert stream.await_kind(OUTPUT).payload == b"hello"
        assert stream.await_acknowledgement(1)["AcknowledgedMessageType"] == "input_stream_data"
        mine = [{"key": "SessionId", "value": answer["SessionId"]}]
        active = ssm.describe_sessions(State="Active", Filters=mine)["Sessions"]
        assert [(row["SessionId"], row["Status"]) for row in active] == [(answer["SessionId"], "Connected")]
        assert active[0]["Owner"] == "arn:aws:iam::111111111111:user/admin"
        assert active[0]["Reason"] == "AR-7F3K"
    assert host.dialled == [22]


def test_terminate_session_closes_the_channel_in_the_middle(ssm: Any, server: Server, host: EchoHost) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer) as stream:
        greeted(stream)
        ssm.terminate_session(SessionId=answer["SessionId"])
        closed = stream.await_kind("channel_closed").content
        assert (closed["SessionId"], closed["MessageType"], closed["Output"]) == (
            answer["SessionId"],
            "channel_closed",
            "",
        )
        with pytest.raises(ConnectionClosed):
            stream.hear()
    until(lambda: host.open == 0)
    wanted = [{"key": "Target", "value": server.instance_id}]
    assert ssm.describe_sessions(State="Active", Filters=wanted)["Sessions"] == []
    assert ssm.describe_sessions(State="History", Filters=wanted)["Sessions"][0]["Status"] == "Terminated"
    ssm.terminate_session(SessionId=answer["SessionId"])
    with pytest.raises(InvalidStatus, match="404"), opened(answer):
        pass


def test_a_session_ends_when_its_host_hangs_up(aws: AwsDouble, ssm: Any, server: Server) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer) as stream:
        greeted(stream).say(b"bye\n")
        assert stream.await_kind("channel_closed").content["Output"] == ""
    assert session_of(aws, answer).ended_at is not None


def test_a_session_outlives_its_client_until_nobody_has_spoken_for_20_minutes(
    aws: AwsDouble, ssm: Any, server: Server, host: EchoHost, clock: Clock
) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer) as stream:
        greeted(stream)
    session = session_of(aws, answer)
    until(lambda: not session.agent.has_client)
    clock.skip(20 * 60 - 1)
    mine = [{"key": "SessionId", "value": answer["SessionId"]}]
    assert ssm.describe_sessions(State="Active", Filters=mine)["Sessions"]
    assert host.open == 1
    clock.skip(2)
    assert ssm.describe_sessions(State="Active", Filters=mine)["Sessions"] == []
    until(lambda: host.open == 0)


def test_an_idle_client_is_told(ssm: Any, server: Server, clock: Clock) -> None:
    with opened(ssm.start_session(Target=server.instance_id, **SSH)) as stream:
        greeted(stream)
        clock.skip(20 * 60 + 1)
        assert stream.await_kind("channel_closed").content["Output"] == "Your session timed out due to inactivity."


def test_a_client_that_comes_back_finds_the_stream_where_it_was(ssm: Any, server: Server, host: EchoHost) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer) as stream:
        greeted(stream)
    again = ssm.resume_session(SessionId=answer["SessionId"])
    assert again["TokenValue"] != answer["TokenValue"]
    with opened({**answer, **again}) as stream:
        stream.socket.send(message(b"still here", sequence=1))
        heard = stream.await_kind(OUTPUT)
        assert (heard.payload, heard.sequence) == (b"still here", 3)
    assert host.dialled == [22]


def test_one_client_at_a_time(aws: AwsDouble, ssm: Any, server: Server) -> None:
    """A used token opens nothing; with a new one, who was there before is sent away."""
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer) as first:
        greeted(first)
        with opened(answer) as second, pytest.raises(ConnectionClosed):
            second.hear()
        assert aws.refused_channels[-1] == "the token is wrong, or was used before"
        first.say(b"not disturbed")
        assert first.await_kind(OUTPUT).payload == b"not disturbed"
        with (
            opened({**answer, **ssm.resume_session(SessionId=answer["SessionId"])}),
            pytest.raises(ConnectionClosed),
        ):
            first.await_kind("nothing more")


def test_a_token_is_for_its_session_alone_and_not_for_long(
    aws: AwsDouble, ssm: Any, server: Server, host: EchoHost, clock: Clock
) -> None:
    answer, other = (ssm.start_session(Target=server.instance_id, **SSH) for _ in range(2))
    for token in ("wrong", other["TokenValue"]):
        with opened(answer, token) as stream, pytest.raises(ConnectionClosed):
            stream.hear()
        assert aws.refused_channels[-1] == "the token is wrong, or was used before"
    clock.skip(61)
    with opened(answer) as stream, pytest.raises(ConnectionClosed):
        stream.hear()
    assert aws.refused_channels[-1] == "the token is too old"
    assert host.dialled == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"MessageSchemaVersion": "1.1"}, "MessageSchemaVersion"),
        ({"MessageSchemaVersion": None}, "the opening message has"),
        ({"RequestId": "1"}, "UUIDs"),
        ({"RequestId": None}, "the opening message has"),
        ({"TokenValue": None}, "the opening message has"),
        ({"ClientId": "ana"}, "UUIDs"),
        ({"ClientVersion": None}, "the opening message has"),
        ({"ClientVersion": "new"}, "ClientVersion"),
        ({"TokenValue": ["a"]}, "the opening message has"),
    ],
)
def test_the_opening_message_is_complete(
    aws: AwsDouble, ssm: Any, server: Server, changes: dict[str, Any], why: str
) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer, first=opening(answer["TokenValue"], **changes)) as stream, pytest.raises(ConnectionClosed):
        stream.hear()
    assert why in aws.refused_channels[-1]
    with opened(answer) as stream:  # nothing was used up
        stream.shake_hands()


@pytest.mark.parametrize("first", [b"binary", "no JSON", "[]", "1"])
def test_the_opening_message_is_json_text(ssm: Any, server: Server, host: EchoHost, first: str | bytes) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer, first=first) as stream, pytest.raises(ConnectionClosed):
        stream.hear()
    assert host.dialled == []


@pytest.mark.parametrize(
    "change",
    [
        ("role=publish_subscribe", "role=subscribe"),
        ("?role=publish_subscribe&", "?"),
        ("/v1/data-channel/", "/v1/control-channel/"),
        ("/v1/data-channel/", "/v1/data-channel/no-such-session"),
    ],
)
def test_the_address_is_that_of_a_session(ssm: Any, server: Server, change: tuple[str, str]) -> None:
    url = ssm.start_session(Target=server.instance_id, **SSH)["StreamUrl"].replace(*change)
    with pytest.raises(InvalidStatus), connect(url, compression=None):
        pass


def test_what_is_not_acknowledged_is_sent_again(ssm: Any, server: Server) -> None:
    with opened(ssm.start_session(Target=server.instance_id, **SSH)) as stream:
        first, second = stream.hear(), stream.hear()
        assert first == second
        assert first.payload_type == 5
        assert greeted(stream).say(b"on it goes")
        heard = stream.await_kind(OUTPUT)
        assert heard.payload == b"on it goes"
        heard = len(stream.heard)
        with pytest.raises(TimeoutError):
            stream.await_kind("nothing more", seconds=0.7)
        assert {each.kind for each in stream.heard[heard:]} <= {"acknowledge"}  # acknowledged is acknowledged


def test_a_duplicate_is_dropped_and_not_acknowledged(ssm: Any, server: Server) -> None:
    with opened(ssm.start_session(Target=server.instance_id, **SSH)) as stream:
        greeted(stream)
        twice = message(b"once", sequence=1)
        stream.socket.send(twice)
        assert stream.await_kind(OUTPUT).payload == b"once"
        stream.await_acknowledgement(1)
        stream.socket.send(twice)
        stream.socket.send(message(b"then", sequence=2))
        assert stream.await_kind("acknowledge").content["AcknowledgedMessageSequenceNumber"] == 2
        assert [heard.payload for heard in stream.heard].count(b"once") == 1


def test_what_comes_too_early_is_kept_for_its_turn(ssm: Any, server: Server) -> None:
    with opened(ssm.start_session(Target=server.instance_id, **SSH)) as stream:
        greeted(stream)
        for number, word in ((3, b"three"), (2, b"two")):
            stream.socket.send(message(word, sequence=number))
            stream.await_acknowledgement(number)
        stream.socket.send(message(b"one", sequence=1))
        said = b""
        while len(said) < len(b"onetwothree"):
            said += stream.await_kind(OUTPUT).payload
        assert said == b"onetwothree"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"digest": bytes(32)}, "digest"),
        ({"header_length": 112}, "header's length"),
        ({"schema": 2}, "schema version"),
        ({"created": 0}, "CreatedDate"),
        ({"length": 9}, "the header says 9"),
        ({"kind": "shout"}, "'shout' is not known"),
        ({"kind": "output_stream_data"}, "a client sends no output_stream_data"),
        ({"payload_type": 3}, "payload type 3"),
    ],
)
def test_a_malformed_message_is_neither_taken_nor_acknowledged(
    aws: AwsDouble, ssm: Any, server: Server, wrong: dict[str, Any], why: str
) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer) as stream:
        greeted(stream)
        stream.socket.send(message(b"bad", sequence=1, **wrong))
        stream.socket.send(message(b"good", sequence=1))
        stream.socket.send(message(b"end", sequence=2))
        stream.await_acknowledgement(2)
        assert stream.acknowledgements() == [0, 1, 2]
        assert b"bad" not in [heard.payload for heard in stream.heard]
        rejected = session_of(aws, answer).agent.rejected
        assert len(rejected) == 1
        assert why in rejected[0]


def test_pieces_and_text_are_no_messages(aws: AwsDouble, ssm: Any, server: Server) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer) as stream:
        greeted(stream)
        stream.socket.send(b"short")
        stream.socket.send("text")
        stream.socket.send(message(b"good", sequence=1))
        assert stream.await_kind(OUTPUT).payload == b"good"
    assert [why.split(" ", 1)[1] for why in session_of(aws, answer).agent.rejected] == [
        "bytes are less than a header",
        "text message after the opening",
    ]


def test_what_is_said_before_the_handshake_is_lost(ssm: Any, server: Server, host: EchoHost) -> None:
    with opened(ssm.start_session(Target=server.instance_id, **SSH)) as stream:
        stream.say(b"too early")
        assert stream.await_kind("acknowledge").content["AcknowledgedMessageSequenceNumber"] == 0
        assert host.dialled == []


def test_a_handshake_that_fails_ends_the_session(aws: AwsDouble, ssm: Any, server: Server, host: EchoHost) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer) as stream:
        stream.shake_hands(status=2)
        output = stream.await_kind("channel_closed").content["Output"]
    assert "Encountered error while initiating handshake. SessionType failed on client" in output
    assert host.dialled == []
    assert session_of(aws, answer).ended_at


def test_a_handshake_takes_15_seconds_at_most(
    ssm: Any, server: Server, host: EchoHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.aws.agent_end.HANDSHAKE_WITHIN", 0.3)
    with opened(ssm.start_session(Target=server.instance_id, **SSH)) as stream:
        output = stream.await_kind("channel_closed").content["Output"]
    assert "Handshake timed out" in output
    assert host.dialled == []


def test_a_port_that_nobody_listens_on(ssm: Any, server: Server, host: EchoHost) -> None:
    host.listens = False
    with opened(ssm.start_session(Target=server.instance_id, **SSH)) as stream:
        stream.shake_hands()
        output = stream.await_kind("channel_closed").content["Output"]
    assert output == "Unable to connect to specified port: dial tcp 127.0.0.1:22: connect: connection refused"


def test_the_client_ends_the_session_by_a_flag(aws: AwsDouble, ssm: Any, server: Server, host: EchoHost) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    with opened(answer) as stream:
        greeted(stream).say(struct.pack(">I", 2), FLAG)
        stream.await_kind("channel_closed")
    assert session_of(aws, answer).ended_at
    until(lambda: host.open == 0)


def test_a_forwarded_port_of_an_old_agent_is_dialled_again(aws: AwsDouble, ssm: Any, host: EchoHost) -> None:
    old = aws.add_server("old", host=host, agent_version="3.0.196.0")
    with opened(ssm.start_session(Target=old.instance_id, **FORWARD)) as stream:
        asked = stream.shake_hands()["RequestedClientActions"][0]["ActionParameters"]["Properties"]
        assert asked == {"portNumber": "3389", "type": "LocalPortForwarding", "localPortNumber": "0"}
        assert stream.await_kind(OUTPUT).payload == b"SSH-2.0-Echo\r\n"
        stream.say(struct.pack(">I", 1), FLAG)
        until(lambda: host.open == 0)
        time.sleep(0.1)
        stream.say(b"again")
        said = b""
        while not said.endswith(b"again"):
            said += stream.await_kind(OUTPUT).payload
        assert said == b"SSH-2.0-Echo\r\nagain"
    assert host.dialled == [3389, 3389]


def frame(command: int, stream: int, data: bytes = b"") -> bytes:
    return struct.pack("<BBHI", 1, command, len(data), stream) + data


def test_many_connections_in_one_session(aws: AwsDouble, ssm: Any, server: Server, host: EchoHost) -> None:
    """smux: a connection a stream, dialled when it is opened."""
    answer = ssm.start_session(Target=server.instance_id, **FORWARD)
    with opened(answer) as stream:
        stream.shake_hands()
        assert host.dialled == []
        whole = frame(0, 3) + frame(0, 5) + frame(2, 3, b"three") + frame(3, 0)
        for start in range(0, len(whole), 7):  # frames come in any pieces
            stream.say(whole[start : start + 7])
        said = b""
        expected = {frame(2, n, b"SSH-2.0-Echo\r\n") for n in (3, 5)} | {frame(2, 3, b"three")}
        while len(said) < sum(map(len, expected)):
            said += stream.await_kind(OUTPUT).payload
        assert all(each in said for each in expected)
        stream.say(frame(1, 3))
        assert stream.await_kind(OUTPUT).payload == frame(1, 3)
        stream.say(frame(2, 5, b"five"))
        assert stream.await_kind(OUTPUT).payload == frame(2, 5, b"five")
        stream.say(frame(2, 5, b"bye\n"))
        assert stream.await_kind(OUTPUT).payload == frame(1, 5)
        host.listens = False
        stream.say(frame(0, 7))
        flag, fin = stream.await_kind(OUTPUT), stream.await_kind(OUTPUT)
        assert (flag.payload_type, flag.payload, fin.payload) == (FLAG, struct.pack(">I", 3), frame(1, 7))
        stream.say(b"no smux at all")
        until(lambda: session_of(aws, answer).agent.rejected)
    assert host.dialled == [3389] * 3


def test_an_old_client_gets_one_connection(ssm: Any, server: Server, host: EchoHost) -> None:
    with opened(ssm.start_session(Target=server.instance_id, **FORWARD)) as stream:
        stream.shake_hands(version="1.1.61.0")
        assert stream.await_kind(OUTPUT).payload == b"SSH-2.0-Echo\r\n"
    assert host.dialled == [3389]


def test_refusals(aws: AwsDouble, ssm: Any, server: Server) -> None:
    with refused("TargetNotConnected", "i-0123456789abcdef0 is not connected"):
        ssm.start_session(Target="i-0123456789abcdef0", **SSH)
    with refused("InvalidDocument"):
        ssm.start_session(Target=server.instance_id, DocumentName="Passport-Tunnel")
    publish(ssm, "Passport-Create")
    with refused("InvalidDocument"):
        ssm.start_session(Target=server.instance_id, DocumentName="Passport-Create", Parameters=GOOD)
    with refused("TargetNotConnected"):
        client(aws, "ssm", "222222222222").start_session(Target=server.instance_id, **SSH)
    with refused("InvalidFilterKey"):
        ssm.describe_sessions(State="Active", Filters=[{"key": "AccessType", "value": "Standard"}])
    with refused("ValidationException", "enum"):
        ssm.describe_sessions(State="All")
    aws.set_online(server, False)
    with refused("TargetNotConnected"):
        ssm.start_session(Target=server.instance_id, **SSH)


def test_a_session_needs_a_document(ssm: Any, server: Server) -> None:
    """Without one it would be a shell as root: no role has that."""
    with refused("AccessDeniedException", "document/SSM-SessionManagerRunShell"):
        ssm.start_session(Target=server.instance_id)


@pytest.mark.parametrize(
    ("document", "parameters"),
    [
        ("AWS-StartSSHSession", {"portNumber": ["0"]}),
        ("AWS-StartSSHSession", {"portNumber": ["99999"]}),
        ("AWS-StartSSHSession", {"portNumber": ["22\n"]}),
        ("AWS-StartSSHSession", {"portNumber": ["22", "23"]}),
        ("AWS-StartSSHSession", {"portNumber": ["22"], "localPortNumber": ["0"]}),
        ("AWS-StartSSHSession", {"host": ["10.0.0.1"]}),
        ("AWS-StartPortForwardingSession", {"portNumber": ["3389;reboot"]}),
        ("AWS-StartPortForwardingSession", {"portNumber": ["3389"], "localPortNumber": ["65536"]}),
        ("AWS-StartPortForwardingSession", {"portNumber": ["3389"], "localPortNumber": ["-1"]}),
    ],
)
def test_a_session_document_checks_its_parameters(
    ssm: Any, server: Server, document: str, parameters: dict[str, list[str]]
) -> None:
    with refused("InvalidParameters"):
        ssm.start_session(Target=server.instance_id, DocumentName=document, Parameters=parameters)


@pytest.mark.parametrize(
    "content",
    [
        {"schemaVersion": "2.2", "sessionType": "Port", "properties": {"portNumber": "22"}},
        {"schemaVersion": "1.0", "sessionType": "Ports", "properties": {"portNumber": "22"}},
        {"schemaVersion": "1.0", "sessionType": "Port", "properties": {}},
        {"schemaVersion": "1.0", "sessionType": "Port", "properties": {"portNumber": "{{ port }}"}},
        {"schemaVersion": "1.0", "sessionType": "Port", "parameters": {"a": {"type": "Text"}}},
    ],
)
def test_a_session_document_is_valid(ssm: Any, content: dict[str, Any]) -> None:
    with refused("InvalidDocumentContent"):
        ssm.create_document(Name="Passport-Session", DocumentType="Session", Content=json.dumps(content))


def test_a_session_document_of_ones_own(ssm: Any, server: Server, host: EchoHost) -> None:
    content = {"schemaVersion": "1.0", "sessionType": "Port", "properties": {"portNumber": "5985"}}
    ssm.create_document(Name="Passport-Remote", DocumentType="Session", Content=json.dumps(content))
    with opened(ssm.start_session(Target=server.instance_id, DocumentName="Passport-Remote")) as stream:
        greeted(stream)
    assert host.dialled == [5985]


@pytest.mark.parametrize("leave", ["stop", "terminate", "set_online"])
def test_a_server_that_goes_ends_its_sessions(aws: AwsDouble, ssm: Any, server: Server, leave: str) -> None:
    with opened(ssm.start_session(Target=server.instance_id, **SSH)) as stream:
        greeted(stream)
        getattr(aws, leave)(server, *([False] if leave == "set_online" else []))
        stream.await_kind("channel_closed")
    wanted = [{"key": "Target", "value": server.instance_id}]
    assert ssm.describe_sessions(State="Active", Filters=wanted)["Sessions"] == []


def test_three_new_sessions_a_second(aws: AwsDouble, ssm: Any, server: Server) -> None:
    aws.faults.quotas = {"StartSession": 3}
    for _ in range(3):
        ssm.start_session(Target=server.instance_id, **SSH)
    with refused("ThrottlingException", "Rate exceeded"):
        ssm.start_session(Target=server.instance_id, **SSH)


def test_no_secret_is_in_a_repr(aws: AwsDouble, ssm: Any, server: Server) -> None:
    answer = ssm.start_session(Target=server.instance_id, **SSH)
    assert answer["TokenValue"] not in repr(aws.sessions[-1])
    assert aws.keys().secret not in repr(aws.keys())
