"""``/passport`` over real signed deliveries: each command, what it answers, and to whom."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from access.audit import Kind
from access.model import EndCause, RequestState
from handlers import ids
from storage.unit_of_work import SqlStore
from tests.integration.slack_stage import ANA_CALLS, MAX, TOWN, Stage, shown, stage
from tests.values import ANA, BEN, a_person

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb2C3xXhZ4gq8gT0iC1oUqC8H2m8hY2l6yQe0k8t1yP ana@laptop"
ONE_LINE = "request web-1 db-2 for 2h because INC-123: disk full"


@pytest.fixture
def on(sqlite_store: SqlStore) -> Iterator[Stage]:
    with stage(sqlite_store) as found:
        yield found


def button_of(on: Stage, who: str, action_id: str) -> dict[str, object]:
    elements = [
        element
        for message in on.slack.person(who).ephemerals()
        for block in message.blocks
        for element in block.get("elements", [])
        if element.get("action_id") == action_id
    ]
    return dict(elements[-1])


class TestRequest:
    def test_one_line_is_filed_and_answered_in_the_ack(self, on: Stage) -> None:
        sent = on.say(ONE_LINE)
        assert sent.ok
        request = on.world.submitting.own(ANA_CALLS)[0].request
        assert sent.plain.splitlines()[0].startswith(
            f"Asked payments-leads for root on web-1, db-2 (prod), 2 h ({request.id}), by rule prod-root. I tell you when one decides."
        )
        assert "Lapses 03:30" in sent.plain
        assert "[Cancel]" in sent.plain
        assert (request.reason, request.duration) == ("INC-123: disk full", timedelta(hours=2))
        assert on.methods() == ["users.info"]

    def test_the_answer_is_seen_by_the_one_who_asked_alone(self, on: Stage) -> None:
        on.say(ONE_LINE)
        assert len(on.slack.person(ANA.user_id).ephemerals()) == 1
        assert on.slack.person(BEN.user_id).ephemerals() == []
        assert on.slack.messages(TOWN) == []

    def test_an_ack_needs_no_call_once_the_person_is_known(self, on: Stage) -> None:
        on.say("help")
        before = len(on.slack.calls)
        on.say(ONE_LINE)
        assert len(on.slack.calls) == before

    def test_building_the_app_calls_nobody(self, on: Stage) -> None:
        assert on.slack.calls == []

    def test_cancel_by_button_and_by_command(self, on: Stage) -> None:
        first = on.say(ONE_LINE)
        on.slack.person(ANA.user_id).click(shown(first), ids.REQUEST_CANCEL)
        assert any("is cancelled" in said for said in on.told(ANA.user_id, 2))
        on.say("request web-1 because again")
        second = on.world.submitting.own(ANA_CALLS)[0].request
        assert "is cancelled" in on.say(f"cancel {second.id.lower()}").plain
        assert on.world.standing(second.id).request.state is RequestState.CANCELLED

    def test_nobody_known_is_parked_with_a_way_to_sign_in(self, on: Stage) -> None:
        sent = on.say(ONE_LINE, who="U0MAX")
        assert sent.plain.startswith("I do not know who you are yet. I keep this request and send it")
        url = str(button_of(on, "U0MAX", ids.LINK_OPEN)["url"])
        assert url.startswith("https://passport.example.com/link/")
        ticket = on.surface.linking.look(url.rsplit("/", 1)[1])
        assert ticket.slack_user.user_id == "U0MAX"
        assert Kind.REQUEST_PARKED in on.world.kinds()

    def test_a_link_that_has_run_out_says_from_when_it_was(self, on: Stage) -> None:
        on.world.clock.forward(days=10)
        sent = on.say(ONE_LINE)
        assert sent.plain.startswith("Your sign-in from 03:00 UTC has run out. I keep this request and send it when")

    def test_a_link_that_would_die_first_says_so(self, on: Stage) -> None:
        on.world.clock.forward(days=8, hours=23)
        assert "ends before this access would" in on.say(ONE_LINE).plain

    def test_a_sign_in_link_can_be_pressed(self, on: Stage) -> None:
        sent = on.say("link", who="U0MAX")
        assert on.slack.person("U0MAX").click(shown(sent), ids.LINK_OPEN).ok

    def test_a_replay_is_answered_as_before_and_files_nothing(self, on: Stage) -> None:
        sent = on.say(ONE_LINE)
        again = on.slack.resend(sent)
        assert again.json()["blocks"] == sent.json()["blocks"]
        assert len(on.world.submitting.own(ANA_CALLS)) == 1

    def test_a_replay_of_a_parked_request_gives_no_second_link(self, on: Stage) -> None:
        again = on.slack.resend(on.say(ONE_LINE, who="U0MAX"))
        assert b"/link/" not in again.answer
        assert b"done this already" in again.answer


class TestBadInput:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("request nosuch because x", "I know no server nosuch."),
            ("request web-1 because    ", None),
            ("request web-1 for 0h because x", "“0h” (word 4) is not a length of time."),
            ("request web-1 for -2h because x", "“-2h” (word 4) is not a length of time."),
            ("request web-1 for 9h because x", "Rule prod-root allows at most 4 h; you asked for 9 h."),
            ("request web-1 for 1m because x", "Ask for at least 5 min."),
            ("request web-1 from 1.2.3 because x", "“1.2.3” is not one IP address."),
            ("request web-1 from 10.0.0.0/8 because x", "is not one IP address"),
            ("request web-1 from 127.0.0.1 because x", "nobody comes from there"),
            ("request web-1;reboot because x", "I know no server web-1;reboot."),
            ("request $(reboot) because x", "I know no server $(reboot)."),
            ("request {{x}} because x", "which no server name may hold"),
            ("request web\u202e1 because x", "holds invisible characters"),
            ("request web\x071 because x", "holds invisible characters"),
            ("request 💥 because x", "holds an emoji"),
            (f"request {'x' * 3000} because x", "has 3000 characters"),
            (f"request web-1 because {'x' * 3000}", "The reason has 3000 characters; I keep 1000."),
            ("request web-1 because a\u202eb", "invisible control characters"),
            ("request web-1 fro 2h because x", "I do not understand “fro” (word 3)."),
            ("request “web-1 because x", "The quote that word 2 opens is never closed."),
            ("request web-1 via bastian because x", "I know no route “bastian” (word 4)."),
            ("reqest web-1", "Did you mean /passport request?"),
            ("status nonsense!", "is no request id"),
            ("status AR-ZZZZ", "AR-ZZZZ"),
            ("key add ssh-dss AAAA", "ssh-dss"),
            ("key add", "There is no key."),
            ("key", "Say /passport key add"),
            ("exception nobody a@b.example because x", "Say whom, as a mention"),
        ],
    )
    def test_is_a_clear_sentence_and_changes_nothing(self, on: Stage, text: str, says: str | None) -> None:
        sent = on.say(text)
        assert sent.ok, sent.error
        assert sent.status == 200
        if says is None:
            assert on.slack.person(ANA.user_id).view() is not None
        else:
            assert says in sent.plain
        assert on.world.submitting.own(ANA_CALLS) == []
        assert b"Traceback" not in sent.answer

    def test_an_ambiguous_name_lists_what_it_may_mean(self, on: Stage) -> None:
        twin = on.world.inventory.servers[0]
        on.world.inventory.servers.append(replace(twin, instance_id="i-0ffffffffffffffff"))
        said = on.say("request web-1 because x").plain
        assert "2 servers are called web-1" in said
        assert "i-0ffffffffffffffff (prod-payments, eu-west-1)" in said

    def test_a_server_that_is_off_says_so(self, on: Stage) -> None:
        off = on.world.inventory.servers[0]
        on.world.inventory.servers[0] = replace(off, problem="web-1 is stopped. Start it first.")
        assert "web-1 is stopped. Start it first." in on.say("request web-1 because x").plain
        assert Kind.REQUEST_REFUSED in on.world.kinds()

    def test_a_mention_smuggled_into_a_reason_reaches_nobody(self, on: Stage) -> None:
        on.say("request web-1 because @here @ben <!channel> &lt;!here&gt; and *bold* `x`")
        request = on.world.submitting.own(ANA_CALLS)[0].request
        assert request.reason == "@here @ben <!channel> &lt;!here&gt; and *bold* `x`"
        listed = on.say("list")
        assert shown(listed).pings == ()
        assert "@here @ben <!channel> &lt;!here&gt;" in listed.plain.replace("\u200b", "")

    def test_a_mention_in_a_refused_name_reaches_nobody(self, on: Stage) -> None:
        sent = on.say("request @ben because x")
        assert shown(sent).pings == ()
        assert "I know no server @ben." in sent.plain

    def test_newlines_in_a_reason_are_kept(self, on: Stage) -> None:
        on.say("request web-1 because first\nsecond 💥 {{x}} $(reboot)")
        assert on.world.submitting.own(ANA_CALLS)[0].request.reason == "first\nsecond 💥 {{x}} $(reboot)"


class TestWhoSomebodyIs:
    def test_link_shows_a_one_time_link_to_its_person_alone(self, on: Stage) -> None:
        sent = on.say("link", who="U0MAX")
        assert "once, for 10 minutes" in sent.plain
        assert on.slack.person(ANA.user_id).ephemerals() == []
        assert b"/link/" not in on.slack.resend(sent).answer

    def test_whoami_and_unlink(self, on: Stage) -> None:
        assert on.say("whoami").plain.startswith("You are Ana Ruiz, ana@example.com, until")
        assert "I have forgotten who you are." in on.say("unlink").plain
        after = on.say("whoami")
        assert "Type /passport link to sign in." in after.plain
        assert "[Sign in]" in after.plain

    def test_a_replayed_question_by_somebody_unknown_makes_one_link(self, on: Stage) -> None:
        again = on.slack.resend(on.say("whoami", who="U0MAX"))
        assert again.ok
        assert again.answer == b""
        assert on.world.kinds().count(Kind.LINK_STARTED) == 1

    def test_only_an_admin_records_an_exception(self, on: Stage) -> None:
        text = "exception @max max.voss@corp.example because two domains"
        assert "Only admins" in on.say(text).plain
        on.world.add_person(a_person("Ana Ruiz", groups=frozenset({"passport-admins"})), ANA)
        assert "may link as max.voss@corp.example until 2" in on.say(text).plain
        assert on.world.kinds()[-1] is Kind.EXCEPTION_RECORDED

    def test_an_admin_takes_an_exception_back(self, on: Stage) -> None:
        text = "exception remove @max because he left"
        assert "Only admins" in on.say(text).plain
        on.world.add_person(a_person("Ana Ruiz", groups=frozenset({"passport-admins"})), ANA)
        assert "There is no exception for them." in on.say(text).plain
        on.say("exception @max max.voss@corp.example because two domains")
        assert "has no exception any more" in on.say(text).plain
        assert on.world.kinds()[-1] is Kind.EXCEPTION_REMOVED

    def test_somebody_unknown_cannot_fill_the_record_with_links(self, on: Stage) -> None:
        for _ in range(3):
            assert "[Sign in]" in on.say("link", who="U0MAX").plain
        for text, first in (
            ("link", "You have asked for 3"),
            ("whoami", "You are not signed in."),
            ("list", "You are"),
        ):
            answer = on.say(text, who="U0MAX").plain
            assert answer.startswith(first)
            assert "Use one that you have not opened yet, or ask again after 03:10:00 UTC." in answer
            assert "[Sign in]" not in answer
        parked = on.say(ONE_LINE, who="U0MAX").plain
        assert parked.startswith("I keep this request and send it when you are back. You have asked for 3")
        assert on.world.kinds() == [*[Kind.LINK_STARTED] * 3, Kind.REQUEST_PARKED]


class TestKeys:
    def test_add_list_remove(self, on: Stage) -> None:
        assert "You have no key yet." in on.say("key list").plain
        added = on.say(f"key add {KEY}").plain
        fingerprint = added.split()[2]
        assert fingerprint.startswith("SHA256:")
        assert fingerprint in on.say("key list").plain
        assert "is forgotten" in on.say(f"key remove {fingerprint}").plain
        assert "Name one of your keys" in on.say(f"key remove {fingerprint}").plain

    def test_a_private_key_is_refused_and_not_repeated(self, on: Stage) -> None:
        sent = on.say("key add -----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1rZXktc2VjcmV0")
        assert "That is your private key" in sent.plain
        assert b"b3BlbnNzaC1rZXktc2VjcmV0" not in sent.answer


class TestSeeingAndEnding:
    def test_list_and_status_and_done(self, on: Stage) -> None:
        assert "You have no open request." in on.say("list").plain
        request = on.world.submit()
        assert request.id in on.say("list").plain
        on.world.approve(request)
        on.world.reconcile()
        status = on.say(f"status {request.id.removeprefix('AR-')}").plain
        assert "open until" in status
        assert "web-1 (i-" in status
        assert f"{request.id} ends now." in on.say("done").plain
        ended = on.world.standing(request.id).request
        assert (ended.state, ended.cause) == (RequestState.ENDING, EndCause.COMPLETED)

    def test_done_with_several_asks_which(self, on: Stage) -> None:
        for name in ("web-1", "db-2"):
            on.world.approve(on.world.submit(name))
        assert "You have several:" in on.say("done").plain

    def test_somebody_elses_request_is_not_there(self, on: Stage) -> None:
        request = on.world.submit()
        on.world.add_person(a_person("Max Voss"), MAX)
        assert f"There is no request {request.id} that you may see." in on.say(f"status {request.id}", "U0MAX").plain

    def test_revoke_by_command_says_why(self, on: Stage) -> None:
        request = on.world.submit()
        on.world.approve(request)
        assert "Only payments-leads and admins" in on.say(f"revoke {request.id} because x").plain
        said = on.say(f"revoke {request.id} because wrong server", BEN.user_id).plain
        assert f"{request.id} ends now." in said
        assert on.world.standing(request.id).request.cause_detail.endswith("wrong server")

    def test_revoke_without_a_reason_asks_for_it(self, on: Stage) -> None:
        request = on.world.submit()
        on.world.approve(request)
        ben = on.slack.person(BEN.user_id)
        assert on.say(f"revoke {request.id}", BEN.user_id).ok
        view = ben.view()
        assert view is not None
        assert view.private_metadata == request.id
        assert ben.submit(values={ids.REASON: "wrong server"}).ok
        assert on.world.standing(request.id).request.cause is EndCause.REVOKED
        assert on.methods()[-1] == "views.open"

    def test_help_is_short_and_says_how(self, on: Stage) -> None:
        for text in ("help", ""):
            assert "/passport request web-1 db-2 for 2h because" in on.say(text).plain
