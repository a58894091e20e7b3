"""Attacks on the feed: a request that nobody can read silences neither the audit channel nor other cards."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text

from storage.engine import parse_url
from storage.unit_of_work import SqlStore
from tests.integration.feed_lab import Lab, a_slack


@pytest.fixture
def lab(sqlite_store: SqlStore) -> Iterator[Lab]:
    with a_slack() as slack:
        yield Lab(sqlite_store, slack)


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize(
    "poison", ["""UPDATE requests SET servers = '[{"unheard": "of"}]'""", "UPDATE grants SET route = '{}'"]
)
def test_unreadable_requests_silence_nobody(lab: Lab, sqlite_url: str, count: int, poison: str) -> None:
    for _ in range(count):
        lab.world.approve(lab.world.submit())
    engine = create_engine(parse_url(sqlite_url))
    with engine.begin() as connection:
        connection.execute(text(poison))
    engine.dispose()
    lab.clock.forward(seconds=1)
    well = lab.world.submit("db-2")
    lab.message("U0BEN", "your key was added")
    lab.run_for(timedelta(minutes=1))
    assert lab.is_shown(well)
    assert [well.id in str(card.blocks) for card in lab.cards()] == [True]
    assert [message.plain for message in lab.directs("U0BEN")] == ["your key was added"]
    assert lab.sequences() == lab.log()
