"""The certificate authority of this process: its keys by the settings, who they are by the database."""

from collections.abc import Sequence

from access.audit import Event, Kind
from access.authorities import FILE, Authority, AuthorityRole, Trust, in_role, trust_of
from access.errors import PassportError
from access.ports import Clock, Store
from access.recording import PASSPORT
from bot.ca_files import KeyFiles
from bot.settings import Settings, SettingsError
from provisioning.ssh_ca import SshCertificateAuthority
from storage.sealing import Sealer


class AuthorityKeys:
    """Where the settings say that private keys are."""

    def __init__(self, settings: Settings, sealing: Sealer) -> None:
        self.files = KeyFiles(settings.ca_key_file, sealing)

    def find(self, authority: Authority) -> SshCertificateAuthority:
        """The key that is on record; raises UnavailableError if it cannot be used here."""
        return self.files.find(authority)


def establish(store: Store, keys: AuthorityKeys, *, clock: Clock) -> None:
    """At start: see that there is a key on record, and that it is here; raises PassportError."""
    with store.unit_of_work(read_only=True) as uow:
        found = uow.authorities.all()
    if in_role(found, AuthorityRole.CURRENT) is None:
        found = _put_on_record(store, on_record(keys.files.first(), FILE, AuthorityRole.CURRENT, 1, clock=clock))
    keys.files.tidy(found)
    current = in_role(found, AuthorityRole.CURRENT)
    if current is not None and current.place == FILE:
        try:
            keys.find(current)
        except PassportError as error:
            raise SettingsError(error.sentence) from None


def on_record(
    key: SshCertificateAuthority, place: str, role: AuthorityRole, generation: int, *, clock: Clock
) -> Authority:
    """The key as the database knows it."""
    now = clock()
    return Authority(
        fingerprint=key.fingerprint,
        public_key=key.public_key,
        place=place,
        role=role,
        since=now,
        changed_at=now,
        generation=generation,
    )


def _put_on_record(store: Store, first: Authority) -> Sequence[Authority]:
    """Every key on record once this one is, or another replica's."""
    with store.unit_of_work() as uow:
        if uow.authorities.add(first):
            details = {"key": first.fingerprint, "place": first.place}
            uow.record(Event(kind=Kind.AUTHORITY_MADE, at=first.since, actor=PASSPORT, details=details))
        found = uow.authorities.all()
        uow.commit()
    return found


def trust(store: Store) -> Trust:
    """What servers shall trust at this moment; raises UnavailableError."""
    with store.unit_of_work(read_only=True) as uow:
        return trust_of(uow.authorities.all())
