"""Inside a `passport serve` under test: names every commit and outgoing call, and kills the process at one of them.

The order comes by a file, so that it can be given to a process that runs: ``order`` holds the number and the name of
a point, or 0 to list only; every point passed while it is there becomes a line of ``points``.
"""

import fcntl
import os
import re
import signal
import threading
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

FOLDER = "KILLER_FOLDER"
ORDER, POINTS = "order", "points"

_TARGET = re.compile(rb"(?i)^x-amz-target: *\S+\.(\w+)$")
_SLACK = re.compile(rb"^POST /api/([\w.]+) ")


def install() -> None:
    """Wrap what commits and what calls, if the environment names a folder."""
    if folder := os.environ.get(FOLDER):
        killer = Killer(Path(folder))
        _watch_commits(killer)
        _watch_calls(killer)


class Killer:
    """Counts the points, and ends its own process at the ordered one."""

    def __init__(self, folder: Path) -> None:
        self._order = folder / ORDER
        self._points = folder / POINTS

    def pass_by(self, point: str) -> None:
        """Write the point down; at the ordered one, do not return."""
        try:
            order = self._order.open()
        except FileNotFoundError:
            return
        with order:
            fcntl.flock(order, fcntl.LOCK_EX)  # by one thread at a time, and not while the order is withdrawn
            number, _, name = order.read().partition(" ")
            if not number:
                return
            with self._points.open("a") as points:
                points.write(f"{point}\n")
            passed = self._points.read_text().splitlines().count(point)
            if (int(number), name) == (passed, point):
                os.kill(os.getpid(), signal.SIGKILL)


def withdraw(folder: Path) -> None:
    """Take the order back, if there is one: after this nothing is written down, and nobody is killed who was not."""
    order = folder / ORDER
    if not order.exists():
        return
    with order.open("r+") as withdrawn:
        fcntl.flock(withdrawn, fcntl.LOCK_EX)
        withdrawn.truncate()  # whoever has opened it and waits for the lock reads nothing
        order.unlink()


def _watch_commits(killer: Killer) -> None:
    commit = DefaultDialect.do_commit

    def do_commit(self: DefaultDialect, connection: Any) -> None:
        thread = threading.current_thread().name.rstrip("-_0123456789")
        killer.pass_by(f"before a commit of {thread}")
        commit(self, connection)  # type: ignore[no-untyped-call]
        killer.pass_by(f"after a commit of {thread}")

    DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]


def _watch_calls(killer: Killer) -> None:
    """Every client that Passport uses stands on http.client: urllib, and urllib3 beneath botocore."""
    send, receive = HTTPConnection.endheaders, HTTPConnection.getresponse
    names: dict[int, str] = {}  # by connection, which makes one call at a time

    def endheaders(self: HTTPConnection, *args: Any, **words: Any) -> None:
        names[id(self)] = _name(self._buffer)  # type: ignore[attr-defined]
        killer.pass_by(f"before {names[id(self)]}")
        send(self, *args, **words)

    def getresponse(self: HTTPConnection) -> HTTPResponse:
        answer = receive(self)
        killer.pass_by(f"after {names[id(self)]}")
        return answer

    HTTPConnection.endheaders = endheaders  # type: ignore[method-assign]
    HTTPConnection.getresponse = getresponse  # type: ignore[method-assign]


def _name(head: list[bytes]) -> str:
    """The method of Slack's or the operation of AWS's that a request is for."""
    if found := _SLACK.match(head[0]) or next(filter(None, map(_TARGET.match, head)), None):
        return found[1].decode()
    return "response_url" if head[0].startswith((b"POST /actions/", b"POST /commands/")) else "EC2"
