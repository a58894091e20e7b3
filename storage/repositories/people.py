"""Persons, their links to Slack, their public keys, and the admins' exceptions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Integer, Row, bindparam, delete, exists, or_, select, tuple_

from access.errors import NotFoundError, RefusedError
from access.model import EmailException, Link, Person, RequestState, SlackUser, SshKey
from storage.repositories.statements import add_new, insert_new, insert_or_update
from storage.rows import email_exceptions, links, people, requests, ssh_keys

_MAY_HAVE_ACCESS = [state.value for state in (RequestState.PENDING, RequestState.APPROVED, RequestState.ACTIVE)]
_PERSON = select(people).where(people.c.id == bindparam("id"))
_PERSON_BY_SUBJECT = select(people).where(
    people.c.provider == bindparam("provider"), people.c.subject == bindparam("subject")
)
# An id is one subject's for ever. To write these again would, on PostgreSQL, make each request of the person wait.
_SAVE_PERSON = insert_or_update(people, ("id",), ("email", "name", "groups", "groups_read_at"))
_GROUPS_READ_BEFORE = (
    select(people)
    .where(
        people.c.groups_read_at < bindparam("instant"),
        or_(
            exists().where(links.c.person_id == people.c.id, links.c.expires_at > bindparam("linked_at")),
            exists().where(requests.c.person_id == people.c.id, requests.c.state.in_(_MAY_HAVE_ACCESS)),
        ),
    )
    .order_by(people.c.groups_read_at, people.c.id)
    .limit(bindparam("most", type_=Integer))
)
_LINK = select(links).where(links.c.team_id == bindparam("team_id"), links.c.user_id == bindparam("user_id"))
_BEHIND = (
    select(people, links)
    .join_from(links, people)
    .where(tuple_(links.c.team_id, links.c.user_id).in_(bindparam("slack_users", expanding=True)))
)
_LINKS_OF = select(links).where(links.c.person_id == bindparam("person_id")).order_by(links.c.linked_at)
_SAVE_LINK = insert_or_update(links, ("team_id", "user_id"), ("person_id", "linked_at", "expires_at"))
_REMOVE_LINK = delete(links).where(links.c.team_id == bindparam("team_id"), links.c.user_id == bindparam("user_id"))
_ADD_EXCEPTION = insert_or_update(
    email_exceptions, ("team_id", "user_id"), ("email", "recorded_by", "reason", "recorded_at")
)
_REMOVE_EXCEPTION = delete(email_exceptions).where(
    email_exceptions.c.team_id == bindparam("team_id"), email_exceptions.c.user_id == bindparam("user_id")
)
_EXCEPTION = select(email_exceptions).where(
    email_exceptions.c.team_id == bindparam("team_id"), email_exceptions.c.user_id == bindparam("user_id")
)
_ADD_KEY = insert_new(ssh_keys, "fingerprint")
_KEY = select(ssh_keys).where(ssh_keys.c.fingerprint == bindparam("fingerprint"))
_KEYS_OF = (
    select(ssh_keys)
    .where(ssh_keys.c.person_id == bindparam("person_id"))
    .order_by(ssh_keys.c.added_at, ssh_keys.c.fingerprint)
)
_REMOVE_KEY = delete(ssh_keys).where(ssh_keys.c.fingerprint == bindparam("fingerprint"))


class SqlPeople:
    """``access.ports.People`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._engine = connection.dialect.name

    def get(self, person_id: str) -> Person:
        row = self._connection.execute(_PERSON, {"id": person_id}).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no person {person_id}.")
        return _person_from_row(row)

    def by_subject(self, provider: str, subject: str) -> Person | None:
        found = self._connection.execute(_PERSON_BY_SUBJECT, {"provider": provider, "subject": subject})
        row = found.one_or_none()
        return None if row is None else _person_from_row(row)

    def save(self, person: Person) -> None:
        self._connection.execute(_SAVE_PERSON[self._engine], _person_to_row(person))

    def groups_read_before(self, instant: datetime, *, linked_at: datetime, limit: int) -> Sequence[Person]:
        values = {"instant": instant, "linked_at": linked_at, "most": limit}
        return [_person_from_row(row) for row in self._connection.execute(_GROUPS_READ_BEFORE, values)]

    def behind(self, slack_user: SlackUser) -> tuple[Person, Link] | None:
        return self.behind_all([slack_user]).get(slack_user)

    def behind_all(self, slack_users: Sequence[SlackUser]) -> Mapping[SlackUser, tuple[Person, Link]]:
        keys = {(slack_user.team_id, slack_user.user_id) for slack_user in slack_users}
        rows = self._connection.execute(_BEHIND, {"slack_users": sorted(keys)})
        return {slack_from_row(row): (_person_from_row(row), _link_from_row(row)) for row in rows}

    def link_of(self, slack_user: SlackUser) -> Link | None:
        row = self._connection.execute(_LINK, slack_to_row(slack_user)).one_or_none()
        return None if row is None else _link_from_row(row)

    def links_of(self, person_id: str) -> Sequence[Link]:
        return [_link_from_row(row) for row in self._connection.execute(_LINKS_OF, {"person_id": person_id})]

    def save_link(self, link: Link) -> None:
        self._connection.execute(_SAVE_LINK[self._engine], _link_to_row(link))

    def remove_link(self, slack_user: SlackUser) -> None:
        self._connection.execute(_REMOVE_LINK, slack_to_row(slack_user))

    def add_exception(self, exception: EmailException) -> None:
        self._connection.execute(_ADD_EXCEPTION[self._engine], _exception_to_row(exception))

    def exception_of(self, slack_user: SlackUser) -> EmailException | None:
        row = self._connection.execute(_EXCEPTION, slack_to_row(slack_user)).one_or_none()
        return None if row is None else _exception_from_row(row)

    def remove_exception(self, slack_user: SlackUser) -> None:
        self._connection.execute(_REMOVE_EXCEPTION, slack_to_row(slack_user))

    def add_key(self, key: SshKey) -> None:
        """Register the key; raises RefusedError if it is registered, to whomever."""
        if not add_new(self._connection, _ADD_KEY, _key_to_row(key)):
            raise RefusedError(f"The key {key.fingerprint} is registered already. Nothing changed.")

    def key(self, fingerprint: str) -> SshKey | None:
        row = self._connection.execute(_KEY, {"fingerprint": fingerprint}).one_or_none()
        return None if row is None else _key_from_row(row)

    def keys_of(self, person_id: str) -> Sequence[SshKey]:
        return [_key_from_row(row) for row in self._connection.execute(_KEYS_OF, {"person_id": person_id})]

    def remove_key(self, fingerprint: str) -> None:
        self._connection.execute(_REMOVE_KEY, {"fingerprint": fingerprint})


def slack_to_row(slack_user: SlackUser) -> dict[str, str]:
    """The two columns that name a Slack user."""
    return {"team_id": slack_user.team_id, "user_id": slack_user.user_id}


def slack_from_row(row: Row[Any]) -> SlackUser:
    """The Slack user of a row."""
    return SlackUser(team_id=row.team_id, user_id=row.user_id)


def _person_from_row(row: Row[Any]) -> Person:
    return Person(
        id=row.id,
        provider=row.provider,
        subject=row.subject,
        email=row.email,
        name=row.name,
        groups=frozenset(row.groups),
        groups_read_at=row.groups_read_at,
    )


def _person_to_row(person: Person) -> dict[str, object]:
    return {
        "id": person.id,
        "provider": person.provider,
        "subject": person.subject,
        "email": person.email,
        "name": person.name,
        "groups": sorted(person.groups),
        "groups_read_at": person.groups_read_at,
    }


def _link_from_row(row: Row[Any]) -> Link:
    return Link(
        slack_user=slack_from_row(row), person_id=row.person_id, linked_at=row.linked_at, expires_at=row.expires_at
    )


def _link_to_row(link: Link) -> dict[str, object]:
    return {
        **slack_to_row(link.slack_user),
        "person_id": link.person_id,
        "linked_at": link.linked_at,
        "expires_at": link.expires_at,
    }


def _exception_from_row(row: Row[Any]) -> EmailException:
    return EmailException(
        slack_user=slack_from_row(row),
        email=row.email,
        recorded_by=row.recorded_by,
        reason=row.reason,
        recorded_at=row.recorded_at,
    )


def _exception_to_row(exception: EmailException) -> dict[str, object]:
    return {
        **slack_to_row(exception.slack_user),
        "email": exception.email,
        "recorded_by": exception.recorded_by,
        "reason": exception.reason,
        "recorded_at": exception.recorded_at,
    }


def _key_from_row(row: Row[Any]) -> SshKey:
    return SshKey(fingerprint=row.fingerprint, person_id=row.person_id, line=row.line, added_at=row.added_at)


def _key_to_row(key: SshKey) -> dict[str, object]:
    return {"fingerprint": key.fingerprint, "person_id": key.person_id, "line": key.line, "added_at": key.added_at}
