"""Retry: the servers that could not be opened are tried again."""

from slack_bolt import App

from access.words import join_words
from handlers import ids
from handlers.listening import Listening
from handlers.operands import parse_request_id
from handlers.replies import Reply
from handlers.surface import Surface
from handlers.turn import Turn


class Retries:
    """The button beside the servers that are missing."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def register(self, app: App, listening: Listening) -> None:
        """One button."""
        app.action(ids.REQUEST_RETRY)(listening.click(self.retry))

    def retry(self, turn: Turn, value: str) -> Reply:
        """Try them again."""
        retried = self._surface.retrying.retry(turn.caller, parse_request_id(value))
        names = join_words([grant.server.name for grant in retried.grants])
        return Reply.plain(f"I try {names} again, and tell you how it goes.")
