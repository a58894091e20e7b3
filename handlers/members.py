"""Who is calling, as Slack knows them; and how many strangers were turned away."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from slack_sdk import WebClient
from slack_sdk.errors import SlackClientError

from access.audit import Event, Kind
from access.errors import NotFoundError, RefusedError, UnavailableError
from access.ports import Clock, Store

TTL = timedelta(minutes=10)
MOST_KEPT = 10_000
UNKNOWN = "Slack does not tell me who you are just now. Try again in a minute."

SENTENCES: Mapping[str, str] = {
    "other workspace": "Passport is for members of this workspace; your account belongs to another one.",
    "guest": "Guests cannot use Passport. Ask a full member of this workspace.",
    "deactivated": "Your Slack account is deactivated, so I do nothing for it.",
    "bot": "Passport answers people, not apps.",
}


class StrangerError(RefusedError):
    """Somebody whom Passport does not serve; ``reason`` is a key of SENTENCES."""

    def __init__(self, reason: str) -> None:
        super().__init__(SENTENCES[reason])
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """What matters about a Slack user: ``stranger`` is why they are not served, a key of SENTENCES, or ""."""

    user_id: str
    stranger: str
    updated: int
    read_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A person as their Slack profile shows them; ``email`` is "" where Slack does not say it."""

    user_id: str
    name: str
    display: str
    email: str
    tz: str


class Refusals:
    """Strangers turned away, summed up into one audit event at each flush instead of one a click."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, reason: str) -> None:
        """One more."""
        with self._lock:
            self._counts[reason] += 1

    def flush(self, store: Store, clock: Clock) -> int:
        """Write the sum since the last flush, if there is one; what cannot be written is kept for the next."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return 0
        details = {reason: str(count) for reason, count in sorted(counts.items())}
        event = Event(kind=Kind.STRANGERS_REFUSED, at=clock(), actor="passport", details=details)
        try:
            with store.unit_of_work() as uow:
                uow.record(event)
                uow.commit()
        except BaseException:
            with self._lock:
                self._counts += counts
            raise
        return counts.total()


class Members:
    """A cache of users.info for the gate, and fresh profiles for the link.

    ``client`` must answer within two seconds and not retry: a miss is asked inside Slack's three (``inline``).
    """

    def __init__(self, client: WebClient, *, team_id: str, clock: Clock, refusals: Refusals | None = None) -> None:
        self._client = client
        self._team_id = team_id
        self._clock = clock
        self.refusals = refusals or Refusals()
        self._known: dict[str, Member] = {}
        self._lock = threading.Lock()

    def check(self, user_id: str) -> None:
        """Let full members pass; raises StrangerError (counted), or UnavailableError while Slack does not answer."""
        member = self._fresh(user_id) or self.learn(self._ask(user_id))
        if member.stranger:
            self.refuse(member.stranger)

    def refuse(self, reason: str) -> None:
        """Turn somebody away and count it; raises StrangerError."""
        self.refusals.count(reason)
        raise StrangerError(reason)

    def learn(self, user: Mapping[str, object]) -> Member:
        """Keep what Slack says of a user (users.info, ``user_change``, ``team_join``) unless we know newer things."""
        updated = user.get("updated")
        member = Member(
            user_id=str(user["id"]),
            stranger=_stranger(user, self._team_id),
            updated=updated if isinstance(updated, int) else 0,
            read_at=self._clock(),
        )
        with self._lock:
            known = self._known.get(member.user_id)
            if known and known.updated > member.updated:
                return known  # a replayed or late event must not bring back somebody who was deactivated since
            if len(self._known) >= MOST_KEPT:
                self._known.clear()
            self._known[member.user_id] = member
        return member

    def profile(self, user_id: str) -> Profile:
        """The person's profile as it is now, never from the cache; raises UnavailableError or StrangerError."""
        user = self._ask(user_id)
        member = self.learn(user)
        if member.stranger:
            self.refuse(member.stranger)
        found = user.get("profile")
        profile: Mapping[str, object] = found if isinstance(found, Mapping) else {}
        name = str(profile.get("real_name") or user.get("real_name") or user.get("name") or user_id)
        return Profile(
            user_id=user_id,
            name=name,
            display=str(profile.get("display_name") or name),
            email=str(profile.get("email") or ""),
            tz=str(user.get("tz") or "UTC"),
        )

    def _fresh(self, user_id: str) -> Member | None:
        with self._lock:
            member = self._known.get(user_id)
        return member if member and self._clock() - member.read_at < TTL else None

    def _ask(self, user_id: str) -> Mapping[str, object]:
        try:
            user = self._client.users_info(user=user_id).get("user")
        except (SlackClientError, OSError) as error:
            if "user_not_found" in str(error):
                raise NotFoundError("Slack knows nobody by that id.") from error
            raise UnavailableError(UNKNOWN) from error
        if not isinstance(user, Mapping) or user.get("id") != user_id:
            raise UnavailableError(UNKNOWN)
        return user


def inline(client: WebClient, *, seconds: int = 2) -> WebClient:
    """A client of the same Slack for the one call before an ack: it gives up soon and never retries."""
    return WebClient(
        token=client.token,
        base_url=client.base_url,
        timeout=seconds,
        ssl=client.ssl,
        proxy=client.proxy,
        headers=client.headers,
        retry_handlers=[],
    )


def _stranger(user: Mapping[str, object], team_id: str) -> str:
    if user.get("team_id") != team_id or user.get("is_stranger"):
        return "other workspace"
    if user.get("deleted"):
        return "deactivated"
    if user.get("is_bot") or user.get("is_workflow_bot") or user.get("id") == "USLACKBOT":
        return "bot"
    if user.get("is_restricted") or user.get("is_ultra_restricted"):
        return "guest"
    return ""
