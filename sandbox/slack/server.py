"""The strict Slack: one object that is the server for the app and the remote control for tests and demo."""

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from sandbox.slack import chat_methods, payloads, people_methods, view_methods
from sandbox.slack.deliveries import Courier, Delivery, HttpTransport
from sandbox.slack.events import RETRY_SECONDS, Events
from sandbox.slack.faults import Faults, RateLimits
from sandbox.slack.http_server import HttpServer, Request, Response
from sandbox.slack.people import Client, Person
from sandbox.slack.response_urls import ResponseUrls
from sandbox.slack.socket_mode import SocketMode
from sandbox.slack.views import Views
from sandbox.slack.web_api import Call, Office, Tokens, WebApi
from sandbox.slack.wire import Clock, Json
from sandbox.slack.workspace import Channel, ChannelKind, Guest, Member, Message, Usergroup, Workspace

DEFAULT_SCOPES = (
    "commands",
    "chat:write",
    "im:write",
    "users:read",
    "users:read.email",
    "usergroups:read",
    "channels:read",
    "groups:read",
)
_log = logging.getLogger(__name__)
_METHODS = {**chat_methods.METHODS, **people_methods.METHODS, **view_methods.METHODS}
_FORM = "application/x-www-form-urlencoded"


class SlackDouble:
    """A Slack on 127.0.0.1 that is no laxer than the real one; for tests and the demo only."""

    def __init__(
        self,
        *,
        team_id: str = "T0PASSPORT",
        signing_secret: str | None = None,
        bot_token: str | None = None,
        app_token: str | None = None,
        bot_user_id: str = "U0PASSPORT",
        app_id: str = "A0PASSPORT",
        scopes: Iterable[str] = DEFAULT_SCOPES,
        real_rate_limits: bool = False,
        event_retry_seconds: Sequence[float] = RETRY_SECONDS,
        port: int = 0,
    ) -> None:
        self.signing_secret = signing_secret or secrets.token_hex(16)
        self.bot_token = bot_token or f"xoxb-{secrets.token_hex(16)}"
        self.app_token = app_token or f"xapp-{secrets.token_hex(16)}"
        self.clock = Clock()
        self.faults = Faults()
        self.workspace = Workspace(
            team_id=team_id, app_id=app_id, bot_id="B0PASSPORT", bot_user_id=bot_user_id, clock=self.clock
        )
        self.views = Views(self.workspace)
        self._courier = Courier(self.signing_secret, self._changed, self.faults)
        self._events = Events(self.workspace, self._courier, event_retry_seconds)
        self.sockets = SocketMode(app_id, self._changed, self.faults)
        self._response_urls = ResponseUrls(self.workspace)
        self._scopes = tuple(scopes)
        tokens = Tokens(bot=self.bot_token, app=self.app_token, scopes=frozenset(self._scopes))
        office = Office(
            workspace=self.workspace, views=self.views, tokens=tokens, make_socket_url=self.sockets.make_url
        )
        limits = RateLimits(self.clock) if real_rate_limits else None
        self._api = WebApi(office, _METHODS, self.faults, limits)
        self._http = HttpServer(self._route, port)
        self._people: dict[str, Person] = {}
        self.add_member(bot_user_id, name="passport", real_name="Passport", email="", is_bot=True)

    def __enter__(self) -> Self:
        self._http.start()
        _log.warning("sandbox Slack on %s: it is not Slack, and only for tests and the demo", self._base)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; what people see can still be looked at."""
        self.faults.close()
        self._events.close()
        self.sockets.close()
        self._http.close()

    @property
    def url(self) -> str:
        """The base URL for `slack_sdk.WebClient`."""
        return f"{self._base}/api/"

    @property
    def calls(self) -> list[Call]:
        """Every call of the Web API; posts to a response_url are there as `response_url`."""
        return self._api.calls

    @property
    def deliveries(self) -> list[Delivery]:
        """Everything delivered to the app."""
        return self._courier.deliveries

    @property
    def ack_seconds(self) -> float:
        """How long the app may take to answer a delivery."""
        return self._courier.ack_seconds

    @ack_seconds.setter
    def ack_seconds(self, seconds: float) -> None:
        self._courier.ack_seconds = seconds

    def connect_app(self, request_url: str) -> None:
        """Deliver over HTTP: one URL for commands, interactivity, options and events."""
        self._courier.transport = HttpTransport(request_url)

    def connect_app_socket(self) -> None:
        """Deliver over Socket Mode, to whichever connection's turn it is."""
        self._courier.transport = self.sockets

    def disconnect_app(self) -> None:
        """Deliver nowhere: every delivery fails as it does when no app answers."""
        self._courier.transport = None

    def verify_request_url(self) -> bool:
        """Send the `url_verification` challenge and say whether the app gave it back."""
        challenge = secrets.token_urlsafe(24)
        payload: Json = {"type": "url_verification", "token": payloads.VERIFICATION_TOKEN, "challenge": challenge}
        sent = self._courier.keep(self._courier.send("event", "", json.dumps(payload).encode(), payload))
        return sent.ok and challenge in sent.answer.decode("utf-8", "replace")

    def add_member(
        self,
        user_id: str,
        *,
        name: str,
        real_name: str | None = None,
        email: str | None = None,
        tz: str = "Europe/Madrid",
        guest: Guest | None = None,
        deleted: bool = False,
        team_id: str | None = None,
        is_admin: bool = False,
        is_bot: bool = False,
    ) -> Member:
        """Add a person; another `team_id` makes them a stranger from Slack Connect."""
        return self.workspace.put_member(
            Member(
                id=user_id,
                name=name,
                real_name=real_name or name.title(),
                email=f"{name}@example.com" if email is None else email,
                team_id=team_id or self.workspace.team_id,
                tz=tz,
                guest=guest,
                deleted=deleted,
                is_admin=is_admin,
                is_bot=is_bot,
            )
        )

    def deactivate(self, user_id: str) -> None:
        """Deactivate a person."""
        self.workspace.put_member(replace(self.workspace.member(user_id), deleted=True))

    def add_channel(
        self,
        channel_id: str,
        *,
        name: str,
        members: Iterable[str] = (),
        kind: ChannelKind = "public",
        with_bot: bool = True,
    ) -> Channel:
        """Add a channel; the app's bot is in it unless told otherwise."""
        bot = {self.workspace.bot_user_id} if with_bot else set()
        return self.workspace.put_channel(
            Channel(id=channel_id, name=name, kind=kind, members=frozenset(members) | bot)
        )

    def join(self, channel_id: str, *user_ids: str) -> None:
        """Add people to a channel."""
        channel = self.workspace.channel(channel_id)
        self.workspace.put_channel(replace(channel, members=channel.members | set(user_ids)))

    def leave(self, channel_id: str, *user_ids: str) -> None:
        """Take people out of a channel."""
        channel = self.workspace.channel(channel_id)
        self.workspace.put_channel(replace(channel, members=channel.members - set(user_ids)))

    def archive(self, channel_id: str) -> None:
        """Archive a channel."""
        self.workspace.put_channel(replace(self.workspace.channel(channel_id), archived=True))

    def add_usergroup(self, group_id: str, *, handle: str, members: Iterable[str] = ()) -> Usergroup:
        """Add a user group."""
        return self.workspace.put_usergroup(Usergroup(id=group_id, handle=handle, members=tuple(members)))

    def person(self, user_id: str) -> Person:
        """Act as this member; always the same client, so that what they typed stays."""
        with self.workspace.changed:
            self.workspace.member(user_id)
            client = Client(
                workspace=self.workspace,
                views=self.views,
                courier=self._courier,
                events=self._events,
                response_urls=self._response_urls,
                base=self._base,
            )
            return self._people.setdefault(user_id, Person(client, user_id))

    def reload(self, user_id: str) -> None:
        """Reload this person's client: what was ephemeral is gone."""
        self.person(user_id).reload()

    def messages(self, channel_id: str) -> list[Message]:
        """What is in a channel, whoever looks."""
        return self.workspace.messages(channel_id)

    def send_event(self, event: Json, *, user: str = "", team_id: str | None = None) -> Delivery:
        """Deliver any event, such as `team_join` or `user_change`."""
        return self._events.send(event, user=user, team_id=team_id or self.workspace.team_id)

    def resend(
        self,
        delivery: Delivery,
        *,
        body: bytes | None = None,
        signed: bool = True,
        timestamp: int | None = None,
        signature: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Delivery:
        """Send the very same bytes and headers again, as somebody who recorded them would.

        Another `timestamp` is signed correctly; another `body` or `signature` is not; `signed=False` strips both
        headers. The answer shows nobody anything.
        """
        sent = dict(delivery.headers)
        if timestamp is not None:
            sent.update(self._courier.signed(body or delivery.body, timestamp))
        if signature is not None:
            sent["X-Slack-Signature"] = signature
        if not signed:
            sent = {name: value for name, value in sent.items() if not name.startswith("X-Slack-")}
        again = Delivery(
            kind=delivery.kind,
            user=delivery.user,
            body=body or delivery.body,
            headers={**sent, **(headers or {})},
            payload=delivery.payload,
            replayed=True,
        )
        return self._courier.keep(self._courier.carry(again))

    def wait_until(self, holds: Callable[[], object], *, seconds: float = 10.0) -> None:
        """Wait until something holds, looking again at every change; raises TimeoutError."""
        end = time.monotonic() + seconds
        while not holds():  # not under the lock: it may well ask this Slack something
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s")
            with self.workspace.changed:
                self.workspace.changed.wait(0.02)

    @property
    def _base(self) -> str:
        return f"http://127.0.0.1:{self._http.port}"

    def _changed(self) -> None:
        with self.workspace.changed:
            self.workspace.changed.notify_all()

    def _route(self, request: Request) -> Response:
        if request.path.startswith("/api/"):
            name = request.path.removeprefix("/api/")
            kind, body = (request.content_type, request.body)
            if not body and request.query:
                kind, body = _FORM, request.query.encode()
            headers = {"X-OAuth-Scopes": ",".join(self._scopes)}
            return Response(status=200, body=self._api.answer(name, kind, body, request.bearer), headers=headers)
        if request.path.startswith(("/commands/", "/actions/")):
            use = partial(self._response_urls.use, request.path, request.body)
            status, answer = self._api.take_response(use, request.body)
            return Response(status=status, body=answer)
        return Response(status=404, body={"ok": False, "error": "not_found"})
