"""Access requests: what was asked, the leases of the reconciler, the serials of certificates."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Integer, Row, Update, bindparam, case, func, insert, or_, select, union_all, update

from access.errors import NotFoundError
from access.model import AccessRequest, AccountName, EndCause, RequestState, RouteName, SlackUser
from access.ports import Leased
from storage.errors import UnreadableError
from storage.repositories.shapes import server_from_json, server_to_json, terms_from_json, terms_to_json, understood
from storage.repositories.statements import add_new, insert_new, one_or_all
from storage.rows import counters
from storage.rows import requests as table

_log = logging.getLogger(__name__)

_TO_END = or_(table.c.state == RequestState.ENDING.value, table.c.expires_at <= bindparam("now"))
_RANK = case((_TO_END, 0), else_=1)


def _claim(*, removals_only: bool) -> Update:
    due = (
        select(table.c.id)
        .where(
            table.c.due_at <= bindparam("now"),
            or_(table.c.lease_until.is_(None), table.c.lease_until <= bindparam("now")),
        )
        .order_by(_RANK, table.c.due_at, table.c.id)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)  # left out by SQLite, where units of work follow one another
    )
    chosen = (due.where(_TO_END) if removals_only else due).cte("due")
    return (
        update(table)
        .where(table.c.id.in_(select(chosen.c.id)))
        .values(lease_owner=bindparam("new_owner"), lease_until=bindparam("new_until"))
        .returning(table.c.id, table.c.due_at, _RANK.label("rank"))
    )


_ADD = insert(table)
_ADD_IF_FREE = insert_new(table, "id")
_GET = select(table).where(table.c.id == bindparam("row"))
_GET_LOCKED = _GET.with_for_update()
_GET_ALL = select(table).where(table.c.id.in_(bindparam("rows", expanding=True))).order_by(table.c.id)
_GET_ALL_LOCKED = _GET_ALL.with_for_update()  # in the order of their ids: nobody waits for each other in a circle
_SAVE = update(table).where(table.c.id == bindparam("row"))
_SAVE_LEASED = _SAVE.where(
    table.c.lease_owner == bindparam("owner"),
    table.c.lease_until == bindparam("until"),
    table.c.revision == bindparam("seen_revision"),
)
_CLAIM = {only: _claim(removals_only=only) for only in (False, True)}
_RELEASE = (
    update(table)
    .where(table.c.id.in_(bindparam("rows", expanding=True)), table.c.lease_owner == bindparam("owner"))
    .values(lease_owner=None, lease_until=None)
)
_RELEASE_ALL = update(table).where(table.c.lease_owner == bindparam("owner")).values(lease_owner=None, lease_until=None)
_CLAIMABLE_AT = case((table.c.lease_until > table.c.due_at, table.c.lease_until), else_=table.c.due_at)
_NEXT_DUE = union_all(
    select(func.min(table.c.due_at).label("at")).where(table.c.due_at.is_not(None), table.c.lease_owner.is_(None)),
    # no word of due_at here: SQLite would walk through all that are due some day, instead of the few that are leased
    select(func.min(_CLAIMABLE_AT)).where(table.c.lease_owner.is_not(None)),
)
_NEXT_SERIAL = (
    update(counters)
    .where(counters.c.name == "certificate_serial")
    .values(value=counters.c.value + 1)
    .returning(counters.c.value)
)


class SqlRequests:
    """``access.ports.Requests`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.saved: list[AccessRequest] = []  # or added, but for those that a lease keeps for who has it

    def add(self, request: AccessRequest) -> None:
        self.saved.append(request)
        self._connection.execute(_ADD, _to_row(request))

    def add_all_if_free(self, requests: Sequence[AccessRequest]) -> bool:
        self.saved += requests
        return add_new(self._connection, _ADD_IF_FREE, *map(_to_row, requests))

    def get(self, request_id: str, *, lock: bool = False) -> AccessRequest:
        row = self._connection.execute(_GET_LOCKED if lock else _GET, {"row": request_id}).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no request {request_id}.")
        return request_from_row(row)

    def get_all(self, request_ids: Sequence[str], *, lock: bool = False) -> Sequence[AccessRequest]:
        rows = self._connection.execute(_GET_ALL_LOCKED if lock else _GET_ALL, {"rows": list(request_ids)})
        found = {row.id: request_from_row(row) for row in rows}
        if missing := [request_id for request_id in request_ids if request_id not in found]:
            raise NotFoundError(f"There is no request {' or '.join(missing)}.")
        return [found[request_id] for request_id in request_ids]

    def save(self, request: AccessRequest) -> None:
        self.save_all([request])

    def save_all(self, requests: Sequence[AccessRequest]) -> None:
        self.saved += requests
        rows = [{"row": request.id, **_standing_to_row(request)} for request in requests]
        if rows and self._connection.execute(_SAVE, one_or_all(rows)).rowcount != len(rows):
            raise NotFoundError(f"There is no request {' or '.join(request.id for request in requests)}.")

    def save_leased(self, leased: Sequence[Leased], *, owner: str) -> bool:
        self.saved += [each.request for each in leased if each.is_finished]
        rows = [
            {
                "row": each.request.id,
                "owner": owner,
                "until": each.until,
                "seen_revision": each.revision,
                "lease_owner": None if each.is_finished else owner,
                "lease_until": None if each.is_finished else each.until,
                **_standing_to_row(each.request),
            }
            for each in sorted(leased, key=lambda each: each.request.id)  # see _GET_ALL_LOCKED
        ]
        return self._connection.execute(_SAVE_LEASED, one_or_all(rows)).rowcount == len(rows)

    def find(
        self, *, person_id: str | None = None, states: Sequence[RequestState] = (), limit: int = 50
    ) -> Sequence[AccessRequest]:
        found = select(table).order_by(table.c.submitted_at.desc(), table.c.id.desc()).limit(limit)
        if person_id is not None:
            found = found.where(table.c.person_id == person_id)
        if states:
            found = found.where(table.c.state.in_([state.value for state in states]))
        return list(readable(self._connection.execute(found)))

    def claim_due(
        self, now: datetime, *, owner: str, lease_until: datetime, limit: int, removals_only: bool
    ) -> Sequence[str]:
        values = {"now": now, "new_owner": owner, "new_until": lease_until, "most": limit}
        claimed = self._connection.execute(_CLAIM[removals_only], values).all()
        # RETURNING promises no order.
        return [row.id for row in sorted(claimed, key=lambda row: (row.rank, row.due_at, row.id))]

    def release(self, *request_ids: str, owner: str) -> None:
        if request_ids:
            self._connection.execute(_RELEASE, {"rows": list(request_ids), "owner": owner})

    def release_all(self, *, owner: str) -> int:
        return self._connection.execute(_RELEASE_ALL, {"owner": owner}).rowcount

    def next_due_at(self) -> datetime | None:
        return min((at for at in self._connection.scalars(_NEXT_DUE) if at is not None), default=None)

    def next_serial(self) -> int:
        serial: int = self._connection.execute(_NEXT_SERIAL).scalar_one()
        return serial


def readable(rows: Iterable[Row[Any]]) -> Iterator[AccessRequest]:
    """The requests in these rows, without those that cannot be read: one of them must not hide the others."""
    for row in rows:
        try:
            yield request_from_row(row)
        except UnreadableError as error:
            _complain(error.sentence)


@lru_cache(maxsize=1000)  # once for each, and not at every look
def _complain(sentence: str) -> None:
    _log.error("%s", sentence)


def request_from_row(row: Row[Any]) -> AccessRequest:
    """The request in a row of the requests table; raises UnreadableError."""
    return understood(row, _from_row)


def _from_row(row: Row[Any]) -> AccessRequest:
    return AccessRequest(
        id=row.id,
        person_id=row.person_id,
        person_name=row.person_name,
        person_email=row.person_email,
        slack_user=SlackUser(team_id=row.team_id, user_id=row.user_id),
        servers=tuple(server_from_json(server) for server in row.servers),
        reason=row.reason,
        duration=row.duration,
        terms=terms_from_json(row.terms),
        submitted_at=row.submitted_at,
        lapses_at=row.lapses_at,
        source_ip=row.source_ip,
        route=RouteName(row.route),
        account=AccountName(row.account),
        state=RequestState(row.state),
        cause=None if row.cause is None else EndCause(row.cause),
        cause_detail=row.cause_detail,
        decided_at=row.decided_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        due_at=row.due_at,
        problem=row.problem,
        revision=row.revision,
    )


def _to_row(request: AccessRequest) -> dict[str, object]:
    """Every column but the leases' and the feed's."""
    return {
        "id": request.id,
        "person_id": request.person_id,
        "person_name": request.person_name,
        "person_email": request.person_email,
        "team_id": request.slack_user.team_id,
        "user_id": request.slack_user.user_id,
        "servers": [server_to_json(server) for server in request.servers],
        "reason": request.reason,
        "terms": terms_to_json(request.terms),
        "submitted_at": request.submitted_at,
        "lapses_at": request.lapses_at,
        "source_ip": request.source_ip,
        "route": request.route.value,
        "account": request.account.value,
        **_standing_to_row(request),
    }


def _standing_to_row(request: AccessRequest) -> dict[str, object]:
    """How it stands; who asked for what, and by which terms, is never written again."""
    return {
        "duration": request.duration,
        "state": request.state.value,
        "cause": None if request.cause is None else request.cause.value,
        "cause_detail": request.cause_detail,
        "decided_at": request.decided_at,
        "expires_at": request.expires_at,
        "ended_at": request.ended_at,
        "due_at": request.due_at,
        "problem": request.problem,
        "revision": request.revision,
    }
