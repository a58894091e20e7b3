"""Who is behind an entry of a rule's ``tell``, and into which channel a message to them goes."""

from datetime import datetime, timedelta

from access.ports import Clock
from handlers.paced import CallError, LastingError, OutageError, PacedSlack, PassingError

FRESH = timedelta(minutes=5)
WHILE_SILENT = timedelta(minutes=1)
WHILE_NONE_OPENS = timedelta(seconds=20)


class Recipients:
    """Looks user groups and direct messages up, and remembers them for a while."""

    def __init__(self, slack: PacedSlack, *, clock: Clock) -> None:
        self._slack = slack
        self._clock = clock
        self._groups: dict[str, tuple[datetime, tuple[str, ...]]] = {}
        self._silent_until: dict[str, datetime] = {}
        self._directs: dict[str, str] = {}
        self._none_opens_until: datetime | None = None

    def behind(self, entry: str) -> tuple[str, ...]:
        """The entry itself, or the members of a user group (``S…``); raises CallError."""
        if not entry.startswith("S"):
            return (entry,)
        read_at, members = self._groups.get(entry, (None, ()))
        if read_at and self._clock() - read_at < FRESH:
            return members
        if self._clock() < self._silent_until.get(entry, self._clock()):
            raise PassingError("unanswered")
        try:
            members = self._slack.members_of(entry)
        except LastingError:
            raise
        except CallError as error:
            if isinstance(error, OutageError):  # let the next pass go on without this group
                self._silent_until[entry] = self._clock() + WHILE_SILENT
            if read_at is None:
                raise
            return members  # who was in it a while ago is better than nobody
        self._groups[entry] = (self._clock(), members)
        return members

    def channel_of(self, recipient: str) -> str:
        """The channel itself, or the direct messages with a person (``U…``, ``W…``); raises CallError."""
        if not recipient.startswith(("U", "W")):
            return recipient
        if recipient not in self._directs:
            self._directs[recipient] = self._opened(recipient)
        return self._directs[recipient]

    def _opened(self, person: str) -> str:
        if self._none_opens_until and self._clock() < self._none_opens_until:
            raise PassingError("unanswered")
        try:
            return self._slack.open_direct(person)
        except OutageError:  # let everybody else be written to, instead of waiting for an answer once for each person
            self._none_opens_until = self._clock() + WHILE_NONE_OPENS
            raise
