"""The same with a real server and the real scripts; and commands that reach it twice, or long after their time."""

from collections.abc import Iterator

import pytest

from sandbox.aws.commands import Command, Invocation
from sandbox.company import COMMAND, Company
from sandbox.hosts import Host, HostWish
from sandbox.reading import wait_for
from tests.e2e.crash.points import END, OPENING, USE, Point
from tests.e2e.crash.record import HostUser
from tests.e2e.crash.story import Story, Told
from tests.e2e.crash.town import Town

pytestmark = pytest.mark.hosts


class RealTown(Town):
    """A town with one real server."""

    def __init__(self, company: Company) -> None:
        self.host: Host = company.hosts["web-1"]
        super().__init__(company, ["web-1"], accounts=self._users)

    def tell(self, reason: str, *points: Point) -> Told:
        """One run, and what it left on the server."""
        told = Story(self, reason).play(points)
        assert not told.faults, "\n".join(told.faults)
        newest = self.tables().requests[0]
        (uid,) = [grant.details["uid"] for grant in self.tables().grants if grant.request_id == newest.id]
        assert self.host.leftovers(newest.user_name, int(uid), newest.user_name) == []
        return told

    def sent(self, document: str) -> list[Command]:
        """The commands of one document."""
        return [command for command in self.company.aws.commands if command.document.endswith(document)]

    def _users(self) -> set[HostUser]:
        rows = self.host.run("cat", "/etc/passwd").stdout.decode().splitlines()
        return {("web-1", row.partition(":")[0]) for row in rows if row.startswith("pp-")}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTown]:
    with Company(tmp_path_factory.mktemp("hosts"), [HostWish(name="web-1", init="cron")]) as company:
        made = RealTown(company)
        try:
            made.passport.run("documents", "publish")
            made.open()
            yield made
        finally:
            made.passport.kill()


@pytest.mark.parametrize(
    "points",
    [
        [Point(OPENING, 1, "before SendCommand"), Point(END, 1, "after SendCommand")],
        [Point(OPENING, 1, "after SendCommand"), Point(USE, 1, "after StartSession")],
        [Point(OPENING, 1, "before ListCommandInvocations"), Point(END, 1, "before SendCommand")],
        [Point(OPENING, 4, "after a commit of reconcile")],
    ],
)
def test_killed_at(town: RealTown, points: list[Point]) -> None:
    told = town.tell(f"INC-9: {points[0].what}", *points)
    assert told.killed == tuple(points)


def test_commands_that_run_twice(town: RealTown) -> None:
    town.company.aws.faults.deliver_twice(town.company.servers["web-1"])
    try:
        town.tell("INC-10: twice")
    finally:
        town.company.aws.faults.clear()


def test_a_create_that_comes_again_after_its_remove_gives_nobody_access(town: RealTown) -> None:
    town.tell("INC-11: late")
    create = town.sent("CreateUser")[-1]
    server = town.company.servers["web-1"]
    late = Invocation(instance_id=server.instance_id, name=server.name, plugin="aws:runShellScript")
    town.company.aws._agents.deliver(create, server, late)
    wait_for(lambda: late.is_final, "the late create to run")
    assert late.output.endswith("passport:end:failed:tombstone\n")
    assert town.accounts() == set()


def test_a_create_that_first_arrives_after_its_remove_gives_nobody_access(town: RealTown) -> None:
    """Ana is done before the server has heard of her; the create is on its way all the while."""
    server, faults = town.company.servers["web-1"], town.company.aws.faults
    sent, document = len(town.sent("CreateUser")), "Passport-CreateUser"
    faults.deliver_late(server, 3600, document=document)
    story = Story(town, "INC-12: overtaken")
    request_id = story.begin()
    create = wait_for(lambda: town.sent("CreateUser")[sent:], "the create")[0]
    assert town.ana.slack.command(COMMAND, f"done {request_id}").ok
    story.wait_until_closed(request_id)

    arrived = create.invocations[server.instance_id]
    assert not arrived.is_final
    faults.heal(server)
    wait_for(lambda: arrived.is_final, "the create to run")
    assert arrived.output.endswith("passport:end:failed:tombstone\n")
    assert town.accounts() == set()
