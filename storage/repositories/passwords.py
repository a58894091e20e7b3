"""Passwords of grants: what the server encrypted, and the key that opens it, both sealed to their row and column.

A password is decrypted only while it is shown: until somebody presses that button, Passport has never seen it.
"""

from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import Connection, bindparam, select, update

from access.errors import UnavailableError
from access.model import GrantState
from storage.password_keys import decrypt, modulus_of, to_bytes
from storage.repositories.statements import add_new, insert_new
from storage.rows import grant_passwords as table
from storage.rows import grants
from storage.sealing import Sealer

_MODULI = select(table.c.grant_id, table.c.modulus).where(
    table.c.grant_id.in_(bindparam("grant_ids", expanding=True)), table.c.private_key.is_not(None)
)
_STATE = select(grants.c.state).where(grants.c.id == bindparam("grant_id")).with_for_update()
_ADD = insert_new(table, "grant_id")
_GET = select(table).where(table.c.grant_id == bindparam("row"))
_KEEP = update(table).where(table.c.grant_id == bindparam("row"), table.c.private_key.is_not(None))
_DESTROY = update(table).where(table.c.grant_id == bindparam("row")).values(private_key=None, password=None)
_ALL = select(table).order_by(table.c.grant_id).with_for_update()


class SqlPasswords:
    """``access.ports.Passwords`` in SQL, and the keys behind them."""

    def __init__(self, connection: Connection, sealing: Sealer) -> None:
        self._connection = connection
        self._sealing = sealing

    def moduli(self, grant_ids: Sequence[str]) -> Mapping[str, str]:
        """The public halves of the keys that there are, by grant."""
        rows = self._connection.execute(_MODULI, {"grant_ids": list(grant_ids)})
        return {row.grant_id: row.modulus for row in rows}

    def add_key(self, grant_id: str, key: rsa.RSAPrivateKey) -> None:
        """Keep a grant's key; nothing changes where it has one, or had one, or is not to be opened any more."""
        if self._connection.execute(_STATE, {"grant_id": grant_id}).scalar() != GrantState.PROVISIONING.value:
            return
        sealed = self._seal(to_bytes(key), "private_key", grant_id)
        values = {"grant_id": grant_id, "modulus": modulus_of(key), "private_key": sealed, "password": None}
        add_new(self._connection, _ADD, values)

    def keep(self, grant_id: str, ciphertext: str) -> None:
        sealed = self._seal(ciphertext.encode(), "password", grant_id)
        if self._connection.execute(_KEEP, {"row": grant_id, "password": sealed}).rowcount != 1:
            raise UnavailableError(f"The key of {grant_id} is gone, so its password cannot be kept.")

    def reveal(self, grant_id: str) -> str:
        row = self._connection.execute(_GET, {"row": grant_id}).first()
        if row is None or row.private_key is None or row.password is None:
            raise UnavailableError(f"There is no password of {grant_id} any more. Ask anew: /passport request")
        key = self._open(row.private_key, "private_key", grant_id)
        try:
            return decrypt(key, self._open(row.password, "password", grant_id).decode())
        except ValueError:
            raise UnavailableError(
                f"What the server of {grant_id} gave as its password does not open. Ask anew: /passport request"
            ) from None

    def destroy(self, grant_id: str) -> None:
        self._connection.execute(_DESTROY, {"row": grant_id})

    def reseal(self) -> int:
        """Seal with the first key what another key sealed; says how many there were. Raises SealError."""
        changed = 0
        for row in self._connection.execute(_ALL).all():
            sealed = {name: getattr(row, name) for name in ("private_key", "password") if getattr(row, name)}
            fresh = {
                name: self._sealing.reseal(value, table=table.name, column=name, row=row.grant_id)
                for name, value in sealed.items()
            }
            if fresh != sealed:
                self._connection.execute(update(table).where(table.c.grant_id == row.grant_id).values(**fresh))
                changed += 1
        return changed

    def _seal(self, plain: bytes, column: str, row: str) -> str:
        return self._sealing.seal(plain, table=table.name, column=column, row=row)

    def _open(self, sealed: str, column: str, row: str) -> bytes:
        return self._sealing.open(sealed, table=table.name, column=column, row=row)
