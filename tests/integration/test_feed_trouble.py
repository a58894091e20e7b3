"""Slack fails in all its ways: nobody's message holds up another's, and nothing is lost."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from access.errors import UnavailableError
from access.model import Verdict
from access.ports import UnitOfWork
from access.service.desk import Caller
from access.service.submitting import Standing
from handlers import feed, ids, posts
from handlers.cards import wanted_posts
from handlers.wanted import Wanted
from sandbox.slack import SlackDouble
from storage.unit_of_work import SqlStore
from tests.integration.feed_lab import AUDIT, LEADS, Lab, a_slack
from tests.values import ANA, BEN, a_policy, a_rule

BEN_SAYS = Caller(slack_user=BEN)


@pytest.fixture
def slack() -> Iterator[SlackDouble]:
    with a_slack() as slack:
        yield slack


@pytest.fixture
def lab(sqlite_store: SqlStore, slack: SlackDouble) -> Lab:
    return Lab(sqlite_store, slack)


def telling(store: SqlStore, slack: SlackDouble, *tell: str) -> Lab:
    return Lab(store, slack, a_policy(rules=(a_rule(tell=tell),)))


def test_a_deactivated_reviewer_holds_up_nobody(sqlite_store: SqlStore, slack: SlackDouble) -> None:
    slack.deactivate("U0CYD")
    lab = telling(sqlite_store, slack, "U0CYD", "C0GONE", "U0BEN", LEADS)
    for _ in range(3):
        lab.world.submit()
    lab.feed.run_once()
    lab.run_for(timedelta(seconds=10))
    assert len(lab.cards()) == 3
    assert len(lab.directs("U0BEN")) == 3
    assert len(lab.directs("U0ANA")) == 3
    assert lab.sequences() == lab.log()


def test_admins_are_told_once_what_only_they_can_mend(sqlite_store: SqlStore, slack: SlackDouble) -> None:
    slack.deactivate("U0CYD")
    lab = telling(sqlite_store, slack, "U0CYD", LEADS)
    for _ in range(5):
        lab.world.submit()
    lab.run_for(timedelta(minutes=10))
    (alert,) = lab.directs("U0ADMIN")
    assert "Slack takes no messages to U0CYD (user" in alert.plain
    assert alert.pings == ()


def test_a_mended_channel_shows_the_card_while_it_can_be_decided(lab: Lab) -> None:
    lab.slack.leave(LEADS, "U0PASSPORT")
    lab.world.submit()
    lab.run_for(timedelta(minutes=2))
    assert lab.cards() == []
    lab.slack.join(LEADS, "U0PASSPORT")
    lab.settle()
    (card,) = lab.cards()
    assert ids.REVIEW_APPROVE in str(card.blocks)


def test_a_dead_recipient_is_given_up_when_the_request_is_decided(lab: Lab) -> None:
    lab.slack.archive(LEADS)
    request = lab.world.submit()
    lab.run_for(timedelta(minutes=2))
    assert not lab.is_shown(request)
    lab.world.reviewing.review(BEN_SAYS, request.id, Verdict.DENY, reason="no")
    lab.settle()
    assert lab.is_shown(request)
    assert len(lab.directs("U0ANA")) == 2


def test_a_card_in_a_channel_that_is_archived_meanwhile_is_given_up_and_an_admin_told(lab: Lab) -> None:
    request = lab.world.submit()
    lab.settle()
    lab.slack.archive(LEADS)
    lab.world.reviewing.review(BEN_SAYS, request.id, Verdict.DENY, reason="no")
    lab.settle()
    assert lab.is_shown(request)
    assert "Not approved" in lab.directs("U0ANA")[1].notification
    (alert,) = lab.directs("U0ADMIN")
    assert f"Slack takes no messages to {LEADS} (is" in alert.text


def test_the_requesters_news_do_not_wait_for_a_failing_card(lab: Lab) -> None:
    request = lab.world.submit()
    lab.settle()
    lab.slack.faults.fail("chat.update", "internal_error", times=None)
    lab.world.approve(request)
    lab.run_for(timedelta(minutes=3))
    lab.world.reconcile()
    lab.run_for(posts.LOOK_AGAIN + timedelta(seconds=1))
    assert [message.notification.split(" is open")[0] for message in lab.directs("U0ANA")][1:] == ["web-1"]
    lab.slack.faults.clear()
    lab.settle()
    assert "Ben Ito approved" in lab.cards()[0].plain


def test_a_limited_method_waits_alone(lab: Lab) -> None:
    request = lab.world.submit()
    lab.settle()
    lab.slack.faults.rate_limit("chat.update", retry_after=20)
    lab.world.reviewing.review(BEN_SAYS, request.id, Verdict.DENY, reason="no")
    lab.run_for(timedelta(seconds=5))
    assert "Denied" not in lab.cards()[0].plain
    assert len(lab.directs("U0ANA")) == 2  # the new message went out meanwhile
    assert sum(call.error == "internal_error" or not call.ok for call in lab.slack.calls) == 1
    lab.run_for(timedelta(seconds=16))
    assert "Denied" in lab.cards()[0].plain


def test_many_cards_for_one_channel_keep_to_slacks_limits(sqlite_store: SqlStore) -> None:
    with a_slack(real_rate_limits=True) as slack:
        lab = Lab(sqlite_store, slack)
        for _ in range(40):
            lab.world.submit()
        lab.settle()
        assert len(lab.cards()) == 40
        assert len(lab.directs("U0ANA")) == 40
        assert [call.error for call in slack.calls if not call.ok] == []


def test_many_decisions_at_once_wait_for_slacks_limit_of_updates(sqlite_store: SqlStore) -> None:
    with a_slack(real_rate_limits=True) as slack:
        lab = Lab(sqlite_store, slack)
        requests = [lab.world.submit() for _ in range(40)]
        lab.settle()
        for request in requests:
            lab.world.reviewing.review(BEN_SAYS, request.id, Verdict.DENY, reason="no")
        lab.settle()
        assert all("Denied by Ben Ito" in card.plain for card in lab.cards())
        assert len(lab.directs("U0ANA")) == 80
        assert {call.error for call in slack.calls} == {None, "ratelimited"}
        assert sum(not call.ok for call in slack.calls) <= 3


def test_the_database_is_away(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.world.submit()

    def no_answer(**_given: object) -> UnitOfWork:
        raise UnavailableError("The database does not answer.")

    monkeypatch.setattr(lab.store, "unit_of_work", no_answer)
    assert lab.feed.run_once() == feed.AFTER_A_FAULT
    monkeypatch.undo()
    lab.settle()
    assert len(lab.cards()) == 1


def test_ten_minutes_without_slack(lab: Lab) -> None:
    first = lab.world.submit()
    lab.settle()
    with lab.slack.faults.down():
        lab.world.approve(first)
        lab.run_for(timedelta(minutes=4))
        lab.world.reconcile()
        second = lab.world.submit("db-2")
        lab.message("U0BEN", "later")
        lab.run_for(timedelta(minutes=6))
    assert lab.settle() <= timedelta(minutes=2)
    assert lab.sequences() == lab.log()
    assert "web-1 is open" in [message.notification.split(" until")[0] for message in lab.directs("U0ANA")]
    assert len(lab.cards()) == 2
    assert [message.plain for message in lab.directs("U0BEN")] == ["later"]
    assert lab.is_shown(first)
    assert lab.is_shown(second)


def test_a_method_that_never_answers_holds_up_only_what_needs_it(sqlite_store: SqlStore, slack: SlackDouble) -> None:
    slack.add_usergroup("S0LEADS", handle="payments-leads", members=["U0BEN"])
    lab = telling(sqlite_store, slack, LEADS)
    first = lab.world.submit()
    lab.settle()
    slack.faults.drop_answer("chat.update", times=None)
    slack.faults.drop_answer("usergroups.users.list", times=None)
    lab.world.reviewing.review(BEN_SAYS, first.id, Verdict.DENY, reason="no")
    lab.world.submit("db-2")
    lab.message("U0BEN", "hello")
    lab.run_for(timedelta(minutes=2))
    assert "Not approved" in lab.directs("U0ANA")[1].notification
    assert len(lab.cards()) == 2
    assert len(lab.directs("U0BEN")) == 1
    assert lab.sequences() == lab.log()
    slack.faults.clear()
    lab.settle()
    assert lab.is_shown(first)


def test_a_revoked_token_is_an_outage_not_a_dead_recipient(lab: Lab) -> None:
    request = lab.world.submit()
    lab.slack.faults.fail(None, "account_inactive", times=5)
    lab.settle()
    assert len(lab.cards()) == 1
    assert lab.is_shown(request)
    assert lab.directs("U0ADMIN") == []


def test_a_failing_user_group_holds_up_nobody(sqlite_store: SqlStore, slack: SlackDouble) -> None:
    slack.add_usergroup("S0LEADS", handle="payments-leads", members=["U0BEN"])
    lab = telling(sqlite_store, slack, "S0LEADS", "S0NONE", LEADS)
    slack.faults.fail("usergroups.users.list", "internal_error", times=1)
    lab.world.submit()
    lab.feed.run_once()
    assert len(lab.cards()) == 1
    assert len(lab.directs("U0ANA")) == 1
    lab.run_for(timedelta(minutes=2))
    assert len(lab.directs("U0BEN")) == 1


def test_a_poisoned_request_stops_no_other(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned, well = lab.world.submit(), lab.world.submit("db-2")

    def broken_for_one(standing: Standing, *, now: datetime) -> list[Wanted]:
        if standing.request.id == poisoned.id:
            raise KeyError("a bug")
        return wanted_posts(standing, now=now)

    monkeypatch.setattr(posts, "wanted_posts", broken_for_one)
    lab.run_for(timedelta(seconds=20))
    assert len(lab.cards()) == 1
    assert lab.is_shown(well)
    assert lab.sequences() == lab.log()
    monkeypatch.undo()
    lab.run_for(timedelta(minutes=1))
    assert len(lab.cards()) == 2


def test_a_message_to_somebody_deactivated_is_dropped_and_others_arrive(lab: Lab) -> None:
    lab.slack.deactivate("U0ANA")
    lab.message("U0ANA", "never read")
    lab.message("U0BEN", "read")
    lab.settle()
    assert [message.plain for message in lab.directs("U0BEN")] == ["read"]
    with lab.store.unit_of_work(read_only=True) as uow:
        assert uow.outbox.due(lab.clock() + timedelta(days=1), 10) == []


@pytest.mark.parametrize("code", ["missing_scope", "restricted_action", "user_not_visible"])
def test_a_message_that_an_admin_can_let_through_is_kept_and_the_admin_told(lab: Lab, code: str) -> None:
    lab.slack.faults.fail("conversations.open", code)  # for Ben, who comes first
    lab.message("U0BEN", "a key was added")
    lab.message("U0ANA", "hello")
    lab.run_for(timedelta(minutes=2))
    assert [message.plain for message in lab.directs("U0ANA")] == ["hello"]
    assert [message.plain for message in lab.directs("U0BEN")] == ["a key was added"]
    (alert,) = lab.directs("U0ADMIN")
    assert f"Slack takes no direct messages to U0BEN ({code})" in alert.text.replace("\u200b", "")


def test_messages_to_whom_slack_is_silent_hold_up_no_other(lab: Lab) -> None:
    lab.message("U0BEN", "first")
    lab.settle()
    lab.slack.faults.drop_answer("conversations.open", times=None)
    for _ in range(40):
        lab.message("U0ANA", "unheard")
    lab.run_for(timedelta(minutes=5))
    lab.message("U0BEN", "second")
    lab.run_for(timedelta(minutes=2))
    assert [message.plain for message in lab.directs("U0BEN")] == ["first", "second"]
    lab.slack.faults.clear()
    lab.run_for(timedelta(minutes=10))
    assert len(lab.directs("U0ANA")) == 40


def test_a_message_that_failed_is_sent_later(lab: Lab) -> None:
    lab.slack.faults.fail("conversations.open", "internal_error", times=2)
    lab.message("U0BEN", "patience")
    took = lab.settle()
    assert [message.plain for message in lab.directs("U0BEN")] == ["patience"]
    assert took >= timedelta(seconds=3)


def test_waiting_for_a_mend_is_quiet(lab: Lab) -> None:
    lab.slack.archive(AUDIT)
    lab.slack.archive(LEADS)
    lab.slack.faults.fail("conversations.open", "internal_error", times=3)
    lab.world.submit()
    commits: list[None] = []
    assert isinstance(lab.store, SqlStore)
    lab.store.on_commit(lambda _: commits.append(None))
    quiet = 0
    for _ in range(200):  # every commit wakes the feed at once, as it does in the server
        before = len(commits)
        delay = lab.feed.run_once()
        if len(commits) == before:
            assert delay
            quiet += 1
            lab.forward(delay)
    assert quiet > 50


def test_a_card_whose_answer_was_lost_is_shown_again_and_followed(lab: Lab) -> None:
    request = lab.world.submit()
    lab.slack.faults.drop_answer("chat.postMessage")
    lab.settle()
    lost, card = lab.cards()
    assert lost.text == card.text
    lab.world.approve(request)
    lab.settle()
    assert "Ben Ito approved" in lab.cards()[-1].plain


def test_a_restart_shows_nothing_twice(lab: Lab) -> None:
    lab.world.submit()
    lab.settle()
    messages = (lab.cards(), lab.directs("U0ANA"), lab.slack.messages(AUDIT))
    lab.settle(lab.make_feed())
    assert (lab.cards(), lab.directs("U0ANA"), lab.slack.messages(AUDIT)) == messages


def test_nothing_of_a_token_is_logged(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    lab.slack.archive(AUDIT)
    lab.world.submit()
    lab.slack.faults.http_error("chat.postMessage", times=1)
    lab.slack.faults.rate_limit("conversations.open")
    lab.run_for(timedelta(minutes=2))
    assert lab.slack.bot_token not in caplog.text
    assert ANA.user_id not in lab.slack.bot_token
