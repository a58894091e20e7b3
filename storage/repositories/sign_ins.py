"""What is used once: link tickets, sign-ins under way, assertions, Slack's deliveries; and parked requests."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, union_all

from access.errors import DuplicateDeliveryError
from access.model import LinkTicket, Login, ParkedRequest, SlackUser
from storage.repositories.people import slack_from_row, slack_to_row
from storage.repositories.shapes import submission_from_json, submission_to_json
from storage.repositories.statements import add_new, insert_new
from storage.rows import assertions, deliveries, link_tickets, links, logins, parked_requests

DELIVERIES_KEPT = timedelta(days=1)

_ADD_TICKET = insert(link_tickets)
_TICKET = select(link_tickets).where(link_tickets.c.token_hash == bindparam("token_hash"))
_CONSUME_TICKET = (
    delete(link_tickets).where(link_tickets.c.token_hash == bindparam("token_hash")).returning(*link_tickets.c)
)
_BEGUN_BY = union_all(
    *(
        select(table.c.expires_at).where(
            table.c.team_id == bindparam("team_id"),
            table.c.user_id == bindparam("user_id"),
            table.c.expires_at > bindparam("now"),
        )
        for table in (link_tickets, logins)
    )
)
_ADD_LOGIN = insert(logins)
_CONSUME_LOGIN = delete(logins).where(logins.c.relay_hash == bindparam("relay_hash")).returning(*logins.c)
_REMEMBER = insert_new(assertions, "id")
_PARK = insert(parked_requests)
_PARKED_OF = (
    select(parked_requests)
    .where(parked_requests.c.team_id == bindparam("team_id"), parked_requests.c.user_id == bindparam("user_id"))
    .order_by(parked_requests.c.parked_at, parked_requests.c.id)
)
_LAPSED = (
    select(parked_requests)
    .where(parked_requests.c.lapses_at <= bindparam("now"))
    .order_by(parked_requests.c.lapses_at, parked_requests.c.id)
)
_OVERTAKEN = (
    select(parked_requests)
    .join(
        links,
        (links.c.team_id == parked_requests.c.team_id)
        & (links.c.user_id == parked_requests.c.user_id)
        & (links.c.linked_at > parked_requests.c.parked_at),
    )
    .order_by(parked_requests.c.parked_at, parked_requests.c.id)
)
_UNPARK = delete(parked_requests).where(parked_requests.c.id == bindparam("id"))
_PURGES = (
    delete(link_tickets).where(link_tickets.c.expires_at <= bindparam("now")),
    delete(logins).where(logins.c.expires_at <= bindparam("now")),
    delete(assertions).where(assertions.c.until <= bindparam("now")),
)
_PURGE_DELIVERIES = delete(deliveries).where(deliveries.c.at <= bindparam("before"))
_CLAIM = insert_new(deliveries, "key")
_SUBJECT = select(deliveries.c.subject).where(deliveries.c.key == bindparam("key"))


class SqlSignIns:
    """``access.ports.SignIns`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_ticket(self, ticket: LinkTicket) -> None:
        self._connection.execute(_ADD_TICKET, _ticket_to_row(ticket))

    def ticket(self, token_hash: str) -> LinkTicket | None:
        row = self._connection.execute(_TICKET, {"token_hash": token_hash}).one_or_none()
        return None if row is None else _ticket_from_row(row)

    def consume_ticket(self, token_hash: str) -> LinkTicket | None:
        row = self._connection.execute(_CONSUME_TICKET, {"token_hash": token_hash}).one_or_none()
        return None if row is None else _ticket_from_row(row)

    def begun_by(self, slack_user: SlackUser, now: datetime) -> Sequence[datetime]:
        return list(self._connection.scalars(_BEGUN_BY, {**slack_to_row(slack_user), "now": now}))

    def add_login(self, login: Login) -> None:
        self._connection.execute(_ADD_LOGIN, _login_to_row(login))

    def consume_login(self, relay_hash: str) -> Login | None:
        row = self._connection.execute(_CONSUME_LOGIN, {"relay_hash": relay_hash}).one_or_none()
        return None if row is None else _login_from_row(row)

    def remember_assertion(self, assertion_id: str, until: datetime) -> bool:
        return add_new(self._connection, _REMEMBER, {"id": assertion_id, "until": until})

    def park(self, parked: ParkedRequest) -> None:
        self._connection.execute(_PARK, _parked_to_row(parked))

    def parked_of(self, slack_user: SlackUser) -> Sequence[ParkedRequest]:
        return [_parked_from_row(row) for row in self._connection.execute(_PARKED_OF, slack_to_row(slack_user))]

    def lapsed_parked(self, now: datetime) -> Sequence[ParkedRequest]:
        return [_parked_from_row(row) for row in self._connection.execute(_LAPSED, {"now": now})]

    def overtaken_parked(self) -> Sequence[ParkedRequest]:
        return [_parked_from_row(row) for row in self._connection.execute(_OVERTAKEN)]

    def unpark(self, parked_id: str) -> bool:
        return self._connection.execute(_UNPARK, {"id": parked_id}).rowcount > 0

    def purge(self, now: datetime) -> None:
        for purge in _PURGES:
            self._connection.execute(purge, {"now": now})
        self._connection.execute(_PURGE_DELIVERIES, {"before": now - DELIVERIES_KEPT})


class SqlDeliveries:
    """``access.ports.Deliveries`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, key: str, *, subject: str, at: datetime) -> None:
        if not self.claim_all([(key, subject)], at=at):
            raise DuplicateDeliveryError(self._connection.execute(_SUBJECT, {"key": key}).scalar() or "")

    def claim_all(self, deliveries: Sequence[tuple[str, str]], *, at: datetime) -> bool:
        # in the order of their keys, so that two processes with the same ones never wait for each other
        rows = ({"key": key, "subject": subject, "at": at} for key, subject in sorted(deliveries))
        return add_new(self._connection, _CLAIM, *rows)

    def is_known(self, key: str) -> bool:
        return self._connection.execute(_SUBJECT, {"key": key}).first() is not None


def _ticket_from_row(row: Row[Any]) -> LinkTicket:
    return LinkTicket(
        token_hash=row.token_hash,
        slack_user=slack_from_row(row),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _ticket_to_row(ticket: LinkTicket) -> dict[str, object]:
    return {
        "token_hash": ticket.token_hash,
        **slack_to_row(ticket.slack_user),
        "created_at": ticket.created_at,
        "expires_at": ticket.expires_at,
    }


def _login_from_row(row: Row[Any]) -> Login:
    return Login(
        request_id=row.request_id,
        relay_hash=row.relay_hash,
        browser_hash=row.browser_hash,
        provider=row.provider,
        slack_user=slack_from_row(row),
        expires_at=row.expires_at,
    )


def _login_to_row(login: Login) -> dict[str, object]:
    return {
        "request_id": login.request_id,
        "relay_hash": login.relay_hash,
        "browser_hash": login.browser_hash,
        "provider": login.provider,
        **slack_to_row(login.slack_user),
        "expires_at": login.expires_at,
    }


def _parked_from_row(row: Row[Any]) -> ParkedRequest:
    return ParkedRequest(
        id=row.id,
        slack_user=slack_from_row(row),
        submission=submission_from_json(row.submission),
        parked_at=row.parked_at,
        lapses_at=row.lapses_at,
    )


def _parked_to_row(parked: ParkedRequest) -> dict[str, object]:
    return {
        "id": parked.id,
        **slack_to_row(parked.slack_user),
        "submission": submission_to_json(parked.submission),
        "parked_at": parked.parked_at,
        "lapses_at": parked.lapses_at,
    }
