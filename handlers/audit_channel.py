"""The audit channel: every event, in order, each message ending with the head of the log."""

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
            named = {event.event.request_id for event in events if event.event.request_id}
            found = {request_id: _request(uow, request_id) for request_id in named}
        return events, {request_id: request for request_id, request in found.items() if request}

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


def _request(uow: UnitOfWork, request_id: str) -> AccessRequest | None:
    try:
        return uow.requests.get(request_id)
    except UnavailableError:
        raise
    except PassportError:  # the events speak for themselves, be the request gone or unreadable
        return None
