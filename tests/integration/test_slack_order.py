"""Clicks that arrive in another order than they were made in: each is taken for the first time, and late."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from access.audit import Kind
from access.model import RequestState, Verdict
from handlers import ids
from storage.unit_of_work import SqlStore
from tests.integration.slack_stage import CARD, MAX, Stage, stage
from tests.values import ANA, BEN, a_person

CLEO = replace(MAX, user_id="U0CLEO")


@pytest.fixture
def on(sqlite_store: SqlStore) -> Iterator[Stage]:
    """With a second reviewer; Slack need not be asked who they all are."""
    with stage(sqlite_store) as made:
        made.slack.add_member(CLEO.user_id, name="cleo")
        made.slack.join(CARD, CLEO.user_id)
        made.world.add_person(a_person("Cleo Park", groups=frozenset({"payments-leads"})), CLEO)
        yield made


def late(on: Stage, request_id: str) -> tuple[RequestState, list[Kind], list[Verdict]]:
    """Where the request is at last, what is on record of it, and which verdicts counted."""
    on.world.reconcile()
    standing = on.world.standing(request_id)
    return standing.request.state, on.world.kinds(request_id), [review.verdict for review in standing.reviews]


@contextmanager
def in_reverse(on: Stage) -> Iterator[None]:
    """What people do meanwhile arrives afterwards, the last of it first."""
    with on.slack.faults.hold_back() as held:
        yield
    for deliver in reversed(held):
        deliver()


def test_deny_that_overtakes_an_earlier_approve_stands(on: Stage) -> None:
    request = on.world.submit()
    card, form = on.card(request.id), on.card(request.id, ids.REVIEW_DENY)
    on.press(form, ids.REVIEW_DENY)
    with in_reverse(on):
        on.press(card, ids.REVIEW_APPROVE, CLEO.user_id)
        on.slack.person(BEN.user_id).submit(values={ids.REASON: "use the replica"})
    assert on.told(CLEO.user_id)[0].startswith("Ben Ito denied this")
    assert late(on, request.id) == (
        RequestState.DENIED,
        [Kind.REQUEST_SUBMITTED, Kind.REQUEST_DENIED],
        [Verdict.DENY],
    )
    assert on.world.standing(request.id).grants == []


def test_cancel_that_overtakes_an_earlier_approve_stands(on: Stage) -> None:
    request = on.world.submit()
    card, direct = on.card(request.id), on.direct(ids.REQUEST_CANCEL, request.id)
    with in_reverse(on):
        on.press(card, ids.REVIEW_APPROVE)
        on.press(direct, ids.REQUEST_CANCEL, ANA.user_id)
    assert on.told(BEN.user_id)[0].startswith(f"Ana Ruiz cancelled {request.id}")
    assert late(on, request.id) == (RequestState.CANCELLED, [Kind.REQUEST_SUBMITTED, Kind.REQUEST_CANCELLED], [])


def test_approve_that_overtakes_an_earlier_cancel_is_told_how_to_end_it(on: Stage) -> None:
    request = on.world.submit()
    card, direct = on.card(request.id), on.direct(ids.REQUEST_CANCEL, request.id)
    with in_reverse(on):
        on.press(direct, ids.REQUEST_CANCEL, ANA.user_id)
        on.press(card, ids.REVIEW_APPROVE)
    assert f"{request.id} is approved already; to end it: /passport done {request.id}" in on.told(ANA.user_id)[0]
    state, kinds, verdicts = late(on, request.id)
    assert (state, verdicts) == (RequestState.ACTIVE, [Verdict.APPROVE])
    assert Kind.REQUEST_CANCELLED not in kinds


def test_done_that_overtakes_the_approve_is_told_how_to_take_it_back(on: Stage) -> None:
    request = on.world.submit()
    card, direct = on.card(request.id), on.direct(ids.REQUEST_COMPLETE, request.id)
    with in_reverse(on):
        on.press(card, ids.REVIEW_APPROVE)
        on.press(direct, ids.REQUEST_COMPLETE, ANA.user_id)
    assert f"{request.id} is not decided yet; to take it back: /passport cancel {request.id}" in on.told(ANA.user_id)[0]
    state, kinds, verdicts = late(on, request.id)
    assert (state, verdicts) == (RequestState.ACTIVE, [Verdict.APPROVE])
    assert Kind.REQUEST_ENDING not in kinds
