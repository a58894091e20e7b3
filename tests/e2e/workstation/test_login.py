"""`ssh web-1.passport` for real: the document's user on a real host, through a stand-in tunnel, from a set-up laptop."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from access.model import Grant, GrantState
from access.ports import Certificate
from access.steps import Done
from provisioning.ssh_keys import parse_public_key
from sandbox.hosts import Doorway, HostFleet
from tests.e2e.workstation.lab import Lab
from tests.e2e.workstation.stand_in import Answer, Call, said
from tests.integration.aws_desk import AUTHORITY, aws_desk, grants_of, on

pytestmark = pytest.mark.hosts


class Office:
    """A host with Ana's user on it, and a laptop that was set up."""

    def __init__(self, lab: Lab, grant: Grant, door: Doorway) -> None:
        self.lab = lab
        self._grant = grant
        self._door = door
        lab.site.rules.answer = self._answer
        lab.fields = {"alias": f"passport-{grant.server.instance_id}", "port": grant.details["port"]}
        lab.host_keys = grant.details["host_keys"].split("\n")
        lab.certify = self._certify  # type: ignore[method-assign]

    def _certify(self, public_key: str) -> str:
        now = datetime.now(UTC)
        return AUTHORITY.certify(
            Certificate(
                public_key=parse_public_key(public_key).line,
                principal="pp-7f3k",
                key_id="passport:AR-7F3K:ana@example.com",
                serial=1,
                valid_after=now - timedelta(minutes=1),
                valid_before=now + timedelta(minutes=5),
                source_addresses=("127.0.0.1", "::1"),
            )
        )

    def _answer(self, call: Call) -> Answer:
        if call.path == "certificate":
            return self.lab.ready(call)
        stream = f"tcp://127.0.0.1:{self._door.port}/x"
        response = json.dumps({"SessionId": "passport-1", "StreamUrl": stream, "TokenValue": "t"})
        parameters = {"Target": self._grant.server.instance_id, "DocumentName": "AWS-StartSSHSession"}
        return said(
            "ready",
            ("request", "AR-7F3K"),
            ("region", "eu-west-1"),
            ("response", response),
            ("parameters", json.dumps(parameters)),
            ("endpoint", "https://ssm.eu-west-1.amazonaws.com"),
        )

    def ssh(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return self.lab.laptop.run("ssh", "-o", "BatchMode=yes", *words, stdin=stdin)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with HostFleet() as fleet, pytest.MonkeyPatch.context() as monkeypatch, aws_desk(monkeypatch) as desk:
        host = fleet.boot("web-1")
        server = desk.double.add_server("web-1", host=host)
        (grant,) = grants_of([server])
        made = desk.drive(on(desk.request, desk.account().provision), [grant])[grant.id]
        assert isinstance(made, Done)
        lab = Lab(tmp_path_factory.mktemp("office"))
        with lab.site, Doorway(host.dial) as door:
            assert (done := lab.install()).returncode == 0, done.stderr
            yield Office(lab, replace(grant, state=GrantState.ACTIVE, details=made.details), door)
        assert lab.site.problems == []


def test_ssh_logs_in(office: Office) -> None:
    done = office.ssh("Web-1.passport", "id -un; cat; sudo -n id -u", stdin="through and through\n")
    assert (done.stdout, done.stderr) == ("pp-7f3k\nthrough and through\n0\n", "")
    assert done.returncode == 0
    assert office.ssh("web-1.passport", "exit 7").returncode == 7


def test_files_travel(office: Office) -> None:
    home = office.lab.home
    content = os.urandom(300_000)
    (home / "there").write_bytes(content)
    run = office.lab.laptop.run
    assert run("scp", "-q", "there", "web-1.passport:by-scp").returncode == 0
    batch = "put there by-sftp\nget by-scp back-by-sftp\n"
    assert run("sftp", "-q", "-b", "-", "web-1.passport", stdin=batch).returncode == 0
    assert run("scp", "-q", "web-1.passport:by-sftp", "back-by-scp").returncode == 0
    assert (home / "back-by-sftp").read_bytes() == content
    assert (home / "back-by-scp").read_bytes() == content


def test_rsync_runs_its_other_half_over_there(office: Office) -> None:
    (office.lab.home / "tree").mkdir(exist_ok=True)
    (office.lab.home / "tree/leaf").write_text("green")
    done = office.lab.laptop.run("rsync", "-a", "--rsync-path=/usr/bin/rsync", "tree/", "web-1.passport:tree/")
    assert done.returncode == 0, done.stderr
    assert office.ssh("web-1.passport", "cat tree/leaf").stdout == "green"


def test_forwarding_is_refused_by_the_server(office: Office) -> None:
    words = ("-o", "ExitOnForwardFailure=yes", "-W", "127.0.0.1:22", "web-1.passport")
    done = office.ssh(*words)
    assert done.returncode != 0
    assert "administratively prohibited" in done.stderr


def test_an_editor_with_a_socks_port_gets_its_shell(office: Office) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = office.ssh("-T", "-D", f"127.0.0.1:{port}", "web-1.passport", "sh", stdin="echo listening as $(id -un)\n")
    assert done.stdout == "listening as pp-7f3k\n"


def test_several_at_once_share_one_certificate(office: Office) -> None:
    for file in (office.lab.base / "hosts").iterdir():
        file.unlink()
    before = len(office.lab.site.proven("certificate"))
    running = [office.lab.laptop.start("ssh", "web-1.passport", f"echo {number}") for number in range(5)]
    heard = [each.communicate(timeout=60) for each in running]
    assert [out for out, _ in heard] == [f"{number}\n" for number in range(5)], heard
    assert len(office.lab.site.proven("certificate")) == before + 1


def test_a_control_master_is_shared(office: Office) -> None:
    control = office.lab.folder / "control"
    shared = ("-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "-o", f"ControlPath={control}")
    tunnels = len(office.lab.site.proven("tunnel"))
    # The master stays in the background and would hold the pipes of a caller that waits for their end.
    opened = office.lab.laptop.start("ssh", *shared, "web-1.passport", "true", stdout=None, stderr=None)
    assert opened.wait(60) == 0
    try:
        assert office.ssh(*shared, "web-1.passport", "id -un").stdout == "pp-7f3k\n"
        assert len(office.lab.site.proven("tunnel")) == tunnels + 1
    finally:
        office.lab.laptop.run("ssh", *shared, "-O", "exit", "web-1.passport")


def test_another_host_key_is_refused(office: Office) -> None:
    known = office.lab.base / "hosts/web-1.known_hosts"
    office.ssh("web-1.passport", "true")
    kept = known.read_text()
    alias = kept.split()[0]
    known.write_text(f"{alias} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMbvRjr6W5dnNqkIuGsyZ9zXfu7rXo6e1O6q4cQ0aO2D\n")
    try:
        done = office.ssh("web-1.passport", "true")
    finally:
        known.write_text(kept)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_without_a_request_ssh_says_what_to_do_and_ends_at_once(office: Office) -> None:
    sentence = "You have no access to db-9. Ask in Slack: /passport request db-9 for 1h because …"
    usual = office.lab.site.rules.answer
    office.lab.site.answers(said("refused", ("message", sentence), code=403))
    try:
        done = office.ssh("db-9.passport", "true")
    finally:
        office.lab.site.rules.answer = usual
    assert done.returncode == 255
    assert done.stderr.splitlines()[:2] == [f"Passport: {sentence}", "Passport: No connection to db-9."]


def test_too_early_ssh_waits_and_then_logs_in(office: Office) -> None:
    usual = office.lab.site.rules.answer
    (office.lab.base / "hosts/web-1.until").unlink(missing_ok=True)
    waits = said("wait", ("retry_in", "1"), ("message", "AR-7F3K waits for someone of payments-leads."))
    left = [waits, waits]
    office.lab.site.rules.answer = lambda call: left.pop() if left else usual(call)
    try:
        done = office.ssh("web-1.passport", "id -un")
    finally:
        office.lab.site.rules.answer = usual
    assert done.stdout == "pp-7f3k\n"
    assert done.stderr == "Passport: AR-7F3K waits for someone of payments-leads.\n"
