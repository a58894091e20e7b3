"""The whole way: Slack's line pasted on a laptop, `ssh web-1.passport` through `passport serve` and Session Manager."""

import io
import os
import re
import signal
import socket
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from sandbox.company import COMMAND, Company
from sandbox.hosts import HostWish
from sandbox.machine import Machine
from sandbox.reading import code_blocks, wait_for
from sandbox.serving import Serving
from sandbox.slack.mrkdwn import unescape
from sandbox.windows import WindowsHost
from sandbox.windows.remote_desktop import answer
from tests.e2e.test_serve import Night

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]


class Desk(Night):
    """Ana at her laptop, which has her key and no AWS credentials."""

    def __init__(self, company: Company, passport: Serving) -> None:
        super().__init__(company, passport)
        self.laptop = Machine(self.ana.home, path=[company.folder / "bin"])

    def ssh(self, host: str, command: str) -> subprocess.CompletedProcess[str]:
        return self.laptop.run("ssh", "-o", "BatchMode=yes", host, command)

    def until(self, what: Callable[[], subprocess.CompletedProcess[str]]) -> str:
        """What it prints, once it succeeds."""
        return wait_for(lambda: (done := what()).returncode == 0 and done.stdout, "a login")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("company")
    hosts = [HostWish(name="web-1"), HostWish(name="db-2", init="cron")]
    with Company(folder, hosts) as company, WindowsHost("win-1") as windows:
        company.aws.add_server("win-1", host=windows, platform="Windows", tags={"env": "prod"})
        passport = Serving(company, tmp_path_factory.mktemp("passport"))
        passport.run("migrate")
        passport.run("documents", "publish")
        passport.start()
        try:
            passport.trust()
            desk = Desk(company, passport)
            desk.sign_in(desk.ana)
            desk.sign_in(desk.ben)
            desk.ana.slack.command(COMMAND, f"key add {desk.ana.public_key}")
            yield desk
        finally:
            passport.kill()


@pytest.fixture(scope="module")
def set_up(desk: Desk) -> Desk:
    """The line that Slack shows, pasted as it is."""
    shown = desk.ana.slack.command(COMMAND, "setup").message
    assert shown
    line = next(block for block in code_blocks(shown) if block.startswith("curl "))
    done = desk.laptop.run("/bin/sh", "-c", line)
    assert done.returncode == 0, done.stderr
    return desk


def test_too_early_then_in_then_out(set_up: Desk) -> None:
    desk = set_up
    nothing = desk.ssh("web-1.passport", "true")
    assert nothing.returncode == 255
    assert "/passport request web-1 for 1h because" in nothing.stderr

    request_id = desk.ask("web-1 db-2 for 1h")
    waiting = desk.laptop.start("ssh", "-o", "BatchMode=yes", "web-1.passport", "id -un; sudo -n id -un")
    assert waiting.stderr
    first = waiting.stderr.readline()
    assert first.startswith(f"Passport: {request_id} waits for someone of payments-leads until ")
    desk.approve(request_id)
    out, _ = waiting.communicate(timeout=120)
    assert out.split() == ["pp-" + request_id.removeprefix("AR-").lower(), "root"]

    desk.ready(request_id)
    assert desk.ssh("db-2.passport", "hostname").stdout == "db-2\n"
    instance = desk.company.servers["web-1"].instance_id
    assert desk.ssh(f"{instance}.passport", "hostname").stdout == "web-1\n"
    kinds = [event["kind"] for event in desk.events() if event["request_id"] == request_id]
    assert kinds.count("certificate.issued") == 3

    desk.ana.slack.command(COMMAND, f"done {request_id}")
    desk.closed(request_id)
    after = desk.ssh("web-1.passport", "true")
    assert after.returncode == 255
    assert "Passport: " in after.stderr


def test_a_new_request_after_an_old_one_is_another_user(set_up: Desk) -> None:
    """The certificate of the old request is still good on the laptop: it is noticed, and the next ssh is right."""
    desk = set_up
    users = []
    for _ in range(2):
        request_id = desk.ask("web-1 for 1h")
        desk.approve(request_id)
        desk.ready(request_id)
        users.append(desk.until(lambda: desk.ssh("web-1.passport", "id -un")))
        assert users[-1] == "pp-" + request_id.removeprefix("AR-").lower() + "\n"
        desk.ana.slack.command(COMMAND, f"done {request_id}")
        desk.closed(request_id)
    assert len(set(users)) == 2


def test_remote_desktop_through_the_tunnel(set_up: Desk) -> None:
    desk = set_up
    request_id = desk.ask("win-1 for 1h")
    desk.approve(request_id)
    ready = desk.ready(request_id)
    assert "passport-connect rdp win-1" in ready.plain
    desk.ana.slack.click(ready, "credentials.show")
    password = wait_for(lambda: _password(desk), "the password")
    running = desk.laptop.start("./.ssh/passport/passport-connect", "rdp", "win-1", start_new_session=True)
    assert running.stderr
    try:
        said = [running.stderr.readline() for _ in range(2)]
        port = re.search(r"127\.0\.0\.1:(\d+), or the file (\S+)\n", said[1])
        assert port, said
        assert "Show credentials" in said[0]
        user = "pp-" + request_id.removeprefix("AR-").lower()
        for given, wanted in ((password, "yes"), ("wrong", "no")):
            words, connection = answer(socket.create_connection(("127.0.0.1", int(port[1]))), user, given)
            connection.close()
            assert words.startswith(wanted)
        assert f"full address:s:127.0.0.1:{port[1]}" in Path(port[2]).read_text()
        assert password not in Path(port[2]).read_text()
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.communicate(timeout=30)
    desk.ana.slack.command(COMMAND, f"done {request_id}")
    desk.closed(request_id)


def _password(desk: Desk) -> str:
    """What stands in a code block of its own after the server's name."""
    for message in desk.ana.slack.ephemerals():
        for block in message.blocks:
            text = block.get("text", {}).get("text", "") if block["type"] == "section" else ""
            found = re.search(r"\*win-1\*: `passport-connect rdp win-1`\n```\n(.+?)\n```", text)
            if found:
                return unescape(found[1])
    return ""


def test_the_zip_logs_in_with_aws_credentials_of_ones_own(desk: Desk) -> None:
    request_id = desk.ask("web-1 for 1h")
    desk.approve(request_id)
    desk.ana.slack.click(desk.ready(request_id), "credentials.show")
    url = wait_for(lambda: _button(desk), "the button")
    answer = requests.post(url, timeout=10)
    assert answer.headers["Content-Type"] == "application/zip", answer.text
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(desk.ana.home)
    laptop = Machine(desk.ana.home, path=[desk.company.folder / "bin"], environment=desk.company.aws.environment())
    command = f"cd passport-{request_id} && ssh -F config -o BatchMode=yes web-1 hostname"
    done = laptop.run("/bin/sh", "-c", command)
    assert done.stdout == "web-1\n", done.stderr
    desk.ana.slack.command(COMMAND, f"done {request_id}")
    desk.closed(request_id)


def _button(desk: Desk) -> str:
    urls = [
        element["url"]
        for message in desk.ana.slack.ephemerals()
        for block in message.blocks
        for element in block.get("elements", [])
        if element.get("action_id") == "credentials.bundle"
    ]
    return str(urls[-1]) if urls else ""
