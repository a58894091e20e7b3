"""Secrets by name, sealed to their row."""

from sqlalchemy import Connection, bindparam, select, update

from storage.repositories.statements import insert_or_update
from storage.rows import sealed_secrets as table
from storage.sealing import Sealer

_GET = select(table.c.value).where(table.c.name == bindparam("name"))
_PUT = insert_or_update(table, ("name",), ("value",))
_ALL = select(table).order_by(table.c.name).with_for_update()
_CHANGE = update(table).where(table.c.name == bindparam("row"))


class SqlSecrets:
    """Passport's own secrets; nothing of them is readable in the database."""

    def __init__(self, connection: Connection, sealing: Sealer) -> None:
        self._connection = connection
        self._sealing = sealing

    def get(self, name: str) -> bytes | None:
        """The secret, or None if there is none by that name; raises SealError."""
        sealed = self._connection.execute(_GET, {"name": name}).scalar()
        return None if sealed is None else self._sealing.open(sealed, table=table.name, column="value", row=name)

    def put(self, name: str, value: bytes) -> None:
        """Keep the secret, in place of what had the name before."""
        sealed = self._sealing.seal(value, table=table.name, column="value", row=name)
        self._connection.execute(_PUT[self._connection.dialect.name], {"name": name, "value": sealed})

    def reseal(self) -> int:
        """Seal with the first key what another key sealed; says how many there were. Raises SealError."""
        changed = 0
        for row in self._connection.execute(_ALL).all():
            value = self._sealing.reseal(row.value, table=table.name, column="value", row=row.name)
            if value != row.value:
                self._connection.execute(_CHANGE, {"row": row.name, "value": value})
                changed += 1
        return changed
