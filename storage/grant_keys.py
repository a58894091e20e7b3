"""Keys for grants: a private half is sealed in the database before anybody hears of its public half."""

from collections.abc import Callable, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric import rsa

from access.errors import UnavailableError
from storage.password_keys import new_key
from storage.unit_of_work import SqlStore


class GrantKeys:
    """The public keys that servers encrypt their passwords to, one a grant, for as long as the grant lasts."""

    def __init__(self, store: SqlStore, *, make: Callable[[], rsa.RSAPrivateKey] = new_key) -> None:
        self._store = store
        self._make = make

    def __call__(self, grant_ids: Sequence[str]) -> Mapping[str, str]:
        """The modulus of each grant's key, in base64, made now where there is none; raises UnavailableError.

        Always the same one for a grant: a command that comes late must not change a password to one nobody can read.
        """
        with self._store.unit_of_work(read_only=True) as work:
            known = work.sealed_passwords.moduli(grant_ids)
        fresh = {grant_id: self._make() for grant_id in grant_ids if grant_id not in known}  # outside: it takes a while
        if not fresh:
            return known
        with self._store.unit_of_work() as work:
            for grant_id, key in fresh.items():
                work.sealed_passwords.add_key(grant_id, key)
            known = work.sealed_passwords.moduli(grant_ids)
            work.commit()
        if missing := [grant_id for grant_id in grant_ids if grant_id not in known]:
            raise UnavailableError(f"{missing[0]} is being closed, so there is no key for its password.")
        return known
