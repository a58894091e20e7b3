"""Grants and reviews in the database."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from access.errors import NotFoundError, RefusedError
from access.model import Grant, GrantState, Progress, Review, Verdict
from storage.unit_of_work import SqlStore
from tests.postgres import PostgresServer
from tests.stores import run_together
from tests.values import BEN, NOW, a_person, a_request, a_server


@pytest.fixture
def asked(store: SqlStore) -> SqlStore:
    """A store with Ana's request, and Ben who may decide."""
    return with_request(store)


def with_request(store: SqlStore) -> SqlStore:
    with store.unit_of_work() as work:
        work.people.save(a_person())
        work.people.save(a_person("Ben Ode"))
        work.requests.add(a_request())
        work.commit()
    return store


def a_grant(number: int = 1) -> Grant:
    return Grant(id=f"AR-7F3K.{number}", request_id="AR-7F3K", server=a_server(f"web-{number}"))


def a_review(**changes: object) -> Review:
    review = Review(
        request_id="AR-7F3K",
        person_id="P-ben",
        person_name="Ben Ode",
        person_email="ben@example.com",
        slack_user=BEN,
        verdict=Verdict.APPROVE,
        at=NOW,
    )
    return replace(review, **changes)  # type: ignore[arg-type]


def add_review(store: SqlStore, review: Review) -> str:
    try:
        with store.unit_of_work() as work:
            work.reviews.add(review)
            work.commit()
    except RefusedError as refusal:
        return refusal.sentence
    return "added"


def test_grants_come_back_in_the_order_of_their_numbers(asked: SqlStore) -> None:
    with asked.unit_of_work() as work:
        for number in (10, 2, 1):
            work.grants.add(a_grant(number))
        work.commit()

    with asked.unit_of_work(read_only=True) as work:
        assert work.grants.of("AR-7F3K") == [a_grant(1), a_grant(2), a_grant(10)]
        assert work.grants.of("AR-NONE") == []


def test_a_saved_grant_keeps_everything(asked: SqlStore) -> None:
    changed = replace(
        a_grant(),
        state=GrantState.REMOVING,
        route=Progress(handle={"command": "c-1"}, attempts=3, retry_at=NOW + timedelta(microseconds=5), problem="no"),
        account=Progress(done=True),
        details={"uid": "200001", "odd": "\x00\ud800 é"},
        proof={"by": "host"},
        outcome="It took long.",
    )
    with asked.unit_of_work() as work:
        work.grants.add(a_grant(1))
        work.grants.add(a_grant(2))
        work.grants.save(changed)
        work.commit()

    with asked.unit_of_work() as work:
        assert work.grants.of("AR-7F3K") == [changed, a_grant(2)]
        with pytest.raises(NotFoundError):
            work.grants.save(replace(changed, id="AR-7F3K.9"))


def test_a_grant_needs_its_request(asked: SqlStore) -> None:
    with pytest.raises(IntegrityError), asked.unit_of_work() as work:
        work.grants.add(replace(a_grant(), request_id="AR-NONE"))


def test_reviews_come_back_in_the_order_given(asked: SqlStore) -> None:
    reviews = [
        a_review(at=NOW, duration=timedelta(minutes=30)),
        a_review(person_id="P-ana", at=NOW - timedelta(hours=1), verdict=Verdict.DENY, reason="no: not now"),
    ]
    with asked.unit_of_work() as work:
        for review in reviews:
            work.reviews.add(review)
        work.commit()

    with asked.unit_of_work(read_only=True) as work:
        assert work.reviews.of("AR-7F3K") == reviews


def test_a_person_reviews_a_request_once_and_the_unit_of_work_goes_on(asked: SqlStore) -> None:
    with asked.unit_of_work() as work:
        work.reviews.add(a_review())
        with pytest.raises(RefusedError, match="You have decided on AR-7F3K before"):
            work.reviews.add(a_review(verdict=Verdict.DENY))
        work.commit()

    with asked.unit_of_work(read_only=True) as work:
        assert work.reviews.of("AR-7F3K") == [a_review()]


def test_of_two_reviews_of_one_person_at_once_one_counts(asked: SqlStore) -> None:
    outcomes = run_together(*[lambda: add_review(asked, a_review())] * 4)

    assert outcomes.count("added") == 1
    with asked.unit_of_work(read_only=True) as work:
        assert len(work.reviews.of("AR-7F3K")) == 1


@pytest.mark.postgres
def test_a_second_review_waits_for_the_first_and_counts_if_that_was_undone(
    postgres_server: PostgresServer, postgres_url: str, open_store: Callable[[str], SqlStore]
) -> None:
    one, two = with_request(open_store(postgres_url)), open_store(postgres_url)
    with ThreadPoolExecutor(1) as pool:
        with one.unit_of_work() as work:
            work.reviews.add(a_review())
            second = pool.submit(add_review, two, a_review(verdict=Verdict.DENY))
            postgres_server.wait_for_waiters(postgres_url)
        assert second.result(timeout=10) == "added"

    with one.unit_of_work(read_only=True) as work:
        assert work.reviews.of("AR-7F3K") == [a_review(verdict=Verdict.DENY)]
