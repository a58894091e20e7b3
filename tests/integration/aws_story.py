"""The whole reconciler and AWS on a bad day: real storage, real adapters, one clock for both sides.

An hour of trouble takes a moment, because the clock is turned to the next thing that is due once the agents rest.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from access.audit import AuditEvent, Kind
from access.model import AccessRequest, AccountName, Grant, RequestState, RouteName
from access.ports import Store
from access.reconcile import Reconciler
from access.service.ending import Ending
from access.service.retrying import Retrying
from access.service.reviewing import Reviewing
from access.service.submitting import Submitting
from handlers.audit_lines import line
from handlers.cards import wanted_posts
from handlers.wanted import REQUESTER, REVIEWERS, Wanted
from provisioning import documents
from provisioning.accounts.short_lived_user import ShortLivedUser
from provisioning.aws import Sessions
from provisioning.inventory import AwsInventory
from provisioning.routes.session_manager import SessionManager
from provisioning.run_command import RunCommand
from provisioning.tunnel_sessions import TunnelSessions
from sandbox.aws import AwsDouble, Scripted, Server
from sandbox.hosts import Host
from sandbox.slack.mrkdwn import read_blocks
from sandbox.windows import WindowsHost
from storage.grant_keys import GrantKeys
from tests.authorities import a_trust
from tests.integration.aws_desk import ACCOUNTS, AUTHORITY, HOME, answer, frame
from tests.integration.aws_lab import client
from tests.values import ANA, BEN, FakeClock, a_person
from tests.world import World

NOR_CAN_THE_TIMER = frozenset({"disk_full", "left_behind", "read_only"})
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
HOME_URL = "https://passport.example.com"


class AwsGround:
    """A double with Passport's documents, its clock, and Passport's way to it; shared by the tests of a module."""

    def __init__(self, double: AwsDouble, clock: FakeClock, credentials: Path) -> None:
        self.double = double
        self.clock = clock
        self.credentials = credentials
        self.write_credentials()
        self.servers: list[Server] = []
        self.sessions = Sessions(ACCOUNTS, monotonic=self._seconds)
        for account in ACCOUNTS:
            for region in account.regions:
                documents.publish(client(double, "ssm", account.id, region))

    def write_credentials(self) -> None:
        """Put Passport's own keys where a process reads them, as what renews them does."""
        environment = self.double.environment()
        keys = [f"{name.lower()} = {environment[name]}" for name in KEYS]
        self.credentials.write_text("\n".join(["[default]", *keys, ""]))

    def _seconds(self) -> float:
        return self.clock.now.timestamp()


@contextmanager
def aws_ground() -> Iterator[AwsGround]:
    """A ground whose environment is that of a process with Passport's own credentials, which are in a file."""
    clock = FakeClock(datetime.now(UTC).replace(microsecond=0))

    def now() -> float:
        return clock.now.timestamp()

    with ExitStack() as stack:
        patch, double = stack.enter_context(pytest.MonkeyPatch.context()), stack.enter_context(AwsDouble(now=now))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        for name, value in double.environment().items():
            if name not in KEYS:
                patch.setenv(name, value)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
        yield AwsGround(double, clock, folder / "credentials")


@dataclass
class Machine:
    """A server that does what the scripts do, so far as it can be seen: users with an end of their own, tombstones."""

    clock: FakeClock
    name: str
    ends: dict[str, datetime] = field(default_factory=dict)  # of the users that it has
    attempts: dict[str, str] = field(default_factory=dict)  # by which attempt each of them was made
    tombstones: set[str] = field(default_factory=set)  # request and attempt
    ran: list[str] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)  # the code that create or remove fails with
    behind: timedelta = timedelta()  # how far its clock is behind

    def __call__(self, script: str, environment: Mapping[str, str]) -> Scripted:
        """What create and remove do and answer."""
        user, attempt = environment["SSM_UserName"], environment["SSM_Attempt"]
        request = f"{environment['SSM_RequestId']}.{attempt}"
        action = "create" if "SSM_NotAfter" in environment else "remove"
        self.ran.append(f"{action} {user}")
        code = self.refuses.get(action) or self._refusal(action, request, environment)
        if code:
            return Scripted(output=frame(action, f"failed:{code}"), code=1)
        if action == "create":
            self.attempts[user] = attempt
            self.ends[user] = datetime.fromtimestamp(int(environment["SSM_NotAfter"]), UTC)
        else:
            self.tombstones.add(request)
            if self.attempts.get(user, attempt) != attempt:
                about = {"request": environment["SSM_RequestId"], "user": user}
                return Scripted(output=frame("remove", **about, result="superseded"))
            if self.ends.pop(user, None) is None:
                return self._absent(environment)
        said = answer(script, environment).output
        return Scripted(output=re.sub("(?m)^now=.*$", f"now={int(self._time().timestamp())}", said))

    def lets_in(self, user: str) -> bool:
        """Whether the user could do anything on it now; after its end no certificate is good."""
        return user in self.ends and self._time() < self.ends[user]

    def holds(self, user: str) -> bool:
        """Whether anything of the user is on it now: its own timer removes what the remove document could remove."""
        return self.lets_in(user) or (user in self.ends and self.refuses.get("remove") in NOR_CAN_THE_TIMER)

    def _absent(self, environment: Mapping[str, str]) -> Scripted:
        """Of a user whom it does not have it knows the number, if it had it once."""
        about = {"request": environment["SSM_RequestId"], "user": environment["SSM_UserName"]}
        uid = "200000" if about["user"] in self.attempts else ""
        counts = dict.fromkeys(("ended_at", "processes", "files", "mounts", "jobs"), "0")
        swept_at = str(int(self._time().timestamp()))
        told = {"result": "absent", "uid": uid, **counts, "swept_at": swept_at, "verified": "yes"}
        return Scripted(output=frame("remove", **about, **told))

    def _refusal(self, action: str, request: str, environment: Mapping[str, str]) -> str:
        if action == "remove":
            return ""
        if self._time().timestamp() >= int(environment["SSM_NotAfter"]):
            return "after_end"
        return "tombstone" if request in self.tombstones else ""

    def _time(self) -> datetime:
        return self.clock.now - self.behind


class Story(World):
    """Ana asks, Ben approves, and real adapters act; what people then read."""

    def __init__(self, ground: AwsGround, store: Store) -> None:
        super().__init__(store)
        self.ground, self.double, self.clock = ground, ground.double, ground.clock
        ground.double.faults.clear()
        while ground.servers:
            ground.double.terminate(ground.servers.pop())
        self.aws = AwsInventory(ground.sessions, ACCOUNTS, clock=self.clock)
        self.desk = replace(self.desk, inventory=self.aws, clock=self.clock)
        self.submitting, self.reviewing, self.ending = Submitting(self.desk), Reviewing(self.desk), Ending(self.desk)
        self.retrying = Retrying(self.desk)
        now = self.clock.now
        self.add_person(a_person("Ana Ruiz", groups_read_at=now), ANA)
        self.add_person(a_person("Ben Ito", groups=frozenset({"payments-leads"}), groups_read_at=now), BEN)
        self.machines: dict[str, Machine] = {}
        self.worker = self.reconciler()

    def reconciler(self, owner: str = "one") -> Reconciler:
        """A process's reconciler, with nothing remembered."""
        run_command = RunCommand(self.ground.sessions, clock=self.clock)
        account = ShortLivedUser(
            run_command,
            self.ground.sessions,
            trust=lambda: a_trust(AUTHORITY),
            public_keys=GrantKeys(self.store),
            clock=self.clock,
        )
        return Reconciler(
            self.store,
            policy=self.desk.policy,
            inventory=self.aws,
            routes={RouteName.SESSION_MANAGER: SessionManager(self.tunnels())},
            accounts={AccountName.SHORT_LIVED_USER: account},
            clock=self.clock,
            owner=owner,
        )

    def tunnels(self) -> TunnelSessions:
        """A process's knowledge of the open tunnels."""

        def seconds() -> float:
            return self.clock.now.timestamp()

        return TunnelSessions(self.ground.sessions, home=HOME_URL, monotonic=seconds, sleep=lambda _: None)

    def server(self, name: str, *, account: str = HOME, host: Host | WindowsHost | None = None, **more: str) -> Server:
        """A server of production, which Passport knows; with a host, its agent runs the real scripts there."""
        machine = self.machines[name] = Machine(clock=self.clock, name=name)
        made = self.double.add_server(name, account=account, tags={"env": "prod"}, answers=machine, host=host, **more)
        self.ground.servers.append(made)
        self.aws.refresh()
        return made

    def replace(self, server: Server) -> Server:
        """Terminate a server and run another of the same name."""
        self.double.terminate(server)
        return self.server(server.name)

    def once_sent(self, server: Server, act: Callable[[Server], object]) -> None:
        """Do something to a server after its command was sent and before its agent has it."""
        self.double.faults.deliver_late(server, 5)
        self.let(seconds=3)
        act(server)
        self.double.faults.deliver_late(server, 0)

    def lose_every_answer(self) -> None:
        """Do what is asked and never say so, in Systems Manager and in EC2."""
        for operation in ("SendCommand", "ListCommands", "ListCommandInvocations", "DescribeInstances"):
            self.double.faults.take_then_timeout(operation, times=None)

    def renew_credentials(self) -> None:
        """Put fresh credentials where Passport's own come from."""
        self.double.new_keys()
        self.ground.write_credentials()

    def approved(self, *names: str, minutes: int = 60) -> AccessRequest:
        """A request that Ben has said yes to and nobody has acted upon."""
        request = self.submit(*names, minutes=minutes)
        self.approve(request)
        return request

    def opened(self, *names: str, minutes: int = 60) -> AccessRequest:
        """A request whose servers are open."""
        request = self.approved(*names, minutes=minutes)
        self.let(seconds=10)
        assert self.now(request).state is RequestState.ACTIVE, self.reads(request)
        return self.now(request)

    def let(self, **by: float) -> None:
        """Let time pass, and everything happen that happens in it."""
        until = self.clock.now + timedelta(**by)
        while True:
            self.double.settle()
            if self.reconcile(self.worker):
                continue
            due = self.worker.next_due_at()
            if due is None or due > until:
                break
            self.clock.now = max(self.clock.now, due)
        self.clock.now = until
        self.double.settle()
        while self.reconcile(self.worker):
            self.double.settle()

    def now(self, request: AccessRequest) -> AccessRequest:
        """The request as it is."""
        return self.standing(request.id).request

    def grant(self, request: AccessRequest) -> Grant:
        """Its only grant."""
        (grant,) = self.standing(request.id).grants
        return grant

    def reads(self, request: AccessRequest) -> str:
        """Everything that Slack shows Ana of it now, one message after the other."""
        return "\n".join(read_blocks(post.blocks) for post in self._posts(request) if post.audience == REQUESTER)

    def card(self, request: AccessRequest) -> str:
        """What the reviewers read."""
        return "\n".join(read_blocks(post.blocks) for post in self._posts(request) if post.audience == REVIEWERS)

    def late(self, request: AccessRequest) -> list[str]:
        """What the audit channel was told of removals that are late."""
        events = [found for found in self._events(request) if found.event.kind is Kind.GRANT_REMOVAL_LATE]
        return [line(found, self.now(request)) for found in events]

    def let_in(self, request: AccessRequest) -> list[str]:
        """The servers on which the request's user could do anything now."""
        return [machine.name for machine in self.machines.values() if machine.lets_in(request.user_name)]

    def held_by(self, request: AccessRequest) -> list[str]:
        """The servers on which there is anything of the request's user now."""
        return [machine.name for machine in self.machines.values() if machine.holds(request.user_name)]

    def _posts(self, request: AccessRequest) -> Sequence[Wanted]:
        return wanted_posts(self.standing(request.id), now=self.clock.now)

    def _events(self, request: AccessRequest) -> list[AuditEvent]:
        with self.store.unit_of_work() as uow:
            return list(uow.audit.of(request.id))


Act = Callable[[Story, Server], object]
NOT_RENEWED = "My AWS sign-in for home eu-west-1 has run out, and a new one is refused, too. An admin must mend that."


def heal(story: Story, _: Server) -> None:
    """End every fault of AWS's."""
    story.double.faults.clear()


# After a command was sent: how the trouble begins and ends, and what is said of it; in both directions the same.
POLL_TROUBLES: dict[str, tuple[Act, Act, str]] = {
    "polls get 5xx": (
        lambda story, _: story.double.faults.fail("ListCommandInvocations", 500),
        heal,
        "AWS has trouble of its own in home eu-west-1 (InternalServerError). I try again by myself.",
    ),
    "polls are throttled": (
        lambda story, _: story.double.faults.throttle("ListCommandInvocations"),
        heal,
        "AWS asks me to go slower in home eu-west-1. I try again by myself.",
    ),
    "polls have no answer": (
        lambda story, _: story.double.faults.take_then_timeout("ListCommandInvocations", times=None),
        heal,
        "AWS does not answer in home eu-west-1. I try again by myself.",
    ),
    "polls find credentials run out": (
        lambda story, _: story.double.faults.fail("ListCommandInvocations", 400, code="ExpiredTokenException"),
        heal,
        NOT_RENEWED,
    ),
}
