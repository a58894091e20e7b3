"""What the parts of the feed share: one replica at a time, when to look again, and whom to tell of trouble."""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from access.ports import Clock, Store
from handlers.paced import LastingError, NotNowError, OutageError, PacedSlack, PassingError
from handlers.recipients import Recipients

READER = "slack"
LEASE = timedelta(seconds=30)
RENEW_BEFORE = timedelta(seconds=15)  # longer than a call may last: see Feed
SAID_AGAIN_AFTER = timedelta(hours=1)
MOST_AT_ONCE = 10
MOST_SILENCES = 3  # in one step; Slack may be silent about one person or message only, but not about so many

_log = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """Another replica feeds Slack now."""


class Lease:
    """The role of the one replica that feeds Slack, so that two never reorder or repeat."""

    def __init__(self, store: Store, *, clock: Clock, owner: str) -> None:
        self._store = store
        self._clock = clock
        self._owner = owner
        self._until: datetime | None = None

    def take(self) -> bool:
        """Have the role for long enough to make a call; False while another replica has it."""
        now = self._clock()
        if self._until and self._until - now > RENEW_BEFORE:
            return True
        return self._claim(now, now + LEASE)

    def keep(self) -> None:
        """Make sure of it before a call; raises LeaseLostError."""
        if not self.take():
            raise LeaseLostError

    def give_back(self) -> None:
        """Let whoever wakes next have it."""
        now = self._clock()
        if self._until and self._until > now:
            self._claim(now, now)
        self._until = None

    def _claim(self, now: datetime, until: datetime) -> bool:
        with self._store.unit_of_work() as uow:
            mine = uow.audit.claim_reader(READER, owner=self._owner, now=now, until=until)
            if mine:  # a commit for nothing would wake the feed, which would ask again at once
                uow.commit()
        self._until = until if mine else None
        return mine


class Alarms:
    """Instants at which there is something to do again."""

    def __init__(self) -> None:
        self._instants: set[datetime] = set()

    def set(self, at: datetime) -> None:
        """Wake at this instant, too."""
        self._instants.add(at)

    def drop(self, now: datetime) -> None:
        """Forget the instants that have come."""
        self._instants = {at for at in self._instants if at > now}

    def next(self, now: datetime) -> timedelta | None:
        """How long until the next one."""
        return max(min(self._instants) - now, timedelta()) if self._instants else None


class Alerts:
    """Tells admins what only they can mend, once an hour each, where they can be reached."""

    def __init__(
        self, slack: PacedSlack, recipients: Recipients, alarms: Alarms, *, clock: Clock, admins: Sequence[str]
    ) -> None:
        self._slack = slack
        self._recipients = recipients
        self._alarms = alarms
        self._clock = clock
        self._admins = admins
        self._said_at: dict[str, datetime] = {}
        self._waiting: dict[str, list[str]] = {}  # sentences by whom they are for
        self._retry_at: datetime | None = None
        self._silences = 0

    def report(self, subject: str, sentence: str) -> None:
        """Log it, and tell it at the end of the pass; ``sentence`` is escaped already."""
        now = self._clock()
        self._said_at = {known: at for known, at in self._said_at.items() if now - at < SAID_AGAIN_AFTER}
        if subject in self._said_at:
            return
        self._said_at[subject] = now
        _log.warning("%s", sentence)
        for admin in self._admins:
            self._waiting.setdefault(admin, []).append(sentence)

    def is_behind(self) -> bool:
        """Whether an admin has yet to be told, and no reason to wait with it."""
        return bool(self._waiting) and not (self._retry_at and self._retry_at > self._clock())

    def step(self) -> None:
        """Tell each admin what waits for them, though Slack may be silent about one; raises OutageError."""
        self._silences = 0
        later = [self._attempt(admin) for admin in self._in_turn()]
        self._retry_at = min((at for at in later if at), default=None)
        if self._retry_at:
            self._alarms.set(self._retry_at)

    def _in_turn(self) -> Iterator[str]:
        """User groups first: whom they add has a turn as well."""
        yield from [admin for admin in self._waiting if _is_group(admin)]
        yield from [admin for admin in self._waiting if not _is_group(admin)]

    def _spread(self, group: str) -> None:
        """Each member is told on their own: one who is not reached hides nothing from the others."""
        members = self._recipients.behind(group)
        for sentence in self._waiting.pop(group):
            for member in members:
                waiting = self._waiting.setdefault(member, [])
                if sentence not in waiting:
                    waiting.append(sentence)

    def _tell(self, admin: str) -> None:
        text = "\n".join(self._waiting[admin][-MOST_AT_ONCE:])
        self._slack.post(self._recipients.channel_of(admin), text)
        del self._waiting[admin]

    def _attempt(self, admin: str) -> datetime | None:
        """When to try again, if it did not work and may yet; raises OutageError."""
        act = self._spread if _is_group(admin) else self._tell
        try:
            act(admin)
        except NotNowError as error:
            return error.until
        except OutageError:
            self._silences += 1
            if self._silences == MOST_SILENCES:
                raise
            return self._clock() + SAID_AGAIN_AFTER / 60
        except PassingError:
            return self._clock() + SAID_AGAIN_AFTER / 60
        except LastingError as error:
            _log.warning("The admins at %s are not reached: %s", admin, error.code)
            del self._waiting[admin]
        return None


def _is_group(admin: str) -> bool:
    return admin.startswith("S")


def backoff(attempts: int, *, most: timedelta = timedelta(seconds=60)) -> timedelta:
    """1, 2, 4, … seconds."""
    return min(timedelta(seconds=2.0 ** min(attempts - 1, 16)), most)
