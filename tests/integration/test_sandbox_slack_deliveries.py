"""What the sandbox's Slack delivers, to a real slack_bolt.App over HTTP, and what people can do with it."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from flask import Flask, Response
from flask import request as flask_request
from slack_bolt import App, BoltResponse
from slack_bolt.adapter.flask import SlackRequestHandler
from slack_bolt.authorization import AuthorizeResult
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from werkzeug.serving import make_server

from sandbox.slack import NotPossibleError, Person, SlackDouble

Json = dict[str, Any]


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def button(action_id: str, value: str = "v") -> Json:
    return {"type": "button", "text": plain(action_id), "action_id": action_id, "value": value}


def buttons(*elements: Json, block_id: str = "buttons") -> Json:
    return {"type": "actions", "block_id": block_id, "elements": list(elements)}


def asking(block_id: str, element: Json, **extra: object) -> Json:
    return {"type": "input", "block_id": block_id, "label": plain(block_id), "element": element, **extra}


def modal(*blocks: Json, **extra: object) -> Json:
    return {
        "type": "modal",
        "callback_id": "form",
        "title": plain("Form"),
        "submit": plain("Send"),
        "blocks": list(blocks),
        **extra,
    }


REASON = asking("why", {"type": "plain_text_input", "action_id": "reason"})
SERVERS = asking(
    "servers", {"type": "multi_external_select", "action_id": "servers", "min_query_length": 0}, optional=True
)


class AppUnderTest:
    """A tiny Bolt app on a free port; each test adds its listeners."""

    def __init__(self, slack: SlackDouble) -> None:
        self.client = WebClient(token=slack.bot_token, base_url=slack.url)
        self.bolt = App(
            signing_secret=slack.signing_secret,
            client=self.client,
            process_before_response=True,
            authorize=lambda: AuthorizeResult(
                enterprise_id=None,
                team_id="T0PASSPORT",
                bot_token=slack.bot_token,
                bot_user_id="U0PASSPORT",
                bot_id="B0PASSPORT",
            ),
        )
        flask, bolt = Flask(__name__), SlackRequestHandler(self.bolt)

        @flask.post("/slack/events")
        def events() -> Response:
            return bolt.handle(flask_request)

        self._server = make_server("127.0.0.1", 0, flask, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        slack.connect_app(f"http://127.0.0.1:{self._server.server_port}/slack/events")

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def slack() -> Iterator[SlackDouble]:
    with SlackDouble(event_retry_seconds=(0, 0, 0)) as double:
        double.add_member("U0ANA", name="ana", real_name="Ana Ruiz")
        double.add_member("U0BEN", name="ben")
        double.add_channel("C0REVIEW", name="review", members=["U0ANA", "U0BEN"])
        yield double


@pytest.fixture
def app(slack: SlackDouble) -> Iterator[AppUnderTest]:
    running = AppUnderTest(slack)
    yield running
    running.close()


@pytest.fixture
def ana(slack: SlackDouble) -> Person:
    return slack.person("U0ANA")


@pytest.fixture
def ben(slack: SlackDouble) -> Person:
    return slack.person("U0BEN")


def opens(app: AppUnderTest, view: Json) -> None:
    """`/passport` opens this modal."""

    @app.bolt.command("/passport")
    def listener(ack: Callable[..., object], body: Json, client: WebClient) -> None:
        client.views_open(trigger_id=body["trigger_id"], view=view)
        ack()


def answers(app: AppUnderTest, *args: object, **kwargs: object) -> None:
    """`/passport` is answered with this."""

    @app.bolt.command("/passport")
    def listener(ack: Callable[..., object]) -> None:
        ack(*args, **kwargs)


def submission_is_answered(app: AppUnderTest, **answer: object) -> None:
    @app.bolt.view("form")
    def listener(ack: Callable[..., object]) -> None:
        ack(**answer)


# --- commands ---------------------------------------------------------------------------------------------


def test_a_command_is_signed_and_its_answer_seen_by_one_person(
    slack: SlackDouble, app: AppUnderTest, ana: Person, ben: Person
) -> None:
    answers(app, "hello *you*")
    delivery = ana.command("/passport", "request web-1", channel="C0REVIEW")
    assert (delivery.ok, delivery.status, delivery.plain) == (True, 200, "hello you")
    assert [message.plain for message in ana.ephemerals()] == ["hello you"]
    assert ben.ephemerals() == []
    assert slack.messages("C0REVIEW") == []


def test_a_command_carries_what_slack_sends(slack: SlackDouble, app: AppUnderTest, ana: Person) -> None:
    seen: list[Json] = []

    @app.bolt.command("/passport")
    def listener(ack: Callable[..., object], body: Json) -> None:
        seen.append(body)
        ack()

    ana.command("/passport", " wake @ben & <!here> in #review ")
    (body,) = seen
    assert body["text"] == "wake <@U0BEN|ben> &amp; &lt;!here&gt; in <#C0REVIEW|review>"
    assert {name: body[name] for name in ("team_id", "user_id", "channel_id", "channel_name", "command")} == {
        "team_id": "T0PASSPORT",
        "user_id": "U0ANA",
        "channel_id": "D0ANA",
        "channel_name": "directmessage",
        "command": "/passport",
    }
    assert body["response_url"].startswith(slack.url.removesuffix("api/") + "commands/T0PASSPORT/")
    assert {"token", "team_domain", "user_name", "api_app_id", "is_enterprise_install", "trigger_id"} <= body.keys()


def test_an_answer_in_channel_is_seen_by_everyone(
    slack: SlackDouble, app: AppUnderTest, ana: Person, ben: Person
) -> None:
    answers(app, text="for all", response_type="in_channel")
    ana.command("/passport", channel="C0REVIEW")
    assert [message.plain for message in ben.messages("C0REVIEW")] == ["for all"]


def test_an_answer_that_slack_cannot_show_is_an_error(app: AppUnderTest, ana: Person) -> None:
    answers(app, text="x", blocks=[{"type": "header", "text": plain("x" * 151)}])
    assert ana.command("/passport").error == "invalid_blocks"
    assert ana.troubles == ["invalid_blocks"]


def test_nobody_uses_a_channel_they_are_not_in(slack: SlackDouble, app: AppUnderTest, ana: Person) -> None:
    slack.add_channel("C0OTHER", name="other")
    with pytest.raises(NotPossibleError):
        ana.command("/passport", channel="C0OTHER")
    with pytest.raises(NotPossibleError):
        ana.messages("C0OTHER")


def test_a_late_answer_is_an_operation_timeout(slack: SlackDouble, app: AppUnderTest, ana: Person) -> None:
    gate = threading.Event()

    @app.bolt.command("/passport")
    def listener(ack: Callable[..., object]) -> None:
        gate.wait(20)
        ack("too late")

    slack.ack_seconds = 0.2
    delivery = ana.command("/passport")
    gate.set()
    assert (delivery.error, delivery.message, ana.ephemerals()) == ("operation_timeout", None, [])
    assert ana.troubles == ["operation_timeout"]


def test_an_app_that_is_down_is_a_failure_and_no_exception(slack: SlackDouble, ana: Person) -> None:
    assert ana.command("/passport").error == "dispatch_failed"  # nothing connected
    slack.connect_app("http://127.0.0.1:9/slack/events")
    assert (ana.command("/passport").error, ana.command("/passport").status) == ("dispatch_failed", 0)


def test_a_slack_that_is_down_delivers_nothing(slack: SlackDouble, app: AppUnderTest, ana: Person) -> None:
    heard = hearing(app)
    with slack.faults.down():
        assert ana.command("/passport", "meanwhile").error == "dispatch_failed"
    assert ana.command("/passport", "after").ok
    assert heard == ["after"]


def test_what_is_held_back_arrives_once_in_the_order_of_its_release(
    slack: SlackDouble, app: AppUnderTest, ana: Person
) -> None:
    heard = hearing(app)
    with slack.faults.hold_back() as held:
        assert [ana.command("/passport", text).error for text in ("first", "second")] == ["operation_timeout"] * 2
        assert heard == []
    for deliver in reversed(held):
        deliver()
    assert heard == ["second", "first"]


def hearing(app: AppUnderTest) -> list[str]:
    """What people type, as it comes."""
    heard: list[str] = []

    @app.bolt.command("/passport")
    def listener(ack: Callable[..., object], body: dict[str, Any]) -> None:
        heard.append(body["text"])
        ack()

    return heard


def test_an_app_that_answers_an_error_status_fails(app: AppUnderTest, ana: Person) -> None:
    delivery = ana.command("/unknown")
    assert (delivery.status, delivery.error) == (404, "dispatch_failed")


# --- signatures -------------------------------------------------------------------------------------------


def test_the_same_bytes_are_taken_again_and_forgeries_are_not(
    slack: SlackDouble, app: AppUnderTest, ana: Person
) -> None:
    texts: list[str] = []

    @app.bolt.command("/passport")
    def listener(ack: Callable[..., object], body: Json) -> None:
        texts.append(body["text"])
        ack("taken")

    first = ana.command("/passport", "once")
    again = slack.resend(first)
    assert (again.status, again.body, again.trigger_id) == (200, first.body, first.trigger_id)
    assert [message.plain for message in ana.ephemerals()] == ["taken"]  # a replay shows nobody anything
    now = int(time.time())
    forgeries = [
        slack.resend(first, signed=False),
        slack.resend(first, signature="v0=" + "0" * 64),
        slack.resend(first, timestamp=now - 600),
        slack.resend(first, body=first.body.replace(b"once", b"evil")),
        slack.resend(first, headers={"X-Slack-Request-Timestamp": str(now + 1)}),
    ]
    assert [forgery.status for forgery in forgeries] == [401] * 5
    assert texts == ["once", "once"]
    assert len(slack.deliveries) == 7


def test_another_secret_is_another_slack(slack: SlackDouble, app: AppUnderTest) -> None:
    with SlackDouble(signing_secret="0" * 32) as impostor:
        impostor.add_member("U0ANA", name="ana")
        impostor._courier.transport = slack._courier.transport
        assert impostor.person("U0ANA").command("/passport").status == 401


def test_the_request_url_is_verified(slack: SlackDouble, app: AppUnderTest) -> None:
    assert slack.verify_request_url()


# --- triggers and modals ----------------------------------------------------------------------------------


def test_a_trigger_opens_one_modal_within_three_seconds(slack: SlackDouble, app: AppUnderTest, ana: Person) -> None:
    answers(app)
    used, late = ana.command("/passport"), ana.command("/passport")
    assert app.client.views_open(trigger_id=used.trigger_id, view=modal(REASON))["ok"]
    assert used.trigger_id != late.trigger_id
    slack.clock.advance(3.1)
    errors = []
    for trigger_id in (used.trigger_id, late.trigger_id, "1.2.made-up"):
        with pytest.raises(SlackApiError) as refused:
            app.client.views_open(trigger_id=trigger_id, view=modal(REASON))
        errors.append(refused.value.response["error"])
    assert errors == ["exchanged_trigger_id", "expired_trigger_id", "invalid_trigger_id"]


def test_a_modal_is_seen_by_its_person_and_submitted(app: AppUnderTest, ana: Person, ben: Person) -> None:
    opens(app, modal(REASON, private_metadata="kept"))
    states: list[Json] = []

    @app.bolt.view("form")
    def listener(ack: Callable[..., object], view: Json) -> None:
        states.append(view)
        ack()

    ana.command("/passport")
    view = ana.view()
    assert view is not None
    assert ben.view() is None
    with pytest.raises(NotPossibleError):
        ben.submit(view, {"why": "x"})
    with pytest.raises(NotPossibleError, match="required"):
        ana.submit(view)
    with pytest.raises(NotPossibleError, match="0 inputs 'reasn'"):
        ana.submit(view, {"reasn": "x"})
    assert ana.submit(view, {"why": "INC-1 <!channel>"}).ok
    assert ana.view() is None
    (seen,) = states
    assert seen["private_metadata"] == "kept"
    assert seen["state"]["values"] == {"why": {"reason": {"type": "plain_text_input", "value": "INC-1 <!channel>"}}}


def test_errors_keep_the_modal_open_with_what_was_typed(app: AppUnderTest, ana: Person) -> None:
    opens(app, modal(REASON))
    submission_is_answered(app, response_action="errors", errors={"why": "Say more."})
    ana.command("/passport")
    first = ana.submit(values={"why": "x"})
    second = ana.submit()
    assert (first.errors, second.errors) == ({"why": "Say more."}, {"why": "Say more."})
    assert second.payload["view"]["state"]["values"]["why"]["reason"]["value"] == "x"
    assert ana.view() is not None


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"response_action": "errors", "errors": {"nowhere": "x"}}, "invalid_errors"),
        ({"response_action": "errors", "errors": {"why": ""}}, "invalid_errors"),
        ({"response_action": "update", "view": modal(title=plain("x" * 25))}, "invalid_arguments"),
        ({"response_action": "explode"}, "invalid_response_action"),
    ],
)
def test_answers_to_a_submission_that_slack_does_not_understand(
    app: AppUnderTest, ana: Person, answer: Json, error: str
) -> None:
    opens(app, modal(REASON))

    @app.bolt.view("form")
    def listener(ack: Callable[..., object]) -> object:
        response = ack()
        response.body, response.status = json.dumps(answer), 200  # type: ignore[attr-defined]
        response.headers["content-type"] = ["application/json"]  # type: ignore[attr-defined]
        return response

    ana.command("/passport")
    assert ana.submit(values={"why": "x"}).error == error
    assert ana.view() is not None


def test_update_push_and_clear(app: AppUnderTest, ana: Person) -> None:
    opens(app, modal(REASON))
    steps: Iterator[Json] = iter(
        [
            {"response_action": "update", "view": modal(REASON, title=plain("Two"))},
            {"response_action": "push", "view": modal(REASON, title=plain("Three"))},
            {"response_action": "clear"},
        ]
    )

    @app.bolt.view("form")
    def listener(ack: Callable[..., object]) -> None:
        ack(**next(steps))

    ana.command("/passport")
    titles = []
    for _ in range(3):
        view = ana.view()
        assert view is not None
        titles.append(view.definition["title"]["text"])
        ana.submit(values={"why": "x"})
    assert titles == ["Form", "Two", "Three"]
    assert ana.view() is None


def test_views_update_needs_the_latest_hash(app: AppUnderTest, ana: Person) -> None:
    opens(app, modal(REASON))
    ana.command("/passport")
    first = ana.view()
    assert first is not None
    app.client.views_update(view_id=first.id, hash=first.hash, view=modal(REASON, title=plain("New")))
    with pytest.raises(SlackApiError, match="hash_conflict"):
        app.client.views_update(view_id=first.id, hash=first.hash, view=modal(REASON))
    now = ana.view()
    assert now is not None
    assert (now.id, now.definition["title"]["text"]) == (first.id, "New")


def test_a_modal_can_be_pushed_from_a_button_in_it_at_most_three_deep(app: AppUnderTest, ana: Person) -> None:
    deeper = modal(REASON, buttons(button("deeper")))
    opens(app, deeper)
    errors: list[str] = []

    @app.bolt.action("deeper")
    def listener(ack: Callable[..., object], body: Json, client: WebClient) -> None:
        try:
            client.views_push(trigger_id=body["trigger_id"], view=deeper)
        except SlackApiError as error:
            errors.append(error.response["error"])
        ack()

    ana.command("/passport")
    for _ in range(3):
        view = ana.view()
        assert view is not None
        ana.click(view, "deeper")
    assert errors == ["push_limit_reached"]
    top = ana.view()
    assert top is not None
    assert top.previous_id not in (None, top.root_id)


def test_closing_tells_the_app_only_if_it_asked(app: AppUnderTest, ana: Person) -> None:
    closed: list[Json] = []

    @app.bolt.view_closed("form")
    def listener(ack: Callable[..., object], view: Json) -> None:
        closed.append(view)
        ack()

    opens(app, modal(REASON, notify_on_close=True))
    ana.command("/passport")
    delivery = ana.close()
    assert delivery is not None
    assert delivery.ok
    assert len(closed) == 1
    assert ana.view() is None


def test_an_external_select_asks_the_app(app: AppUnderTest, ana: Person) -> None:
    opens(app, modal(REASON, SERVERS))
    submission_is_answered(app)

    @app.bolt.options("servers")
    def listener(ack: Callable[..., object], payload: Json) -> None:
        ack(
            options=[
                {"text": plain(f"web-{n}"), "value": f"i-{n}"} for n in range(3) if payload["value"] in f"web-{n} i-{n}"
            ]
        )

    ana.command("/passport")
    view = ana.view()
    assert view is not None
    assert [option["value"] for option in ana.suggest(view, "servers", "web-1")] == ["i-1"]
    sent = ana.submit(view, {"why": "x", "servers": ["i-1", "web-2"]})
    chosen = sent.payload["view"]["state"]["values"]["servers"]["servers"]["selected_options"]
    assert [option["value"] for option in chosen] == ["i-1", "i-2"]


def test_too_many_suggestions_are_no_suggestions(app: AppUnderTest, ana: Person) -> None:
    opens(app, modal(REASON, SERVERS))

    @app.bolt.options("servers")
    def listener(ack: Callable[..., object]) -> None:
        ack(options=[{"text": plain(str(n)), "value": str(n)} for n in range(101)])

    ana.command("/passport")
    view = ana.view()
    assert view is not None
    assert ana.suggest(view, "servers") == []
    assert ana.troubles == ["invalid_options"]
    with pytest.raises(NotPossibleError, match="not offered"):
        ana.submit(view, {"why": "x", "servers": ["i-1"]})


# --- clicks and response_url ------------------------------------------------------------------------------


def card(app: AppUnderTest, channel: str = "C0REVIEW") -> None:
    app.client.chat_postMessage(
        channel=channel, text="card", blocks=[buttons(button("approve", "AR-1"), button("deny"))]
    )


def test_a_click_carries_the_value_the_message_and_the_place(
    slack: SlackDouble, app: AppUnderTest, ben: Person
) -> None:
    clicks: list[Json] = []

    @app.bolt.action("approve")
    def listener(ack: Callable[..., object], body: Json) -> None:
        clicks.append(body)
        ack()

    card(app)
    (message,) = ben.messages("C0REVIEW")
    delivery = ben.click(message, "approve")
    (body,) = clicks
    assert delivery.ok
    assert body["actions"][0]["value"] == "AR-1"
    assert body["message"]["ts"] == message.ts
    assert body["container"] == {
        "type": "message",
        "message_ts": message.ts,
        "channel_id": "C0REVIEW",
        "is_ephemeral": False,
    }
    assert body["user"] == {"id": "U0BEN", "username": "ben", "name": "ben", "team_id": "T0PASSPORT"}
    assert body["response_url"].startswith(slack.url.removesuffix("api/") + "actions/")


def test_nobody_clicks_what_they_cannot_see(slack: SlackDouble, app: AppUnderTest, ana: Person, ben: Person) -> None:
    card(app, "U0ANA")
    (direct,) = ana.direct_messages()
    app.client.chat_postEphemeral(channel="C0REVIEW", user="U0ANA", text="x", blocks=[buttons(button("approve"))])
    (ephemeral,) = ana.ephemerals()
    for message in (direct, ephemeral):
        with pytest.raises(NotPossibleError):
            ben.click(message, "approve")
    with pytest.raises(NotPossibleError, match="elements 'revoke'"):
        ana.click(direct, "revoke")
    slack.reload("U0ANA")
    with pytest.raises(NotPossibleError, match="gone"):
        ana.click(ephemeral, "approve")
    assert slack.deliveries == []


def test_a_click_made_before_the_card_changed_still_arrives(app: AppUnderTest, ben: Person) -> None:
    clicks: list[str] = []

    @app.bolt.action("approve")
    def listener(ack: Callable[..., object], body: Json) -> None:
        clicks.append(body["user"]["id"])
        ack()

    card(app)
    (before,) = ben.messages("C0REVIEW")
    app.client.chat_update(channel="C0REVIEW", ts=before.ts, text="decided")
    assert ben.look(before).blocks == ()
    assert ben.click(before, "approve").ok
    assert clicks == ["U0BEN"]


def test_of_two_buttons_of_one_name_the_value_tells_which(app: AppUnderTest, ana: Person) -> None:
    values: list[str] = []

    @app.bolt.action("revoke")
    def listener(ack: Callable[..., object], action: Json) -> None:
        values.append(action["value"])
        ack()

    blocks = [buttons(button("revoke", "1"), block_id="a"), buttons(button("revoke", "2"), block_id="b")]
    app.client.chat_postMessage(channel="U0ANA", text="list", blocks=blocks)
    (message,) = ana.direct_messages()
    with pytest.raises(NotPossibleError, match="2 elements"):
        ana.click(message, "revoke")
    ana.click(message, "revoke", value="2")
    ana.click(message, "revoke", block_id="a")
    assert values == ["2", "1"]


def test_a_response_url_takes_five_posts_within_thirty_minutes(
    slack: SlackDouble, app: AppUnderTest, ana: Person
) -> None:
    answers(app)
    url, late = ana.command("/passport").response_url, ana.command("/passport").response_url
    posts = [requests.post(url, json={"text": f"answer {n}"}, timeout=5) for n in range(6)]
    assert [post.status_code for post in posts] == [200] * 5 + [404]
    assert posts[5].json()["error"] == "used_url"
    assert [message.plain for message in ana.ephemerals()] == [f"answer {n}" for n in range(5)]
    slack.clock.advance(30 * 60 + 1)
    assert requests.post(late, json={"text": "x"}, timeout=5).json()["error"] == "expired_url"
    assert requests.post(late + "x", json={"text": "x"}, timeout=5).status_code == 404
    assert [call.ok for call in slack.calls if call.method == "response_url"] == [True] * 5 + [False] * 3


def test_a_response_url_replaces_or_deletes_its_message(app: AppUnderTest, ana: Person, ben: Person) -> None:
    @app.bolt.action("approve")
    def listener(ack: Callable[..., object], respond: Callable[..., object]) -> None:
        ack()
        respond(text="decided", replace_original=True)
        respond(text="only for you", replace_original=False)

    @app.bolt.action("deny")
    def other(ack: Callable[..., object], respond: Callable[..., object]) -> None:
        ack()
        respond(delete_original=True)

    card(app)
    (message,) = ana.messages("C0REVIEW")
    ana.click(message, "approve")
    assert [seen.plain for seen in ben.messages("C0REVIEW")] == ["decided"]
    assert [seen.plain for seen in ana.ephemerals()] == ["only for you"]
    assert ben.ephemerals() == []
    ana.click(message, "deny")
    assert ben.messages("C0REVIEW") == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "no_text"),
        ({"text": "x", "blocks": [{"type": "nonsense"}]}, "invalid_blocks"),
        ({"text": "x", "colour": "red"}, "invalid_payload"),
        ({"text": "x", "response_type": "loud"}, "invalid_payload"),
        ({"text": "x", "replace_original": True}, "message_not_found"),
    ],
)
def test_a_response_url_checks_what_it_gets(app: AppUnderTest, ana: Person, body: Json, error: str) -> None:
    answers(app)
    answer = requests.post(ana.command("/passport").response_url, json=body, timeout=5)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"] == error
    assert ana.ephemerals() == []


def test_clicks_at_once_arrive_at_once(slack: SlackDouble, app: AppUnderTest, ana: Person, ben: Person) -> None:
    together = threading.Barrier(4, timeout=10)

    @app.bolt.action("approve")
    def listener(ack: Callable[..., object]) -> None:
        together.wait()
        ack()

    card(app)
    (message,) = ana.messages("C0REVIEW")
    with ThreadPoolExecutor(4) as pool:
        clicks = [pool.submit(person.click, message, "approve") for person in (ana, ben, ana, ben)]
        done = [click.result() for click in clicks]
    assert [delivery.error for delivery in done] == [None] * 4
    assert len({delivery.trigger_id for delivery in done}) == 4


def test_selects_menus_and_boxes_carry_what_was_chosen(app: AppUnderTest, ana: Person) -> None:
    seen: list[Json] = []

    @app.bolt.action({"type": "block_actions", "action_id": "pick"})
    def listener(ack: Callable[..., object], action: Json) -> None:
        seen.append(action)
        ack()

    options = [{"text": plain(name), "value": name} for name in ("one", "two")]
    kinds = ("static_select", "overflow", "checkboxes", "users_select")
    blocks = [
        buttons(
            {"type": kind, "action_id": "pick", **({} if kind == "users_select" else {"options": options})},
            block_id=kind,
        )
        for kind in kinds
    ]
    app.client.chat_postMessage(channel="U0ANA", text="choose", blocks=blocks)
    (message,) = ana.direct_messages()
    assert message.actions == ("pick",) * 4
    for kind, choice in zip(kinds, ("two", "one", ["one", "two"], "U0BEN"), strict=True):
        assert ana.click(message, "pick", block_id=kind, choose=choice).ok
    assert [action["type"] for action in seen] == list(kinds)
    assert seen[0]["selected_option"]["value"] == "two"
    assert seen[1]["selected_option"]["value"] == "one"
    assert [option["value"] for option in seen[2]["selected_options"]] == ["one", "two"]
    assert seen[3]["selected_user"] == "U0BEN"
    with pytest.raises(NotPossibleError, match="not offered"):
        ana.click(message, "pick", block_id="overflow", choose="three")


@pytest.mark.parametrize(
    ("element", "bad", "good"),
    [
        ({"type": "plain_text_input", "max_length": 3}, "four", "two"),
        ({"type": "plain_text_input", "min_length": 3}, "no", "yes"),
        ({"type": "email_text_input"}, "ana", "ana@example.com"),
        ({"type": "number_input", "is_decimal_allowed": False}, "two", "2"),
    ],
)
def test_slacks_client_lets_nobody_send_what_does_not_fit(
    app: AppUnderTest, ana: Person, element: Json, bad: str, good: str
) -> None:
    opens(app, modal(asking("field", {**element, "action_id": "typed"})))
    submission_is_answered(app)
    ana.command("/passport")
    with pytest.raises(NotPossibleError):
        ana.submit(values={"field": bad})
    assert ana.submit(values={"typed": good}).ok


def test_an_external_id_is_taken_once_and_finds_its_view(app: AppUnderTest, ana: Person, ben: Person) -> None:
    opens(app, modal(REASON, external_id="form-1"))
    assert ana.command("/passport").ok
    assert not ben.command("/passport").ok
    app.client.views_update(external_id="form-1", view=modal(REASON, external_id="form-1", title=plain("Found")))
    found = ana.view()
    assert found is not None
    assert found.definition["title"]["text"] == "Found"


# --- people -----------------------------------------------------------------------------------------------


def test_guests_strangers_and_deactivated_people_reach_the_app(slack: SlackDouble, app: AppUnderTest) -> None:
    bodies: list[Json] = []

    @app.bolt.command("/passport")
    def command(ack: Callable[..., object], body: Json) -> None:
        bodies.append(body)
        ack("no")

    @app.bolt.action("approve")
    def click(ack: Callable[..., object], body: Json) -> None:
        bodies.append(body)
        ack()

    slack.add_member("U0EVE", name="eve", team_id="T0OTHER")
    slack.add_member("U0GUEST", name="guest", guest="ultra_restricted")
    slack.join("C0REVIEW", "U0EVE", "U0GUEST")
    slack.deactivate("U0BEN")
    card(app)
    (message,) = slack.messages("C0REVIEW")
    for user in ("U0EVE", "U0GUEST", "U0BEN"):
        assert slack.person(user).command("/passport", channel="C0REVIEW").plain == "no"
        assert slack.person(user).click(message, "approve").ok
    assert [body["team_id"] for body in bodies[::2]] == ["T0OTHER", "T0PASSPORT", "T0PASSPORT"]
    assert [body["user"]["team_id"] for body in bodies[1::2]] == ["T0OTHER", "T0PASSPORT", "T0PASSPORT"]
    assert bodies[1]["team"]["id"] == "T0PASSPORT"
    assert slack.person("U0BEN").ephemerals() == []  # nobody is there to read it


# --- events -----------------------------------------------------------------------------------------------


def test_opening_home_is_an_event(app: AppUnderTest, ana: Person) -> None:
    @app.bolt.event("app_home_opened")
    def listener(event: Json, client: WebClient) -> None:
        client.views_publish(user_id=event["user"], view={"type": "home", "blocks": [buttons(button("done"))]})

    assert ana.open_home().ok
    home = ana.home()
    assert home is not None

    @app.bolt.action("done")
    def done(ack: Callable[..., object]) -> None:
        ack()

    assert ana.click(home, "done").ok
    assert ana.open_home().payload["event"]["view"]["id"] == home.id


def test_an_event_is_sent_again_until_it_is_taken(slack: SlackDouble, app: AppUnderTest, ana: Person) -> None:
    attempts: list[tuple[str | None, str]] = []

    @app.bolt.event("app_home_opened")
    def listener(body: Json, request: Any) -> None:
        attempts.append((request.headers.get("x-slack-retry-num", [None])[0], body["event_id"]))
        if len(attempts) < 3:
            raise RuntimeError("not yet")

    assert ana.open_home().ok
    assert [number for number, _ in attempts] == [None, "1", "2"]
    assert len({event_id for _, event_id in attempts}) == 1
    assert Counter(delivery.ok for delivery in slack.deliveries) == {False: 2, True: 1}
    assert slack.deliveries[1].headers["x-slack-retry-reason"] == "http_error"


def test_slack_gives_up_after_three_more_attempts(slack: SlackDouble, ana: Person) -> None:
    assert ana.open_home().error == "dispatch_failed"
    assert len(slack.deliveries) == 4
    assert slack.deliveries[3].headers["x-slack-retry-reason"] == "connection_failed"


def test_an_app_may_ask_for_no_retry(slack: SlackDouble, app: AppUnderTest, ana: Person) -> None:
    @app.bolt.error
    def failed() -> BoltResponse:
        return BoltResponse(status=500, headers={"x-slack-no-retry": "1"})

    @app.bolt.event("app_home_opened")
    def listener() -> None:
        raise RuntimeError("never")

    ana.open_home()
    assert len(slack.deliveries) == 1


def test_a_later_retry_comes_by_itself(ana: Person) -> None:
    with SlackDouble(event_retry_seconds=(0.01,)) as slack:
        slack.add_member("U0ANA", name="ana")
        slack.person("U0ANA").open_home()
        slack.wait_until(lambda: len(slack.deliveries) == 2)
        assert slack.deliveries[1].headers["x-slack-retry-num"] == "1"


def test_any_event_can_be_sent(slack: SlackDouble, app: AppUnderTest) -> None:
    changed: list[str] = []

    @app.bolt.event("user_change")
    def listener(event: Json) -> None:
        changed.append(event["user"]["id"])

    assert slack.send_event({"type": "user_change", "user": {"id": "U0BEN", "deleted": True}}, user="U0BEN").ok
    assert changed == ["U0BEN"]


def test_waiting_for_what_comes_later(slack: SlackDouble, app: AppUnderTest, ana: Person) -> None:
    later = threading.Timer(0.05, app.client.chat_postMessage, kwargs={"channel": "U0ANA", "text": "ready"})
    later.start()
    slack.wait_until(ana.direct_messages)
    later.join()
    with pytest.raises(TimeoutError):
        slack.wait_until(ana.ephemerals, seconds=0.05)
