"""Cards, direct messages and the outbox follow the state of their requests."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from access.model import RequestState, Verdict
from access.service.desk import Caller
from access.steps import Done, Failed
from handlers import ids
from sandbox.slack import Message, SlackDouble
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


def actions(message: Message) -> list[str]:
    return [e["action_id"] for block in message.blocks if block["type"] == "actions" for e in block["elements"]]


def test_a_request_is_shown_to_reviewers_and_requester(lab: Lab) -> None:
    request = lab.world.submit("web-1", "db-2", minutes=120)
    lab.settle()
    (card,), (asked,) = lab.cards(), lab.directs("U0ANA")
    assert card.notification == "Ana Ruiz asks for root on web-1, db-2 (prod), 2 h: INC-1"
    assert actions(card) == [ids.REVIEW_APPROVE, ids.REVIEW_APPROVE_SHORTER, ids.REVIEW_DENY]
    assert (
        asked.notification == "Asked payments-leads, by rule prod-root. I tell you when one decides. Lapses 03:30 UTC."
    )
    assert lab.is_shown(request)


def test_the_whole_story_updates_the_card_and_rings_the_phone_for_what_matters(lab: Lab) -> None:
    request = lab.world.submit(minutes=60)
    lab.settle()
    lab.world.approve(request)
    lab.settle()
    (asked,) = lab.directs("U0ANA")
    assert "Ben Ito approved at 03:00 UTC. I am opening web-1." in asked.plain
    assert actions(asked) == []

    lab.world.reconcile()
    lab.settle()
    _, ready = lab.directs("U0ANA")
    assert ready.notification == "web-1 is open until 04:00 UTC. On your laptop: ssh web-1.passport"
    assert actions(ready) == [ids.CREDENTIALS_SHOW, ids.REQUEST_COMPLETE]
    assert actions(lab.cards()[0]) == [ids.REQUEST_REVOKE]

    lab.world.ending.revoke(BEN_SAYS, request.id, "INC-1 is over")
    lab.settle()
    _, ready, ended = lab.directs("U0ANA")
    assert actions(ready) == []
    assert "Closing web-1. Ben Ito revoked it: INC-1 is over." in ended.plain

    lab.world.account.on_remove = lambda request, grant: Done(details={"verified": "yes"})
    lab.world.reconcile()
    lab.settle()
    *_, ended = lab.directs("U0ANA")
    assert f"Closed: {request.user_name} removed from web-1, verified at 03:00 UTC." in ended.plain
    (card,) = lab.cards()
    assert "Ben Ito approved" in card.plain
    assert "Closed:" in card.plain
    assert actions(card) == []


def test_denial_is_a_message_of_its_own_with_the_reason(lab: Lab) -> None:
    request = lab.world.submit()
    lab.settle()
    lab.world.reviewing.review(BEN_SAYS, request.id, Verdict.DENY, reason="Use the replica <!channel>")
    lab.settle()
    asked, denied = lab.directs("U0ANA")
    assert actions(asked) == []
    assert denied.notification == "Not approved: Ben Ito said no at 03:00 UTC."
    assert "> Use the replica <!channel>" in denied.plain
    assert "Denied by Ben Ito at 03:00 UTC." in lab.cards()[0].plain
    assert all(message.pings == () for message in [*lab.cards(), asked, denied, *lab.slack.messages(AUDIT)])


def test_a_burst_folds_into_what_is_true_now(lab: Lab) -> None:
    request = lab.world.submit()
    lab.world.approve(request)
    lab.world.reconcile()
    lab.settle()
    assert len(lab.cards()) == 1
    assert [message.notification for message in lab.directs("U0ANA")] == [
        "web-1 is open until 04:00 UTC. On your laptop: ssh web-1.passport"
    ]
    assert lab.calls("chat.update") == 0


def test_a_request_that_is_over_before_it_was_shown_rings_no_reviewer(lab: Lab) -> None:
    request = lab.world.submit()
    lab.world.submitting.cancel(Caller(slack_user=ANA), request.id)
    lab.settle()
    assert lab.cards() == []
    assert lab.directs("U0ANA") == []
    assert lab.is_shown(request)


def test_what_did_not_change_is_not_sent_again(lab: Lab) -> None:
    request = lab.world.submit("web-1", "db-2")
    lab.world.approve(request)
    lab.world.reconcile()
    lab.settle()
    updates = lab.calls("chat.update")
    with lab.store.unit_of_work() as uow:
        found = uow.requests.get(request.id, lock=True)
        uow.requests.save(replace(found, revision=found.revision + 1))
        uow.commit()
    lab.settle()
    assert lab.calls("chat.update") == updates
    assert lab.is_shown(request)


def test_removal_late_updates_the_last_message_until_it_is_done(lab: Lab) -> None:
    request = lab.world.submit()
    lab.world.approve(request)
    lab.world.reconcile()
    lab.world.account.on_remove = lambda request, grant: Failed(reason="web-1 does not answer.", retryable=True)
    lab.world.ending.complete(Caller(slack_user=ANA), request.id)
    lab.world.reconcile()
    lab.settle()
    *_, ended = lab.directs("U0ANA")
    assert "web-1 does not answer." in ended.plain
    assert f"So I cannot prove that {request.user_name} is gone from web-1." in ended.plain
    assert ":rotating_light: web-1 does not answer." in lab.slack.messages(AUDIT)[-1].plain

    lab.world.account.on_remove = lambda request, grant: Done(details={"verified": "yes"})
    lab.forward(timedelta(minutes=10))
    lab.world.reconcile()
    lab.settle()
    *_, ended = lab.directs("U0ANA")
    assert "verified at 03:10 UTC" in ended.plain


def test_user_groups_are_told_person_by_person_but_never_the_requester(
    sqlite_store: SqlStore, slack: SlackDouble
) -> None:
    slack.add_usergroup("S0LEADS", handle="payments-leads", members=["U0ANA", "U0BEN", "U0CYD"])
    lab = telling(sqlite_store, slack, "S0LEADS", "U0BEN")
    request = lab.world.submit()
    lab.settle()
    assert [len(lab.directs(user)) for user in ("U0BEN", "U0CYD")] == [1, 1]
    assert [message.notification.split()[0] for message in lab.directs("U0ANA")] == ["Asked"]

    slack.add_usergroup("S0LEADS", handle="payments-leads", members=["U0BEN"])
    lab.forward(timedelta(minutes=10))
    lab.world.reviewing.review(BEN_SAYS, request.id, Verdict.DENY, reason="no")
    lab.settle()
    assert "Denied by Ben Ito" in lab.directs("U0CYD")[0].plain  # who saw it sees how it ended


def test_user_groups_are_looked_up_once_for_many_requests(sqlite_store: SqlStore, slack: SlackDouble) -> None:
    slack.add_usergroup("S0LEADS", handle="payments-leads", members=["U0BEN"])
    lab = telling(sqlite_store, slack, "S0LEADS")
    for _ in range(5):
        lab.world.submit()
    lab.settle()
    assert len(lab.directs("U0BEN")) == 5
    assert lab.calls("usergroups.users.list") == 1
    assert lab.calls("conversations.open") == 2


def test_a_deleted_card_is_posted_anew_while_it_matters(lab: Lab) -> None:
    request = lab.world.submit()
    lab.settle()
    lab.slack.workspace.delete(lab.cards()[0])
    lab.world.approve(request)
    lab.settle()
    assert [actions(card) for card in lab.cards()] == [[ids.REQUEST_REVOKE]]

    lab.slack.workspace.delete(lab.cards()[0])
    lab.world.reconcile()
    lab.world.ending.complete(Caller(slack_user=ANA), request.id)
    lab.world.reconcile()
    lab.settle()
    assert lab.cards() == []
    assert lab.is_shown(request)


def test_a_change_while_slack_is_called_is_not_lost(lab: Lab) -> None:
    request = lab.world.submit()
    posted = lab.slack.workspace.post  # the decision comes after the feed's load and before its record

    def post_and_decide(*args: object, **kwargs: object) -> Message:
        lab.slack.workspace.post = posted  # type: ignore[method-assign]
        lab.world.reviewing.review(BEN_SAYS, request.id, Verdict.DENY, reason="no")
        return posted(*args, **kwargs)  # type: ignore[arg-type]

    lab.slack.workspace.post = post_and_decide  # type: ignore[method-assign]
    lab.settle()
    assert lab.world.standing(request.id).request.state is RequestState.DENIED
    assert "Denied by Ben Ito" in lab.cards()[0].plain
    assert actions(lab.cards()[0]) == []


def test_outbox_reaches_people_as_plain_text(lab: Lab) -> None:
    lab.message("U0ANA", "The key SHA256:ab <!channel> was added. /passport key remove <fingerprint>")
    lab.settle()
    (told,) = lab.directs("U0ANA")
    assert told.plain == "The key SHA256:ab <!channel> was added. /passport key remove <fingerprint>"
    assert told.pings == ()
    lab.settle()
    assert len(lab.directs("U0ANA")) == 1


def test_nothing_to_do_writes_nothing(lab: Lab) -> None:
    lab.world.submit()
    lab.settle()
    commits: list[None] = []
    assert isinstance(lab.store, SqlStore)
    lab.store.on_commit(lambda _: commits.append(None))
    calls = len(lab.slack.calls)
    assert lab.feed.run_once() is None
    assert commits == []
    assert len(lab.slack.calls) == calls


def test_channels_are_used_as_they_are(lab: Lab) -> None:
    lab.world.submit()
    lab.settle()
    channels = [call.arguments["channel"] for call in lab.slack.calls if call.method == "chat.postMessage"]
    assert channels.count(LEADS) == 1
    assert "U0ANA" not in channels
