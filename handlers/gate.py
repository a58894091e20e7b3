"""Who may come in: before any listener, every command, click, form and query passes here."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from slack_bolt import Ack, BoltContext, BoltResponse

from access.model import SlackUser
from access.service.desk import Caller
from handlers.errors import Translation
from handlers.replies import Reply
from handlers.responding import Responding
from handlers.surface import Surface
from handlers.turn import Turn, channel_of, message_ts_of, teams_of, user_of

log = logging.getLogger(__name__)

TURN = "passport_turn"
_SLACK_HOSTS = (".slack.com", ".slack-gov.com")


class Gate:
    """A middleware of Bolt's, behind its check of the signature."""

    def __init__(self, surface: Surface, responding: Responding, translation: Translation) -> None:
        self._surface = surface
        self._responding = responding
        self._translation = translation

    def pass_or_refuse(
        self,
        body: dict[str, Any],
        context: BoltContext,
        next_: Callable[[], object],
        ack: Ack,
    ) -> BoltResponse | None:
        """Let full members of this workspace pass, with their Turn in the context."""
        if body.get("type") == "event_callback":
            return self._event(body, next_, ack)
        if not all(self._is_slacks(url) for url in _response_urls(body)):
            log.warning("Refused a delivery whose response_url is not Slack's")
            return BoltResponse(status=400, body="This response_url is not Slack's.")
        if not user_of(body) or not (body.get("trigger_id") or body.get("type") in {"block_suggestion", "view_closed"}):
            return BoltResponse(status=400, body="This delivery does not say who did what.")
        turn = self._turn(body)
        try:
            self._check(body)
        except Exception as error:  # noqa: BLE001 - the translation sorts them, and logs what it does not know
            reply = self._translation.reply(error, turn.caller)
            return self._refuse(body, turn, reply or Reply.plain("I have done this already. Nothing changed."), ack)
        context[TURN] = turn
        next_()
        return None

    def _event(self, body: dict[str, Any], next_: Callable[[], object], ack: Ack) -> BoltResponse | None:
        if teams_of(body) - {self._surface.team_id}:
            self._surface.members.refusals.count("other workspace")
            return ack()
        next_()
        return None

    def _turn(self, body: Mapping[str, Any]) -> Turn:
        user = SlackUser(team_id=self._surface.team_id, user_id=user_of(body))
        return Turn(
            caller=Caller(slack_user=user, delivery=str(body.get("trigger_id") or "")),
            trigger_id=str(body.get("trigger_id") or ""),
            response_url=str(body.get("response_url") or ""),
            channel=channel_of(body),
            message_ts=message_ts_of(body),
            began=time.monotonic(),
        )

    def _check(self, body: Mapping[str, Any]) -> None:
        if teams_of(body) != {self._surface.team_id}:
            self._surface.members.refuse("other workspace")
        self._surface.members.check(user_of(body))

    def _refuse(self, body: dict[str, Any], turn: Turn, reply: Reply, ack: Ack) -> BoltResponse:
        match body.get("type"):
            case "block_suggestion":
                return ack(options=[])
            case "view_submission":
                return ack(_in_form(body, reply))
            case "view_closed":
                return ack()
            case "block_actions":
                return self._responding.answer(turn, lambda: reply) or ack()
        return ack(reply.body)

    def _is_slacks(self, url: str) -> bool:
        """Whether it leads to Slack: neither Bolt nor slack_sdk looks before it posts there."""
        if any(char in url for char in "\\@ \t\r\n"):
            return False
        try:
            found, own = urlsplit(url), urlsplit(self._surface.client.base_url)
            port = found.port
        except ValueError:
            return False
        if (found.scheme, found.hostname, port) == (own.scheme, own.hostname, own.port):
            return True
        return found.scheme == "https" and port in {None, 443} and (found.hostname or "").endswith(_SLACK_HOSTS)


def _response_urls(body: Mapping[str, Any]) -> list[str]:
    more: list[Mapping[str, Any]] = body.get("response_urls") or []
    found = [body.get("response_url"), *(one.get("response_url") for one in more)]
    return [str(url) for url in found if url]


def _in_form(body: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
    """Beneath the form's first input, so that what was typed stays."""
    view: Mapping[str, Any] = body.get("view") or {}
    inputs = [block["block_id"] for block in view.get("blocks") or [] if block.get("type") == "input"]
    if not inputs:
        return {"response_action": "update", "view": reply.modal()}
    return {"response_action": "errors", "errors": {inputs[0]: reply.sentence}}
