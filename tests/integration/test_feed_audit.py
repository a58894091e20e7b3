"""The audit channel: complete, in order, one message a second, with heads that verify the log."""

import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from access.audit import Head, verify
from handlers.audit_lines import MAX_MESSAGE
from handlers.patience import LEASE, READER
from sandbox.slack import Message, SlackDouble
from storage.unit_of_work import SqlStore
from tests.integration.feed_lab import AUDIT, Lab, a_slack


@pytest.fixture
def slack() -> Iterator[SlackDouble]:
    with a_slack() as slack:
        yield slack


@pytest.fixture
def lab(store: SqlStore, slack: SlackDouble) -> Lab:
    return Lab(store, slack)


def test_every_event_once_in_order_bundled(lab: Lab) -> None:
    lab.events(200)
    took = lab.settle()
    messages = lab.slack.messages(AUDIT)
    assert lab.sequences() == list(range(1, 201))
    assert len(messages) < 200 / 10
    assert took >= timedelta(seconds=len(messages) - 1)
    assert all(len(message.text) <= MAX_MESSAGE for message in messages)


def test_every_message_ends_with_a_head_that_verifies_the_log(lab: Lab) -> None:
    lab.events(60)
    request = lab.world.submit()
    lab.world.approve(request)
    lab.settle()
    with lab.store.unit_of_work(read_only=True) as uow:
        log, head = list(uow.audit.all()), uow.audit.head()
    heads = []
    for message in lab.slack.messages(AUDIT):
        found = re.fullmatch(r"`passport audit verify --head (\d+):([0-9a-f]{64})`", message.text.splitlines()[-1])
        assert found
        heads.append(Head(sequence=int(found[1]), hash=found[2]))
    assert heads[-1] == head
    assert all(verify(log, witness=witness) == [] for witness in heads)
    assert verify(log[:-1], witness=heads[-1]) != []


def test_slacks_own_rate_limits_are_never_met(store: SqlStore) -> None:
    with a_slack(real_rate_limits=True) as slack:
        lab = Lab(store, slack)
        lab.events(300)
        lab.settle()
        assert lab.sequences() == list(range(1, 301))
        assert [call.error for call in slack.calls if not call.ok] == []


def test_retry_after_is_honoured_and_order_kept(lab: Lab) -> None:
    lab.events(5)
    lab.slack.faults.rate_limit("chat.postMessage", retry_after=30)
    began = lab.clock.now
    lab.run_for(timedelta(seconds=29))
    lab.events(5)
    assert lab.sequences() == []
    assert sum(call.method == "chat.postMessage" for call in lab.slack.calls) == 1
    lab.settle()
    assert lab.clock.now - began >= timedelta(seconds=30)
    assert lab.sequences() == list(range(1, 11))


def test_an_outage_loses_nothing_and_hammers_nobody(lab: Lab) -> None:
    lab.events(10)
    lab.settle()
    with lab.slack.faults.down():
        for _ in range(10):
            lab.events(20)
            lab.run_for(timedelta(minutes=1))
        assert len(lab.sequences()) == 10
        tries = sum(not call.ok for call in lab.slack.calls)
        assert 5 <= tries <= 60
    lab.settle()
    assert lab.sequences() == list(range(1, 211))


@pytest.mark.parametrize("status", [500, 503])
def test_broken_answers_are_tried_again(lab: Lab, status: int) -> None:
    lab.events(3)
    lab.slack.faults.http_error("chat.postMessage", status=status, times=4)
    lab.settle()
    assert lab.sequences() == [1, 2, 3]


def test_a_crash_between_post_and_cursor_repeats_recognisably(lab: Lab) -> None:
    lab.events(3)
    lab.slack.faults.drop_answer("chat.postMessage")  # Slack took it, Passport never heard
    lab.feed.run_once()
    lab.events(2)
    lab.forward(timedelta(minutes=1))
    lab.settle(lab.make_feed())  # the restarted process has the same name
    assert lab.sequences() == [1, 2, 3, 1, 2, 3, 4, 5]


def test_an_archived_audit_channel_is_told_to_admins_and_catches_up_when_mended(lab: Lab) -> None:
    lab.slack.archive(AUDIT)
    request = lab.world.submit()
    lab.run_for(timedelta(minutes=5))
    assert len(lab.cards()) == 1  # the rest goes on
    assert lab.is_shown(request)
    (alert,) = lab.directs("U0ADMIN")
    assert alert.plain.startswith(f"The audit channel {AUDIT} takes no messages (is")
    lab.events(30)
    lab.slack.workspace.put_channel(
        type(lab.slack.workspace.channel(AUDIT))(
            id=AUDIT, name="passport-audit", kind="public", members=frozenset({"U0PASSPORT"})
        )
    )
    lab.settle()
    assert lab.sequences() == lab.log()


def test_a_channel_that_the_bot_was_removed_from(lab: Lab) -> None:
    lab.slack.leave(AUDIT, "U0PASSPORT")
    lab.events(3)
    lab.run_for(timedelta(minutes=1))
    assert len(lab.directs("U0ADMIN")) == 1
    lab.slack.join(AUDIT, "U0PASSPORT")
    lab.settle()
    assert lab.sequences() == [1, 2, 3]


@pytest.mark.postgres
def test_two_replicas_feed_as_one(postgres_url: str, open_store: Callable[[str], SqlStore], slack: SlackDouble) -> None:
    lab = Lab(open_store(postgres_url), slack)
    lab.store = open_store(postgres_url)
    other = lab.make_feed("two")
    failures: list[BaseException] = []
    over = threading.Event()

    def run(feed_of_one: bool) -> None:
        try:
            while not over.is_set():
                (lab.feed if feed_of_one else other).run_once()
                over.wait(0.002)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    requests = []
    for _ in range(10):
        requests.append(lab.world.submit())
        lab.events(20)
        lab.forward(timedelta(seconds=3))  # so that the role changes hands
    try:
        slack.wait_until(lambda: _later(lab) and lab.sequences() == lab.log(), seconds=60)
        slack.wait_until(lambda: _later(lab) and all(lab.is_shown(request) for request in requests), seconds=60)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert lab.sequences() == lab.log()
    assert len(lab.cards()) == 10
    assert len(lab.directs("U0ANA")) == 10


@pytest.mark.postgres
def test_a_dead_replicas_role_passes_on(
    postgres_url: str, open_store: Callable[[str], SqlStore], slack: SlackDouble
) -> None:
    lab = Lab(open_store(postgres_url), slack)
    lab.events(200)
    lab.feed.run_once()  # posts one message, keeps the role for the next, and dies
    first = lab.sequences()
    assert first
    other = lab.make_feed("two")
    commits: list[None] = []
    assert isinstance(lab.store, SqlStore)
    lab.store.on_commit(lambda _: commits.append(None))
    assert other.run_once() == timedelta(seconds=1)
    assert lab.sequences() == first
    assert commits == []  # a commit wakes the feed: waiting must not
    lab.forward(timedelta(seconds=31))
    lab.settle(other)
    assert lab.sequences() == list(range(1, 201))


def test_a_replica_that_lost_the_role_makes_no_further_call(sqlite_store: SqlStore, slack: SlackDouble) -> None:
    lab = Lab(sqlite_store, slack)
    lab.world.submit()
    lab.world.submit("db-2")
    posted = slack.workspace.post

    def post_for_ages(*args: object, **given: object) -> Message:
        slack.workspace.post = posted  # type: ignore[method-assign]
        lab.forward(LEASE + timedelta(seconds=1))
        with lab.store.unit_of_work() as uow:
            assert uow.audit.claim_reader(READER, owner="two", now=lab.clock(), until=lab.clock() + LEASE)
            uow.commit()
        return posted(*args, **given)  # type: ignore[arg-type]

    slack.workspace.post = post_for_ages  # type: ignore[method-assign]
    assert lab.feed.run_once() == timedelta(seconds=1)
    assert lab.calls("chat.postMessage") == 1
    lab.forward(LEASE)
    lab.settle()
    assert len(lab.cards()) == 2  # the one that was posted is remembered
    assert lab.sequences() == lab.log()


def _later(lab: Lab) -> bool:
    lab.forward(timedelta(milliseconds=100))
    return True
