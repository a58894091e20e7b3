"""Socket Mode of the sandbox's Slack, with the real SocketModeHandler of slack_bolt."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from slack_bolt import App
from slack_bolt.adapter.socket_mode import SocketModeHandler
from slack_bolt.authorization import AuthorizeResult
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from sandbox.slack import SlackDouble

Json = dict[str, Any]


@pytest.fixture
def slack() -> Iterator[SlackDouble]:
    with SlackDouble(event_retry_seconds=(0,)) as double:
        double.add_member("U0ANA", name="ana")
        double.connect_app_socket()
        yield double


@pytest.fixture
def app(slack: SlackDouble) -> App:
    return App(
        signing_secret="",
        client=WebClient(token=slack.bot_token, base_url=slack.url),
        process_before_response=True,
        authorize=lambda: AuthorizeResult(
            enterprise_id=None, team_id="T0PASSPORT", bot_token=slack.bot_token, bot_user_id="U0PASSPORT"
        ),
    )


def handler_of(slack: SlackDouble, app: App) -> SocketModeHandler:
    client = WebClient(base_url=slack.url)
    return SocketModeHandler(app, app_token=slack.app_token, web_client=client, ping_interval=0.5)


def url_of(slack: SlackDouble) -> str:
    opened = WebClient(base_url=slack.url).apps_connections_open(app_token=slack.app_token)
    return str(opened["url"])


def test_commands_clicks_and_events_over_a_socket(slack: SlackDouble, app: App) -> None:
    homes: list[str] = []

    @app.command("/passport")
    def command(ack: Callable[..., object], body: Json) -> None:
        ack(text=body["text"], blocks=[{"type": "section", "text": {"type": "mrkdwn", "text": "*hello*"}}])

    @app.event("app_home_opened")
    def home(event: Json) -> None:
        homes.append(event["user"])

    handler = handler_of(slack, app)
    handler.client.connect()
    try:
        slack.wait_until(lambda: slack.sockets.connections == 1)
        ana = slack.person("U0ANA")
        delivery = ana.command("/passport", "request web-1")
        assert (delivery.ok, delivery.text, delivery.plain) == (True, "request web-1", "hello")
        assert [message.plain for message in ana.ephemerals()] == ["hello"]
        assert ana.open_home().ok
        slack.wait_until(lambda: homes == ["U0ANA"])
    finally:
        handler.client.close()


def test_any_of_several_connections_gets_the_next_delivery(slack: SlackDouble) -> None:
    with connect(url_of(slack)) as one, connect(url_of(slack)) as two:
        for socket in (one, two):
            assert '"hello"' in str(socket.recv(timeout=5))
        slack.ack_seconds = 0.2
        ana = slack.person("U0ANA")
        errors = [ana.command("/passport").error for _ in range(2)]
        assert errors == ["operation_timeout"] * 2
        assert all('"slash_commands"' in str(socket.recv(timeout=5)) for socket in (one, two))


def test_an_unacknowledged_event_is_sent_again(slack: SlackDouble) -> None:
    slack.ack_seconds = 0.2
    with connect(url_of(slack)) as socket:
        socket.recv(timeout=5)
        slack.person("U0ANA").open_home()
        first, again = str(socket.recv(timeout=5)), str(socket.recv(timeout=5))
        assert ('"retry_attempt": 0' in first, '"retry_attempt": 1' in again) == (True, True)


def test_without_a_connection_a_delivery_fails(slack: SlackDouble) -> None:
    assert slack.person("U0ANA").command("/passport").error == "dispatch_failed"


def test_a_ticket_is_good_for_one_connection(slack: SlackDouble) -> None:
    url = url_of(slack)
    with connect(url):
        pass
    with pytest.raises(InvalidStatus):
        connect(url)


def test_no_more_than_ten_connections(slack: SlackDouble) -> None:
    with contextlib.ExitStack() as sockets:
        for _ in range(10):
            sockets.enter_context(connect(url_of(slack)))
        slack.wait_until(lambda: slack.sockets.connections == 10)
        with connect(url_of(slack)) as eleventh:
            assert "too_many_websockets" in str(eleventh.recv(timeout=5))
            with pytest.raises(ConnectionClosed):
                eleventh.recv(timeout=5)


def test_the_bot_token_opens_no_socket(slack: SlackDouble) -> None:
    with pytest.raises(SlackApiError, match="not_allowed_token_type"):
        WebClient(base_url=slack.url).apps_connections_open(app_token=slack.bot_token)


def test_a_refresh_makes_the_app_reconnect(slack: SlackDouble, app: App) -> None:
    @app.command("/passport")
    def command(ack: Callable[..., object]) -> None:
        ack("here")

    handler = handler_of(slack, app)
    handler.client.connect()
    try:
        slack.wait_until(lambda: slack.sockets.connections == 1)
        opened = len([call for call in slack.calls if call.method == "apps.connections.open"])
        slack.sockets.refresh()
        slack.wait_until(
            lambda: (
                len([call for call in slack.calls if call.method == "apps.connections.open"]) > opened
                and slack.sockets.connections == 1
            )
        )
        assert slack.person("U0ANA").command("/passport").plain == "here"
    finally:
        handler.client.close()


def test_a_connection_that_slack_ends_gets_nothing_more(slack: SlackDouble) -> None:
    with connect(url_of(slack)) as app:
        slack.wait_until(lambda: slack.sockets.connections == 1)
        slack.sockets._all()[0].connection.close = lambda: None  # type: ignore[method-assign]
        slack.sockets.refresh()
        assert slack.sockets.connections == 0
        assert "hello" in str(app.recv(timeout=5))
        assert "refresh_requested" in str(app.recv(timeout=5))


def test_nothing_keeps_running_after_the_end() -> None:
    with SlackDouble() as slack:
        slack.connect_app_socket()
        url_of(slack)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slack-")]
