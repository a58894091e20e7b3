"""A whole small company on this machine: its Slack, its AWS, its identity provider, its servers, its people."""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sandbox.aws import AwsDouble
from sandbox.aws.nodes import Server
from sandbox.hosts import Host, HostFleet, HostWish
from sandbox.idp import Browser, IdentityProviderDouble
from sandbox.reading import first_url
from sandbox.slack import SlackDouble
from sandbox.slack.people import Person
from sandbox.windows import WindowsHost

AUDIT_CHANNEL = "C0AUDIT"
LEADS_CHANNEL = "C0LEADS"
COMMAND = "/passport"


@dataclass(frozen=True, kw_only=True, slots=True)
class Employee:
    """Somebody who works here: a Slack user, an identity, and an SSH key in a home of their own."""

    slack: Person
    email: str
    home: Path

    @property
    def key(self) -> Path:
        """The private key, which never leaves this home."""
        return self.home / ".ssh" / "id_ed25519"

    @property
    def public_key(self) -> str:
        """The line of the ``.pub`` file."""
        return self.key.with_suffix(".pub").read_text().strip()


class Company:
    """Starts everything; ``hosts`` and ``windows`` name the servers to boot, none for tests that need no login."""

    def __init__(self, folder: Path, hosts: Sequence[HostWish] = (), windows: Sequence[str] = ()) -> None:
        self.folder = folder
        self._wishes = list(hosts)
        self._windows = list(windows)
        self._stack = ExitStack()
        self.servers: dict[str, Server] = {}
        self.hosts: dict[str, Host] = {}
        self.desktops: dict[str, WindowsHost] = {}
        self.people: dict[str, Employee] = {}

    def __enter__(self) -> Self:
        """Start Slack, AWS, the identity provider and the servers."""
        enter = self._stack.enter_context
        if self._wishes:
            fleet = enter(HostFleet())
            self.hosts = {host.name: host for host in fleet.boot_all(self._wishes)}
        self.slack = enter(SlackDouble())
        self.aws = enter(AwsDouble())
        self.idp = enter(IdentityProviderDouble())
        self.aws.install_cli(self.folder / "bin")
        for name, host in self.hosts.items():
            self.servers[name] = self.aws.add_server(name, host=host, tags={"env": "prod"})
        for name in self._windows:
            self.desktops[name] = desktop = enter(WindowsHost(name))
            self.servers[name] = self.aws.add_server(name, host=desktop, platform="Windows", tags={"env": "prod"})
        self.slack.add_channel(AUDIT_CHANNEL, name="passport-audit")
        self.slack.add_channel(LEADS_CHANNEL, name="payments-leads")
        self._hire("ana", "Ana Ruiz", {"payments"})
        self._hire("ben", "Ben Ito", {"payments-leads"})
        self._hire("cleo", "Cleo Park", {"payments"})
        self.slack.join(LEADS_CHANNEL, self.people["ben"].slack.id, self.people["ana"].slack.id)
        self.slack.join(AUDIT_CHANNEL, self.people["ben"].slack.id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything; nothing of it stays on this machine."""
        self._stack.close()

    def environment(self, person: Employee) -> dict[str, str]:
        """A person's shell: their home, the ``aws`` of this company on the path, their own AWS credentials."""
        return {
            **self.aws.environment("person"),
            "HOME": str(person.home),
            "PATH": f"{self.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
        }

    def shell(
        self, person: Employee, script: str, *, timeout: float = 60, extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a pasted script on the person's laptop."""
        return subprocess.run(
            ["/bin/sh", "-c", script],
            env=self.environment(person) | dict(extra or {}),
            cwd=person.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def sign_in(self, person: Employee, url: str) -> str:
        """Open Passport's link in a fresh browser, press its button, sign in; the text of the last page."""
        with Browser() as browser:
            browser.open(url).press("Sign in")
            return browser.sign_in_as(person.email).text

    def link(self, person: Employee) -> None:
        """Have them ask for a link, and sign in by it."""
        message = person.slack.command(COMMAND, "link").message
        assert message is not None
        assert "You are signed in" in self.sign_in(person, first_url(message))

    def _hire(self, name: str, real_name: str, groups: set[str]) -> None:
        email = f"{name}@example.com"
        user_id = f"U0{name.upper()}"
        self.slack.add_member(user_id, name=name, real_name=real_name, email=email)
        self.idp.add_person(email, name=real_name, groups=groups)
        home = self.folder / "homes" / name
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        employee = Employee(slack=self.slack.person(user_id), email=email, home=home)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", email, "-f", str(employee.key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        self.people[name] = employee
