"""The audit channel: every event, in order, each message ending with the head of the log."""

from collections.abc import Sequence
from datetime import datetime

from access.audit import AuditEvent
from access.errors import PassportError, UnavailableError
from access.model import AccessRequest
from access.ports import Clock, Store, UnitOfWork
from handlers import phrases
from handlers.audit_lines import bundle
from handlers.paced import LastingError, NotNowError, PacedSlack, PassingError
from handlers.patience import READER, Alarms, Alerts, backoff

MOST_EVENTS = 60  # more than one message ever takes


class AuditChannel:
    """Reads the log with a cursor that moves on only when Slack has taken the message."""

    def __init__(
        self, store: Store, slack: PacedSlack, alarms: Alarms, alerts: Alerts, *, clock: Clock, channel: str
    ) -> None:
        self._store = store
        self._slack = slack
        self._alarms = alarms
        self._alerts = alerts
        self._clock = clock
        self._channel = channel
        self._attempts = 0
        self._retry_at: datetime | None = None

    def is_behind(self, uow: UnitOfWork) -> bool:
        """Whether there is an event to post, and no reason to wait with it."""
        if self._retry_at and self._retry_at > self._clock():
            return False
        return bool(uow.audit.after(uow.audit.cursor(READER), 1))

    def step(self) -> None:
        """Post one message; raises OutageError."""
        if self._retry_at and self._retry_at > self._clock():
            return
        events, requests = self._load()
        if not events:
            return
        message = bundle(events, requests)
        try:
            self._slack.post(self._channel, message.text)
        except NotNowError as error:
            self._wait_until(error.until)
            return
        except (PassingError, LastingError) as error:
            self._put_off(error)
            return
        self._attempts, self._retry_at = 0, None
        with self._store.unit_of_work() as uow:
            uow.audit.advance(READER, message.head.sequence)
            uow.commit()
        self._alarms.set(self._clock())

    def _load(self) -> tuple[list[AuditEvent], dict[str, AccessRequest]]:
        with self._store.unit_of_work(read_only=True) as uow:
            events = list(uow.audit.after(uow.audit.cursor(READER), MOST_EVENTS))
            return events, _requests(uow, sorted({event.event.request_id for event in events} - {""}))

    def _put_off(self, error: PassingError | LastingError) -> None:
        self._attempts += 1
        self._wait_until(self._clock() + backoff(self._attempts))
        if isinstance(error, LastingError):
            self._alerts.report(
                f"audit {self._channel} {error.code}",
                f"The audit channel {self._channel} takes no messages ({phrases.shown(error.code)}). "
                "Mend that, or invite Passport again; every event is kept and follows in order.",
            )

    def _wait_until(self, at: datetime) -> None:
        self._retry_at = at
        self._alarms.set(at)


def _requests(uow: UnitOfWork, request_ids: Sequence[str]) -> dict[str, AccessRequest]:
    """The requests by id, without those that are gone or unreadable: their events speak for themselves."""
    try:
        return {request.id: request for request in uow.requests.get_all(request_ids)}
    except UnavailableError:
        raise
    except PassportError:
        middle = len(request_ids) // 2
        halves = (request_ids[:middle], request_ids[middle:]) if middle else ()
        return {found.id: found for half in halves for found in _requests(uow, half).values()}
