"""What ``passport doctor`` finds about the certificate authority."""

from collections.abc import Iterator, Sequence

from access.authorities import FILE, Authority, AuthorityRole
from access.errors import PassportError
from bot import wiring
from bot.authority import AuthorityKeys, disagreement
from bot.aws_doctor import TRY_AGAIN
from bot.settings import Settings
from bot.verdicts import Finding, failed, good, wrong
from provisioning.kms_key import KmsKeys
from provisioning.ssh_ca import LONGEST, SshCertificateAuthority

SUBJECT = "certificate authority"
SEALED = "Set sealing_keys to hold the key that it was sealed with, or restore both from the backup."
LONG_ROTATION = 2 * LONGEST  # by then no access from before its start is open


def look_at_authority(settings: Settings) -> Iterator[Finding]:
    """The keys on record, where they are, and a rotation that somebody forgot."""
    keys = AuthorityKeys(settings, wiring.sealer(settings))
    found = _on_record(settings)
    yield from _each(keys, found) if found else _before_the_first_start(settings, keys)
    for path in keys.files.open_to_others():
        yield wrong(SUBJECT, f"Others can read {path}.", f"Mend: chmod 600 {path}")


def _on_record(settings: Settings) -> Sequence[Authority]:
    """Nothing where the database cannot be read: it has a finding of its own."""
    from storage.migrations import check

    try:
        check(settings.database_url)
        store = wiring.open_store(settings, exclusive=False)
        try:
            with store.unit_of_work(read_only=True) as uow:
                return uow.authorities.all()
        finally:
            store.close()
    except PassportError:
        return ()


def _before_the_first_start(settings: Settings, keys: AuthorityKeys) -> Iterator[Finding]:
    path = settings.ca_key_file
    if keys.files.has_first:
        keys.first()
        yield good(SUBJECT, f"{path} opens with the sealing keys.")
    elif settings.ca_kms_key:
        yield _kms_finding(keys.kms, settings.ca_kms_key)
    elif not path.absolute().parent.is_dir():
        yield wrong(SUBJECT, f"The directory of {path} does not exist.", "Make it, or mend ca_key_file.")
    else:
        yield good(SUBJECT, f"{path} is not there yet; the first start makes it.")


def _each(keys: AuthorityKeys, found: Sequence[Authority]) -> Iterator[Finding]:
    for authority in found:
        if authority.role is AuthorityRole.RETIRED:
            continue
        if authority.place != FILE:
            yield _kms_finding(keys.kms, authority.place)
        else:
            yield _file_finding(keys, authority)
        if authority.role is AuthorityRole.NEXT and wiring.now() - authority.since > LONG_ROTATION:
            yield wrong(
                SUBJECT,
                f"A rotation is under way since {authority.since:%Y-%m-%d}.",
                "Finish it: passport ca rotate --finish",
            )
    if sentence := disagreement(found, keys.place):
        what, _, mend = sentence.partition(". ")
        yield wrong(SUBJECT, f"{what}.", mend)


def _file_finding(keys: AuthorityKeys, authority: Authority) -> Finding:
    try:
        keys.find(authority)
    except PassportError as error:
        return failed(SUBJECT, error, SEALED)
    return good(SUBJECT, f"The {authority.role} key, {authority.fingerprint}, opens with the sealing keys.")


def _kms_finding(kms: KmsKeys, arn: str) -> Finding:
    """Its state and usage, and whether it really signs, which AWS tells in no other way."""
    try:
        found = kms.state(arn)
        if found.state != "Enabled":
            return wrong(
                SUBJECT, f"{arn} is {found.state} in AWS KMS.", f"Enable it: aws kms enable-key --key-id {arn}"
            )
        SshCertificateAuthority(kms.key(arn)).prove()
    except PassportError as error:
        return failed(SUBJECT, error, TRY_AGAIN)
    return good(SUBJECT, f"{arn} is enabled in AWS KMS and signs.")
