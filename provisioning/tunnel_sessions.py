"""The Session Manager sessions that Passport has started, found by their reason: nothing about them is remembered.

DescribeSessions may be called six times a second (page "AWS Systems Manager endpoints and quotas"), and a thousand
removals may begin at once: all that wait in one account and region share a listing.
"""

import re
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from access.ports import OpenTunnel
from provisioning.aws import Sessions
from provisioning.aws_errors import AwsError

MOST_REASON = 256  # page "StartSession"
APART_SECONDS = 0.4  # between two listings of an account and region: half of the quota, replicas share the rest
PAGE = 200  # page "DescribeSessions"
PAGES_APART = 0.2  # seconds

_GRANT_ID = re.compile(r"AR-[0-9A-Z]{4,8}\.[0-9]{1,4}")

Place = tuple[str, str]  # account, region


def reason_of(grant_id: str, *, home: str, person: str) -> str:
    """What a session of this grant says in Systems Manager and CloudTrail; ``home`` is this Passport's own address."""
    words = " ".join(f"passport {grant_id} {home} {person}".split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:MOST_REASON]


def grant_in(reason: str, *, home: str) -> str:
    """The grant that a session was started for by the Passport of this address, or ""."""
    words = reason.split(" ")
    ours = len(words) >= 3 and words[0] == "passport" and words[2] == home and _GRANT_ID.fullmatch(words[1])
    return words[1] if ours else ""


def is_started_by(us: str, owner: str) -> bool:
    """Whether a session's owner is this caller, or the same role under another session's name, as on a replica.

    The page "describe-sessions" of the AWS CLI writes a user's ARN without its beginning, and a role's with it.
    """
    ours, theirs = us.removeprefix("arn:"), owner.removeprefix("arn:")
    if ":assumed-role/" in ours:
        return theirs.rpartition("/")[0] == ours.rpartition("/")[0]
    return theirs == ours


@dataclass(kw_only=True, slots=True)
class _Shelf:
    """What is known of one account and region."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    begun: int = 0  # listings so far
    begun_at: float = -APART_SECONDS
    number: int = 0  # of the listing that is kept
    found: Mapping[str, Sequence[OpenTunnel]] = field(default_factory=dict)


class TunnelSessions:
    """``access.ports.OpenTunnels``; safe to use from many threads, which never wait for each other."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        home: str,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.home = home
        self.name = secrets.token_hex(8)  # numbers of listings mean something within one process only
        self._sessions = sessions
        self._monotonic = monotonic
        self._sleep = sleep
        self._shelves: dict[Place, _Shelf] = defaultdict(_Shelf)
        self._owners: dict[str, str] = {}  # by account: our ARN
        self._lock = threading.Lock()

    def last_begun(self, account: str, region: str) -> int:
        """The number of the newest listing: one with a higher number begins later than now."""
        return self._shelf(account, region).begun

    def open_since(self, account: str, region: str, number: int) -> Mapping[str, Sequence[OpenTunnel]] | None:
        """Open sessions by grant id, of a listing begun after this number; None: ask again soon. Raises AwsError."""
        shelf = self._shelf(account, region)
        if not shelf.lock.acquire(blocking=False):
            return None  # another thread lists just now
        try:
            if shelf.number <= number:
                now = self._monotonic()
                if now - shelf.begun_at < APART_SECONDS:
                    return None
                shelf.begun, shelf.begun_at = shelf.begun + 1, now
                begun = shelf.begun
                shelf.found, shelf.number = self._grouped(account, region), begun
            return shelf.found
        finally:
            shelf.lock.release()

    def places(self) -> Sequence[Place]:
        """Every account and region of the settings."""
        return [(account.name, region) for account in self._sessions.accounts.values() for region in account.regions]

    def all_open(self, account: str, region: str) -> Sequence[OpenTunnel]:
        """Every open session of Passport's, asked now; raises AwsError."""
        return [session for together in self._grouped(account, region).values() for session in together]

    def end(self, account: str, region: str, session_id: str) -> None:
        """End the session and what goes through it; one that is over already is fine. Raises AwsError."""
        try:
            self._sessions.call(account, region, "ssm", "terminate_session", once=True, SessionId=session_id)
        except AwsError as error:
            if error.code != "DoesNotExistException":
                raise

    def _grouped(self, account: str, region: str) -> Mapping[str, Sequence[OpenTunnel]]:
        found: dict[str, list[OpenTunnel]] = defaultdict(list)
        owner = self._owner(account, region)
        asked = {"State": "Active"}
        for page in self._sessions.pages(account, region, "ssm", "describe_sessions", asked, page_size=PAGE, once=True):
            for session in page["Sessions"]:
                grant_id = grant_in(session.get("Reason", ""), home=self.home)
                # Anybody can write a reason: what others started is theirs, and no removal waits for it.
                if grant_id and is_started_by(owner, session.get("Owner", owner)):
                    found[grant_id].append(
                        OpenTunnel(
                            session_id=session["SessionId"],
                            account=account,
                            region=region,
                            instance_id=session["Target"],
                            grant_id=grant_id,
                        )
                    )
            if page.get("NextToken"):
                self._sleep(PAGES_APART)
        return found

    def _owner(self, account: str, region: str) -> str:
        """Who Passport is in this account."""
        if account not in self._owners:
            self._owners[account] = self._sessions.call(account, region, "sts", "get_caller_identity")["Arn"]
        return self._owners[account]

    def _shelf(self, account: str, region: str) -> _Shelf:
        with self._lock:
            return self._shelves[account, region]
