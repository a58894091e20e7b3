"""``passport doctor``: looks at everything Passport stands on, changes nothing, and says how to mend what is wrong."""

import stat
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from access.errors import PassportError
from bot import wiring
from bot.ca_doctor import look_at_authority
from bot.settings import Settings, SettingsError
from bot.slack_doctor import look_at_slack
from bot.verdicts import Finding, clock_finding, good, wrong
from identity.metadata import read_provider_metadata
from provisioning.aws import AwsAccount, Sessions
from provisioning.documents import check as check_documents

SOON = timedelta(days=30)

Look = Callable[[Settings], Iterable[Finding]]


def examine(load: Callable[[], Settings]) -> Iterator[Finding]:
    """Everything, in the order in which a person would mend it; without settings there is nothing to look at."""
    try:
        settings = load()
    except SettingsError as error:
        yield wrong("settings", error.sentence)
        return
    yield good("settings", "can be read, and do not contradict each other.")
    looks: tuple[tuple[str, Look], ...] = (
        ("database", _database),
        ("certificate authority", look_at_authority),
        ("saml", _saml),
        ("slack", look_at_slack),
        ("aws", _aws),
    )
    for subject, look in looks:
        yield from _guarded(subject, look, settings)


def _guarded(subject: str, look: Look, settings: Settings) -> Iterator[Finding]:
    """What a look finds; one that breaks off is a finding, too, and the others go on."""
    try:
        yield from look(settings)
    except PassportError as error:
        yield wrong(subject, error.sentence)
    except OSError as error:
        yield wrong(subject, f"{error.strerror or type(error).__name__}. Mend the path or its permissions.")
    except Exception as error:  # noqa: BLE001 - a doctor who faints helps nobody
        yield wrong(subject, f"The look broke off ({type(error).__name__}). Please report that.")


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
        yield wrong("saml key", f"Others can read {settings.saml_key_file}. Mend: chmod 600 {settings.saml_key_file}")
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
        return wrong(subject, f"The certificate ran out on {last:%Y-%m-%d}. {mend}")
    if left < SOON:
        return wrong(subject, f"The certificate runs out on {last:%Y-%m-%d}, in {left.days} days. {mend}")
    return good(subject, f"The certificate is good until {last:%Y-%m-%d}.")


def _aws(settings: Settings) -> Iterator[Finding]:
    sessions = wiring.sessions(settings)
    for account in wiring.aws_accounts(settings):
        try:
            yield from _account(sessions, account, settings.document_prefix)
        except PassportError as error:
            yield wrong(f"aws {account.name}", error.sentence)


def _account(sessions: Sessions, account: AwsAccount, prefix: str) -> Iterator[Finding]:
    sessions.confirm_account(account.name)
    who = sessions.call(account.name, account.regions[0], "sts", "get_caller_identity")
    role = str(who.get("Arn", "")).rpartition(":")[2]
    yield good(f"aws {account.name}", f"Passport is {role} of account {account.id}.")
    if account.source_identity:
        sessions.call(account.name, account.regions[0], "sts", "get_caller_identity", person="passport-doctor")
        yield good(f"aws {account.name}", "Its role may be assumed in a person's name.")
    headers = who.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    yield from clock_finding(f"AWS {account.name}", headers.get("date", ""), wiring.now())
    for region in account.regions:
        try:
            yield from _region(sessions, account.name, region, prefix)
        except PassportError as error:
            yield wrong(f"aws {account.name} {region}", error.sentence)


def _region(sessions: Sessions, account: str, region: str, prefix: str) -> Iterator[Finding]:
    subject = f"aws {account} {region}"
    sessions.call(account, region, "ec2", "describe_instances", MaxResults=5)
    sessions.call(account, region, "ssm", "describe_instance_information", MaxResults=5)
    yield good(subject, "The servers can be listed.")
    findings = check_documents(sessions.client(account, region, "ssm"), prefix)
    for finding in findings:
        yield wrong(subject, finding.sentence)
    if not findings:
        yield good(subject, "The documents are this version's.")
