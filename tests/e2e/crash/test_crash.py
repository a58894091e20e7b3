"""`kill -9` of `passport serve` around its commits and calls: what follows is as if it had not happened."""

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.e2e.crash.kills import Kills, spread
from tests.e2e.crash.story import Told

KILLS = 42
TOWNS = 4


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kills]:
    with Kills(tmp_path_factory.mktemp("crash"), towns=TOWNS) as made:
        yield made


@pytest.fixture(scope="module")
def unharmed(kills: Kills) -> list[Told]:
    return [running.result() for running in [kills.start(), kills.start()]]


@pytest.fixture(scope="module")
def harmed(request: pytest.FixtureRequest, kills: Kills, unharmed: list[Told]) -> dict[int, "Future[Told]"]:
    """The killed runs that this session asks for, all of them under way."""
    chosen = spread([told.points for told in unharmed], KILLS)
    return {number: kills.start(chosen[number]) for number in map(_number, request.session.items) if number is not None}


def _number(item: pytest.Item) -> int | None:
    """Of a killed run, if the test is one of this file."""
    if not isinstance(item, pytest.Function) or item.function is not test_killed_at:
        return None
    return int(str(item.callspec.params["number"]))


def test_without_a_kill_the_story_passes_every_kind_of_point(unharmed: list[Told]) -> None:
    for told in unharmed:
        assert told.faults == ()
        assert len(told.points) >= 60
        kinds = set(told.points)
        for what in ("SendCommand", "ListCommandInvocations", "chat.postMessage", "chat.update", "response_url"):
            assert {f"before {what}", f"after {what}"} <= kinds
        for thread in ("waitress", "reconcile", "reconciler", "feed"):
            assert {f"before a commit of {thread}", f"after a commit of {thread}"} <= kinds


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at(number: int, harmed: dict[int, "Future[Told]"]) -> None:
    told = harmed[number].result()
    assert told.killed_at, f"not killed: {told.order}"
    assert told.order.startswith(f"{told.killed_at}, ")
    assert not told.faults, "\n".join([told.order, *told.faults])
