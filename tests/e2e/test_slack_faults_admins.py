"""Admins are told where they can be reached: one who is gone hides the news from no other."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from slack_sdk import WebClient

from handlers.feed import Feed
from sandbox.slack import SlackDouble
from storage.unit_of_work import SqlStore
from tests.integration.feed_lab import AUDIT, Lab, a_slack


@pytest.fixture
def slack() -> Iterator[SlackDouble]:
    with a_slack() as slack:
        slack.add_usergroup("S0ADMINS", handle="admins", members=["U0CYD", "U0ADMIN", "U0BEN"])
        slack.add_channel("C0OPS", name="ops", members=["U0ADMIN"])
        yield slack


def lab_of(store: SqlStore, slack: SlackDouble, *admins: str) -> Lab:
    """A lab whose audit channel is archived, and whose feed tells these admins."""
    lab = Lab(store, slack)
    client = WebClient(slack.bot_token, base_url=slack.url, timeout=10, retry_handlers=[])
    lab.feed = Feed(store, client, clock=lab.clock, audit_channel=AUDIT, owner="one", admins=admins)
    slack.archive(AUDIT)
    lab.world.submit()
    return lab


@pytest.mark.parametrize("code", ["user_disabled", "internal_error"])
def test_a_member_of_the_admins_group_who_is_not_reached_hides_nothing_from_the_rest(
    sqlite_store: SqlStore, slack: SlackDouble, code: str
) -> None:
    lab = lab_of(sqlite_store, slack, "S0ADMINS")
    lab.slack.faults.fail("conversations.open", code, times=2)  # Ana's, then Cyd's
    lab.run_for(timedelta(minutes=5))
    for admin in ("U0ADMIN", "U0BEN"):
        assert len([m for m in lab.directs(admin) if "C0AUDIT takes no messages" in m.plain]) == 1, admin


def test_a_channel_of_admins_that_is_lost_hides_nothing_from_a_person(
    sqlite_store: SqlStore, slack: SlackDouble
) -> None:
    slack.archive("C0OPS")
    lab = lab_of(sqlite_store, slack, "C0OPS", "S0GONE", "U0ADMIN")
    lab.run_for(timedelta(minutes=5))
    (alert,) = lab.directs("U0ADMIN")
    assert "C0AUDIT takes no messages" in alert.plain


def test_an_admin_is_told_once_though_a_colleague_has_to_wait(sqlite_store: SqlStore, slack: SlackDouble) -> None:
    slack.add_usergroup("S0ADMINS", handle="admins", members=["U0BEN", "U0CYD"])
    lab = lab_of(sqlite_store, slack, "S0ADMINS", "U0BEN")
    lab.message("U0BEN")  # whose channel is known from then on
    slack.faults.rate_limit("conversations.open", retry_after=20, times=1)
    lab.run_for(timedelta(minutes=10))
    for admin in ("U0CYD", "U0BEN"):
        told = [line for m in lab.directs(admin) for line in m.plain.splitlines() if "C0AUDIT takes no" in line]
        assert len(told) == 1, admin


@pytest.mark.parametrize("ops_at", [0, 1, 4])
def test_admins_about_whom_slack_is_silent_hide_nothing_from_those_who_are_reached(
    sqlite_store: SqlStore, slack: SlackDouble, ops_at: int
) -> None:
    people = ["U0ADMIN", "U0CYD", "U0ANA", "U0BEN"]
    slack.faults.drop_answer("conversations.open", times=None)
    lab = lab_of(sqlite_store, slack, *people[:ops_at], "C0OPS", *people[ops_at:])
    lab.run_for(timedelta(minutes=5))
    assert ["C0AUDIT takes no messages" in told.plain for told in slack.messages("C0OPS")] == [True]
    slack.faults.clear()
    lab.run_for(timedelta(minutes=5))
    for admin in people:
        assert len([m for m in lab.directs(admin) if "C0AUDIT takes no messages" in m.plain]) == 1, admin
