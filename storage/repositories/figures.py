"""What an operator watches: a few counts and instants, each from one small query."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select

from storage.columns import Instant
from storage.rows import audit_events, audit_head, audit_readers, outbox
from storage.rows import requests as table

_BY_STATE = select(table.c.state, func.count().label("count")).group_by(table.c.state)
_OVERDUE = select(func.count().label("count"), func.min(table.c.expires_at, type_=Instant).label("since")).where(
    table.c.due_at.is_not(None), table.c.expires_at <= bindparam("now")
)
_LEASES = select(func.count().label("count"), func.min(table.c.lease_until, type_=Instant).label("until")).where(
    table.c.lease_owner.is_not(None)
)
_UNSHOWN = select(func.count()).where(table.c.shown_revision < table.c.revision)
_OUTBOX = select(func.count()).select_from(outbox)
_HEAD = select(audit_head.c.sequence)
_CURSOR = select(audit_readers.c.sequence).where(audit_readers.c.reader == bindparam("reader"))
_NEXT_UNREAD = (
    select(audit_events.c.at)
    .where(audit_events.c.sequence > bindparam("sequence"))
    .order_by(audit_events.c.sequence)
    .limit(1)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """How much there is of everything at one instant."""

    requests: Mapping[str, int]  # by state
    overdue: int  # still open after their end
    overdue_since: datetime | None
    leases: int
    oldest_lease_until: datetime | None
    events: int  # in the audit log
    unread_events: int  # not yet in the audit channel
    unread_since: datetime | None
    unshown_requests: int  # of which Slack shows less than there is
    waiting_messages: int


class SqlFigures:
    """Reads them; changes nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, now: datetime, *, reader: str) -> Figures:
        """The figures now; ``reader`` names the audit log's reader that is watched."""
        overdue = self._connection.execute(_OVERDUE, {"now": now}).one()
        leases = self._connection.execute(_LEASES).one()
        head = self._connection.execute(_HEAD).scalar_one()
        cursor = self._connection.execute(_CURSOR, {"reader": reader}).scalar() or 0
        return Figures(
            requests={row.state: row[1] for row in self._connection.execute(_BY_STATE)},
            overdue=overdue[0],
            overdue_since=overdue.since,
            leases=leases[0],
            oldest_lease_until=leases.until,
            events=head,
            unread_events=max(0, head - cursor),
            unread_since=self._connection.execute(_NEXT_UNREAD, {"sequence": cursor}).scalar(),
            unshown_requests=self._connection.execute(_UNSHOWN).scalar_one(),
            waiting_messages=self._connection.execute(_OUTBOX).scalar_one(),
        )
