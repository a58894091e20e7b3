"""A zip for people who cannot install the script: behind a link that works once, for ten minutes, for one request."""

from access.errors import DuplicateDeliveryError, NotFoundError
from access.model import SlackUser
from access.service.challenges import Challenges, StaleChallengeError
from access.service.desk import Caller
from access.service.showing import Credentials, Showing

_GONE = "This link was used, or has run out after 10 minutes. In Slack, press Show credentials again for another."


class Bundling:
    """Offers the link, and redeems it. What it gives is no secret, and opens nothing without the person's own key."""

    def __init__(self, showing: Showing, links: Challenges) -> None:
        self._showing = showing
        self._links = links

    def offer(self, slack_user: SlackUser, request_id: str) -> str:
        """The end of the link's address; whether it gives anything is decided when it is redeemed."""
        return f"{request_id}/{slack_user.user_id}/{self._links.issue(_subject(slack_user, request_id))}"

    def look(self, slack_user: SlackUser, request_id: str, token: str) -> None:
        """Whether the link is ours and not run out, without using it up; raises NotFoundError."""
        self._delivery(slack_user, request_id, token)

    def redeem(self, slack_user: SlackUser, request_id: str, token: str) -> Credentials:
        """Use the link up for a certificate, with all that *Show credentials* asks and records.

        Raises NotFoundError, SignInNeededError, RefusedError, AlreadyDecidedError or UnavailableError.
        """
        delivery = self._delivery(slack_user, request_id, token)
        try:
            return self._showing.credentials(Caller(slack_user=slack_user, delivery=delivery), request_id)
        except DuplicateDeliveryError:
            raise NotFoundError(_GONE) from None

    def _delivery(self, slack_user: SlackUser, request_id: str, token: str) -> str:
        try:
            return f"bundle:{self._links.check(token, _subject(slack_user, request_id))}"
        except StaleChallengeError:
            raise NotFoundError(_GONE) from None


def _subject(slack_user: SlackUser, request_id: str) -> str:
    """What a token is bound to; the words are fixed in number and hold no blanks."""
    return f"{request_id} {slack_user.team_id} {slack_user.user_id}"
