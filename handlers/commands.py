"""``/passport``: from the words typed to the journey that answers."""

import re

from slack_bolt import App

from handlers import blocks
from handlers.end import Ends
from handlers.grammar import parse
from handlers.keys import PublicKeys
from handlers.link import Links
from handlers.listening import Listening
from handlers.replies import Reply
from handlers.request import Requests
from handlers.setup import Setup
from handlers.status import Statuses
from handlers.turn import Turn
from handlers.understood import About, AddKey, Exempt, Parsed, Plain, RemoveKey, Revoke, Unexempt

_HELP = """\
*Ask for access*
`/passport request web-1 db-2 for 2h because INC-123: disk full`
`/passport request tag:role=web from 203.0.113.7 because …`
`/passport request` opens a form
*See and end it*
`/passport list` · `/passport status AR-7F3K` · `/passport cancel AR-7F3K`
`/passport done` when you have finished · `/passport revoke AR-7F3K because …` for reviewers
*You and your key*
`/passport link` · `/passport whoami` · `/passport unlink`
`/passport key add ssh-ed25519 AAAA…` · `/passport key list` · `/passport key remove SHA256:…`
`/passport setup` sets your laptop up, once: from then on `ssh web-1.passport`
`/passport exception @somebody their@email.example because …` and
`/passport exception remove @somebody because …` for admins"""


class Commands:
    """The slash command, one method for each kind of thing understood."""

    def __init__(
        self, *, links: Links, requests: Requests, ends: Ends, keys: PublicKeys, setup: Setup, statuses: Statuses
    ) -> None:
        self._links = links
        self._requests = requests
        self._ends = ends
        self._keys = keys
        self._setup = setup
        self._statuses = statuses

    def register(self, app: App, listening: Listening) -> None:
        """Whatever the workspace has named the command."""
        app.command(re.compile(".*"))(listening.command(self.answer))

    def answer(self, turn: Turn, text: str) -> Reply | None:
        """Understand and answer; None when the answer is a modal. Raises what parsing and the services raise."""
        match parse(text):
            case Parsed() as parsed:
                return self._requests.ask(turn, parsed)
            case Revoke() as revoke:
                return self._ends.revoke(turn, revoke)
            case Plain(verb=verb):
                return self._plain(turn, verb)
            case About() as about:
                return self._about(turn, about)
            case AddKey() | RemoveKey() | Exempt() | Unexempt() as other:
                return self._own(turn, other)

    def _own(self, turn: Turn, wanted: AddKey | RemoveKey | Exempt | Unexempt) -> Reply:
        match wanted:
            case AddKey():
                return self._keys.add(turn, wanted)
            case RemoveKey():
                return self._keys.remove(turn, wanted)
            case Exempt():
                return self._links.exempt(turn, wanted)
            case Unexempt():
                return self._links.unexempt(turn, wanted)

    def _about(self, turn: Turn, about: About) -> Reply:
        act = {"status": self._statuses.status, "cancel": self._requests.cancel, "done": self._ends.complete}
        return act[about.verb](turn, about.request_id)

    def _plain(self, turn: Turn, verb: str) -> Reply:
        act = {
            "link": self._links.link,
            "whoami": self._links.whoami,
            "unlink": self._links.unlink,
            "list": self._statuses.list,
            "setup": self._setup.lines,
            "key list": self._keys.list,
        }
        return act[verb](turn) if verb in act else _help()


def _help() -> Reply:
    plain = "Ask for access: /passport request web-1 for 2h because INC-123: disk full"
    return Reply(sentence=plain, blocks=(blocks.section(_HELP),))
