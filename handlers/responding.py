"""How an answer reaches the person: in the ack, after it, or as a modal."""

import logging
from collections.abc import Callable
from functools import partial

from slack_bolt import BoltResponse
from slack_sdk import WebhookClient
from slack_sdk.errors import SlackClientError
from slack_sdk.http_retry.builtin_handlers import (
    ConnectionErrorRetryHandler,
    RateLimitErrorRetryHandler,
    ServerErrorRetryHandler,
)

from access.errors import UnavailableError
from handlers.blocks import Block
from handlers.members import inline
from handlers.replies import Reply
from handlers.surface import Surface
from handlers.turn import Turn

log = logging.getLogger(__name__)

NO_FORM = "Slack is slow to open the form. If no form opens, try again; nothing has changed yet."
_POST_SECONDS = 10
_RETRIES = 4  # after 0.5, 1, 2 and 4 seconds: an answer is in nobody's database, so it has to outlive a short outage


class Responding:
    """Slack's side of an answer."""

    def __init__(self, surface: Surface) -> None:
        self._after_ack = surface.after_ack
        self._client = surface.client
        self._inline = inline(surface.client)

    def answer(self, turn: Turn, act: Callable[[], Reply | None]) -> BoltResponse | None:
        """Take a place in the pool, act, and let the pool post the answer.

        With no place left nothing is done, and the person is told so by a modal; the response is not None where
        not even that worked: its status makes Slack mark the button as failed. Home has no response_url: there
        the answer is a modal.
        """
        if not turn.response_url:
            if reply := act():
                self._say_in_modal(turn, reply)
            return None
        try:
            place = self._after_ack.reserve()
        except UnavailableError as busy:
            return self._say_busy(turn, busy)
        with place:
            if reply := act():
                place.run(partial(self._post, turn, reply))
        return None

    def open_modal(self, turn: Turn, view: Block) -> None:
        """The one inline call before an ack; raises UnavailableError when Slack is slow or the time is gone."""
        if turn.is_late:
            raise UnavailableError(NO_FORM)
        try:
            self._inline.views_open(trigger_id=turn.trigger_id, view=view)
        except (SlackClientError, OSError) as error:
            log.warning("Slack opened no modal: %s", type(error).__name__)
            raise UnavailableError(NO_FORM) from error

    def _say_busy(self, turn: Turn, busy: UnavailableError) -> BoltResponse | None:
        try:
            self.open_modal(turn, Reply.plain(busy.sentence).modal())
        except UnavailableError:
            return BoltResponse(status=503, body="Busy.")
        return None

    def _say_in_modal(self, turn: Turn, reply: Reply) -> None:
        try:
            self.open_modal(turn, reply.modal())
        except UnavailableError:
            log.warning("An answer to a click on Home did not get through")

    def _post(self, turn: Turn, reply: Reply) -> None:
        client = WebhookClient(
            turn.response_url,
            timeout=_POST_SECONDS,
            ssl=self._client.ssl,
            proxy=self._client.proxy,
            retry_handlers=[
                ConnectionErrorRetryHandler(_RETRIES),
                ServerErrorRetryHandler(_RETRIES),
                RateLimitErrorRetryHandler(),
            ],
        )
        answer = client.send_dict(reply.beside)
        if answer.status_code != 200:
            log.warning("Slack took no answer at a response_url: status %s", answer.status_code)
