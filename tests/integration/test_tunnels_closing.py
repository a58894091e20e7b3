"""The route ends every session that Passport started, and proves it: against the sandbox's Systems Manager."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from access.model import Grant, GrantState, Progress
from access.steps import Done, Failed, Step, Waiting
from provisioning import tunnel_sessions
from provisioning.routes.session_manager import MOST_AT_ONCE, MOST_THROTTLED, SessionManager
from provisioning.tunnel_sessions import APART_SECONDS, TunnelSessions, grant_in, is_started_by, reason_of
from sandbox.aws import Server
from tests.integration.aws_desk import HOME, OTHER, REGION, AwsDesk, aws_desk, grants_of
from tests.integration.aws_lab import client
from tests.values import NOW, FakeClock

HOURS = itertools.count()
HOME_URL = "https://passport.example.com"


class Lab:
    """A desk, a clock that only waiting moves, and a process's route."""

    def __init__(self, desk: AwsDesk) -> None:
        self.desk, self.double = desk, desk.double
        self.time = FakeClock(NOW + timedelta(hours=next(HOURS)))  # what another test called was long ago
        self.double.faults.now = self.seconds
        self.slept: list[float] = []
        self.route = self.restarted()

    def restarted(self, home: str = HOME_URL) -> SessionManager:
        """The route of a new process."""
        return SessionManager(self.tunnels(home))

    def tunnels(self, home: str = HOME_URL) -> TunnelSessions:
        return TunnelSessions(self.desk.sessions, home=home, monotonic=self.seconds, sleep=self.slept.append)

    def seconds(self) -> float:
        return self.time.now.timestamp()

    def start(self, server: Server, grant_id: str, *, home: str = HOME_URL, reason: str | None = None) -> str:
        """A session as Passport starts it; answers its id."""
        self.double.faults.quotas = {}
        ssm = self.desk.sessions.client("home" if server.account == HOME else "other", server.region, "ssm")
        answer = ssm.start_session(
            Target=server.instance_id,
            DocumentName="AWS-StartSSHSession",
            Parameters={"portNumber": ["22"]},
            Reason=reason if reason is not None else reason_of(grant_id, home=home, person="ana@example.com"),
        )
        self.double.faults.quotas = {"StartSession": 3, "TerminateSession": 6, "DescribeSessions": 6}
        found: str = answer["SessionId"]
        return found

    def open(self) -> set[str]:
        return {session.id for session in self.double.sessions if session.ended_at is None}

    def once(self, grants: Sequence[Grant], route: SessionManager | None = None) -> list[Grant]:
        """The grants as the reconciler keeps them after one call."""
        steps = (route or self.route).remove(self.desk.request, grants)
        return [kept(grant, steps[grant.id]) for grant in grants]

    def until_done(self, grants: Sequence[Grant], route: SessionManager | None = None) -> dict[str, Step]:
        """Call, as the reconciler does, until each is done or has failed."""
        ends: dict[str, Step] = {}
        moving = list(grants)
        for _ in range(500):
            if not moving:
                return ends
            steps = (route or self.route).remove(self.desk.request, moving)
            waits = [step.retry_in for step in steps.values() if isinstance(step, Waiting)]
            ends |= {grant_id: step for grant_id, step in steps.items() if not isinstance(step, Waiting)}
            moving = [kept(grant, steps[grant.id]) for grant in moving if grant.id not in ends]
            self.time.now += min(waits, default=timedelta())
        raise AssertionError(f"no end in sight: {moving}")

    def calls(self, operation: str) -> list[dict[str, Any]]:
        return self.desk.calls(operation)


def kept(grant: Grant, step: Step) -> Grant:
    return replace(grant, route=Progress(handle=dict(step.handle))) if isinstance(step, Waiting) else grant


def removing(grants: Sequence[Grant]) -> list[Grant]:
    return [replace(grant, state=GrantState.REMOVING, route=Progress()) for grant in grants]


@pytest.fixture(scope="module")
def shared_desk() -> Iterator[AwsDesk]:
    with pytest.MonkeyPatch.context() as patch, aws_desk(patch) as desk:
        yield desk


@pytest.fixture
def lab(shared_desk: AwsDesk) -> Iterator[Lab]:
    shared_desk.reset()
    for session in shared_desk.double.sessions:
        shared_desk.double._sessions.end(session)
    yield Lab(shared_desk)
    shared_desk.double.faults.clear()


def test_every_session_of_the_grant_is_ended_and_no_other(lab: Lab) -> None:
    web, db = lab.desk.servers(2)
    mine, other = grants_of([web, db])
    theirs = {
        lab.start(db, other.id),
        lab.start(web, "AR-7F3K.11"),  # .1 is no prefix of it
        lab.start(web, mine.id, home="https://staging.example.com"),  # another Passport in this account
        lab.start(web, "", reason=f"not passport {mine.id} {HOME_URL}"),
        lab.start(web, "", reason="debugging, by hand"),
    }
    ours = {lab.start(web, mine.id) for _ in range(MOST_AT_ONCE + 2)}
    lab.desk.double.calls.clear()
    assert lab.until_done(removing([mine])) == {mine.id: Done(details={"tunnel": "closed"})}
    assert lab.open() == theirs
    assert {call["SessionId"] for call in lab.calls("TerminateSession")} == ours
    assert lab.calls("DescribeSessions")[-1] == {"State": "Active", "MaxResults": 200}


def test_a_session_of_somebody_else_with_our_reason_holds_nothing_up(lab: Lab) -> None:
    (web,) = lab.desk.servers(1, account=OTHER)
    grants = grants_of([web])
    ours = lab.start(web, grants[0].id)
    lab.double.faults.quotas = {}
    theirs = client(lab.double, "ssm", OTHER)
    reason = reason_of(grants[0].id, home=HOME_URL, person="ana@example.com")
    theirs.start_session(Target=web.instance_id, DocumentName="AWS-StartSSHSession", Reason=reason)
    theirs.close()
    assert lab.until_done(removing(grants)) == {grants[0].id: Done(details={"tunnel": "closed"})}
    assert ours not in lab.open() and len(lab.open()) == 1


def test_opening_prepares_nothing(lab: Lab) -> None:
    grants = grants_of(lab.desk.servers(2))
    lab.double.calls.clear()
    assert lab.route.provision(lab.desk.request, grants) == {grant.id: Done() for grant in grants}
    never = replace(lab.desk.request, expires_at=None)
    assert lab.route.remove(never, removing(grants)) == {grant.id: Done() for grant in grants}
    assert not lab.double.calls


def test_done_only_when_a_listing_after_the_ending_shows_none(lab: Lab) -> None:
    (web,) = lab.desk.servers(1)
    grants = removing(grants_of([web]))
    lab.start(web, grants[0].id)
    lab.double.faults.fail("TerminateSession", 500, times=1)
    assert isinstance(lab.until_done(grants)[grants[0].id], Failed)  # and the reconciler tries again, for ever
    assert len(lab.open()) == 1
    assert lab.until_done(grants)[grants[0].id] == Done(details={"tunnel": "closed"})
    assert not lab.open()


def test_a_session_begun_after_the_last_listing_is_seen(lab: Lab) -> None:
    web, db = lab.desk.servers(2)
    first, second = removing(grants_of([web, db]))
    assert isinstance(lab.until_done([first])[first.id], Done)
    lab.start(db, second.id)  # after the listing that answered for the first
    lab.until_done([second])
    assert not lab.open()


def test_an_agent_that_never_answers_keeps_no_tunnel_open(lab: Lab) -> None:
    (web,) = lab.desk.servers(1)
    grants = removing(grants_of([web]))
    lab.start(web, grants[0].id)
    lab.double.faults.stall(web)
    assert lab.until_done(grants) == {grants[0].id: Done(details={"tunnel": "closed"})}
    assert not lab.open()


def test_a_restart_in_the_middle_looks_for_itself(lab: Lab) -> None:
    (web,) = lab.desk.servers(1)
    grants = lab.once(lab.once(removing(grants_of([web]))))
    lab.start(web, grants[0].id)
    assert isinstance(lab.until_done(grants, lab.restarted())[grants[0].id], Done)
    assert not lab.open()


@pytest.mark.parametrize("operation", ["DescribeSessions", "TerminateSession"])
def test_throttling_is_waited_out_and_said_when_it_does_not_end(lab: Lab, operation: str) -> None:
    (web,) = lab.desk.servers(1)
    grants = removing(grants_of([web]))
    lab.start(web, grants[0].id)
    lab.double.faults.throttle(operation, times=MOST_THROTTLED)
    assert isinstance(lab.until_done(grants)[grants[0].id], Done)
    assert not lab.open()
    lab.start(web, grants[0].id)
    lab.double.faults.throttle(operation)
    failed = lab.until_done(grants)[grants[0].id]
    assert isinstance(failed, Failed) and failed.retryable
    assert "slower" in failed.reason


def test_refusals_of_aws_are_said_and_tried_again(lab: Lab) -> None:
    grants = removing(grants_of(lab.desk.servers(1)))
    lab.double.faults.fail("DescribeSessions", 400, times=1)
    failed = lab.until_done(grants)[grants[0].id]
    assert isinstance(failed, Failed) and failed.retryable
    assert "An admin must allow it" in failed.reason


def test_many_removals_share_their_listings(lab: Lab) -> None:
    servers = lab.desk.servers(3) + lab.desk.servers(2, account=OTHER)
    grants = [replace(grant, id=f"AR-7F3K.{number}") for number, grant in enumerate(grants_of(servers * 40), 1)]
    lab.double.calls.clear()
    ends = lab.until_done(removing(grants))
    assert len(ends) == 200 and all(isinstance(step, Done) for step in ends.values())
    assert len(lab.calls("DescribeSessions")) == 2  # one in each account and region


def test_listings_keep_apart_and_pages_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_sessions, "PAGE", 2)
    (web,) = lab.desk.servers(1)
    grants = grants_of([web])
    started = {lab.start(web, grants[0].id) for _ in range(5)}
    tunnels = lab.tunnels()
    listed = tunnels.open_since("home", REGION, 0)
    assert listed is not None and {session.session_id for session in listed[grants[0].id]} == started
    assert len(lab.slept) == 2  # between three pages
    assert tunnels.open_since("home", REGION, 0) is listed
    assert tunnels.open_since("home", REGION, tunnels.last_begun("home", REGION)) is None
    lab.time.forward(seconds=APART_SECONDS)
    assert tunnels.open_since("home", REGION, 1) is not None


def test_a_reason_names_the_grant_and_fits() -> None:
    hostile = "ana\nruiz \x1b[31m`$(id)`@example.com" + "x" * 400
    reason = reason_of("AR-7F3K.1", home=HOME_URL, person=hostile)
    assert reason.startswith(f"passport AR-7F3K.1 {HOME_URL} ana ruiz ?[31m")
    assert len(reason) == 256 and reason.isprintable()
    assert grant_in(reason, home=HOME_URL) == "AR-7F3K.1"
    for other in (
        "",
        "passport",
        "passport AR-7F3K.1",
        "passport AR-7F3K.1;x https://passport.example.com",
        reason[1:],
    ):
        assert grant_in(other, home=HOME_URL) == ""
    assert grant_in(reason, home="https://passport.example") == ""


@pytest.mark.parametrize(
    ("us", "owner", "is_it"),
    [
        ("arn:aws:sts::1:assumed-role/Passport/one", "arn:aws:sts::1:assumed-role/Passport/two", True),
        ("arn:aws:sts::1:assumed-role/Passport/one", "arn:aws:sts::1:assumed-role/Passport2/one", False),
        ("arn:aws:sts::1:assumed-role/Passport/one", "arn:aws:sts::2:assumed-role/Passport/one", False),
        ("arn:aws:sts::1:assumed-role/Passport/one", "arn:aws:iam::1:user/Passport", False),
        ("arn:aws:iam::1:user/passport", "aws:iam::1:user/passport", True),
        ("arn:aws:iam::1:user/passport", "arn:aws:iam::1:user/passport2", False),
    ],
)
def test_whose_a_session_is(us: str, owner: str, is_it: bool) -> None:
    assert is_started_by(us, owner) is is_it
