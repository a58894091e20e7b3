"""The certificate authority's keys: who they are and what for; private keys are never here."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from access.authorities import Authority, AuthorityRole
from access.errors import NotFoundError
from storage.repositories.statements import by_engine
from storage.rows import authorities as table

_ALL = select(table).order_by(table.c.since, table.c.fingerprint)
_ALL_LOCKED = _ALL.with_for_update()
_ADD = by_engine(table, lambda insert: insert.on_conflict_do_nothing().returning(table.c.fingerprint))
_SAVE = update(table).where(table.c.fingerprint == bindparam("row"))


class SqlAuthorities:
    """``access.ports.Authorities`` in SQL; a partial unique index keeps a second CURRENT or NEXT out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self, *, lock: bool = False) -> Sequence[Authority]:
        return [_from_row(row) for row in self._connection.execute(_ALL_LOCKED if lock else _ALL)]

    def add(self, authority: Authority) -> bool:
        added = self._connection.execute(
            _ADD[self._connection.dialect.name],
            {
                "fingerprint": authority.fingerprint,
                "public_key": authority.public_key,
                "place": authority.place,
                "since": authority.since,
                **_role_to_row(authority),
            },
        )
        return added.first() is not None

    def save(self, authority: Authority) -> None:
        changed = self._connection.execute(_SAVE, {"row": authority.fingerprint, **_role_to_row(authority)})
        if changed.rowcount != 1:
            raise NotFoundError(f"There is no key {authority.fingerprint}.")


def _from_row(row: Row[Any]) -> Authority:
    return Authority(
        fingerprint=row.fingerprint,
        public_key=row.public_key,
        place=row.place,
        role=AuthorityRole(row.role),
        since=row.since,
        changed_at=row.changed_at,
        generation=row.generation,
    )


def _role_to_row(authority: Authority) -> dict[str, object]:
    return {
        "role": authority.role.value,
        "changed_at": authority.changed_at,
        "generation": authority.generation,
    }
