"""The append-only log. The database itself refuses to change it (see the first migration)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Executable, Integer, Row, bindparam, insert, or_, select

from access.audit import AuditEvent, Event, Head, Kind, chain
from storage.columns import storable
from storage.errors import UnreadableError
from storage.repositories.statements import Upsert, by_engine, one_or_all
from storage.rows import audit_events, audit_head, audit_readers

PAGE = 500
_BEFORE_ALL = -(2**63)  # a forged event before the first is to be seen as well

_HEAD = select(audit_head.c.sequence, audit_head.c.hash)
_HEAD_LOCKED = _HEAD.with_for_update()
_APPEND = insert(audit_events)
_AFTER = (
    select(audit_events)
    .where(audit_events.c.sequence > bindparam("sequence"))
    .order_by(audit_events.c.sequence)
    .limit(bindparam("most", type_=Integer))
)
_OF = select(audit_events).where(audit_events.c.request_id == bindparam("request_id")).order_by(audit_events.c.sequence)
_CURSOR = select(audit_readers.c.sequence).where(audit_readers.c.reader == bindparam("reader"))


def _advance(insert: Upsert) -> Executable:
    forward = audit_readers.c.sequence < insert.excluded.sequence
    return insert.on_conflict_do_update(
        index_elements=["reader"], set_={"sequence": insert.excluded.sequence}, where=forward
    )


def _claim_reader(insert: Upsert) -> Executable:
    owner, until = insert.excluded.owner, insert.excluded.until
    free = or_(
        audit_readers.c.owner.is_(None), audit_readers.c.owner == owner, audit_readers.c.until <= bindparam("now")
    )
    return insert.on_conflict_do_update(
        index_elements=["reader"], set_={"owner": owner, "until": until}, where=free
    ).returning(audit_readers.c.reader)


_ADVANCE = by_engine(audit_readers, _advance)
_CLAIM_READER = by_engine(audit_readers, _claim_reader)


class SqlAuditLog:
    """``access.ports.AuditLog`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._engine = connection.dialect.name

    def head(self) -> Head:
        return self._read_head(_HEAD)

    def after(self, sequence: int, limit: int) -> Sequence[AuditEvent]:
        """Events that follow this one, in order; raises UnreadableError."""
        return self._read(_AFTER, {"sequence": sequence, "most": limit}, f"after event {sequence}")

    def of(self, request_id: str) -> Sequence[AuditEvent]:
        """The events of one request, in order; raises UnreadableError."""
        return self._read(_OF, {"request_id": request_id}, f"of {request_id}")

    def all(self) -> Iterator[AuditEvent]:
        """The whole log in order, a page in memory at a time; raises UnreadableError."""
        sequence = _BEFORE_ALL
        while page := self.after(sequence, PAGE):
            yield from page
            sequence = page[-1].sequence

    def cursor(self, reader: str) -> int:
        return self._connection.execute(_CURSOR, {"reader": reader}).scalar() or 0

    def advance(self, reader: str, sequence: int) -> None:
        """Move the reader's cursor on; it never goes back."""
        self._connection.execute(_ADVANCE[self._engine], {"reader": reader, "sequence": sequence})

    def claim_reader(self, reader: str, *, owner: str, now: datetime, until: datetime) -> bool:
        values = {"reader": reader, "owner": owner, "now": now, "until": until}
        return self._connection.execute(_CLAIM_READER[self._engine], values).first() is not None

    def append(self, events: Sequence[Event]) -> None:
        """Chain the events to the head, which stays locked until the transaction ends: call it last.

        The head in the database follows by itself: a trigger moves it with each event.
        """
        head = self._read_head(_HEAD_LOCKED)
        rows = []
        for event in events:
            link = chain(head, _storable(event))
            rows.append(_to_row(link))
            head = Head(sequence=link.sequence, hash=link.hash)
        self._connection.execute(_APPEND, one_or_all(rows))

    def _read_head(self, statement: Executable) -> Head:
        row = self._connection.execute(statement).one()
        return Head(sequence=row.sequence, hash=row.hash)

    def _read(self, statement: Executable, values: dict[str, object], place: str) -> Sequence[AuditEvent]:
        try:
            return [_from_row(row) for row in self._connection.execute(statement, values)]
        except (ValueError, TypeError) as error:
            raise UnreadableError(f"The audit log {place} holds an event that Passport did not write so.") from error


def _storable(event: Event) -> Event:
    """The event as it will be read back, so that its hash is that of what is kept."""
    return replace(
        event,
        actor=storable(event.actor),
        actor_name=storable(event.actor_name),
        request_id=storable(event.request_id),
        server=storable(event.server),
        details={storable(name): storable(value) for name, value in event.details.items()},
    )


def _from_row(row: Row[Any]) -> AuditEvent:
    event = Event(
        kind=Kind(row.kind),
        at=row.at,
        actor=row.actor,
        actor_name=row.actor_name,
        request_id=row.request_id,
        server=row.server,
        details=dict(row.details),
    )
    return AuditEvent(sequence=row.sequence, event=event, previous=row.previous, hash=row.hash)


def _to_row(link: AuditEvent) -> dict[str, object]:
    return {
        "sequence": link.sequence,
        "at": link.event.at,
        "kind": link.event.kind.value,
        "actor": link.event.actor,
        "actor_name": link.event.actor_name,
        "request_id": link.event.request_id,
        "server": link.event.server,
        "details": dict(link.event.details),
        "previous": link.previous,
        "hash": link.hash,
    }
