"""The whole reconciler, AWS on a bad day, and the real scripts on real servers: at the end nothing is left of anybody."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from access.model import AccessRequest, EndCause, RequestState
from access.service.submitting import Submitting
from sandbox.aws import Server
from sandbox.hosts import Host, HostFleet, HostWish
from storage.unit_of_work import SqlStore
from tests.integration.aws_story import AwsGround, Story, aws_ground

NUMBERS = itertools.count(1)

pytestmark = pytest.mark.hosts


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, Host]]:
    """web-1 with systemd, db-2 with cron only."""
    with HostFleet() as fleet:
        wishes = [HostWish(name="web-1", init="systemd"), HostWish(name="db-2", init="cron")]
        yield {host.name: host for host in fleet.boot_all(wishes)}


@pytest.fixture(scope="module")
def ground() -> Iterator[AwsGround]:
    with aws_ground() as made:
        yield made


class HostStory(Story):
    """A story whose servers are real; its clock begins at theirs, which is the machine's."""

    def __init__(self, ground: AwsGround, store: SqlStore, hosts: dict[str, Host]) -> None:
        ground.double.commands.clear()
        ground.clock.now = datetime.now(UTC).replace(microsecond=0)
        super().__init__(ground, store)
        self.desk = replace(self.desk, request_id=lambda _: f"AR-H{next(NUMBERS):03d}")  # tombstones stay on the hosts
        self.submitting = Submitting(self.desk)
        self.hosts = hosts
        self.servers: list[Server] = [self.server(name, host=host) for name, host in hosts.items()]

    def left(self, request: AccessRequest) -> dict[str, list[str]]:
        """What is left of a request's user on each server, seen from the outside."""
        uids = {grant.server.name: int(grant.details.get("uid", "0")) for grant in self.standing(request.id).grants}
        return {
            name: host.leftovers(request.user_name, uids[name] or 2**31, request.id)
            for name, host in self.hosts.items()
        }


CLEAN: dict[str, list[str]] = {"web-1": [], "db-2": []}


@pytest.fixture
def story(ground: AwsGround, hosts: dict[str, Host], sqlite_store: SqlStore) -> HostStory:
    return HostStory(ground, sqlite_store, hosts)


def sweep_past_the_end(host: Host, request: AccessRequest) -> str:
    """Run the host's own sweeper as after the request's end by the host's clock; what the host then knows of the user."""
    host.run("sed", "-i", "s/^not_after=.*/not_after=1000000000/", f"/var/lib/passport/requests/{request.id}")
    host.run("setsid", "sh", "/var/lib/passport/sweep.sh", timeout=90)
    return host.run("id", request.user_name).stdout.decode()


def test_a_full_disk_at_the_start_and_a_read_only_etc_at_the_end(story: HostStory) -> None:
    with ExitStack() as full:
        for host in story.hosts.values():
            full.enter_context(host.fill_disk())
        request = story.approved("web-1", "db-2")
        story.let(seconds=20)
        read = story.reads(request)
        for name in story.hosts:
            assert f"{name}: The server's disk is full. Free some space, then try again." in read
    story.let(seconds=60)
    assert "web-1 and db-2 are open until" in story.reads(request)

    with ExitStack() as locked:
        for host in story.hosts.values():
            locked.enter_context(host.remount_etc_read_only())
        ends = story.now(request).expires_at
        assert ends
        story.let(seconds=(ends - story.clock.now).total_seconds() + 3)
        assert story.now(request).state is RequestState.ENDING
        assert len(story.late(request)) == 2  # one a server
        read = story.reads(request)
        for name in story.hosts:
            assert f"{name}: The server's disk can only be read, so no user can be made or removed on it." in read
            assert sweep_past_the_end(story.hosts[name], request).startswith("uid=")
        assert read.count("Its processes are ended. Left: account, principals, sudoers.") == 2
        assert "The timer on web-1 and db-2 cannot finish either until that is mended." in read
        assert not any(line.startswith("process") for lines in story.left(request).values() for line in lines)
    story.let(minutes=6)
    ended = story.now(request)
    assert (ended.state, ended.cause) == (RequestState.ENDED, EndCause.EXPIRED)
    assert "Closed: " in story.reads(request)
    assert story.left(request) == CLEAN


def test_commands_that_come_twice_and_after_the_end_leave_nobody(story: HostStory) -> None:
    for server in story.servers:
        story.double.faults.deliver_twice(server)
        story.double.faults.stall(server)
    request = story.approved("web-1", "db-2", minutes=5)
    story.let(minutes=6)
    assert story.now(request).state is RequestState.ENDING
    for server in story.servers:
        story.double.faults.unstall(server)
    story.let(minutes=6)  # create and remove run now, each twice, in whatever order; the servers' clocks are behind
    assert story.now(request).state is RequestState.ENDED
    assert "The time was up." in story.reads(request)
    for name, host in story.hosts.items():
        assert story.left(request)[name] == []
        assert host.run("id", request.user_name).returncode == 1


def test_servers_that_are_off_at_the_end_are_cleaned_when_they_are_back(story: HostStory) -> None:
    request = story.opened("web-1", "db-2")
    for host in story.hosts.values():
        host.power_off()
    story.let(hours=1, minutes=3)
    assert story.now(request).state is RequestState.ENDING
    assert "web-1 does not answer: its SSM agent did not fetch the command in time." in story.reads(request)
    assert f"So I cannot prove that {request.user_name} is gone from web-1 and db-2." in story.reads(request)
    for host in story.hosts.values():
        host.power_on()
    story.let(minutes=6)
    assert story.now(request).state is RequestState.ENDED
    assert story.left(request) == CLEAN


@pytest.mark.parametrize(
    ("minutes", "sentence"),
    [
        (30, "clock is 30 min behind mine, so it could not end the access on time by itself."),
        (-30, "clock is 30 min ahead of mine, so it would end the access too early."),
        (
            -90,
            "clock is ahead of mine, so it took the request for over. Nothing was made. Set it right, then ask again.",
        ),
    ],
)
def test_servers_with_a_wrong_clock_are_left_as_they_were(story: HostStory, minutes: int, sentence: str) -> None:
    story.clock.forward(minutes=minutes)
    request = story.approved("web-1", "db-2")
    story.let(minutes=1)
    ended = story.now(request)
    assert (ended.state, ended.cause) == (RequestState.ENDED, EndCause.FAILED), story.reads(request)
    assert sentence in story.reads(request)
    assert story.left(request) == CLEAN
