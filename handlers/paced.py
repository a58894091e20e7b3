"""Slack's Web API for the feed: paced, never sleeping, and every failure is one of four kinds."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from http.client import HTTPException

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse

from access.ports import Clock

PACE = timedelta(seconds=1)  # Slack's page "Rate limits": one message per second and channel
_RETRY_AFTER = timedelta(seconds=30)  # where Slack does not say
_MOST_REMEMBERED = 2000

_LIMITED = frozenset({"ratelimited", "rate_limited"})
_TOKEN = frozenset(  # nothing will work until an admin mends the app's token: for us the same as an outage
    {
        "account_inactive",
        "invalid_auth",
        "not_authed",
        "org_login_required",
        "team_access_not_granted",
        "token_expired",
        "token_revoked",
    }
)
_PASSING = frozenset({"internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"})


class CallError(Exception):
    """A call that Slack did not carry out; ``code`` is Slack's word for it.

    CallError
    ├── NotNowError     too fast for Slack; the same call may be made at ``until``
    ├── OutageError     Slack does not answer, or not to us; no other call would fare better
    ├── PassingError    this call failed; later it may work
    └── LastingError    it fails until somebody mends it: an archived channel, a deactivated person
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class NotNowError(CallError):
    """Too fast for Slack."""

    def __init__(self, until: datetime) -> None:
        super().__init__("ratelimited")
        self.until = until


class OutageError(CallError):
    """Slack does not answer at all."""


class PassingError(CallError):
    """This call failed; later it may work."""


class LastingError(CallError):
    """This call fails until somebody mends the cause."""


class PacedSlack:
    """The few methods the feed needs. ``before_call`` is asked before each: whoever raises there stops it."""

    def __init__(
        self, client: WebClient, *, clock: Clock, before_call: Callable[[], None], pace: timedelta = PACE
    ) -> None:
        self._client = client
        self._clock = clock
        self._before_call = before_call
        self._pace = pace
        self._free_at: dict[str, datetime] = {}

    def post(self, channel: str, text: str, blocks: Sequence[Mapping[str, object]] = ()) -> str:
        """A new message; its timestamp. Raises CallError."""
        key = f"chat.postMessage {channel}"
        answer = self._call(
            key,
            lambda: self._client.chat_postMessage(
                channel=channel,
                text=text,
                blocks=[dict(block) for block in blocks] or None,
                parse="none",
                link_names=False,
                unfurl_links=False,
                unfurl_media=False,
            ),
        )
        self._wait(key, self._pace)
        return str(answer["ts"])

    def update(self, channel: str, ts: str, text: str, blocks: Sequence[Mapping[str, object]]) -> None:
        """Change a message; raises CallError."""
        self._call(
            "chat.update",
            lambda: self._client.chat_update(
                channel=channel, ts=ts, text=text, blocks=[dict(block) for block in blocks], parse="none"
            ),
        )

    def open_direct(self, user_id: str) -> str:
        """The channel of the direct messages with this person; raises CallError."""
        answer = self._call("conversations.open", lambda: self._client.conversations_open(users=user_id))
        return str(answer["channel"]["id"])

    def members_of(self, group_id: str) -> tuple[str, ...]:
        """Who is in a user group; raises CallError."""
        answer = self._call("usergroups.users.list", lambda: self._client.usergroups_users_list(usergroup=group_id))
        return tuple(str(user) for user in answer["users"])

    def _call(self, key: str, call: Callable[[], SlackResponse]) -> SlackResponse:
        free_at = self._free_at.get(key)
        if free_at and free_at > self._clock():
            raise NotNowError(free_at)
        self._before_call()
        try:
            return call()
        except SlackApiError as error:
            raise self._translated(key, error) from error
        except (OSError, HTTPException) as error:
            raise OutageError(type(error).__name__) from error

    def _translated(self, key: str, error: SlackApiError) -> CallError:
        status, code = _said(error)
        if status == 429 or code in _LIMITED:
            return NotNowError(self._wait(key, _retry_after(error)))
        if code in _TOKEN:
            return OutageError(code)
        if status >= 500 or code in _PASSING or not code.replace("_", "").isalnum():
            return PassingError(code if status < 500 else f"HTTP {status}")
        return LastingError(code)

    def _wait(self, key: str, pause: timedelta) -> datetime:
        now = self._clock()
        if len(self._free_at) > _MOST_REMEMBERED:
            self._free_at = {known: at for known, at in self._free_at.items() if at > now}
        self._free_at[key] = now + pause
        return self._free_at[key]


def _said(error: SlackApiError) -> tuple[int, str]:
    response = error.response
    if not isinstance(response, SlackResponse):
        return 200, "unreadable"
    return int(response.status_code), str(response.get("error") or "unreadable")


def _retry_after(error: SlackApiError) -> timedelta:
    try:
        return max(PACE, timedelta(seconds=int(error.response.headers["Retry-After"])))
    except (AttributeError, KeyError, TypeError, ValueError):
        return _RETRY_AFTER
