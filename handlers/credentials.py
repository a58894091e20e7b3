"""Show credentials: to the requester, in their direct messages, for as long as the screen lives."""

from slack_bolt import App

from access.errors import RefusedError
from access.service.showing import Credentials
from access.words import join_words
from handlers import blocks, ids, mrkdwn
from handlers.blocks import Block
from handlers.listening import Listening
from handlers.operands import parse_request_id
from handlers.phrases import names, shown
from handlers.replies import Reply
from handlers.surface import Connection, Surface
from handlers.turn import Turn

MOST_BLOCKS = 50  # Slack: "Blocks", in a message


class ShowCredentials:
    """The one button whose answer opens something."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def register(self, app: App, listening: Listening) -> None:
        """The button in the direct message."""
        app.action(ids.CREDENTIALS_SHOW)(listening.click(self.show))

    def show(self, turn: Turn, value: str) -> Reply:
        """A fresh certificate and how to use it."""
        if not turn.channel.startswith("D"):
            raise RefusedError("I show credentials in our direct messages only.")
        found = self._surface.showing.credentials(turn.caller, parse_request_id(value))
        return _reply(found, self._surface.connect(found.request, found.grants, found.certificate))


def _reply(found: Credentials, connection: Connection) -> Reply:
    until = found.request.expires_at or found.request.submitted_at
    servers = [grant.server for grant in found.grants]
    intro = (
        f"*{names(servers)}* as `{connection.user}` until {mrkdwn.clock(until)}, "
        f"with your key {shown(found.key.fingerprint)}."
    )
    # The name stands outside the fence: in a shell, even a comment made of it could be run.
    commands = [f"*{shown(server.name, 60)}*\n{blocks.fenced(server.command)}" for server in connection.servers]
    seen: list[Block] = [
        blocks.section(f"{intro}\nPaste this once in a terminal on your laptop. It writes two small files:"),
        *blocks.code(connection.install),
        blocks.section(f"Then log in. If your key is not `{connection.key_file}`, name the right file:"),
        *blocks.packed(commands),
        blocks.section("The certificate, for other tools:"),
        *blocks.code(connection.certificate),
    ]
    last = "Only you see this, and it is gone when Slack reloads. Press the button again for it."
    if len(seen) >= MOST_BLOCKS:
        seen, last = seen[: MOST_BLOCKS - 1], f"That is more than Slack shows at once. {last}"
    plain = f"Credentials for {join_words([server.name for server in servers])}, until {until:%H:%M} UTC."
    return Reply(sentence=plain, blocks=(*seen, blocks.context(last)))
