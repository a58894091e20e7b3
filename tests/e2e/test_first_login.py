"""From a grant to a shell and back to nothing: real documents, a real sshd, and the printed commands as they stand."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from access.model import Grant, GrantState
from access.ports import Certificate
from access.steps import Done
from provisioning.connection import Connection, connection
from provisioning.ssh_keys import parse_public_key
from sandbox.aws import Server
from sandbox.hosts import Host, HostFleet
from tests.integration.aws_desk import AUTHORITY, AwsDesk, aws_desk, grants_of, on, removing

pytestmark = pytest.mark.hosts


@pytest.fixture
def host() -> Iterator[Host]:
    with HostFleet() as fleet:
        yield fleet.boot("web-1")


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsDesk]:
    with aws_desk(monkeypatch) as made:
        yield made


class Laptop:
    """Ana's own machine: a home with a key, the aws command, her AWS credentials."""

    def __init__(self, folder: Path, desk: AwsDesk) -> None:
        self._home = folder / "home"
        (self._home / ".ssh").mkdir(parents=True)
        key = self._home / ".ssh/id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.public_key = parse_public_key(key.with_suffix(".pub").read_text()).line
        desk.double.install_cli(folder / "bin")
        self._environment = {
            **desk.double.environment(),
            "HOME": str(self._home),
            "PATH": f"{folder / 'bin'}:{os.defpath}",
        }

    def paste(self, text: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run what was shown, exactly as it was shown."""
        return subprocess.run(
            ["sh", "-c", " ".join([text, *words])],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def shown(desk: AwsDesk, laptop: Laptop, grant: Grant) -> Connection:
    """What *Show credentials* would show."""
    now = desk.clock.now
    certificate = AUTHORITY.certify(
        Certificate(
            public_key=laptop.public_key,
            principal=desk.request.user_name,
            key_id="passport:AR-7F3K:ana@example.com",
            serial=1,
            valid_after=now - timedelta(minutes=1),
            valid_before=now + timedelta(hours=2),
            source_addresses=("127.0.0.1", "::1"),
        )
    )
    return connection(desk.request, [grant], certificate)


def test_the_printed_commands_log_in_until_the_user_is_removed(desk: AwsDesk, host: Host, tmp_path: Path) -> None:
    server: Server = desk.double.add_server("web-1", host=host)
    (grant,) = grants_of([server])
    made = desk.drive(on(desk.request, desk.account().provision), [grant])[grant.id]
    assert isinstance(made, Done)
    grant = replace(grant, state=GrantState.ACTIVE, details=made.details)

    laptop = Laptop(tmp_path, desk)
    view = shown(desk, laptop, grant)
    assert laptop.paste(view.install).returncode == 0
    greeting = laptop.paste(view.servers[0].command, "'id -un; sudo -n id -u'")
    assert greeting.stdout.split() == ["pp-7f3k", "0"], greeting.stderr

    stranger = Laptop(tmp_path / "stranger", desk)
    assert stranger.paste(view.install).returncode == 0
    assert stranger.paste(view.servers[0].command, "true").returncode == 255

    ended = desk.drive(on(desk.request, desk.account().remove), removing([grant]))[grant.id]
    assert isinstance(ended, Done)
    assert ended.details["verified"] == "yes"
    assert ended.details["vouched_by"] == "reported by the host; the person had root"
    refused = laptop.paste(view.servers[0].command, "true")
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr
    assert "pp-7f3k" not in host.run("cat", "/etc/passwd").stdout.decode()
