"""Who somebody is: linking a Slack user to a person, showing and forgetting it, and an admin's exception."""

from slack_bolt import Ack, App

from access.model import SlackUser
from handlers import blocks, ids, mrkdwn
from handlers.phrases import shown
from handlers.replies import Reply
from handlers.surface import Surface
from handlers.turn import Turn
from handlers.understood import Exempt, Unexempt


class Links:
    """``/passport link``, ``whoami``, ``unlink`` and ``exception``."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def register(self, app: App) -> None:
        """Slack tells of a click on a link button, too, and wants it acknowledged."""
        app.action(ids.LINK_OPEN)(self._opened)

    def link(self, turn: Turn) -> Reply:
        """A one-time link to the sign-in page."""
        url = self._surface.link_url(self._surface.linking.begin(turn.caller))
        said = "Sign in, so that I know who you are. The link works once, for 10 minutes, and for you alone."
        return Reply.plain(said, blocks.sign_in_button(url))

    def whoami(self, turn: Turn) -> Reply:
        """Who Passport takes them for."""
        linked = self._surface.linking.whoami(turn.caller)
        person, until = linked.person, linked.link.expires_at
        groups = ", ".join(sorted(person.groups)) or "none"
        plain = f"You are {person.name}, {person.email}, until {until:%H:%M} UTC. Your groups: {groups}."
        seen = (
            f"You are *{shown(person.name)}*, {shown(person.email)}, until {mrkdwn.clock(until)}. "
            f"Your groups: {shown(groups, 2000)}."
        )
        return Reply(sentence=plain, blocks=(blocks.section(seen),))

    def unlink(self, turn: Turn) -> Reply:
        """Forget who they are."""
        self._surface.linking.unlink(turn.caller)
        return Reply.plain("I have forgotten who you are. What is open ends as planned. To come back: /passport link")

    def exempt(self, turn: Turn, wanted: Exempt) -> Reply:
        """Let a Slack user link to an email that their profile does not say."""
        target = SlackUser(team_id=self._surface.team_id, user_id=wanted.user_id)
        until = self._surface.linking.record_exception(turn.caller, target, wanted.email, wanted.reason)
        rest = f"until {until:%Y-%m-%d}. It is in the audit log under your name."
        plain = f"{wanted.user_id} may link as {wanted.email} {rest}"
        seen = f"<@{wanted.user_id}> may link as {shown(wanted.email)} {rest}"
        return Reply(sentence=plain, blocks=(blocks.section(seen),))

    def unexempt(self, turn: Turn, wanted: Unexempt) -> Reply:
        """Take that back."""
        target = SlackUser(team_id=self._surface.team_id, user_id=wanted.user_id)
        self._surface.linking.remove_exception(turn.caller, target, wanted.reason)
        rest = "has no exception any more, and is not linked by it. What is open ends as planned: see /passport revoke"
        return Reply(sentence=f"{wanted.user_id} {rest}", blocks=(blocks.section(f"<@{wanted.user_id}> {rest}"),))

    def _opened(self, ack: Ack) -> None:
        ack()
