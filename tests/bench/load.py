"""The load: signed slash commands over kept-alive connections, from a process of its own (``python -m tests.bench.load``).

A job is a line of JSON on stdin; what it measured is a line of JSON on stdout.
"""

import hashlib
import hmac
import json
import secrets
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlencode


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to send where; ``expect`` must be in every answer."""

    port: int
    signing_secret: str = field(repr=False)
    text: str
    expect: str
    seconds: float
    callers: int
    user_id: str
    team_id: str
    response_url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Milliseconds of every answer, and answers a second."""

    ms: list[float]
    rate: float


class Load:
    """The other process; a context manager."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.bench.load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, job: Job) -> Measured:
        """Do one job."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        return Measured(**json.loads(self._process.stdout.readline()))


def main() -> None:
    """Do what stdin says, until it ends."""
    for line in sys.stdin:
        print(json.dumps(asdict(_measure(Job(**json.loads(line))))), flush=True)


def _measure(job: Job) -> Measured:
    begun = time.perf_counter()
    with ThreadPoolExecutor(job.callers) as callers:
        took = list(callers.map(lambda _: _call(job, begun + job.seconds), range(job.callers)))
    ms = [one for each in took for one in each]
    return Measured(ms=ms, rate=len(ms) / (time.perf_counter() - begun))


def _call(job: Job, until: float) -> list[float]:
    """One caller: the next command when the last is answered."""
    took = []
    with socket.create_connection(("127.0.0.1", job.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.perf_counter() < until:
            message = _message(job)
            begun = time.perf_counter()
            connection.sendall(message)
            answer = _read(connection)
            took.append((time.perf_counter() - begun) * 1000)
            if not answer.startswith(b"HTTP/1.1 200 ") or job.expect.encode() not in answer:
                raise AssertionError(f"{job.text!r} got {answer!r}")
    return took


def _message(job: Job) -> bytes:
    fields = {
        "command": "/passport",
        "text": job.text,
        "user_id": job.user_id,
        "team_id": job.team_id,
        "channel_id": "C0LEADS",
        "channel_name": "payments-leads",
        "trigger_id": secrets.token_hex(16),
        "response_url": job.response_url,
    }
    body, at = urlencode(fields).encode(), int(time.time())
    signature = hmac.new(job.signing_secret.encode(), b"v0:%d:%b" % (at, body), hashlib.sha256).hexdigest()
    head = (
        "POST /slack/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"X-Slack-Request-Timestamp: {at}\r\nX-Slack-Signature: v0={signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _read(connection: socket.socket) -> bytes:
    """One whole answer; its length is said in its head."""
    answer = b""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        if end:
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            if len(body) >= length:
                return answer
        received = connection.recv(65536)
        if not received:
            raise AssertionError("the server hung up")
        answer += received


if __name__ == "__main__":
    main()
