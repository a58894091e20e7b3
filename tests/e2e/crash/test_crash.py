"""`kill -9` of `passport serve` around its commits and calls: what follows is as if it had not happened."""

from collections.abc import Iterator

import pytest

from tests.e2e.crash.kills import Kills
from tests.e2e.crash.points import CLICKS, END, EXPIRY, ONCE, OPENING, REVIEW, SIGN_IN, USE, Point, choose
from tests.e2e.crash.story import Story, Told

pytestmark = pytest.mark.timeout(600)

TOWNS = 3
AT_LEAST = 40
EXPIRIES = (Point(EXPIRY, 1, "before SendCommand"), Point(EXPIRY, 1, "after a commit of reconcile"))


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kills]:
    with Kills(tmp_path_factory.mktemp("crash"), towns=TOWNS) as made:
        yield made


@pytest.fixture(scope="module")
def unharmed(kills: Kills) -> list[Told]:
    return [running.result() for running in [kills.start(fresh=True), kills.start()]]


def test_without_a_kill_the_story_passes_every_kind_of_point(unharmed: list[Told]) -> None:
    for told in unharmed:
        assert told.faults == ()
        kinds = {point for points in told.passed.values() for point in points}
        calls = ("SendCommand", "ListCommandInvocations", "StartSession", "DescribeSessions", "TerminateSession",
                 "EC2", "users.info", "chat.postMessage", "chat.update", "response_url")  # fmt: skip
        threads = ("waitress", "reconcile", "reconciler", "feed")
        for what in (*calls, *(f"a commit of {thread}" for thread in threads)):
            assert {f"before {what}", f"after {what}"} <= kinds
    assert any(f"after {ONCE}" in points for points in unharmed[0].passed.values())
    for stage, commits in ((SIGN_IN, 8), (REVIEW, 2), (OPENING, 1), (USE, 7), (END, 1)):
        assert list(unharmed[0].passed[stage]).count(f"after {CLICKS}") >= commits


def test_killed_anywhere_the_story_ends_as_without(kills: Kills, unharmed: list[Told]) -> None:
    chosen = [*choose(unharmed[0].passed, unharmed[1].passed), *EXPIRIES]
    told = kills.everywhere(chosen)
    assert [str(run) for run in told if run.faults] == []
    killed = {point for run in told for point in run.killed}
    assert set(chosen) - killed == set()
    assert len(killed) >= AT_LEAST


def test_access_that_no_request_knows_of_is_found(kills: Kills) -> None:
    with kills.town() as town:
        (server, host), *_ = town.hosts.items()
        host.users["pp-gh05"] = "AR-GH05"
        try:
            told = Story(town, "INC-0: a ghost").play([Point(OPENING, 1, "after SendCommand")])
        finally:
            del host.users["pp-gh05"]
    assert told.killed
    unrecorded, left = f"pp-gh05 has access to {server} without a record", f"pp-gh05 was left behind on {server}"
    assert told.faults == (unrecorded, unrecorded, left)  # seen while Passport is dead, and at the end
