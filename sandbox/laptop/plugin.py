"""The program: its arguments, its one session, its exit status (src/sessionmanagerplugin/session/session.go)."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from sandbox.data_channel.streams import RESEND_EVERY
from sandbox.data_channel.versions import MULTIPLEXES, is_after
from sandbox.laptop.calls import UnreachableError, credentials, post
from sandbox.laptop.channel import VERSION, Channel, ChannelClosedError, show
from sandbox.laptop.ports import BasicForwarding, FinishedError, LocalPort, MultiplexedForwarding, StandardStream
from sandbox.laptop.web_socket import WebSocketError

RESPONSE_NAME = "AWS_SSM_START_SESSION_RESPONSE"
ATTEMPTS = 5
MOST_UNSENT = 1 << 16  # bytes for the network, before more is read from the laptop's side


class InterruptedByPersonError(Exception):
    """Ctrl-C, Ctrl-Z or Ctrl-\\."""


def main(words: list[str]) -> int:
    """Run with the arguments after the program's name; the real plugin's status is 0 whatever happened."""
    if not words:
        show("\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n\n")
    elif words == ["--version"]:
        show(f"{VERSION}\n")
    elif len(words) < 3:
        show(f"\nUnknown operation {words[0]}. \nUse session-manager-plugin --version to check the version.\n\n")
    else:
        return start(words)
    return 0


def start(words: list[str]) -> int:
    """The arguments of the AWS command line: response, region, operation, profile, parameters, endpoint."""
    response, region, operation, profile, parameters, endpoint = (*words, "", "", "", "")[:6]
    if response.startswith(RESPONSE_NAME):
        response = os.environ.pop(response, "")
    if len(words) > 4 and not isinstance(_read_object(parameters).get("Target"), str):
        panic("interface conversion: interface {} is nil, not string")
    if operation != "StartSession":
        show("Invalid Operation")
        return 0
    try:
        said = json.loads(response)
    except ValueError as error:
        show(f"Cannot perform start session: {error}\n")
        return 0
    if not isinstance(said, dict) or not all(isinstance(said.get(name), str) for name in NAMES):
        panic("runtime error: invalid memory address or nil pointer dereference")
    session = Session(said, {"region": region, "profile": profile, "url": endpoint})
    try:
        session.run()
    except (ChannelClosedError, FinishedError):
        pass
    except OSError as error:
        show(f"Cannot perform start session: {error}\n")
    return 0


NAMES = ("SessionId", "StreamUrl", "TokenValue")


class Session:
    """One session, from the opening of its channel to its end."""

    def __init__(self, response: dict[str, str], service: dict[str, str]) -> None:
        self._id, self._url, self._token = (response[name] for name in NAMES)
        self._service = service
        self._channel = Channel(self._id)
        self._port: LocalPort | None = None
        self._cut_off = False

    def run(self) -> NoReturn:
        """Carry bytes until ChannelClosedError or FinishedError; raises OSError when the local port is taken."""
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        show(f"\nStarting session with SessionId: {self._id}\n")
        self._try(lambda: self._channel.open(self._url, self._token))
        while True:
            try:
                self._turn()
            except WebSocketError:
                self._try(self._resume)
            except InterruptedByPersonError:
                show("Terminate signal received, exiting.\n")
                if self._port is not None:
                    self._port.interrupt()

    def _turn(self) -> None:
        more = self._port.work() if self._port is not None else False
        for number, events in self._poll(more=more):
            if self._channel.socket is not None and number == self._channel.socket.fileno():
                self._hear(events)
            elif self._port is None or self._cut_off:
                self._notice_the_end()
            elif events & select.POLLOUT:
                self._port.can_write(number)
            else:
                self._port.can_read(number)
        if not self._cut_off:
            self._channel.tick()

    def _poll(self, *, more: bool) -> list[tuple[int, int]]:
        poll = select.poll()
        web_socket = self._channel.socket
        unsent = web_socket.unsent if web_socket is not None else 0
        if web_socket is not None:
            poll.register(web_socket.fileno(), select.POLLIN | (select.POLLOUT if unsent else 0))
        if self._cut_off:
            poll.register(0, select.POLLIN if isinstance(self._port, StandardStream) else 0)
        elif self._port is not None:
            self._register(poll, self._port, congested=unsent > MOST_UNSENT)
        return poll.poll(0 if more else RESEND_EVERY * 1000)

    @staticmethod
    def _register(poll: select.poll, port: LocalPort, *, congested: bool) -> None:
        wanted = dict.fromkeys(() if congested else port.readers(), select.POLLIN)
        for number in port.writers():
            wanted[number] = wanted.get(number, 0) | select.POLLOUT
        for number, events in wanted.items():
            poll.register(number, events)

    def _hear(self, events: int) -> None:
        web_socket = self._channel.socket
        assert web_socket is not None
        if events & select.POLLOUT:
            web_socket.flush()
        if events & ~select.POLLOUT:
            self._take(web_socket.receive())
        if web_socket.goodbye is not None:
            raise WebSocketError(web_socket.goodbye)

    def _take(self, messages: list[bytes]) -> None:
        for data in messages:
            ready = self._port is not None and self._port.ready
            for message in self._channel.take(data, ready=ready):
                assert self._port is not None
                self._port.write(message)
            if self._channel.complete and self._port is None:
                self._begin()

    def _begin(self) -> None:
        properties = self._channel.properties
        if properties is None:
            raise OSError("unable to determine SessionType")
        for number in (signal.SIGINT, signal.SIGTSTP, signal.SIGQUIT):
            signal.signal(number, _interrupt)
        wanted = properties.get("localPortNumber", "")
        port: LocalPort
        if properties.get("type") != "LocalPortForwarding":
            port = StandardStream(self._channel)
        elif is_after(self._channel.agent_version, MULTIPLEXES):
            port = MultiplexedForwarding(self._channel, self._id, wanted)
        else:
            port = BasicForwarding(self._channel, self._id, wanted)
        port.start()
        self._port = port

    def _try(self, connect: Callable[[], None]) -> None:
        """Connect, and again up to five times; then the plugin only sits there."""
        delay = random.uniform(0.1, 0.2)
        for attempt in range(ATTEMPTS + 1):
            try:
                connect()
            except (WebSocketError, UnreachableError, PermissionError, KeyError):
                if attempt < ATTEMPTS:
                    time.sleep(min(delay, 5.0))
                delay *= 2
            else:
                return
        self._cut_off = True
        if self._channel.socket is not None:
            self._channel.socket.close()
            self._channel.socket = None

    def _resume(self) -> None:
        """ResumeSession gives a new token, to whoever has credentials."""
        found = credentials(self._service["profile"])
        keys = {
            "url": self._service["url"],
            "region": self._service["region"],
            "key": found["AWS_ACCESS_KEY_ID"],
            "secret": found["AWS_SECRET_ACCESS_KEY"],
            "token": found.get("AWS_SESSION_TOKEN", ""),
        }
        status, answer = post("ResumeSession", {"SessionId": self._id}, keys)
        if status != 200:
            raise PermissionError(str(answer))
        if not answer.get("TokenValue"):
            show(f"Session: {self._id} timed out.\n")
            raise FinishedError
        self._channel.open(self._url, answer["TokenValue"])

    def _notice_the_end(self) -> None:
        """Nothing reaches the agent: the next byte of ssh fails. Without one, only its end is noticed.

        The real plugin then stays until it is killed; nothing of the sandbox may.
        """
        if isinstance(self._port, StandardStream) and os.read(0, 1):
            raise OSError("write tcp: broken pipe")
        raise FinishedError


def _read_object(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _interrupt(_number: int, _frame: object) -> None:
    raise InterruptedByPersonError


def panic(words: str) -> NoReturn:
    """End as a program in Go does that did not expect this."""
    sys.stderr.write(f"panic: {words}\n\ngoroutine 1 [running]:\n")
    sys.exit(2)
