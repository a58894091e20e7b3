"""Passport's provisioning at work on the sandbox's AWS, with a loop that plays the reconciler."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import pytest

from access.model import AccessRequest, Grant, GrantState, Progress
from access.model import Server as Asked
from access.steps import Waiting
from provisioning import documents
from provisioning.accounts.short_lived_user import ShortLivedUser
from provisioning.aws import AwsAccount, Sessions
from provisioning.run_command import RunCommand
from provisioning.ssh_ca import SshCertificateAuthority
from sandbox.aws import EXTERNAL_ID, AwsDouble, Scripted, Server
from tests.authorities import a_trust, fingerprints
from tests.integration.aws_lab import client
from tests.unit.test_ssh_keys import ED25519
from tests.values import FakeClock, a_request

HOME, OTHER = "111111111111", "222222222222"
REGION, FAR = "eu-west-1", "us-east-1"
ACCOUNTS = (
    AwsAccount(name="home", id=HOME, regions=(REGION, FAR)),
    AwsAccount(
        name="other",
        id=OTHER,
        regions=(REGION,),
        role_arn=f"arn:aws:iam::{OTHER}:role/PassportServers",
        external_id=EXTERNAL_ID,
    ),
)
NAMES = {HOME: "home", OTHER: "other"}
AUTHORITY = SshCertificateAuthority.generate()
PATIENCE = 30.0

T = TypeVar("T")


class Step(Protocol):
    """One call of what is under test: from grants to what became of each."""

    def __call__(self, grants: Sequence[Grant], /) -> Mapping[str, Any]: ...


class AwsDesk:
    """A double, its documents, and everything of Passport that speaks to it."""

    def __init__(self, double: AwsDouble) -> None:
        self.double = double
        self.sessions = Sessions(ACCOUNTS, monotonic=self._seconds)
        for account in ACCOUNTS:
            for region in account.regions:
                documents.publish(client(double, "ssm", account.id, region))
        self.reset()

    def reset(self) -> None:
        """Begin another test: no trouble, nothing called or sent yet; servers stay."""
        self.clock = FakeClock(datetime.now(UTC).replace(microsecond=0))
        self.request = a_request(expires_at=self.clock.now + timedelta(hours=2))
        self.double.faults.clear()
        self.double.calls.clear()
        self.double.commands.clear()

    def run_command(self) -> RunCommand:
        """A new one, as after a restart."""
        return RunCommand(self.sessions, clock=self.clock)

    def account(self) -> ShortLivedUser:
        """A new one, as after a restart."""
        return ShortLivedUser(self.run_command(), self.sessions, trust=lambda: a_trust(AUTHORITY), clock=self.clock)

    def servers(self, count: int, *, account: str = HOME, region: str = REGION) -> list[Server]:
        """Servers that answer as the scripts would."""
        return [
            self.double.add_server(f"web-{number}", account=account, region=region, answers=answer)
            for number in range(count)
        ]

    def calls(self, operation: str) -> list[dict[str, Any]]:
        """What was asked with this operation."""
        return [call.request for call in self.double.calls if call.operation == operation]

    def drive(self, step: Step, grants: Sequence[Grant]) -> dict[str, Any]:
        """Call until every grant has an end, saving handles in between; what became of each."""
        ends: dict[str, Any] = {}
        moving = {grant.id: grant for grant in grants}
        until = time.monotonic() + PATIENCE
        while moving:
            assert time.monotonic() < until, f"no end in sight: {moving}"
            pauses = []
            for grant_id, outcome in step(list(moving.values())).items():
                if isinstance(outcome, Waiting):
                    moving[grant_id] = keep(moving[grant_id], outcome)
                    pauses.append(outcome)
                else:
                    ends[grant_id] = outcome
                    del moving[grant_id]
            self._pause(pauses)
        return ends

    def kept(self, step: Step, grants: Sequence[Grant]) -> list[Grant]:
        """The grants after one call that leaves all of them waiting."""
        outcomes = step(grants)
        return [keep(grant, outcomes[grant.id]) for grant in grants]

    def _seconds(self) -> float:
        return self.clock.now.timestamp()

    def _pause(self, waiting: Sequence[Waiting]) -> None:
        """Real time where an agent is at work, and the clock's where Passport only lets time pass."""
        if not waiting:
            return
        shortest = min(step.retry_in for step in waiting)
        time.sleep(min(shortest.total_seconds(), 0.02))
        if not any("command_id" in step.handle for step in waiting):
            self.clock.now += shortest


@contextmanager
def aws_desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsDesk]:
    """A desk whose environment is that of a process with Passport's own credentials."""
    with AwsDouble() as double:
        for name, value in double.environment().items():
            monkeypatch.setenv(name, value)
        yield AwsDesk(double)


def keep(grant: Grant, waiting: Waiting) -> Grant:
    """The grant as the reconciler saves it."""
    return replace(grant, account=Progress(handle=dict(waiting.handle)))


def asked(server: Server) -> Asked:
    """A sandbox server as a request pins it."""
    return Asked(account=NAMES[server.account], region=server.region, instance_id=server.instance_id, name=server.name)


def grants_of(servers: Sequence[Server], **details: str) -> list[Grant]:
    """A grant for each."""
    return [
        Grant(id=f"AR-7F3K.{number}", request_id="AR-7F3K", server=asked(server), details=details)
        for number, server in enumerate(servers, 1)
    ]


def removing(grants: Sequence[Grant]) -> list[Grant]:
    """The grants at the beginning of their end."""
    return [replace(grant, state=GrantState.REMOVING, account=Progress()) for grant in grants]


def frame(action: str, end: str = "ok", *, many: tuple[str, Sequence[str]] = ("", ()), **lines: str) -> str:
    """An answer as the scripts print it; ``many`` is one name with several values."""
    told = [f"{k}={v}" for k, v in [*lines.items(), *((many[0], value) for value in many[1])]]
    return "\n".join([f"passport:1:{action}", *told, f"passport:end:{end}", ""])


def answer(_script: str, environment: Mapping[str, str]) -> Scripted:
    """What a server in good health answers to create and remove."""
    about = {"request": environment["SSM_RequestId"], "user": environment["SSM_UserName"]}
    if "SSM_NotAfter" not in environment:
        proof = {"uid": "200000", "ended_at": "1763696400", "swept_at": "1763696402", "verified": "yes"}
        counts = {"processes": "3", "files": "2", "mounts": "0", "jobs": "1"}
        return Scripted(output=frame("remove", **about, result="removed", sudo="none", **counts, **proof))
    made = {"uid": "200000", "existing": "no", "not_after": environment["SSM_NotAfter"], "now": str(int(time.time()))}
    place = {"timer": "systemd", "sshd": "drop_in", "port": "22", "host_key": ED25519}
    trusted = ("authority", fingerprints(environment["SSM_CaPublicKey"]))
    return Scripted(output=frame("create", **about, **made, **place, many=trusted))


def refuses(action: str, code: str) -> Callable[[str, Mapping[str, str]], Scripted]:
    """A server that says no to one of the scripts."""
    return lambda _script, _environment: Scripted(output=frame(action, f"failed:{code}"), code=1)


def on(
    request: AccessRequest, operation: Callable[[AccessRequest, Sequence[Grant]], T]
) -> Callable[[Sequence[Grant]], T]:
    """A port's operation for one request."""
    return lambda grants: operation(request, grants)
