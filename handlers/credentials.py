"""Show credentials: to the requester, in their direct messages, for as long as the screen lives."""

from collections.abc import Iterator
from datetime import datetime

from slack_bolt import Ack, App

from access.errors import RefusedError
from access.service.showing import Credentials
from access.words import join_words
from handlers import blocks, ids, mrkdwn
from handlers.blocks import Block
from handlers.desktops import MOST_DESKTOPS, desktops
from handlers.listening import Listening
from handlers.operands import parse_request_id
from handlers.phrases import names, on_laptop, shown
from handlers.replies import Reply
from handlers.surface import Connection, Surface
from handlers.turn import Turn

MOST_BLOCKS = 50  # Slack: "Blocks", in a message
MOST_SERVERS = 96  # of which their host keys may fit; more would only take time to find that out


class ShowCredentials:
    """The one button whose answer opens something."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def register(self, app: App, listening: Listening) -> None:
        """The button in the direct message."""
        app.action(ids.CREDENTIALS_SHOW)(listening.click(self.show))
        app.action(ids.CREDENTIALS_BUNDLE)(self._opened)

    def show(self, turn: Turn, value: str) -> Reply:
        """What to type; and, for people with AWS credentials of their own, a fresh certificate and how to use it."""
        if not turn.channel.startswith("D"):
            raise RefusedError("I show credentials in our direct messages only.")
        request_id, bundling = parse_request_id(value), self._surface.bundling
        if bundling is None:
            found = self._surface.showing.look(turn.caller, request_id)
            return _reply(found, [*_first(found), *_all(found), *desktops(found, None)], len(found.grants))
        found = self._surface.showing.credentials(turn.caller, request_id, with_passwords=True)
        url = f"{self._surface.home}/bundle/{bundling.offer(turn.caller.slack_user, request_id)}"
        windows = list(desktops(found, self._surface.forward))
        first = [*_first(found), *_download(found, url)]
        many = min(len(found.grants), MOST_SERVERS)
        while True:  # what does not fit is left out whole: half a file would be no file
            plain = self._plain_forms(found, many) if many else ()
            seen = [*first, *plain, *windows]
            if len(seen) < MOST_BLOCKS or many <= 1:
                return _reply(found, seen, many)
            many //= 2

    def _plain_forms(self, found: Credentials, many: int) -> Iterator[Block]:
        return _plain_forms(self._surface.connect(found.request, found.grants[:many], found.certificate))

    def _opened(self, ack: Ack) -> None:
        ack()


def _first(found: Credentials) -> Iterator[Block]:
    """What nearly everybody wants: a laptop that is set up needs nothing but this."""
    servers = [grant.server for grant in found.grants]
    if found.key is None:
        return
    yield blocks.section(
        f"*{names(servers)}* as `{found.request.user_name}` until {mrkdwn.clock(_until(found))}, "
        f"with your key {shown(found.key.fingerprint)}.\n"
        f"On a laptop that is set up (once: `/passport setup`): `{on_laptop(servers[0])}`"
    )


def _all(found: Credentials) -> Iterator[Block]:
    """The same for every server, where there are several."""
    if len(found.grants) > 1:
        yield from blocks.code("\n".join(on_laptop(grant.server) for grant in found.grants))


def _download(found: Credentials, url: str) -> Iterator[Block]:
    """A zip with an ssh configuration, where there is a server that ssh reaches."""
    if found.grants:
        yield blocks.actions(blocks.button("Download as zip", ids.CREDENTIALS_BUNDLE, url=url))


def _plain_forms(connection: Connection) -> Iterator[Block]:
    # The name stands outside the fence: in a shell, even a comment made of it could be run.
    commands = [f"*{shown(server.name, 60)}*\n{blocks.fenced(server.command)}" for server in connection.servers]
    yield blocks.section("Without that, with AWS credentials of your own. Paste this once; it writes two small files:")
    yield from blocks.code(connection.install)
    yield blocks.section(f"Then log in. If your key is not `{connection.key_file}`, name the right file:")
    yield from blocks.packed(commands)
    yield blocks.section("The certificate, for other tools:")
    yield from blocks.code(connection.certificate)


def _reply(found: Credentials, seen: list[Block], many: int) -> Reply:
    servers = [grant.server for grant in (*found.grants, *found.desktops)]
    many += min(len(found.desktops), MOST_DESKTOPS)
    last = "Only you see this, and it is gone when Slack reloads. Press the button again for it."
    if many < len(servers):
        last = f"These are {many} of {len(servers)} servers: Slack shows no more at once. {last}"
    plain = f"Credentials for {join_words([server.name for server in servers])}, until {_until(found):%H:%M} UTC."
    return Reply(sentence=plain, blocks=(*seen[: MOST_BLOCKS - 1], blocks.context(last)))


def _until(found: Credentials) -> datetime:
    return found.request.expires_at or found.request.submitted_at
