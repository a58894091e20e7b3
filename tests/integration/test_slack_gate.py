"""Who may come in, what an unsigned or repeated delivery gets, and what Slack's own troubles do."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from access.audit import Kind
from access.errors import UnavailableError
from handlers import ids
from handlers.blocks import field, modal, text_input
from handlers.members import StrangerError
from sandbox.slack import Delivery, NotPossibleError
from storage.unit_of_work import SqlStore
from tests.integration.slack_stage import ANA_CALLS, MAX, Stage, stage
from tests.values import ANA, BEN, a_person

STRANGERS = [
    ("U0GUEST", "Guests cannot use Passport."),
    ("U0ULTRA", "Guests cannot use Passport."),
    ("U0GONE", "Your Slack account is deactivated"),
    ("U0OTHER", "your account belongs to another one"),
    ("U0BOT", "Passport answers people, not apps."),
]
COMMANDS = [
    "",
    "help",
    "link",
    "whoami",
    "unlink",
    "list",
    "request web-1 because x",
    "request",
    "status AR-T001",
    "cancel AR-T001",
    "done",
    "revoke AR-T001 because x",
    "key list",
    "key add ssh-ed25519 AAAA",
    "exception @ana a@b.example because x",
]


@pytest.fixture
def on(sqlite_store: SqlStore) -> Iterator[Stage]:
    with stage(sqlite_store) as found:
        yield found


class TestStrangers:
    @pytest.mark.parametrize(("who", "says"), STRANGERS)
    def test_are_refused_on_every_command(self, on: Stage, who: str, says: str) -> None:
        before = on.world.kinds()
        for text in COMMANDS:
            sent = on.say(text, who)
            assert sent.ok
            assert says in sent.plain
            assert "/link/" not in sent.plain
        assert on.world.kinds() == before
        assert on.surface.members.refusals.flush(on.world.store, on.world.clock) == len(COMMANDS)

    @pytest.mark.parametrize(("who", "says"), STRANGERS)
    @pytest.mark.parametrize("action_id", [ids.REVIEW_APPROVE, ids.REVIEW_DENY, ids.REQUEST_REVOKE, ids.LINK_OPEN])
    def test_are_refused_on_every_click(self, on: Stage, who: str, says: str, action_id: str) -> None:
        request = on.world.submit()
        assert on.press(on.card(request.id, action_id), action_id, who).ok
        if who != "U0GONE":  # Slack shows the deactivated nothing
            assert says in on.told(who)[0]
        assert on.world.standing(request.id).reviews == []

    def test_a_linked_person_who_becomes_a_guest_is_a_guest(self, on: Stage) -> None:
        on.world.add_person(a_person("Gus Low"), replace(MAX, user_id="U0GUEST"))
        assert "Guests cannot use Passport." in on.say("request web-1 because x", "U0GUEST").plain

    def test_are_refused_in_a_form_that_was_open(self, on: Stage) -> None:
        on.say("request for 1h because x")
        on.slack.send_event({"type": "user_change", "user": _gone(ANA.user_id)})
        web = on.world.inventory.servers[0].instance_id
        ana = on.slack.person(ANA.user_id)
        view = ana.view()
        assert view is not None
        assert ana.suggest(view, ids.REQUEST_SERVERS, "web") == []
        with pytest.raises(NotPossibleError):
            ana.submit(values={ids.REQUEST_SERVERS: [web]})
        assert on.world.submitting.own(ANA_CALLS) == []

    def test_are_summed_up_into_one_event(self, on: Stage) -> None:
        for who in ("U0GUEST", "U0GUEST", "U0OTHER"):
            on.say("help", who)
        refusals = on.surface.members.refusals
        assert refusals.flush(on.world.store, on.world.clock) == 3
        assert refusals.flush(on.world.store, on.world.clock) == 0
        with on.world.store.unit_of_work() as uow:
            [event] = [found.event for found in uow.audit.all()]
        assert event.kind is Kind.STRANGERS_REFUSED
        assert dict(event.details) == {"guest": "2", "other workspace": "1"}


class TestMembers:
    def test_are_asked_for_once_in_ten_minutes(self, on: Stage) -> None:
        on.say("help")
        on.say("help")
        assert on.methods() == ["users.info"]
        on.world.clock.forward(minutes=10)
        on.say("help")
        assert on.methods() == ["users.info"] * 2

    def test_a_deactivation_counts_at_once_by_its_event(self, on: Stage) -> None:
        on.say("help")
        assert on.slack.send_event({"type": "user_change", "user": _gone(ANA.user_id)}).ok
        assert "deactivated" in on.say("help").answer.decode()

    def test_an_older_event_brings_nobody_back(self, on: Stage) -> None:
        on.slack.send_event({"type": "user_change", "user": {**_gone(ANA.user_id), "updated": 1_800_000_000}})
        alive = {"id": ANA.user_id, "team_id": "T0PASSPORT", "deleted": False, "updated": 1_799_999_999}
        on.slack.send_event({"type": "user_change", "user": alive})
        assert "deactivated" in on.say("help").answer.decode()

    def test_somebody_new_is_known_by_their_event(self, on: Stage) -> None:
        on.slack.send_event({"type": "team_join", "user": {"id": MAX.user_id, "team_id": "T0PASSPORT"}})
        assert "Ask for access" in on.say("help", MAX.user_id).plain
        assert on.methods() == []

    def test_while_slack_is_silent_nobody_new_comes_in(self, on: Stage) -> None:
        on.slack.faults.fail("users.info", "internal_error", times=None)
        assert on.say("list").plain == "Slack does not tell me who you are just now. Try again in a minute."
        on.slack.faults.clear()
        on.say("help")
        on.slack.faults.http_error(status=503, times=None)
        assert "You have no open request." in on.say("list").plain

    def test_a_lost_answer_is_not_asked_for_again_before_the_ack(self, on: Stage) -> None:
        on.slack.faults.drop_answer("users.info", times=None)
        assert "Slack does not tell me who you are" in on.say("help").plain
        assert on.methods() == ["users.info"]

    def test_a_profile_is_read_fresh(self, on: Stage) -> None:
        found = on.surface.members.profile(ANA.user_id)
        assert (found.name, found.display, found.email, found.tz) == (
            "Ana Ruiz",
            "ana",
            "ana@example.com",
            "Europe/Madrid",
        )
        on.slack.add_member(ANA.user_id, name="ana", real_name="Ana Ruiz", email="ana@new.example")
        assert on.surface.members.profile(ANA.user_id).email == "ana@new.example"
        on.slack.deactivate(ANA.user_id)
        with pytest.raises(StrangerError):
            on.surface.members.profile(ANA.user_id)
        with on.slack.faults.down(), pytest.raises(UnavailableError):
            on.surface.members.profile(ANA.user_id)


class TestDeliveries:
    def test_unsigned_old_or_altered_ones_are_refused(self, on: Stage) -> None:
        sent = on.say("request web-1 because x")
        count = len(on.world.submitting.own(ANA_CALLS))
        refused = [
            on.slack.resend(sent, signed=False),
            on.slack.resend(sent, signature="v0=" + "0" * 64),
            on.slack.resend(sent, timestamp=int(time.time()) - 301),
            on.slack.resend(sent, timestamp=int(time.time()) + 301),
            on.slack.resend(sent, body=sent.body.replace(b"web-1", b"db-2")),
            on.slack.resend(sent, signed=False, body=b"ssl_check=1&token=x"),
            on.slack.resend(sent, signed=False, body=b'{"type":"url_verification","challenge":"x"}'),
        ]
        assert [delivery.status for delivery in refused] == [401] * len(refused)
        assert len(on.world.submitting.own(ANA_CALLS)) == count

    def test_the_request_url_can_be_verified(self, on: Stage) -> None:
        assert on.slack.verify_request_url()

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/commands/1",
            "http://169.254.169.254/latest/meta-data",
            "https://slack.com.evil.example/x",
            "https://hooks.slack.com@evil.example/x",
            "https://evil.example\\@hooks.slack.com/x",
            "http://hooks.slack.com/plain",
            "https://hooks.slack.com:8443/x",
            "file:///etc/passwd",
            "http://127.0.0.1:1/other-port",
            "https://[broken/x",
        ],
    )
    def test_a_response_url_that_is_not_slacks_is_never_called(self, on: Stage, url: str) -> None:
        sent = on.say("help")
        fields = {**sent.payload, "response_url": url, "text": "request web-1 because x"}
        again = _signed_again(on, sent, urlencode(fields).encode())
        assert again.status == 400
        assert on.world.submitting.own(ANA_CALLS) == []

    @pytest.mark.parametrize("url", ["https://hooks.slack.com/commands/1", "https://hooks.slack-gov.com/x"])
    def test_slacks_own_hosts_are_taken(self, on: Stage, url: str) -> None:
        sent = on.say("help")
        again = _signed_again(on, sent, urlencode({**sent.payload, "response_url": url}).encode())
        assert again.status == 200

    def test_another_workspaces_deliveries_are_refused(self, on: Stage) -> None:
        sent = on.say("help")
        again = _signed_again(on, sent, urlencode({**sent.payload, "team_id": "T0EVIL"}).encode())
        assert "belongs to another one" in again.answer.decode()

    def test_another_workspaces_events_change_nothing(self, on: Stage) -> None:
        event = on.slack.send_event({"type": "user_change", "user": _gone("U0NOBODY")})
        forged = {**event.payload, "team_id": "T0EVIL", "event": {"type": "user_change", "user": _gone(ANA.user_id)}}
        assert on.slack.resend(event, body=json.dumps(forged).encode(), timestamp=int(time.time())).status == 200
        assert "Ask for access" in on.say("help").plain

    def test_one_that_names_nobody_is_refused(self, on: Stage) -> None:
        sent = on.say("help")
        for missing in ("user_id", "trigger_id"):
            fields = {name: value for name, value in sent.payload.items() if name != missing}
            assert _signed_again(on, sent, urlencode(fields).encode()).status == 400

    def test_a_form_and_a_click_in_another_workspaces_name_are_refused(self, on: Stage) -> None:
        request = on.world.submit()
        sent = on.press(on.card(request.id), ids.REVIEW_APPROVE, MAX.user_id)
        payload = {**sent.payload, "team": {"id": "T0EVIL"}, "user": {"id": BEN.user_id, "team_id": "T0PASSPORT"}}
        again = _signed_again(on, sent, urlencode({"payload": json.dumps(payload)}).encode())
        assert again.status == 200
        assert on.world.standing(request.id).reviews == []


class TestWhatNobodyForesaw:
    def test_is_an_id_and_no_traceback(
        self, on: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def explode(*_: object) -> None:
            raise ZeroDivisionError("secret detail")

        monkeypatch.setattr(type(on.surface.submitting), "own", explode)
        sent = on.say("list")
        assert sent.ok
        assert sent.plain.startswith("Something broke on my side (id ")
        number = sent.plain.split("(id ")[1].split(")")[0]
        assert f"Something broke (id {number})" in caplog.text
        assert b"secret detail" not in sent.answer

    def test_in_the_middleware_it_is_a_500_without_words(
        self, on: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def explode(*_: object) -> None:
            raise ZeroDivisionError("secret detail")

        monkeypatch.setattr("handlers.gate.teams_of", explode)
        sent = on.slack.send_event({"type": "user_change", "user": {"id": "U0MAX"}})
        assert (sent.status, sent.answer) == (500, b"")
        assert "Something broke (id " in caplog.text

    def test_an_old_button_and_an_old_form_say_so(self, on: Stage) -> None:
        on.press(on.card("x", "from.the.past"), "from.the.past")
        assert "I do not know this button any more." in on.told(BEN.user_id)[0]

    def test_an_old_form_says_so(self, on: Stage) -> None:
        sent = on.say("help")
        old = modal("Old", [field("b", "L", text_input())], callback_id="from.the.past", submit="Ask")
        on.surface.client.views_open(trigger_id=sent.trigger_id, view=old)
        ana = on.slack.person(ANA.user_id)
        assert ana.submit(values={"b": "x"}).ok
        view = ana.view()
        assert view is not None
        assert "I do not know this button any more." in str(view.blocks)

    def test_secrets_are_in_no_repr(self, on: Stage) -> None:
        shown = repr(on.surface)
        assert on.slack.signing_secret not in shown
        assert on.slack.bot_token not in shown

    def test_a_damaged_value_is_a_sentence(self, on: Stage) -> None:
        on.press(on.card("nonsense!"), ids.REVIEW_APPROVE)
        on.press(on.card("AR-7F3K forever"), ids.REVIEW_APPROVE)
        said = on.told(BEN.user_id, 2)
        assert "is no request id" in said[0]
        assert "I do not know this button any more." in said[1]


def _signed_again(on: Stage, sent: Delivery, body: bytes) -> Delivery:
    return on.slack.resend(sent, body=body, timestamp=int(time.time()))


def _gone(user_id: str) -> dict[str, object]:
    return {"id": user_id, "team_id": "T0PASSPORT", "deleted": True, "updated": 1_800_000_000}
