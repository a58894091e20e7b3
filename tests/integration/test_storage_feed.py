"""What Slack shows, in the database: posts that follow requests, direct messages that follow none."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from access.model import AccessRequest
from access.ports import Post
from storage.unit_of_work import SqlStore
from tests.postgres import PostgresServer
from tests.values import ANA, BEN, NOW, a_person, a_request

MINUTE = timedelta(minutes=1)
POST = Post(request_id="AR-1", audience="reviewers", recipient="C0LEADS", stage="pending")


def with_requests(store: SqlStore) -> list[AccessRequest]:
    requests = [a_request(id=f"AR-{number}", submitted_at=NOW + number * MINUTE) for number in (1, 2, 3)]
    with store.unit_of_work() as work:
        work.people.save(a_person())
        for request in reversed(requests):
            work.requests.add(request)
        work.commit()
    return requests


def stale(store: SqlStore, *, after: timedelta = timedelta(), limit: int = 9) -> list[str]:
    with store.unit_of_work(read_only=True) as work:
        return [request.id for request in work.posts.stale(NOW + after, limit)]


def test_a_request_is_stale_until_slack_shows_its_revision(store: SqlStore) -> None:
    first = with_requests(store)[0]
    assert stale(store) == ["AR-1", "AR-2", "AR-3"]
    assert stale(store, limit=2) == ["AR-1", "AR-2"]

    with store.unit_of_work() as work:
        work.posts.note(shown={"AR-1": 1}, put_off={})
        work.posts.note(shown={"AR-2": 1}, put_off={})
        work.commit()
    assert stale(store) == ["AR-3"]

    with store.unit_of_work() as work:
        work.requests.save(replace(first, revision=3))
        work.posts.note(shown={"AR-1": 2}, put_off={})  # a revision that was passed meanwhile
        work.commit()
    assert stale(store) == ["AR-1", "AR-3"]


def test_a_late_word_of_an_old_revision_does_not_make_a_request_stale_again(store: SqlStore) -> None:
    first = with_requests(store)[0]
    with store.unit_of_work() as work:
        work.requests.save(replace(first, revision=2))
        work.posts.note(shown={"AR-1": 2}, put_off={})
        work.posts.note(shown={"AR-1": 1}, put_off={})
        work.commit()

    assert stale(store) == ["AR-2", "AR-3"]


@pytest.mark.postgres
def test_the_feed_and_whoever_locks_the_same_requests_do_not_wait_in_a_circle(
    postgres_store: SqlStore, postgres_server: PostgresServer, postgres_url: str
) -> None:
    """Had the feed put AR-3 off first, each would have one that the other waits for."""
    with_requests(postgres_store)

    def note() -> None:
        with postgres_store.unit_of_work() as work:
            work.posts.note(shown={"AR-1": 1}, put_off={"AR-3": NOW})
            work.commit()

    def lock() -> None:
        with postgres_store.unit_of_work() as work:
            work.requests.get_all(["AR-1", "AR-3"], lock=True)

    with ThreadPoolExecutor(2) as pool:
        with postgres_store.unit_of_work() as work:
            work.requests.get("AR-1", lock=True)
            running = [pool.submit(note)]
            postgres_server.wait_for_waiters(postgres_url)
            running.append(pool.submit(lock))
            postgres_server.wait_for_waiters(postgres_url, waiters=2)
        for each in running:
            each.result(timeout=10)
    assert stale(postgres_store) == ["AR-2", "AR-3"]


def test_a_request_put_off_comes_back_later(store: SqlStore) -> None:
    with_requests(store)
    with store.unit_of_work() as work:
        work.posts.note(shown={}, put_off={"AR-1": NOW + MINUTE})
        work.commit()

    assert stale(store) == ["AR-2", "AR-3"]
    assert stale(store, after=MINUTE) == ["AR-1", "AR-2", "AR-3"]


def test_a_post_is_saved_by_request_audience_recipient_and_stage(store: SqlStore) -> None:
    with_requests(store)
    posted = replace(
        POST, channel="C0LEADS", ts="1.000001", shown_revision=1, attempts=2, retry_at=NOW + MINUTE, problem="slow"
    )
    direct = replace(POST, audience="requester", recipient="U0ANA")
    with store.unit_of_work() as work:
        work.posts.save(POST)
        work.posts.save(direct)
        work.posts.save(replace(POST, request_id="AR-2"))
        work.posts.save(posted)
        work.posts.save(replace(POST, stage="active"))
        work.commit()

    with store.unit_of_work(read_only=True) as work:
        assert work.posts.of("AR-1") == [posted, direct, replace(POST, stage="active")]
        assert work.posts.of("AR-3") == []


def test_direct_messages_leave_oldest_first_and_one_that_fails_waits(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.outbox.add(BEN, "second: a key was added", at=NOW - MINUTE)
        work.outbox.add(ANA, "third", at=NOW)
        work.outbox.add(ANA, "not yet", at=NOW + MINUTE)
        work.commit()

    with store.unit_of_work() as work:
        messages = work.outbox.due(NOW, 9)
        assert [message[1:] for message in messages] == [(BEN, "second: a key was added", 0), (ANA, "third", 0)]
        assert work.outbox.due(NOW, 1) == messages[:1]
        work.outbox.put_off(messages[0][0], NOW + 2 * MINUTE)
        work.outbox.sent(messages[1][0])
        work.commit()

    with store.unit_of_work(read_only=True) as work:
        assert work.outbox.due(NOW, 9) == []
        assert [(text, attempts) for _, _, text, attempts in work.outbox.due(NOW + 2 * MINUTE, 9)] == [
            ("second: a key was added", 1),
            ("not yet", 0),
        ]
