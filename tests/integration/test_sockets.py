"""Socket Mode: the listeners over several WebSockets, which come back whatever happens to them."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from slack_bolt import App
from slack_bolt.authorization import AuthorizeResult
from slack_sdk import WebClient
from websockets.sync.client import connect

from bot import sockets as module
from bot.sockets import Sockets
from handlers import ids
from sandbox.slack import Delivery, SlackDouble
from storage.unit_of_work import SqlStore
from tests.integration.slack_stage import ANA_CALLS, Stage, stage
from tests.values import ANA, BEN


@contextmanager
def sockets_of(slack: SlackDouble, app: App, *, connections: int = 2, workers: int = 16) -> Iterator[Sockets]:
    """Running against this Slack, which delivers to them and nowhere else."""
    slack.connect_app_socket()
    client = WebClient(base_url=slack.url, timeout=5, retry_handlers=[])
    made = Sockets(app, app_token=slack.app_token, client=client, connections=connections, workers=workers)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def on(sqlite_store: SqlStore) -> Iterator[Stage]:
    with stage(sqlite_store) as made:
        yield made


@pytest.fixture
def slack() -> Iterator[SlackDouble]:
    with SlackDouble(event_retry_seconds=(0,)) as double:
        double.add_member("U0ANA", name="ana")
        yield double


@pytest.fixture
def app(slack: SlackDouble) -> App:
    """Answers each command with its own words."""
    app = App(
        signing_secret="",
        client=WebClient(base_url=slack.url),
        process_before_response=True,
        token_verification_enabled=False,
        authorize=lambda: AuthorizeResult(
            enterprise_id=None, team_id="T0PASSPORT", bot_token=slack.bot_token, bot_user_id="U0PASSPORT"
        ),
    )

    @app.command("/passport")
    def answer(ack: Callable[..., object], body: dict[str, Any]) -> None:
        ack(body["text"])

    return app


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection has lived long enough to be followed at once."""
    monkeypatch.setattr(module, "STEADY", timedelta())


def joined(slack: SlackDouble, count: int = 2) -> None:
    slack.wait_until(lambda: slack.sockets.connections == count, seconds=20)


def opened(slack: SlackDouble) -> int:
    return sum(call.method == "apps.connections.open" for call in slack.calls)


def say(slack: SlackDouble, text: str) -> Delivery:
    return slack.person("U0ANA").command("/passport", text)


# --- The journeys --------------------------------------------------------------------------------------------------


def test_commands_clicks_forms_and_home_over_three_connections(on: Stage) -> None:
    with sockets_of(on.slack, on.app, connections=3) as sockets:
        joined(on.slack, 3)
        on.slack.wait_until(lambda: sockets.connected == 3)
        sent = [on.say("request web-1 for 1h because INC-123 disk full") for _ in range(3)]
        assert ["AR-" in each.plain for each in sent] == [True] * 3
        request_id = on.world.submitting.own(ANA_CALLS)[0].request.id
        on.press(on.card(request_id), ids.REVIEW_APPROVE)
        assert "Approved" in on.told(BEN.user_id)[0]
        assert on.say("request db-2").ok
        ana = on.slack.person(ANA.user_id)
        form = ana.view()
        assert form is not None
        assert len(ana.suggest(form, ids.REQUEST_SERVERS, "web")) == 1
        wrong = {ids.REQUEST_REASON: "x", ids.REQUEST_SOURCE_IP: "10.0.0.0/8"}
        assert "not one IP" in ana.submit(values=wrong).errors[ids.REQUEST_SOURCE_IP]
        assert ana.open_home().ok
        assert [delivery.error for delivery in on.slack.deliveries] == [None] * len(on.slack.deliveries)


def test_the_gate_stands_before_the_sockets_too(on: Stage) -> None:
    with sockets_of(on.slack, on.app):
        joined(on.slack)
        assert "Guests cannot use Passport" in on.say("list", "U0GUEST").plain
        assert "another one" in on.say("list", "U0OTHER").plain


def test_the_same_delivery_over_two_connections_is_one_request(on: Stage) -> None:
    with sockets_of(on.slack, on.app):
        joined(on.slack)
        sent = on.say("request web-1 for 1h because INC-123 disk full")
        with ThreadPoolExecutor(4) as pool:
            again = list(pool.map(lambda _: on.slack.resend(sent), range(4)))
        assert [each.ok for each in again] == [True] * 4
        assert len(on.world.submitting.own(ANA_CALLS)) == 1


def test_many_people_at_once_are_answered_in_time(on: Stage) -> None:
    with sockets_of(on.slack, on.app):
        joined(on.slack)
        with ThreadPoolExecutor(10) as pool:
            sent = list(pool.map(lambda _: on.say("help"), range(60)))
        assert [each.error for each in sent] == [None] * 60  # Slack gives up after three seconds


# --- Connections ---------------------------------------------------------------------------------------------------


def test_slack_is_down_at_first_and_joined_later(
    slack: SlackDouble, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        with slack.faults.down():
            sockets = stack.enter_context(sockets_of(slack, app))
            slack.wait_until(lambda: opened(slack) >= 4)
            assert sockets.connected == 0
            assert say(slack, "anybody?").error == "dispatch_failed"
        joined(slack)
        assert say(slack, "here").text == "here"
    told = [
        record.message for record in caplog.records if record.levelno == logging.WARNING and "socket" in record.message
    ]
    assert len(told) == 2  # one a connection, however often it was tried
    assert all("I go on trying" in line for line in told)


@pytest.mark.usefixtures("steady")
def test_slack_goes_down_and_is_joined_again(slack: SlackDouble, app: App) -> None:
    with sockets_of(slack, app) as sockets:
        joined(slack)
        with slack.faults.down():
            slack.wait_until(lambda: (slack.sockets.connections, sockets.connected) == (0, 0))
            assert say(slack, "anybody?").error == "dispatch_failed"
        joined(slack)
        assert say(slack, "here").text == "here"


def test_slacks_retry_after_is_honoured(slack: SlackDouble, app: App) -> None:
    slack.faults.rate_limit("apps.connections.open", retry_after=3, times=1)
    with sockets_of(slack, app, connections=1):
        slack.wait_until(lambda: opened(slack) == 1)
        with pytest.raises(TimeoutError):
            slack.wait_until(lambda: opened(slack) > 1, seconds=2)
        joined(slack, 1)


@pytest.mark.parametrize("code", ["invalid_auth", "internal_error"])
def test_a_refusal_is_named_and_tried_again(
    slack: SlackDouble, app: App, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    slack.faults.fail("apps.connections.open", code, times=1)
    with sockets_of(slack, app, connections=1):
        joined(slack, 1)
    assert f"no connection to Slack ({code})" in caplog.text


def test_an_error_of_http_is_tried_again(slack: SlackDouble, app: App, caplog: pytest.LogCaptureFixture) -> None:
    slack.faults.http_error("apps.connections.open", status=503, times=1)
    with sockets_of(slack, app, connections=1):
        joined(slack, 1)
    assert "no connection to Slack (HTTP 503)" in caplog.text


@pytest.mark.usefixtures("steady")
def test_connections_that_are_cut_off_come_back(slack: SlackDouble, app: App) -> None:
    with sockets_of(slack, app):
        joined(slack)
        for round_number in range(3):
            before = opened(slack)
            slack.sockets.cut()
            slack.wait_until(lambda: opened(slack) == before + 2)  # noqa: B023 - looked at within the round
            joined(slack)
            assert say(slack, f"round {round_number}").text == f"round {round_number}"


@pytest.mark.usefixtures("steady")
def test_a_refresh_leaves_no_gap(slack: SlackDouble, app: App) -> None:
    with sockets_of(slack, app) as sockets:
        joined(slack)
        slack.sockets.refresh(close=False)
        joined(slack, 4)
        assert [say(slack, str(number)).text for number in range(8)] == [str(number) for number in range(8)]
        assert opened(slack) == 4
        slack.sockets.refresh()  # the old ones were told before: they get no second successor
        slack.wait_until(lambda: opened(slack) == 6)
        joined(slack)
        slack.wait_until(lambda: sockets.connected == 2)


@pytest.mark.usefixtures("steady")
def test_an_old_connection_that_slack_does_not_close_is_closed(
    slack: SlackDouble, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETIRES", timedelta(seconds=0.2))
    with sockets_of(slack, app):
        joined(slack)
        slack.sockets.refresh(close=False)
        slack.wait_until(lambda: opened(slack) == 4)
        joined(slack)
        assert say(slack, "here").text == "here"


def test_too_many_connections_wait_for_a_place(slack: SlackDouble, app: App) -> None:
    client = WebClient(base_url=slack.url)
    with ExitStack() as others:
        for _ in range(10):
            others.enter_context(connect(str(client.apps_connections_open(app_token=slack.app_token)["url"])))
        joined(slack, 10)
        with sockets_of(slack, app, connections=1) as sockets:
            slack.wait_until(lambda: opened(slack) >= 12)
            assert sockets.connected == 0
            others.close()
            slack.wait_until(lambda: sockets.connected == 1, seconds=20)
            assert opened(slack) < 20  # it does not knock without a pause


def test_an_address_without_tls_is_refused(app: App) -> None:
    class Elsewhere(WebClient):
        def apps_connections_open(self, *, app_token: str, **_: Any) -> Any:
            return {"url": "ws://elsewhere.example/link"}

    made = Sockets(app, app_token="xapp-1", client=Elsewhere(base_url="https://slack.com/api/"))
    with pytest.raises(ValueError, match="without TLS"):
        made._address()


# --- Answers -------------------------------------------------------------------------------------------------------


def test_what_was_taken_is_answered_before_the_end(slack: SlackDouble, app: App) -> None:
    busy, go_on = threading.Event(), threading.Event()

    @app.command("/slow")
    def slow(ack: Callable[..., object]) -> None:
        busy.set()
        go_on.wait(10)
        ack("done")

    with sockets_of(slack, app) as sockets, ThreadPoolExecutor(2) as pool:
        joined(slack)
        sent = pool.submit(slack.person("U0ANA").command, "/slow")
        assert busy.wait(10)
        ended = pool.submit(sockets.stop)
        assert not ended.done()
        go_on.set()
        assert sent.result(10).text == "done"
        ended.result(10)
        joined(slack, 0)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("socket-")]


def test_what_waited_too_long_is_not_done_behind_the_persons_back(
    slack: SlackDouble, app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LATEST", timedelta(seconds=0.1))
    busy, go_on, done = threading.Event(), threading.Event(), []

    @app.command("/slow")
    def slow(ack: Callable[..., object], body: dict[str, Any]) -> None:
        done.append(body["text"])
        busy.set()
        go_on.wait(10)
        ack()

    slack.ack_seconds = 0.5
    with sockets_of(slack, app, workers=1):
        joined(slack)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(slack.person("U0ANA").command, "/slow", "first")
            assert busy.wait(10)
            second = slack.person("U0ANA").command("/slow", "second")
            assert second.error == first.result().error == "operation_timeout"
        go_on.set()
        slack.wait_until(lambda: "Too busy for a delivery" in caplog.text)
        assert done == ["first"]


def test_a_listener_that_breaks_leaves_its_connection_be(
    slack: SlackDouble, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    @app.error
    def broken(error: Exception) -> None:
        raise error

    @app.command("/broken")
    def fails() -> None:
        raise ZeroDivisionError

    slack.ack_seconds = 0.5
    with sockets_of(slack, app, connections=1):
        joined(slack, 1)
        assert slack.person("U0ANA").command("/broken").error == "operation_timeout"
        assert say(slack, "well").text == "well"
        assert opened(slack) == 1


def test_what_is_no_envelope_is_passed_over(slack: SlackDouble, app: App) -> None:
    with sockets_of(slack, app, connections=1):
        joined(slack, 1)
        (found,) = slack.sockets._all()
        for text in ("no json", "[]", "{}", '{"envelope_id": "1", "type": "interactive", "payload": "text"}', b"\xff"):
            found.connection.send(text)
        assert say(slack, "well").text == "well"


def test_an_event_is_retried_with_its_number(slack: SlackDouble, app: App) -> None:
    seen: list[tuple[list[str], ...]] = []

    @app.event("app_home_opened")
    def home(request: Any) -> None:
        names = ("x-slack-retry-num", "x-slack-retry-reason")
        seen.append(tuple(request.headers.get(name, []) for name in names))
        if len(seen) == 1:
            raise ZeroDivisionError

    slack.ack_seconds = 0.5
    with sockets_of(slack, app):
        joined(slack)
        assert slack.person("U0ANA").open_home().ok
    assert seen == [([], []), (["1"], ["http_timeout"])]


def test_no_token_address_or_typed_word_is_logged(
    slack: SlackDouble, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("slack_sdk").setLevel(logging.WARNING)  # as bot.logs does
    logging.getLogger("slack_bolt").setLevel(logging.WARNING)
    with sockets_of(slack, app):
        joined(slack)
        assert say(slack, "recognisable words").ok
        slack.sockets.cut()
        slack.faults.fail("apps.connections.open", "invalid_auth", times=2)
        joined(slack)
    ours = "\n".join(
        record.getMessage() for record in caplog.records if not record.name.startswith(("sandbox", "websockets.server"))
    )
    assert "connected to Slack" in ours
    assert not [word for word in (slack.app_token, "ticket=", "recognisable") if word in ours]
