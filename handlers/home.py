"""The Home tab: the person's own open requests, and how to start."""

import logging
from collections.abc import Mapping
from typing import Any

from slack_bolt import App

from access.errors import PassportError, SignInNeededError, UnavailableError
from access.model import SlackUser
from access.service.desk import Caller
from handlers import blocks
from handlers.blocks import Block
from handlers.status import listing
from handlers.surface import Surface

log = logging.getLogger(__name__)

_START = (
    "Ask for access with `/passport request web-1 for 2h because INC-123: disk full`, "
    "or `/passport request` alone for a form. `/passport help` shows the rest."
)


class Home:
    """What Slack tells of people: that they look at Home, that they joined, that they changed."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def register(self, app: App) -> None:
        """Three events; each is acknowledged at once."""
        app.event("app_home_opened")(self._opened)
        app.event("user_change")(self._changed)
        app.event("team_join")(self._changed)

    def _opened(self, event: dict[str, Any]) -> None:
        if event.get("tab") != "home":
            return
        user = SlackUser(team_id=self._surface.team_id, user_id=str(event["user"]))
        try:
            place = self._surface.after_ack.reserve()
        except UnavailableError:
            log.warning("Too busy to show Home")
            return
        with place:
            place.run(lambda: self._publish(user))

    def _changed(self, event: dict[str, Any]) -> None:
        user = event.get("user")
        if isinstance(user, Mapping) and user.get("id"):
            self._surface.members.learn(user)

    def _publish(self, user: SlackUser) -> None:
        view = {"type": "home", "blocks": self._blocks(user)}
        self._surface.client.views_publish(user_id=user.user_id, view=view)

    def _blocks(self, user: SlackUser) -> list[Block]:
        try:
            self._surface.members.check(user.user_id)
            found = self._surface.submitting.own(Caller(slack_user=user))
        except SignInNeededError:
            return [blocks.header("Passport"), blocks.section(f"To start, sign in: `/passport link`\n{_START}")]
        except PassportError as error:
            return [blocks.header("Passport"), blocks.sentence(error.sentence)]
        shown = listing(found, user) if found else [blocks.section("You have no open request.")]
        return [blocks.header("Your requests"), *shown, blocks.divider(), blocks.section(_START)]
