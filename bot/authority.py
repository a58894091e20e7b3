"""The certificate authority of this process: its keys by the settings, who they are by the database."""

import logging
from collections.abc import Sequence

from access.audit import Event, Kind
from access.authorities import FILE, Authority, AuthorityRole, Trust, in_role, trust_of
from access.errors import PassportError, UnavailableError
from access.ports import Clock, Store
from access.recording import PASSPORT
from bot.ca_files import KeyFiles
from bot.settings import Settings, SettingsError
from provisioning.kms_key import KmsKeys
from provisioning.ssh_ca import SshCertificateAuthority
from storage.sealing import Sealer

_log = logging.getLogger(__name__)


class AuthorityKeys:
    """Where private keys are: in sealed files of this machine, or in AWS KMS."""

    def __init__(self, settings: Settings, sealing: Sealer) -> None:
        self.files = KeyFiles(settings.ca_key_file, sealing)
        self.kms = KmsKeys(session_name=f"passport-{settings.instance or 'ca'}")
        self._kms_key = settings.ca_kms_key

    @property
    def place(self) -> str:
        """Where the settings want the key: FILE, or the ARN of a KMS key."""
        return self._kms_key or FILE

    def find(self, authority: Authority) -> SshCertificateAuthority:
        """The key that is on record; raises UnavailableError if it cannot be used here."""
        if authority.place == FILE:
            return self.files.find(authority)
        found = SshCertificateAuthority(self.kms.key(authority.place))
        if found.fingerprint != authority.fingerprint:
            raise UnavailableError(f"{authority.place} is not the key on record, {authority.fingerprint}.")
        return found

    def first(self) -> tuple[SshCertificateAuthority, str]:
        """The key of the first start, and its place; that of a Passport from before is kept. Raises PassportError."""
        if self._kms_key and not self.files.has_first:
            return SshCertificateAuthority(self.kms.key(self._kms_key)), self._kms_key
        return self.files.first(), FILE

    def make(self) -> tuple[SshCertificateAuthority, str]:
        """The key that a rotation brings, which has been seen to sign, and its place; raises PassportError."""
        if self._kms_key is None:
            return self.files.make(), FILE
        made = SshCertificateAuthority(self.kms.key(self._kms_key))
        made.prove()
        return made, self._kms_key

    def forget(self, authority: Authority) -> None:
        """Take away what must not sign any more; a KMS key is the admin's to disable. Raises SettingsError."""
        if authority.place == FILE:
            self.files.forget(authority.fingerprint)


def establish(store: Store, keys: AuthorityKeys, *, clock: Clock) -> None:
    """At start: see that there is a key on record, and that a file of it is here; raises PassportError."""
    with store.unit_of_work(read_only=True) as uow:
        found = uow.authorities.all()
    if in_role(found, AuthorityRole.CURRENT) is None:
        key, place = keys.first()
        found = _put_on_record(store, on_record(key, place, AuthorityRole.CURRENT, 1, clock=clock))
    keys.files.tidy(found, clock())
    for authority in found:
        if authority.role is AuthorityRole.CURRENT and authority.place == FILE:
            try:
                keys.find(authority)
            except PassportError as error:
                raise SettingsError(error.sentence) from None
    if sentence := disagreement(found, keys.place):
        _log.warning("%s", sentence)


def disagreement(authorities: Sequence[Authority], place: str) -> str:
    """How the settings and the database differ about where the key is, as a sentence; "" if they do not."""
    used = {authority.place for authority in authorities if authority.role is not AuthorityRole.RETIRED}
    if place in used:
        return ""
    wanted = "a sealed file" if place == FILE else place
    return (
        f"The settings (ca_kms_key) want the certificate authority's key in {wanted}, and it is in "
        f"{', '.join(sorted(used))}. `passport ca rotate` changes over; until then, the key on record signs."
    )


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


def trust(store: Store) -> Trust:
    """What servers shall trust at this moment; raises UnavailableError."""
    with store.unit_of_work(read_only=True) as uow:
        return trust_of(uow.authorities.all())


def _put_on_record(store: Store, first: Authority) -> Sequence[Authority]:
    """Every key on record once this one is, or another replica's."""
    with store.unit_of_work() as uow:
        if uow.authorities.add(first):
            details = {"key": first.fingerprint, "place": first.place}
            uow.record(Event(kind=Kind.AUTHORITY_MADE, at=first.since, actor=PASSPORT, details=details))
        found = uow.authorities.all()
        uow.commit()
    return found
