"""``passport doctor``: looks at everything Passport stands on, changes nothing, and says how to mend what is wrong."""

import stat
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from access.errors import PassportError
from bot import wiring
from bot.aws_doctor import TRY_AGAIN, look_at_aws
from bot.ca_doctor import SEALED, look_at_authority
from bot.settings import Settings, SettingsError
from bot.slack_doctor import look_at_slack
from bot.verdicts import Finding, failed, good, wrong
from identity.metadata import read_provider_metadata

SOON = timedelta(days=30)
# What helps where an error says only what is wrong.
_MENDS = {
    "database": "Start it, or mend database_url.",
    "certificate authority": SEALED,
    "saml": "Mend the file that it names.",
    "slack": "Check slack_api_url, the network and its proxy.",
    "aws": TRY_AGAIN,
}

Look = Callable[[Settings], Iterable[Finding]]


def examine(load: Callable[[], Settings]) -> Iterator[Finding]:
    """Everything, in the order in which a person would mend it; without settings there is nothing to look at."""
    try:
        settings = load()
    except SettingsError as error:
        yield failed("settings", error, "Mend it.")
        return
    yield good("settings", "can be read, and do not contradict each other.")
    looks: tuple[tuple[str, Look], ...] = (
        ("database", _database),
        ("certificate authority", look_at_authority),
        ("saml", _saml),
        ("slack", look_at_slack),
        ("aws", look_at_aws),
    )
    for subject, look in looks:
        yield from _guarded(subject, look, settings)


def _guarded(subject: str, look: Look, settings: Settings) -> Iterator[Finding]:
    """What a look finds; one that breaks off is a finding, too, and the others go on."""
    try:
        yield from look(settings)
    except PassportError as error:
        yield failed(subject, error, _MENDS[subject])
    except OSError as error:
        yield wrong(subject, f"{error.strerror or type(error).__name__}.", "Mend the path or its permissions.")
    except Exception as error:  # noqa: BLE001 - a doctor who faints helps nobody
        yield wrong(subject, f"The look broke off ({type(error).__name__}).", "Please report that.")


def _database(settings: Settings) -> Iterator[Finding]:
    from storage.migrations import check

    check(settings.database_url)  # first: it makes no file where there is none
    store = wiring.open_store(settings, exclusive=False)
    try:
        store.ping()
        with store.unit_of_work(read_only=True) as uow:
            head = uow.audit.head()
    finally:
        store.close()
    yield good("database", f"answers, and has this version's tables and {head.sequence} audit events.")


def _saml(settings: Settings) -> Iterator[Finding]:
    provider = wiring.service_provider(settings)
    provider.metadata()
    yield good("saml", "The key, its certificate and every provider's metadata can be used.")
    if settings.saml_key_file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        path = settings.saml_key_file
        yield wrong("saml key", f"Others can read {path}.", f"Mend: chmod 600 {path}")
    own = settings.saml_certificate_file.read_bytes()
    yield _expiry("saml certificate", [own], "Make a new one, and give the providers the new metadata.")
    for each in settings.providers:
        found = read_provider_metadata(each.name, Path(each.metadata_file).read_bytes())
        pems = [certificate.name.encode() for certificate in found.certificates]
        yield _expiry(f"saml provider {each.name}", pems, f"Fetch its metadata anew into {each.metadata_file}.")


def _expiry(subject: str, pems: Iterable[bytes], mend: str) -> Finding:
    """Judged by the certificate that lasts longest: providers publish the next one beside the present one."""
    last = max(x509.load_pem_x509_certificate(pem).not_valid_after_utc for pem in pems)
    left = last - wiring.now()
    if left <= timedelta():
        return wrong(subject, f"The certificate ran out on {last:%Y-%m-%d}.", mend)
    if left < SOON:
        return wrong(subject, f"The certificate runs out on {last:%Y-%m-%d}, in {left.days} days.", mend)
    return good(subject, f"The certificate is good until {last:%Y-%m-%d}.")
