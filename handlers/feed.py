"""The feed: Slack is made to agree with the database, one bounded pass after the other."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from slack_sdk import WebClient

from access.errors import UnavailableError
from access.ports import Clock, Store
from handlers.audit_channel import AuditChannel
from handlers.outbox import SlackOutbox
from handlers.paced import PACE, OutageError, PacedSlack
from handlers.patience import Alarms, Alerts, Lease, LeaseLostError, backoff
from handlers.posts import SlackPosts
from handlers.recipients import Recipients

WHILE_ANOTHER_FEEDS = timedelta(seconds=1)
KEEP_FOR = timedelta(seconds=2)  # a role that is needed again so soon is not given back
AFTER_A_FAULT = timedelta(seconds=10)
LONGEST_OUTAGE_WAIT = timedelta(seconds=30)

_log = logging.getLogger(__name__)


class Feed:
    """Posts the audit log, the cards, the direct messages; of several replicas, one at a time.

    ``client`` must not retry by itself (``retry_handlers=[]``: its retries sleep), and must give a call up well
    within 15 seconds (``timeout=10``: the lease is renewed when it has that much left). ``admins`` are the
    channels, users or user groups that are told what only an admin can mend.
    """

    def __init__(
        self,
        store: Store,
        client: WebClient,
        *,
        clock: Clock,
        audit_channel: str,
        owner: str,
        admins: Sequence[str] = (),
        pace: timedelta = PACE,
    ) -> None:
        self._store = store
        self._clock = clock
        self._lease = Lease(store, clock=clock, owner=owner)
        slack = PacedSlack(client, clock=clock, before_call=self._lease.keep, pace=pace)
        recipients = Recipients(slack, clock=clock)
        self._alarms = alarms = Alarms()
        self._alerts = Alerts(slack, recipients, alarms, clock=clock, admins=admins)
        self._channel = AuditChannel(store, slack, alarms, self._alerts, clock=clock, channel=audit_channel)
        self._posts = SlackPosts(store, slack, recipients, alarms, self._alerts, clock=clock)
        self._outbox = SlackOutbox(store, slack, recipients, alarms, self._alerts, clock=clock)
        self._outages = 0
        self._down_until: datetime | None = None

    def run_once(self) -> timedelta | None:
        """One bounded pass; how long until the next, or None when a commit or a timer has to wake it first.

        Raises nothing of Slack's nor of the database's: both are tried again.
        """
        now = self._clock()
        if self._down_until and now < self._down_until:
            return self._down_until - now
        try:
            return self._pass(now)
        except LeaseLostError:
            return WHILE_ANOTHER_FEEDS
        except OutageError as error:
            return self._wait_for_slack(error)
        except UnavailableError as error:
            _log.warning("The feed waits for the database: %s", error.sentence)
            return AFTER_A_FAULT

    def give_way(self) -> None:
        """Let another replica feed Slack at once, when this one is about to stop; raises UnavailableError."""
        self._lease.give_back()

    def _pass(self, now: datetime) -> timedelta | None:
        self._alarms.drop(now)
        if self._is_behind():
            if not self._lease.take():
                return WHILE_ANOTHER_FEEDS
            self._run_steps()
        delay = self._alarms.next(self._clock())
        if delay is None or delay > KEEP_FOR:
            self._lease.give_back()
        return delay

    def _run_steps(self) -> None:
        """Each step has its turn, for Slack may be silent about one thing only; raises OutageError."""
        outage: OutageError | None = None
        for step in (self._posts.step, self._outbox.step, self._channel.step, self._alerts.step):
            try:
                self._guard(step)
            except OutageError as error:
                outage = error
        if outage is not None:
            raise outage
        self._outages, self._down_until = 0, None

    def _is_behind(self) -> bool:
        """Whether there is anything to do; a look that writes nothing, for it comes with every commit."""
        now = self._clock()
        if self._alerts.is_behind():
            return True
        with self._store.unit_of_work(read_only=True) as uow:
            return bool(self._channel.is_behind(uow) or uow.posts.stale(now, 1) or uow.outbox.due(now, 1))

    def _guard(self, step: Callable[[], None]) -> None:
        """A fault in one part of the feed must not silence the others."""
        try:
            step()
        except (LeaseLostError, OutageError, UnavailableError):
            raise
        except Exception:  # noqa: BLE001 - see the docstring
            _log.exception("%s failed", step.__qualname__)
            self._alarms.set(self._clock() + AFTER_A_FAULT)

    def _wait_for_slack(self, error: OutageError) -> timedelta:
        self._outages += 1
        if self._outages == 1:
            _log.warning("Slack does not answer (%s); nothing is lost, it follows later", error.code)
        delay = backoff(self._outages, most=LONGEST_OUTAGE_WAIT)
        self._down_until = self._clock() + delay
        return delay
