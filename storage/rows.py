"""The tables. What the values in them mean is said in ``access.model`` and ``access.ports``.

Ended requests stay for ever, so what the reconciler and the feed look for has partial indexes: they hold
the few requests with something left to do, however many have ended.
"""

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

from access.authorities import AuthorityRole
from access.model import AccountName, EndCause, GrantState, RequestState, RouteName, Verdict
from storage.columns import Instant, Number, Seconds, Words

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, Words, primary_key=key, nullable=False)


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{value.value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _index_where(name: str, condition: str, *columns: ColumnElement[Any]) -> Index:
    return Index(name, *columns, postgresql_where=text(condition), sqlite_where=text(condition))


people = Table(
    "people",
    metadata,
    _text("id", key=True),
    _text("provider"),
    _text("subject"),
    _text("email"),
    _text("name"),
    Column("groups", JSON, nullable=False),
    Column("groups_read_at", Instant, nullable=False, index=True),
    UniqueConstraint("provider", "subject"),
)

links = Table(
    "links",
    metadata,
    _text("team_id", key=True),
    _text("user_id", key=True),
    Column("person_id", Words, ForeignKey("people.id"), nullable=False, index=True),
    Column("linked_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
)

email_exceptions = Table(
    "email_exceptions",
    metadata,
    _text("team_id", key=True),
    _text("user_id", key=True),
    _text("email"),
    _text("recorded_by"),
    _text("reason"),
    Column("recorded_at", Instant, nullable=False),
)

ssh_keys = Table(
    "ssh_keys",
    metadata,
    _text("fingerprint", key=True),
    Column("person_id", Words, ForeignKey("people.id"), nullable=False, index=True),
    _text("line"),
    Column("added_at", Instant, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    _text("id", key=True),
    Column("person_id", Words, ForeignKey("people.id"), nullable=False),
    _text("person_name"),
    _text("person_email"),
    _text("team_id"),
    _text("user_id"),
    Column("servers", JSON, nullable=False),
    _text("reason"),
    Column("duration", Seconds, nullable=False),
    Column("terms", JSON, nullable=False),
    Column("submitted_at", Instant, nullable=False),
    Column("lapses_at", Instant, nullable=False),
    Column("source_ip", Words),
    _text("route"),
    _text("account"),
    _text("state"),
    Column("cause", Words),
    _text("cause_detail"),
    Column("decided_at", Instant),
    Column("expires_at", Instant),
    Column("ended_at", Instant),
    Column("due_at", Instant),
    _text("problem"),
    Column("revision", Integer, nullable=False),
    # The columns from here on belong to the leases and to the feed; saving a request leaves them alone.
    Column("lease_owner", Words),
    Column("lease_until", Instant),
    Column("shown_revision", Integer, nullable=False, server_default=text("0")),
    Column("show_after", Instant),
    _one_of("route", RouteName),
    _one_of("account", AccountName),
    _one_of("state", RequestState),
    _one_of("cause", EndCause),
    Index("ix_requests_newest", "submitted_at", "id"),
    Index("ix_requests_person", "person_id", "submitted_at"),
    Index("ix_requests_state", "state", "submitted_at"),
)
_index_where("ix_requests_due", "due_at IS NOT NULL", requests.c.due_at)
_index_where("ix_requests_leased", "lease_owner IS NOT NULL", requests.c.lease_owner)
_index_where("ix_requests_stale", "shown_revision < revision", requests.c.submitted_at, requests.c.id)

grants = Table(
    "grants",
    metadata,
    _text("id", key=True),
    Column("request_id", Words, ForeignKey("requests.id"), nullable=False, index=True),
    Column("server", JSON, nullable=False),
    _text("state"),
    Column("route", JSON, nullable=False),
    Column("account", JSON, nullable=False),
    Column("details", JSON, nullable=False),
    Column("proof", JSON, nullable=False),
    _text("outcome"),
    _one_of("state", GrantState),
)

reviews = Table(
    "reviews",
    metadata,
    Column("number", Number, primary_key=True),
    Column("request_id", Words, ForeignKey("requests.id"), nullable=False),
    Column("person_id", Words, ForeignKey("people.id"), nullable=False),
    _text("person_name"),
    _text("person_email"),
    _text("team_id"),
    _text("user_id"),
    _text("verdict"),
    Column("at", Instant, nullable=False),
    _text("reason"),
    Column("duration", Seconds),
    _one_of("verdict", Verdict),
    UniqueConstraint("request_id", "person_id"),
)

link_tickets = Table(
    "link_tickets",
    metadata,
    _text("token_hash", key=True),
    _text("team_id"),
    _text("user_id"),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
)

logins = Table(
    "logins",
    metadata,
    _text("relay_hash", key=True),
    Column("request_id", Words, nullable=False, unique=True),
    _text("browser_hash"),
    _text("provider"),
    _text("team_id"),
    _text("user_id"),
    Column("expires_at", Instant, nullable=False, index=True),
)

assertions = Table(
    "assertions",
    metadata,
    _text("id", key=True),
    Column("until", Instant, nullable=False, index=True),
)

parked_requests = Table(
    "parked_requests",
    metadata,
    _text("id", key=True),
    _text("team_id"),
    _text("user_id"),
    Column("submission", JSON, nullable=False),
    Column("parked_at", Instant, nullable=False),
    Column("lapses_at", Instant, nullable=False, index=True),
    Index("ix_parked_requests_slack_user", "team_id", "user_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    _text("key", key=True),
    _text("subject"),
    Column("at", Instant, nullable=False, index=True),
)

posts = Table(
    "posts",
    metadata,
    Column("number", Number, primary_key=True),
    Column("request_id", Words, ForeignKey("requests.id"), nullable=False),
    _text("audience"),
    _text("recipient"),
    _text("stage"),
    _text("channel"),
    _text("ts"),
    Column("shown_revision", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("retry_at", Instant),
    _text("problem"),
    UniqueConstraint("request_id", "audience", "recipient", "stage"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Number, primary_key=True),
    _text("team_id"),
    _text("user_id"),
    _text("text"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", Instant, nullable=False, index=True),
    sqlite_autoincrement=True,
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    _text("kind"),
    _text("actor"),
    _text("actor_name"),
    _text("request_id"),
    _text("server"),
    Column("details", JSON, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("ix_audit_events_request", "request_id", "sequence"),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", Number, nullable=False),
    Column("hash", String(64), nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

audit_readers = Table(
    "audit_readers",
    metadata,
    _text("reader", key=True),
    Column("sequence", Number, nullable=False, server_default=text("0")),
    Column("owner", Words),
    Column("until", Instant),
)

counters = Table(
    "counters",
    metadata,
    _text("name", key=True),
    Column("value", Number, nullable=False),
)

sealed_secrets = Table(
    "sealed_secrets",
    metadata,
    _text("name", key=True),
    _text("value"),
)

authorities = Table(
    "authorities",
    metadata,
    _text("fingerprint", key=True),
    _text("public_key"),
    _text("place"),
    _text("role"),
    Column("since", Instant, nullable=False),
    Column("changed_at", Instant, nullable=False),
    Column("generation", Integer, nullable=False),
    _one_of("role", AuthorityRole),
)
Index(
    "uq_authorities_role",
    authorities.c.role,
    unique=True,
    postgresql_where=text("role <> 'retired'"),
    sqlite_where=text("role <> 'retired'"),
)

grant_passwords = Table(
    "grant_passwords",
    metadata,
    Column("grant_id", Words, ForeignKey("grants.id"), primary_key=True, nullable=False),
    _text("modulus"),
    # Sealed, and empty once the grant is removed; the row stays, so that no key is ever made anew.
    Column("private_key", Words),
    Column("password", Words),
)
