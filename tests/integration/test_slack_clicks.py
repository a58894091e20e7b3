"""Buttons and forms over real signed deliveries: review, the request form, credentials, Home."""

import base64
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from access.audit import Kind
from access.model import EndCause, GrantState, RequestState, Submission, Verdict
from access.ports import Post
from access.service.filing import Submitted
from access.service.submitting import Submitting
from access.steps import Done, Failed
from handlers import ids
from handlers.after_ack import BUSY, LOST, AfterAck
from sandbox.slack import View
from storage.unit_of_work import SqlStore
from tests.integration.slack_stage import ANA_CALLS, CARD, MAX, TOWN, Stage, stage
from tests.stores import run_together
from tests.values import ANA, BEN, a_person, a_policy, a_rule, a_server
from tests.world import World, done

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb2C3xXhZ4gq8gT0iC1oUqC8H2m8hY2l6yQe0k8t1yP ana@laptop"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb2C3xXhZ4gq8gT0iC1oUqC8H2m8hY2l6yQe0k8t1yP"


@pytest.fixture
def on(sqlite_store: SqlStore) -> Iterator[Stage]:
    with stage(sqlite_store, own_aws_credentials=True) as found:
        yield found


def front(on: Stage, who: str) -> View:
    view = on.slack.person(who).view()
    assert view is not None
    return view


class TestReview:
    def test_approve_counts_and_says_so_to_the_reviewer_alone(self, on: Stage) -> None:
        request = on.world.submit(minutes=120)
        card = on.card(request.id)
        assert on.press(card, ids.REVIEW_APPROVE).ok
        assert on.told(BEN.user_id) == [f"Approved {request.id}: Ana Ruiz, 2 h."]
        assert on.world.standing(request.id).request.state is RequestState.APPROVED
        assert on.slack.person(ANA.user_id).ephemerals() == []
        assert on.slack.messages(CARD) == [card], "the card is the feed's to change"

    def test_approve_shorter_takes_the_minutes_of_its_button(self, on: Stage) -> None:
        request = on.world.submit(minutes=120)
        on.press(on.card(f"{request.id} 30", ids.REVIEW_APPROVE_SHORTER), ids.REVIEW_APPROVE_SHORTER)
        assert "Ana Ruiz, 30 min." in on.told(BEN.user_id)[0]
        assert on.world.standing(request.id).request.duration == timedelta(minutes=30)

    def test_one_of_two_says_how_many_are_missing(self, sqlite_store: SqlStore) -> None:
        with stage(sqlite_store) as on:
            on.world.desk = replace(on.world.desk, policy=a_policy(rules=(a_rule(quorum=2),)))
            request = _submit(on.world)
            on.press(on.card(request), ids.REVIEW_APPROVE)
            assert on.told(BEN.user_id) == [f"Your approval of {request} counts. It needs 1 more."]

    def test_nobody_decides_on_their_own(self, on: Stage) -> None:
        request = on.world.submit()
        for action_id in (ids.REVIEW_APPROVE, ids.REVIEW_DENY):
            on.press(on.card(request.id, action_id), action_id, ANA.user_id)
        said = on.told(ANA.user_id, 2)
        assert all(words.startswith("Not counted: you cannot review your own request.") for words in said)
        assert on.slack.person(ANA.user_id).view() is None
        assert Kind.REFUSED in on.world.kinds(request.id)

    def test_an_unlinked_reviewer_is_sent_to_sign_in(self, on: Stage) -> None:
        request = on.world.submit()
        on.press(on.card(request.id), ids.REVIEW_APPROVE, MAX.user_id)
        assert "[Sign in]" in on.told(MAX.user_id)[0]
        assert on.world.standing(request.id).reviews == []

    def test_two_clicks_at_once_are_one_decision(self, on: Stage) -> None:
        cleo = replace(MAX, user_id="U0CLEO")
        on.slack.add_member("U0CLEO", name="cleo")
        on.slack.join(CARD, "U0CLEO")
        on.world.add_person(a_person("Cleo Park", groups=frozenset({"payments-leads"})), cleo)
        request = on.world.submit()
        card = on.card(request.id)
        acts: list[Callable[[], object]] = [
            lambda who=who: on.press(card, ids.REVIEW_APPROVE, who)  # type: ignore[misc]
            for who in (BEN.user_id, "U0CLEO", BEN.user_id, "U0CLEO")
        ]
        run_together(*acts)
        said = on.told(BEN.user_id, 2) + on.told("U0CLEO", 2)
        assert sum(words.startswith("Approved") for words in said) == 1
        assert sum("before your click. Nothing changed." in words for words in said) == 3
        assert len(on.world.standing(request.id).reviews) == 1

    def test_the_same_delivery_twice_counts_once_and_is_quiet(self, on: Stage) -> None:
        request = on.world.submit()
        sent = on.press(on.card(request.id), ids.REVIEW_APPROVE)
        on.told(BEN.user_id)
        again = on.slack.resend(sent)
        assert (again.status, again.answer) == (200, b"")
        on.press(on.card(request.id), ids.REVIEW_APPROVE)
        assert len(on.told(BEN.user_id, 2)) == 2, "the replay said nothing, a new click did"

    def test_a_card_that_a_dying_process_sent_a_second_time_gives_way_to_the_one_that_counts(self, on: Stage) -> None:
        request = on.world.submit()
        left_behind, deny, counts = (
            on.card(request.id, what) for what in (ids.REVIEW_APPROVE, ids.REVIEW_DENY, ids.REVIEW_APPROVE)
        )
        noted = Post(
            request_id=request.id, audience="reviewers", recipient=CARD, stage="asked", channel=CARD, ts=counts.ts
        )
        with on.world.store.unit_of_work() as uow:
            uow.posts.save(noted)
            uow.commit()
        for card, action in ((left_behind, ids.REVIEW_APPROVE), (deny, ids.REVIEW_DENY)):
            assert on.press(card, action).ok
            on.slack.wait_until(
                lambda card=card: "I sent this card twice" in on.slack.workspace.message(CARD, card.ts).plain
            )
            assert "[" not in on.slack.workspace.message(CARD, card.ts).plain, "its buttons are gone"
        assert on.world.standing(request.id).request.state is RequestState.PENDING
        on.press(counts, ids.REVIEW_APPROVE)
        assert on.told(BEN.user_id) == [f"Approved {request.id}: Ana Ruiz, 1 h."]

    def test_a_card_clicked_before_its_place_is_noted_counts(self, on: Stage) -> None:
        request = on.world.submit()
        elsewhere = Post(
            request_id=request.id, audience="reviewers", recipient="U0MAX", stage="asked", channel="D0MAX", ts="1.0"
        )
        with on.world.store.unit_of_work() as uow:
            uow.posts.save(elsewhere)
            uow.commit()
        on.press(on.card(request.id), ids.REVIEW_APPROVE)
        assert on.told(BEN.user_id) == [f"Approved {request.id}: Ana Ruiz, 1 h."]

    def test_a_lapsed_request_says_so(self, on: Stage) -> None:
        request = on.world.submit()
        on.world.clock.forward(minutes=31)
        on.press(on.card(request.id), ids.REVIEW_APPROVE)
        assert "lapsed" in on.told(BEN.user_id)[0]

    def test_deny_asks_for_a_reason_inline(self, on: Stage) -> None:
        request = on.world.submit()
        assert on.press(on.card(request.id, ids.REVIEW_DENY), ids.REVIEW_DENY).ok
        view = front(on, BEN.user_id)
        assert (view.callback_id, view.private_metadata) == (ids.REVIEW_DENY_MODAL, request.id)
        assert on.methods() == ["users.info", "views.open"]
        ben = on.slack.person(BEN.user_id)
        refused = ben.submit(values={ids.REASON: "a\u202eb"})
        assert "invisible control characters" in refused.errors[ids.REASON]
        assert ben.submit(values={ids.REASON: "use the replica"}).ok
        assert ben.view() is None
        [review] = on.world.standing(request.id).reviews
        assert (review.verdict, review.reason) == (Verdict.DENY, "use the replica")

    def test_deny_after_somebody_else_was_first_says_who(self, on: Stage) -> None:
        request = on.world.submit()
        on.press(on.card(request.id, ids.REVIEW_DENY), ids.REVIEW_DENY)
        on.world.add_person(a_person("Cleo Park", groups=frozenset({"payments-leads"})), replace(MAX, user_id="U0CLEO"))
        on.world.approve(request, replace(MAX, user_id="U0CLEO"))
        ben = on.slack.person(BEN.user_id)
        assert ben.submit(values={ids.REASON: "no"}).ok
        view = front(on, BEN.user_id)
        assert "Cleo Park approved this" in view.blocks[0]["text"]["text"]
        assert "submit" not in view.definition

    def test_a_form_that_slack_does_not_open_is_said(self, on: Stage) -> None:
        request = on.world.submit()
        on.say("help", BEN.user_id)
        on.slack.faults.fail("views.open", "internal_error", times=None)
        on.press(on.card(request.id, ids.REVIEW_DENY), ids.REVIEW_DENY)
        assert "Slack is slow to open the form. If no form opens, try again" in on.told(BEN.user_id, 2)[1]
        assert on.methods().count("views.open") == 1, "an inline call is not retried"

    def test_a_form_that_slack_opens_late_is_there_and_nothing_else_is_said(self, on: Stage) -> None:
        on.say("help")
        on.slack.faults.slow(2.2, "views.open")
        sent = on.say("request web-1")
        on.slack.wait_until(lambda: on.slack.person(ANA.user_id).view())
        assert sent.error is None
        assert sent.plain.startswith(
            "Slack is slow to open the form. If no form opens, try again; nothing has changed yet. "
        )

    def test_smuggled_mentions_in_a_form_reach_nobody(self, on: Stage) -> None:
        on.say("request web-1 because <!channel> @ben <http://x.example|click>")
        request = on.world.submitting.own(ANA_CALLS)[0].request
        on.press(on.card(request.id, ids.REVIEW_DENY), ids.REVIEW_DENY)
        text = front(on, BEN.user_id).blocks[0]["text"]
        assert text["verbatim"] is True
        assert "<" not in text["text"].replace("&lt;", "")


class TestRequestForm:
    def test_opens_with_what_was_understood(self, on: Stage) -> None:
        sent = on.say("request web-1 nosuch for 90m from 203.0.113.7")
        assert sent.ok
        assert sent.answer == b""
        assert on.methods() == ["users.info", "views.open"]
        blocks = {block["block_id"]: block for block in front(on, ANA.user_id).blocks}
        web = on.world.inventory.servers[0]
        [chosen] = blocks[ids.REQUEST_SERVERS]["element"]["initial_options"]
        assert chosen["value"] == web.instance_id
        assert chosen["text"]["text"] == "web-1 · prod-payments · eu-west-1"
        assert blocks[ids.REQUEST_DURATION]["element"]["initial_option"]["text"]["text"] == "1 h 30 min"
        assert blocks[ids.REQUEST_SOURCE_IP]["element"]["initial_value"] == "203.0.113.7"
        assert any("I know no server nosuch." in str(block) for block in blocks.values())

    def test_opens_before_the_servers_are_listed_and_says_so(self, on: Stage) -> None:
        on.world.inventory.is_listed = False
        for who in (ANA, MAX):
            assert on.say("request web-9", who.user_id).answer == b""
            said = str(front(on, who.user_id).blocks)
            assert "I know no server web-9 so far. The servers have not been listed yet." in said
            assert on.slack.person(who.user_id).suggest(front(on, who.user_id), ids.REQUEST_SERVERS, "web-9") == []

    def test_submits_what_is_chosen(self, on: Stage) -> None:
        on.say("request web-1")
        ana = on.slack.person(ANA.user_id)
        values = {
            ids.REQUEST_REASON: "INC-9\nline two",
            ids.REQUEST_DURATION: "1800",
            ids.REQUEST_SOURCE_IP: "::ffff:1.2.3.4",
        }
        assert ana.submit(values=values).ok
        assert ana.view() is None
        request = on.world.submitting.own(ANA_CALLS)[0].request
        assert [server.name for server in request.servers] == ["web-1"]
        assert (request.reason, request.duration) == ("INC-9\nline two", timedelta(minutes=30))
        assert request.source_ip == "1.2.3.4"

    def test_offers_servers_as_one_types(self, on: Stage) -> None:
        on.world.inventory.servers = [a_server(f"web-{number}-{'x' * 80}") for number in range(150)]
        on.say("request")
        options = on.slack.person(ANA.user_id).suggest(front(on, ANA.user_id), ids.REQUEST_SERVERS, "web")
        assert len(options) == 100
        assert all(len(option["text"]["text"]) <= 75 for option in options)
        assert all("eu-west-1" in option["text"]["text"] for option in options)

    def test_keeps_what_was_typed_and_points_at_what_is_wrong(self, on: Stage) -> None:
        on.say("request web-1")
        ana = on.slack.person(ANA.user_id)
        wrong = {
            ids.REQUEST_SOURCE_IP: ({ids.REQUEST_SOURCE_IP: "10.0.0.0/8", ids.REQUEST_REASON: "x"}, "not one IP"),
            ids.REQUEST_REASON: ({ids.REQUEST_SOURCE_IP: "", ids.REQUEST_REASON: "a\u202eb"}, "invisible"),
            ids.REQUEST_SERVERS: ({ids.REQUEST_DURATION: "28800", ids.REQUEST_REASON: "x"}, "at most 4 h"),
        }
        for block_id, (values, says) in wrong.items():
            sent = ana.submit(values=values)
            assert says in sent.errors[block_id], sent
        assert on.world.submitting.own(ANA_CALLS) == []

    def test_a_replay_of_the_form_files_nothing_more(self, on: Stage) -> None:
        on.say("request web-1")
        sent = on.slack.person(ANA.user_id).submit(values={ids.REQUEST_REASON: "x"})
        assert on.slack.resend(sent).status == 200
        assert len(on.world.submitting.own(ANA_CALLS)) == 1

    def test_somebody_unknown_gets_a_sign_in_in_its_place(self, on: Stage) -> None:
        on.say("request web-1", MAX.user_id)
        assert on.slack.person(MAX.user_id).submit(values={ids.REQUEST_REASON: "x"}).ok
        blocks = front(on, MAX.user_id).blocks
        assert blocks[1]["elements"][0]["url"].startswith("https://passport.example.com/link/")

    def test_when_the_time_is_gone_slack_is_not_asked_for_it(self, on: Stage) -> None:
        on.slack.faults.slow(0.9, "users.info", times=1)
        sent = on.say("request web-1")
        assert sent.ok
        assert "Or say it in one line: /passport request web-1" in sent.plain
        assert on.methods() == ["users.info"]

    def test_when_slack_does_not_open_it_the_one_line_is_shown(self, on: Stage) -> None:
        on.say("help")
        on.slack.faults.fail("views.open", "internal_error", times=None)
        assert "Or say it in one line: /passport request web-1" in on.say("request").plain


class TestEnding:
    def test_i_am_done_and_revoke(self, on: Stage) -> None:
        done, revoked = on.world.submit("web-1"), on.world.submit("db-2")
        for request in (done, revoked):
            on.world.approve(request)
        on.slack.person(ANA.user_id).click(on.direct(ids.REQUEST_COMPLETE, done.id), ids.REQUEST_COMPLETE)
        assert f"{done.id} ends now." in on.told(ANA.user_id)[0]
        on.press(on.card(revoked.id, ids.REQUEST_REVOKE), ids.REQUEST_REVOKE)
        assert on.slack.person(BEN.user_id).submit(values={ids.REASON: "wrong server"}).ok
        assert on.world.standing(revoked.id).request.cause is EndCause.REVOKED
        on.press(on.card(done.id, ids.REQUEST_COMPLETE), ids.REQUEST_COMPLETE)
        assert "is Ana Ruiz's" in on.told(BEN.user_id)[0]


class TestCredentials:
    def ready(self, on: Stage) -> str:
        assert "is registered" in on.say(f"key add {KEY}").plain
        on.slack.reload(ANA.user_id)
        request = on.world.submit("web-1", "db-2")
        on.world.approve(request)
        on.world.reconcile()
        with on.world.store.unit_of_work() as uow:
            for grant in uow.grants.of(request.id):
                uow.grants.save(replace(grant, details={"host_keys": HOST_KEY, "port": "22"}))
            uow.commit()
        return request.id

    def show(self, on: Stage, request_id: str, who: str = ANA.user_id) -> None:
        message = on.direct(ids.CREDENTIALS_SHOW, request_id, who)
        assert on.slack.person(who).click(message, ids.CREDENTIALS_SHOW).ok

    def test_are_seen_by_the_requester_alone_and_gone_on_reload(self, on: Stage) -> None:
        request_id = self.ready(on)
        self.show(on, request_id)
        [seen] = on.told(ANA.user_id)
        assert f"pp-{request_id.removeprefix('AR-').lower()}" in seen
        assert "ssh-ed25519-cert-v01@openssh.com" in seen
        assert "AWS-StartSSHSession" in seen
        assert seen.count("ssh -i") == 2
        direct = on.slack.person(ANA.user_id).direct_messages()
        assert "cert-v01" not in str([message.blocks for message in direct])
        assert on.slack.person(BEN.user_id).ephemerals() == []
        on.slack.reload(ANA.user_id)
        assert on.slack.person(ANA.user_id).ephemerals() == []
        self.show(on, request_id)
        assert "cert-v01" in on.told(ANA.user_id)[0]
        assert on.world.kinds(request_id).count(Kind.CREDENTIALS_SHOWN) == 2

    def test_never_ride_on_the_ack(self, on: Stage) -> None:
        request_id = self.ready(on)
        sent = on.slack.person(ANA.user_id).click(on.direct(ids.CREDENTIALS_SHOW, request_id), ids.CREDENTIALS_SHOW)
        assert sent.answer == b""
        on.told(ANA.user_id)
        assert on.slack.resend(sent).answer == b""
        assert on.world.kinds(request_id).count(Kind.CREDENTIALS_SHOWN) == 1

    def test_are_refused_to_others_and_in_channels(self, on: Stage) -> None:
        request_id = self.ready(on)
        self.show(on, request_id, BEN.user_id)
        assert "its credentials are theirs alone" in on.told(BEN.user_id)[0]
        message = on.post(TOWN, ids.CREDENTIALS_SHOW, request_id)
        on.slack.person(ANA.user_id).click(message, ids.CREDENTIALS_SHOW)
        assert on.told(ANA.user_id) == ["I show credentials in our direct messages only."]

    def test_need_a_key_and_an_active_request(self, on: Stage) -> None:
        request = on.world.submit()
        self.show(on, request.id)
        assert "is not active" in on.told(ANA.user_id)[0]
        on.world.approve(request)
        on.world.reconcile()
        self.show(on, request.id)
        assert "Register your public key first" in on.told(ANA.user_id, 2)[1]

    def test_of_500_servers_as_many_are_shown_whole_as_slack_takes(self, on: Stage) -> None:
        on.say(f"key add {KEY}")
        on.slack.reload(ANA.user_id)
        request = on.world.submit()
        on.world.approve(request)
        on.world.reconcile()
        rsa = "ssh-rsa " + base64.b64encode(b"\0\0\0\7ssh-rsa" + b"\0\0\2\0" + bytes(512)).decode()
        details = {"host_keys": f"{HOST_KEY}\n{rsa}", "port": "22"}
        fleet = [a_server(f"app-{number}", instance_id=f"i-{number:017x}") for number in range(499)]
        with on.world.store.unit_of_work() as uow:
            [first] = uow.grants.of(request.id)
            uow.grants.save(replace(first, details=details))
            for number, server in enumerate(fleet, start=2):
                uow.grants.add(replace(first, id=f"{request.id}.{number}", server=server, details=details))
            uow.commit()
        self.show(on, request.id)
        on.told(ANA.user_id)
        [message] = on.slack.person(ANA.user_id).ephemerals()
        assert len(message.blocks) <= 50
        [[many]] = (re.findall(r"These are (\d+) of 500 servers", message.plain),)
        known = message.plain.count(f"passport-i-{'0' * 13}")
        assert int(many) >= 20
        assert message.plain.count("ProxyCommand=") == int(many)
        assert known == 3 * int(many)  # two host keys and one alias each: what is pasted is whole
        assert ">| known_hosts)" in message.plain

    def test_a_name_from_a_tag_never_stands_in_what_is_pasted(self, on: Stage) -> None:
        evil = "web-1\n```\nrm -rf ~ <!channel>"
        on.world.inventory.servers[0] = replace(on.world.inventory.servers[0], name=evil)
        on.world.inventory.servers[1] = replace(on.world.inventory.servers[1], name="db-2")
        on.say(f"key add {KEY}")
        on.slack.reload(ANA.user_id)
        request = on.world.submit(on.world.inventory.servers[0].instance_id)
        on.world.approve(request)
        on.world.reconcile()
        with on.world.store.unit_of_work() as uow:
            [grant] = uow.grants.of(request.id)
            uow.grants.save(replace(grant, details={"host_keys": HOST_KEY, "port": "22"}))
            uow.commit()
        self.show(on, request.id)
        on.told(ANA.user_id)
        [message] = on.slack.person(ANA.user_id).ephemerals()
        assert message.pings == ()
        texts = [block["text"]["text"] for block in message.blocks if block["type"] == "section"]
        fenced = [inside for text in texts for inside in re.findall(r"```(.*?)```", text, re.DOTALL)]
        assert fenced
        assert not any("rm -rf" in inside for inside in fenced)


class TestBusy:
    def test_nothing_is_done_and_the_person_is_told(self, sqlite_store: SqlStore) -> None:
        with stage(sqlite_store, room=1) as on:
            request = on.world.submit()
            on.say("help", BEN.user_id)
            place = on.surface.after_ack.reserve()
            assert on.press(on.card(request.id), ids.REVIEW_APPROVE).ok
            assert BUSY in str(front(on, BEN.user_id).blocks)
            assert on.world.standing(request.id).reviews == []
            card = on.card(request.id)
            on.slack.faults.http_error("views.open", status=503, times=1)
            assert on.press(card, ids.REVIEW_APPROVE).status == 503
            assert on.world.standing(request.id).reviews == []
            with place:
                pass
            on.press(on.card(request.id), ids.REVIEW_APPROVE)
            assert any(words.startswith("Approved") for words in on.told(BEN.user_id, 2))

    @pytest.mark.parametrize(("error", "with_trace"), [(OSError("no way"), False), (LookupError("a mistake"), True)])
    def test_a_place_comes_back_even_when_its_answer_fails(
        self, caplog: pytest.LogCaptureFixture, error: Exception, with_trace: bool
    ) -> None:
        pool, tried = AfterAck(workers=1, room=1), threading.Event()

        def fail() -> None:
            tried.set()
            raise error

        with pool.reserve() as place:
            place.run(fail)
        assert tried.wait(10)
        pool.close()
        with pool.reserve():
            pass
        [record] = caplog.records
        assert record.message.startswith(LOST)
        assert bool(record.exc_info) is with_trace


class TestSlackDoesNotAnswer:
    def test_an_answer_after_the_ack_is_posted_again(self, on: Stage) -> None:
        request = on.world.submit()
        card = on.card(request.id)
        on.slack.faults.http_error("response_url", status=503, times=1)
        on.press(card, ids.REVIEW_APPROVE)
        assert on.told(BEN.user_id) == [f"Approved {request.id}: Ana Ruiz, 1 h."]
        on.slack.faults.rate_limit("response_url", retry_after=1, times=1)
        on.press(card, ids.REVIEW_APPROVE)
        assert len(on.told(BEN.user_id, 2)) == 2

    def test_also_where_the_connection_was_cut_more_than_once(self, on: Stage) -> None:
        request = on.world.submit()
        on.slack.faults.drop_answer("response_url", times=2)  # Slack has taken both
        on.press(on.card(request.id), ids.REVIEW_APPROVE)
        assert on.told(BEN.user_id, 3) == [f"Approved {request.id}: Ana Ruiz, 1 h."] * 3


class TestHome:
    def test_shows_ones_own_requests_and_how_to_start(self, on: Stage) -> None:
        request = on.world.submit()
        assert on.slack.person(ANA.user_id).open_home().ok
        on.slack.wait_until(lambda: on.slack.person(ANA.user_id).home())
        home = on.slack.person(ANA.user_id).home()
        assert home is not None
        assert request.id in str(home.blocks)
        on.slack.person(ANA.user_id).click(home, ids.REQUEST_CANCEL)
        assert on.world.standing(request.id).request.state is RequestState.CANCELLED
        assert f"{request.id} is cancelled." in str(front(on, ANA.user_id).blocks)

    @pytest.mark.parametrize(("who", "says"), [("U0MAX", "/passport link"), ("U0GUEST", "Guests cannot use Passport.")])
    def test_tells_others_how_to_start_or_that_they_cannot(self, on: Stage, who: str, says: str) -> None:
        on.slack.person(who).open_home()
        on.slack.wait_until(lambda: on.slack.person(who).home())
        assert says in str(on.slack.person(who).home().blocks)  # type: ignore[union-attr]

    def test_the_messages_tab_publishes_nothing(self, on: Stage) -> None:
        assert on.slack.person(ANA.user_id).open_home("messages").ok
        assert on.methods() == []


def _submit(world: World) -> str:
    filed = Submitting(world.desk).submit(ANA_CALLS, Submission(servers=("web-1",), reason="x"))
    assert isinstance(filed, Submitted)
    return filed.request.id


class TestRetry:
    def half_open(self, on: Stage) -> str:
        on.world.account.on_provision = lambda _, grant: (
            Failed(reason="db-2: The server has no sshd.", retryable=False) if grant.server.name == "db-2" else Done()
        )
        request = on.world.submit("web-1", "db-2")
        on.world.approve(request)
        on.world.reconcile()
        on.world.account.on_provision = done
        return request.id

    def press(self, on: Stage, request_id: str, who: str = ANA.user_id) -> None:
        on.slack.person(who).click(on.direct(ids.REQUEST_RETRY, request_id, who), ids.REQUEST_RETRY)

    def test_opens_the_missing_server_and_a_second_click_changes_nothing(self, on: Stage) -> None:
        request_id = self.half_open(on)
        self.press(on, request_id)
        self.press(on, request_id)
        assert on.told(ANA.user_id, 2) == [
            "I try db-2 again, and tell you how it goes.",
            f"No server of {request_id} waits for a retry. Nothing changed.",
        ]
        on.world.reconcile()
        grants = on.world.standing(request_id).grants
        assert [grant.state for grant in grants] == [GrantState.ACTIVE, GrantState.REMOVED, GrantState.ACTIVE]

    def test_is_the_requesters_alone(self, on: Stage) -> None:
        request_id = self.half_open(on)
        self.press(on, request_id, BEN.user_id)
        assert on.told(BEN.user_id) == [f"Only Ana Ruiz can try the servers of {request_id} again."]
        assert len(on.world.standing(request_id).grants) == 2
