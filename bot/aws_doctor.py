"""The doctor's look at AWS: who Passport is there, and every call that it has to make, tried in vain on nothing."""

from collections.abc import Callable, Iterator

from access.errors import PassportError
from bot import wiring
from bot.settings import Settings
from bot.verdicts import Finding, clock_finding, failed, good, unseen, wrong
from provisioning.aws import AwsAccount, Sessions
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
    place = account.name, region
    yield _refusal(lambda: sessions.call(*place, "ec2", "describe_instances", MaxResults=5))
    yield _refusal(lambda: sessions.call(*place, "ssm", "describe_instance_information", MaxResults=5))
    yield _refusal(lambda: sessions.call(*place, "ssm", "list_commands", MaxResults=1))
    yield _refusal(lambda: sessions.call(*place, "ssm", "list_command_invocations", MaxResults=1))
    yield _refusal(lambda: sessions.call(*place, "ssm", "describe_sessions", State="Active", MaxResults=1))
    yield _refusal(lambda: read_domain_controllers(sessions, *place))


def _acts(sessions: Sessions, account: AwsAccount, region: str, prefix: str) -> Iterator[Finding]:
    """What changes servers and sessions, asked for where there is none: AWS looks at the permission first.

    A permission that depends on the tags of a server or a session cannot be seen so, for nothing has none.
    """
    subject, place = f"aws {account.name} {region}", (account.name, region)
    document, tunnel = f"{prefix}CreateUser", "AWS-StartSSHSession"
    asked = {
        "SendCommand": _refusal(
            lambda: sessions.call(*place, "ssm", "send_command", DocumentName=document, InstanceIds=[NOBODY])
        ),
        "StartSession": _refusal(
            lambda: sessions.call(*place, "ssm", "start_session", DocumentName=tunnel, Target=NOBODY)
        ),
    }
    hidden = []
    for operation, error in asked.items():
        depends_on_tags = error is not None and error.resource.endswith(NOBODY)
        if error is None:
            yield good(subject, f"The role may call {operation}.")
        elif not depends_on_tags:
            yield failed(subject, error, TRY_AGAIN)
        elif account.only_tagged:
            hidden.append(operation)
        else:
            yield wrong(subject, error.sentence, _TAGGED)
    if _refusal(lambda: sessions.call(*place, "ssm", "terminate_session", SessionId=_NO_SESSION)):
        hidden.append("TerminateSession")
    if hidden:
        yield unseen(
            subject,
            f"AWS shows only with a real server or session whether the role may call {', '.join(hidden)}. "
            "The stack of deploy/passport-account.yaml allows it.",
        )


def _refusal(call: Callable[[], object]) -> AwsError | None:
    """Why the role may not call this; None where it may, whatever else AWS has against the call. Raises AwsError."""
    try:
        call()
    except AwsError as error:
        if error.retryable:
            raise
        return error if error.code in DENIED else None
    return None
