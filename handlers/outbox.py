"""Direct messages that follow no request: a key was added, a parked request lapsed."""

import logging
from datetime import datetime, timedelta

from access.model import SlackUser
from access.ports import Clock, Store
from handlers import mrkdwn, phrases
from handlers.paced import CallError, LastingError, NotNowError, OutageError, PacedSlack
from handlers.patience import MOST_SILENCES, Alarms, Alerts, backoff
from handlers.recipients import Recipients

BATCH = 20
_MOST = timedelta(minutes=5)
_MAX_TEXT = 3500
_NOBODY_THERE = frozenset({"cannot_dm_bot", "user_disabled", "user_not_found"})  # page "conversations.open"

_log = logging.getLogger(__name__)


class SlackOutbox:
    """Sends what is due, each message on its own: one that fails holds up no other.

    Only what nobody can ever read is dropped; where an admin can mend it, they are told, and the message is kept.
    """

    def __init__(
        self,
        store: Store,
        slack: PacedSlack,
        recipients: Recipients,
        alarms: Alarms,
        alerts: Alerts,
        *,
        clock: Clock,
    ) -> None:
        self._store = store
        self._slack = slack
        self._recipients = recipients
        self._alarms = alarms
        self._alerts = alerts
        self._clock = clock
        self._silences = 0

    def step(self) -> None:
        """Send one batch; raises OutageError."""
        self._silences = 0
        with self._store.unit_of_work(read_only=True) as uow:
            due = list(uow.outbox.due(self._clock(), BATCH))
        for message in due:
            self._send(*message)
        if len(due) == BATCH:
            self._alarms.set(self._clock())

    def _send(self, message_id: int, slack_user: SlackUser, text: str, attempts: int) -> None:
        try:
            channel = self._recipients.channel_of(slack_user.user_id)
            self._slack.post(channel, mrkdwn.cut(mrkdwn.escape(text), _MAX_TEXT))
        except CallError as error:
            if error.code not in _NOBODY_THERE:
                self._keep(message_id, slack_user, error, self._clock() + backoff(attempts + 1, most=_MOST))
                return
            _log.warning("Message %d cannot reach %s and is dropped: %s", message_id, slack_user.user_id, error.code)
        with self._store.unit_of_work() as uow:
            uow.outbox.sent(message_id)
            uow.commit()

    def _keep(self, message_id: int, slack_user: SlackUser, error: CallError, later: datetime) -> None:
        """It is tried again; raises OutageError."""
        self._put_off(message_id, error.until if isinstance(error, NotNowError) else later)
        if isinstance(error, LastingError):
            self._alerts.report(
                f"outbox {slack_user.user_id} {error.code}",
                f"Slack takes no direct messages to {phrases.shown(slack_user.user_id, 40)} "
                f"({phrases.shown(error.code)}). Mend that; what they have to know is kept and follows.",
            )
        elif isinstance(error, OutageError):
            self._silences += 1
            if self._silences == MOST_SILENCES:
                raise error

    def _put_off(self, message_id: int, until: datetime) -> None:
        with self._store.unit_of_work() as uow:
            uow.outbox.put_off(message_id, until)
            uow.commit()
        self._alarms.set(until)
