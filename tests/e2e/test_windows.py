"""A Windows server through the whole of Passport: asked for in Slack, logged in to through the tunnel, and gone."""

import base64
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from sandbox.company import AUDIT_CHANNEL, COMMAND, LEADS_CHANNEL, Company
from sandbox.reading import code_blocks, wait_for, with_button
from sandbox.serving import Serving
from sandbox.slack import Message
from sandbox.windows import WindowsHost
from sandbox.windows.remote_desktop import answer, knock

WORDS = "request win-1 for {} because INC-7: look at the event log"
REQUEST = re.compile(r"AR-[0-9A-Z]{4,8}")
PASSWORD = re.compile(r"[A-Za-z0-9#%+.=@_-]{28}")


class Office:
    """Ana and Ben, a Windows server, and a running Passport."""

    def __init__(self, company: Company, passport: Serving, host: WindowsHost) -> None:
        self.company, self.passport, self.host = company, passport, host
        self.ana, self.ben = company.people["ana"], company.people["ben"]
        self._commands: list[subprocess.Popen[bytes]] = []

    def opened(self, duration: str) -> tuple[str, Message]:
        """A request that is open: its id, and the direct message that says so."""
        said = self.ana.slack.command(COMMAND, WORDS.format(duration)).plain
        found = REQUEST.search(said)
        assert found, said
        card = wait_for(lambda: with_button(self._channel(), "review.approve", found[0]), "the card")
        self.ben.slack.click(card, "review.approve")
        ready = wait_for(
            lambda: with_button(self.ana.slack.direct_messages(), "credentials.show", found[0]), "the servers to open"
        )
        return found[0], ready

    def credentials(self, ready: Message) -> tuple[str, str]:
        """What the button shows: the password, and the command that forwards a port."""
        before = len(self.ana.slack.ephemerals())
        self.ana.slack.click(ready, "credentials.show")
        shown = wait_for(lambda: self.ana.slack.ephemerals()[before:], "the credentials")[-1]
        password, command = code_blocks(shown)
        return password, command

    def forward(self, command: str) -> int:
        """Run the command on Ana's laptop, as it was printed; the port that it opened."""
        self._commands.append(
            subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                env=self.company.environment(self.ana),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        found = re.search(r"localPortNumber=(\d+)", command)
        assert found, command
        return int(found[1])

    def log_in(self, port: int, user: str, password: str) -> str:
        """What Remote Desktop says through the forwarded port."""

        def attempt() -> str | None:
            try:
                said, connection = knock(port, user, password)
            except OSError:
                return None
            connection.close()
            return said or None

        return wait_for(attempt, "an answer through the tunnel")

    def close(self) -> None:
        """End what runs on the laptop."""
        for command in self._commands:
            os.killpg(command.pid, signal.SIGKILL)
            command.wait()

    def _channel(self) -> list[Message]:
        return self.company.slack.messages(LEADS_CHANNEL)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with Company(tmp_path) as company, WindowsHost("win-1") as host:
        company.servers["win-1"] = company.aws.add_server("win-1", host=host, platform="Windows", tags={"env": "prod"})
        settings = {"PASSPORT_LOG_LEVEL": "DEBUG", "PASSPORT_OWN_AWS_CREDENTIALS": "true"}
        passport = Serving(company, tmp_path / "passport", settings=settings)
        for words in (["migrate"], ["documents", "publish"]):
            passport.run(*words)
        passport.start()
        made = Office(company, passport, host)
        try:
            passport.trust()
            for person in (made.ana, made.ben):
                company.link(person)
            yield made
        finally:
            made.close()
            passport.kill()
            assert host.unknown == []


def test_from_slack_to_the_desktop_and_back_to_nothing(office: Office) -> None:
    request_id, ready = office.opened("2h")
    user = "pp-" + request_id.removeprefix("AR-").lower()
    password, command = office.credentials(ready)
    assert PASSWORD.fullmatch(password)
    assert "--document-name AWS-StartPortForwardingSession" in command and "portNumber=3389," in command
    port = office.forward(command)
    assert office.log_in(port, user, "a guess").startswith("no ")
    assert office.log_in(port, user, password).startswith("yes ")

    office.ana.slack.click(ready, "request.complete")
    machine = office.host.machine
    wait_for(lambda: set(machine.accounts) == {"administrator"}, "the user to go")
    wait_for(lambda: _state(office, request_id) == "ended", "the request to end")
    assert machine.profiles == {} and machine.desktops == {} and machine.tasks == {}
    said, connection = _straight(office, user, password)
    connection.close()
    assert said.startswith("no ")
    assert _rows(office) == [(None, None)]
    assert _found(office, password) == set()


def test_the_server_ends_it_alone_when_passport_is_dead(office: Office) -> None:
    request_id, ready = office.opened("15s")
    user = "pp-" + request_id.removeprefix("AR-").lower()
    password, _ = office.credentials(ready)
    said, session = _straight(office, user, password)
    assert said.startswith("yes ")
    office.passport.kill()
    ended = threading.Event()
    threading.Thread(target=lambda: (session.settimeout(60), session.recv(1), ended.set()), daemon=True).start()
    assert ended.wait(60)  # the live session dies with the access
    session.close()
    wait_for(lambda: set(office.host.machine.accounts) == {"administrator"}, "the server to clean up", seconds=30)
    said, connection = _straight(office, user, password)
    connection.close()
    assert said.startswith("no ")
    office.passport.start()
    wait_for(lambda: _state(office, request_id) == "ended", "Passport to learn of it")
    assert _rows(office) == [(None, None)]


def _straight(office: Office, user: str, password: str) -> tuple[str, socket.socket]:
    """Past the tunnel, as its agent does."""
    return answer(office.host.dial(3389), user, password)


def _query(office: Office, statement: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(f"sqlite:///{office.passport.log.parent}/passport.db")
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement))]
    finally:
        engine.dispose()


def _state(office: Office, request_id: str) -> str:
    return {str(row[0]): str(row[1]) for row in _query(office, "SELECT id, state FROM requests")}[request_id]


def _rows(office: Office) -> list[tuple[object, ...]]:
    return _query(office, "SELECT private_key, password FROM grant_passwords")


def _found(office: Office, password: str) -> set[str]:
    """Where the password is, whole or in halves, as it is or as it is commonly written; nowhere but in that answer."""
    places = {str(path): path.read_bytes() for path in office.passport.log.parent.iterdir()}
    assert b"Passport listens" in places[str(office.passport.log)]
    places["the audit export"] = office.passport.run("audit", "export").stdout.encode()
    for command in office.company.aws.commands:
        parts = [each.output + each.errors for each in command.invocations.values()]
        places[f"command {command.id}"] = repr((command.parameters, command.values, command.comment, parts)).encode()
    channels = [m for name in (AUDIT_CHANNEL, LEADS_CHANNEL) for m in office.company.slack.messages(name)]
    directs = [m for each in office.company.people.values() for m in each.slack.direct_messages()]
    for message in [*channels, *directs]:
        if message.ephemeral_to is None:
            places[f"message {message.ts}"] = repr((message.text, message.blocks)).encode()
    for number, call in enumerate(office.company.slack.calls):
        if call.method != "response_url":
            places[f"call {number} of {call.method}"] = repr(call.arguments).encode()
    forms = set()
    for part in (password, password[:14], password[14:]):
        plain = part.encode()
        forms |= {plain, plain.hex().encode(), part.encode("utf-16-le"), base64.b64encode(plain)[:-3]}
    planted = {"planted": b"x" + password.encode()[:14]}
    assert {name for name, content in planted.items() if any(form in content for form in forms)} == {"planted"}
    return {name for name, content in places.items() if any(form in content for form in forms)}
