"""The Bolt app: the gate, the journeys, and an answer to everything else."""

import logging
import re

from slack_bolt import App, BoltResponse
from slack_bolt.authorization import AuthorizeResult
from slack_sdk import WebClient

from access.errors import NotFoundError
from handlers.commands import Commands
from handlers.credentials import ShowCredentials
from handlers.end import Ends
from handlers.errors import Translation, broken
from handlers.gate import Gate
from handlers.home import Home
from handlers.keys import PublicKeys
from handlers.link import Links
from handlers.listening import Form, Listening
from handlers.replies import Reply
from handlers.request import Requests
from handlers.responding import Responding
from handlers.retry import Retries
from handlers.review import Reviews
from handlers.setup import Setup
from handlers.status import Statuses
from handlers.surface import Surface
from handlers.turn import Turn

log = logging.getLogger(__name__)

_FORGOTTEN = "I do not know this button any more. /passport list shows where your requests stand."


def build_app(surface: Surface) -> App:
    """The app, ready for Flask's or Socket Mode's adapter; it makes no call to Slack until somebody does something."""
    app = _app(surface)
    translation, responding = Translation(surface), Responding(surface)
    app.middleware(Gate(surface, responding, translation).pass_or_refuse)
    listening = Listening(responding, translation)
    links, requests = Links(surface), Requests(surface, responding)
    ends, statuses = Ends(surface, responding), Statuses(surface)
    commands = Commands(
        links=links,
        requests=requests,
        ends=ends,
        keys=PublicKeys(surface),
        setup=Setup(surface),
        statuses=statuses,
    )
    commands.register(app, listening)
    links.register(app)
    requests.register(app, listening)
    Reviews(surface, responding).register(app, listening)
    ShowCredentials(surface).register(app, listening)
    Retries(surface).register(app, listening)
    ends.register(app, listening)
    Home(surface).register(app)
    app.action(re.compile(".*"))(listening.click(_forgotten))
    app.view(re.compile(".*"))(listening.form(_forgotten, fields={"": ""}, keeps=()))
    app.error(_unforeseen)
    return app


def _app(surface: Surface) -> App:
    known = AuthorizeResult(
        enterprise_id=None, team_id=surface.team_id, bot_token=surface.client.token, bot_user_id=surface.bot_user_id
    )

    def authorize() -> AuthorizeResult:
        return known

    return App(
        name="passport",
        signing_secret=surface.signing_secret,
        # without a token of its own, Bolt verifies none with auth.test, neither now nor before the first ack
        client=WebClient(base_url=surface.client.base_url),
        authorize=authorize,
        token_verification_enabled=False,
        process_before_response=True,
        ssl_check_enabled=False,  # it would answer unsigned requests
        attaching_function_token_enabled=False,
        attaching_conversation_kwargs_enabled=False,
    )


def _forgotten(_turn: Turn, _what: str | Form) -> Reply:
    raise NotFoundError(_FORGOTTEN)


def _unforeseen(error: Exception) -> BoltResponse:
    broken(error)
    return BoltResponse(status=500, body="")
