"""The listeners on a stage: a strict Slack that signs and delivers, Flask that takes it, real storage beneath."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request
from slack_bolt import App
from slack_bolt.adapter.flask import SlackRequestHandler
from slack_sdk import WebClient
from werkzeug.serving import make_server

from access.model import SlackUser
from access.ports import Store
from access.service.bundling import Bundling
from access.service.challenges import Challenges
from access.service.desk import Caller
from access.service.keys import Keys
from access.service.linking import Linking
from access.service.showing import Showing
from handlers import ids
from handlers.after_ack import AfterAck
from handlers.app import build_app
from handlers.blocks import actions, button, section
from handlers.members import Members, inline
from handlers.surface import Surface
from provisioning.connection import connection
from provisioning.desktop import forwarding_command
from provisioning.ssh_keys import parse_public_key
from sandbox.slack import Delivery, Message, SlackDouble
from tests.authorities import ring
from tests.values import ANA, BEN
from tests.world import World

CARD = "C0LEADS"
TOWN = "C0TOWN"
MAX = SlackUser(team_id="T0PASSPORT", user_id="U0MAX")
ANA_CALLS = Caller(slack_user=ANA)


@dataclass
class Stage:
    """Ana asks, Ben decides; Max is nobody's friend yet."""

    slack: SlackDouble
    world: World
    surface: Surface
    app: App

    def say(self, text: str, who: str = ANA.user_id) -> Delivery:
        """Type ``/passport <text>`` in the town square."""
        return self.slack.person(who).command("/passport", text, channel=TOWN)

    def post(self, channel: str, action_id: str, value: str) -> Message:
        """A message of Passport's with one button, as the feed posts them."""
        blocks = [section("A card"), actions(button("Press", action_id, value=value))]
        answer = self.surface.client.chat_postMessage(channel=channel, text="A card", blocks=blocks)
        return self.slack.workspace.message(channel, str(answer["ts"]))

    def card(self, request_id: str, action_id: str = ids.REVIEW_APPROVE) -> Message:
        """The reviewers' card of a request."""
        return self.post(CARD, action_id, request_id)

    def direct(self, action_id: str, value: str, who: str = ANA.user_id) -> Message:
        """A direct message with one button."""
        return self.post(self.slack.workspace.direct(who).id, action_id, value)

    def press(self, message: Message, action_id: str, who: str = BEN.user_id) -> Delivery:
        """Press its button."""
        return self.slack.person(who).click(message, action_id)

    def told(self, who: str, count: int = 1) -> list[str]:
        """What only this person sees, once there are so many answers."""
        person = self.slack.person(who)
        self.slack.wait_until(lambda: len(person.ephemerals()) >= count)
        return [message.plain for message in person.ephemerals()]

    def methods(self) -> list[str]:
        """The Web API methods called so far, without the posts that tests make themselves."""
        return [call.method for call in self.slack.calls if call.method != "chat.postMessage"]


@contextmanager
def stage(store: Store, *, room: int = 100, own_aws_credentials: bool = False, **settings: Any) -> Iterator[Stage]:
    """Everything running, on loopback."""
    with SlackDouble() as slack:
        world = World(store)
        _people(slack)
        client = WebClient(token=slack.bot_token, base_url=slack.url)
        after_ack = AfterAck(room=room)
        showing = Showing(world.desk, ring(world.authority))
        links = Challenges([b"k" * 32], clock=world.clock, random_bytes=os.urandom)
        surface = Surface(
            linking=Linking(world.desk),
            submitting=world.submitting,
            reviewing=world.reviewing,
            retrying=world.retrying,
            ending=world.ending,
            keys=Keys(world.desk),
            showing=showing,
            bundling=Bundling(showing, links) if own_aws_credentials else None,
            members=Members(inline(client), team_id="T0PASSPORT", clock=world.clock),
            inventory=world.inventory,
            policy=world.desk.policy,
            client=client,
            after_ack=after_ack,
            connect=connection,
            forward=forwarding_command,
            parse_key=parse_public_key,
            clock=world.clock,
            team_id="T0PASSPORT",
            bot_user_id="U0PASSPORT",
            public_url="https://passport.example.com",
            signing_secret=slack.signing_secret,
            **settings,
        )
        app = build_app(surface)
        with serving(app) as url:
            slack.connect_app(url)
            yield Stage(slack=slack, world=world, surface=surface, app=app)
        after_ack.close()


@contextmanager
def serving(app: App) -> Iterator[str]:
    """The app behind Flask, each request on a thread of its own."""
    flask, handler = Flask("passport-test"), SlackRequestHandler(app)

    @flask.post("/slack/events")
    def take() -> Response:
        return handler.handle(request)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, flask, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/slack/events"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _people(slack: SlackDouble) -> None:
    slack.add_member(ANA.user_id, name="ana", real_name="Ana Ruiz")
    slack.add_member(BEN.user_id, name="ben", real_name="Ben Ito")
    slack.add_member("U0MAX", name="max", real_name="Max Voss")
    slack.add_member("U0GUEST", name="gus", guest="restricted")
    slack.add_member("U0ULTRA", name="uli", guest="ultra_restricted")
    slack.add_member("U0GONE", name="gil", deleted=True)
    slack.add_member("U0OTHER", name="olga", team_id="T0ELSEWHERE")
    slack.add_member("U0BOT", name="botty", is_bot=True)
    everyone = [ANA.user_id, BEN.user_id, "U0MAX", "U0GUEST", "U0ULTRA", "U0GONE", "U0OTHER", "U0BOT"]
    slack.add_channel(TOWN, name="town", members=everyone)
    slack.add_channel(CARD, name="payments-leads", members=everyone)


def shown(sent: Delivery) -> Message:
    """The message that an answer put on the screen."""
    assert sent.message is not None, sent
    return sent.message
