"""Direct messages that follow no request: a key was added, a parked request lapsed."""

import logging
from datetime import datetime, timedelta

from access.model import SlackUser
from access.ports import Clock, Store
from handlers import mrkdwn
from handlers.paced import CallError, LastingError, NotNowError, OutageError, PacedSlack
from handlers.patience import Alarms, backoff
from handlers.recipients import Recipients

BATCH = 20
_MOST = timedelta(minutes=5)
_MAX_TEXT = 3500

_log = logging.getLogger(__name__)


class SlackOutbox:
    """Sends what is due, each message on its own: one that fails holds up no other."""

    def __init__(
        self, store: Store, slack: PacedSlack, recipients: Recipients, alarms: Alarms, *, clock: Clock
    ) -> None:
        self._store = store
        self._slack = slack
        self._recipients = recipients
        self._alarms = alarms
        self._clock = clock

    def step(self) -> None:
        """Send one batch; raises OutageError."""
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
        except OutageError:
            self._put_off(message_id, self._clock() + backoff(attempts + 1, most=_MOST))
            raise
        except LastingError as error:
            _log.warning("Message %d cannot reach %s and is dropped: %s", message_id, slack_user.user_id, error.code)
        except CallError as error:
            until = error.until if isinstance(error, NotNowError) else self._clock() + backoff(attempts + 1, most=_MOST)
            self._put_off(message_id, until)
            return
        with self._store.unit_of_work() as uow:
            uow.outbox.sent(message_id)
            uow.commit()

    def _put_off(self, message_id: int, until: datetime) -> None:
        with self._store.unit_of_work() as uow:
            uow.outbox.put_off(message_id, until)
            uow.commit()
        self._alarms.set(until)
