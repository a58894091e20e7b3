"""A database with a history: very many ended requests, and many active ones, written by the database itself."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Select, Table, Text, cast, create_engine, insert, literal, select, text

from access import lifecycle
from access.model import EndCause, Grant, GrantState, RequestState, Server
from bot import wiring
from storage.engine import parse_url
from storage.rows import grants, requests
from storage.unit_of_work import SqlStore
from tests.stores import SEALER
from tests.values import a_request, a_server

ENDED, ACTIVE = 100_000, 10_000


def gather(url: str, *, ended: int = ENDED, active: int = ACTIVE) -> None:
    """Fill a settled database; Slack shows all of it already, and nothing is due for hours."""
    _add_two(url)
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        for seed, count in (("AR-ENDED", ended), ("AR-ACTIVE", active)):
            _multiply(connection, requests, seed, count, id=f"{seed}-")
            _multiply(connection, grants, f"{seed}.1", count, id=f"{seed}.1-", request_id=f"{seed}-")
        connection.execute(text("UPDATE requests SET shown_revision = revision"))
        connection.execute(text("ANALYZE"))
    engine.dispose()


def gather_ends(store: SqlStore, servers: Sequence[Server], count: int, *, begins: datetime) -> dict[str, datetime]:
    """Active requests, a server each in turn, whose ends are spread over the second that begins then; when, by id."""
    ends = {f"AR-E{number:03}": begins + timedelta(seconds=number / count) for number in range(count)}
    with store.unit_of_work() as uow:
        for number, (request_id, end) in enumerate(ends.items()):
            server = servers[number % len(servers)]
            uow.requests.add(
                a_request(id=request_id, servers=(server,), state=RequestState.ACTIVE, expires_at=end, due_at=end)
            )
            grant = Grant(id=f"{request_id}.1", request_id=request_id, server=server, state=GrantState.ACTIVE)
            uow.grants.add(grant)
        uow.commit()
    return ends


def _add_two(url: str) -> None:
    """An ended and an active request, as the rules would have left them."""
    now = wiring.now()
    asked = a_request(id="AR-ACTIVE", submitted_at=now, lapses_at=now + timedelta(minutes=30))
    end = now + asked.duration
    active = lifecycle.move(lifecycle.decide(asked, RequestState.APPROVED, at=now), RequestState.ACTIVE, due_at=end)
    store = SqlStore(url, sealing=SEALER)
    with store.unit_of_work() as uow:
        for request_id, gone in (("AR-ACTIVE", False), ("AR-ENDED", True)):
            request = replace(active, id=request_id, expires_at=end)
            state = GrantState.REMOVED if gone else GrantState.ACTIVE
            if gone:
                request = lifecycle.end(
                    lifecycle.begin_end(request, EndCause.EXPIRED, "its time was up", at=now), at=now
                )
            uow.requests.add(request)
            uow.grants.add(Grant(id=f"{request_id}.1", request_id=request_id, server=a_server(), state=state))
        uow.commit()
    store.close()


def _multiply(connection: Connection, table: Table, seed: str, count: int, **numbered: str) -> None:
    """Copy a row so many times, with numbers after these columns' prefixes."""
    numbers = select(literal(1).label("number")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.number + 1).where(numbers.c.number < count))

    def value(column: Column[Any]) -> Any:
        prefix = numbered.get(column.name)
        return column if prefix is None else literal(prefix, Text).concat(cast(numbers.c.number, Text))

    copies: Select[Any] = select(*map(value, table.c)).select_from(table.join(numbers, literal(1) == 1))
    connection.execute(insert(table).from_select(list(table.c), copies.where(table.c.id == seed)))
