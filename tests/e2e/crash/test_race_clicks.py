"""A thousand pairs of simultaneous clicks, by two processes' worth of stores on one PostgreSQL."""

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from access.audit import verify
from access.errors import AlreadyDecidedError
from access.model import SlackUser, Verdict
from access.service.desk import Caller
from storage.unit_of_work import SqlStore
from tests.stores import run_together
from tests.values import BEN, a_person
from tests.world import World

pytestmark = pytest.mark.postgres

PAIRS = 1000
DAN = SlackUser(team_id="T0PASSPORT", user_id="U0DAN")


def test_a_thousand_pairs_of_simultaneous_clicks_are_a_thousand_decisions(
    postgres_url: str, open_store: Callable[[str], SqlStore]
) -> None:
    here, there = World(open_store(postgres_url)), World(open_store(postgres_url))
    there.add_person(a_person("Dan Oka", groups=frozenset({"payments-leads"})), DAN)
    outcomes: Counter[str] = Counter()
    for _ in range(PAIRS):
        request = here.submit()
        outcomes.update(
            run_together(
                partial(_decided, here, BEN, request.id, Verdict.APPROVE),
                partial(_decided, there, DAN, request.id, Verdict.DENY),
            )
        )
    assert outcomes["too late"] == PAIRS
    assert outcomes["approve"] + outcomes["deny"] == PAIRS
    with here.store.unit_of_work(read_only=True) as uow:
        events = list(uow.audit.all())
        requests = uow.requests.find(limit=2 * PAIRS)
        reviews = [review for request in requests for review in uow.reviews.of(request.id)]
    assert verify(events) == []
    told = Counter(found.event.kind.value for found in events)
    assert (told["request.approved"], told["request.denied"]) == (outcomes["approve"], outcomes["deny"])
    assert len(reviews) == PAIRS
    assert outcomes["approve"]
    assert outcomes["deny"]


def _decided(world: World, who: SlackUser, request_id: str, verdict: Verdict) -> str:
    try:
        world.reviewing.review(Caller(slack_user=who), request_id, verdict, reason="no")
    except AlreadyDecidedError:
        return "too late"
    return verdict.value
