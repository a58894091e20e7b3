"""Keys of the certificate authority, on record and at hand."""

from collections.abc import Sequence

from access.authorities import FILE, Authority, AuthorityRole, Trust
from access.errors import UnavailableError
from access.ports import Store
from bot.authority import on_record
from provisioning.authority_ring import AuthorityRing
from provisioning.ssh_ca import SshCertificateAuthority
from provisioning.ssh_keys import parse_public_key
from tests.values import FakeClock


def an_authority(
    key: SshCertificateAuthority, role: AuthorityRole = AuthorityRole.CURRENT, generation: int = 1, place: str = FILE
) -> Authority:
    """A key as the database knows it."""
    return on_record(key, place, role, generation, clock=FakeClock())


def a_trust(*keys: SshCertificateAuthority, generation: int = 1) -> Trust:
    """What servers shall trust."""
    return Trust(generation=generation, authorities=tuple(map(an_authority, keys)))


def put_on_record(store: Store, key: SshCertificateAuthority) -> Authority:
    """The first key of a database, if it is the first."""
    authority = an_authority(key)
    with store.unit_of_work() as uow:
        uow.authorities.add(authority)
        uow.commit()
    return authority


def ring(*keys: SshCertificateAuthority) -> AuthorityRing:
    """Whoever has these private keys, and no others."""
    known = {key.fingerprint: key for key in keys}

    def find(authority: Authority) -> SshCertificateAuthority:
        if authority.fingerprint not in known:
            raise UnavailableError(f"{authority.fingerprint} is not here")
        return known[authority.fingerprint]

    return AuthorityRing(find)


def fingerprints(public_keys: str) -> Sequence[str]:
    """What a server says that it trusts once it was given these, as the document's parameter has them."""
    return [parse_public_key(line).fingerprint for line in public_keys.split(",")]
