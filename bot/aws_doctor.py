"""The doctor's look at AWS: who Passport is there, and every call that it has to make, tried in vain on nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

from access.errors import PassportError
from bot import wiring
from bot.settings import Settings
from bot.verdicts import Finding, clock_finding, failed, good, unseen, wrong
from provisioning.aws import AwsAccount, Service, Sessions
from provisioning.aws_errors import DENIED, AwsError
from provisioning.documents import check as check_documents
from provisioning.windows_roles import read_domain_controllers

TRY_AGAIN = (
    "See whether Passport has its role or credentials here, and whether the network and its proxy let it reach AWS; "
    "then run passport doctor again."
)
_TAGGED = "If that stack is for tagged servers only (Servers=tagged), set only_tagged = true for the account."
NOBODY = "i-00000000000000000"  # AWS gives no instance this id
_NO_SESSION = "passport-doctor-00000000000000000"
_READS: tuple[tuple[Service, str, Mapping[str, object]], ...] = (
    ("ec2", "describe_instances", {"MaxResults": 5}),
    ("ssm", "describe_instance_information", {"MaxResults": 5}),
    ("ssm", "list_commands", {"MaxResults": 1}),
    ("ssm", "list_command_invocations", {"MaxResults": 1}),
    ("ssm", "describe_sessions", {"State": "Active", "MaxResults": 1}),
)


def look_at_aws(settings: Settings) -> Iterator[Finding]:
    """Every account and region of the settings."""
    sessions = wiring.sessions(settings)
    for account in wiring.aws_accounts(settings):
        try:
            yield from _account(sessions, account, settings.document_prefix)
        except PassportError as error:
            yield failed(f"aws {account.name}", error, TRY_AGAIN)


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
            yield from _region(sessions, account, region, prefix)
        except PassportError as error:
            yield failed(f"aws {account.name} {region}", error, TRY_AGAIN)


def _region(sessions: Sessions, account: AwsAccount, region: str, prefix: str) -> Iterator[Finding]:
    subject = f"aws {account.name} {region}"
    refused = [error for error in _read_everything(sessions, account, region) if error]
    yield from (failed(subject, error, TRY_AGAIN) for error in refused)
    if not refused:
        yield good(subject, "The servers, commands and sessions can be listed.")
    findings = check_documents(sessions.client(account.name, region, "ssm"), prefix)
    for finding in findings:
        what, _, mend = finding.sentence.partition(": ")
        yield wrong(subject, f"{what}:", mend)
    if not findings:
        yield good(subject, "The documents are this version's.")
    yield from _acts(sessions, account, region, prefix)


def _read_everything(sessions: Sessions, account: AwsAccount, region: str) -> Iterator[AwsError | None]:
    """Why each listing is refused, None where it is not."""
    for service, operation, parameters in _READS:
        yield _refusal(sessions, account, region, service, operation, parameters)
    try:
        read_domain_controllers(sessions, account.name, region)
    except AwsError as error:
        yield error


def _acts(sessions: Sessions, account: AwsAccount, region: str, prefix: str) -> Iterator[Finding]:
    """What changes servers and sessions, asked for where there is none: AWS looks at the permission first.

    A permission that depends on the tags of a server or a session cannot be seen so, for nothing has none.
    """
    subject = f"aws {account.name} {region}"
    hidden = ["TerminateSession"]
    for operation, parameters in (
        ("send_command", {"DocumentName": f"{prefix}CreateUser", "InstanceIds": [NOBODY]}),
        ("start_session", {"DocumentName": "AWS-StartSSHSession", "Target": NOBODY}),
    ):
        error = _refusal(sessions, account, region, "ssm", operation, parameters)
        if error and account.only_tagged and error.resource.endswith(NOBODY):
            hidden.append("SendCommand" if operation == "send_command" else "StartSession")
        elif error and error.resource.endswith(NOBODY):
            yield wrong(subject, error.sentence, _TAGGED)
        elif error:
            yield failed(subject, error, TRY_AGAIN)
        else:
            yield good(subject, f"{'Commands' if operation == 'send_command' else 'Tunnels'} may be started.")
    if _refusal(sessions, account, region, "ssm", "terminate_session", {"SessionId": _NO_SESSION}):
        yield unseen(
            subject,
            f"AWS shows only with a real server or session whether the role may call {', '.join(hidden)}. "
            "The stack of deploy/passport-account.yaml allows it.",
        )


def _refusal(
    sessions: Sessions,
    account: AwsAccount,
    region: str,
    service: Service,
    operation: str,
    parameters: Mapping[str, Any],
) -> AwsError | None:
    """Why the role may not; None where it may, whatever else AWS has against the call."""
    try:
        sessions.call(account.name, region, service, operation, **parameters)
    except AwsError as error:
        if error.retryable:
            raise
        return error if error.code in DENIED else None
    return None
