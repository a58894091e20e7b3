"""What AWS says no with, as sentences for people."""

import re

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from access.errors import PassportError

THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "RateExceeded",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthFailure", "UnauthorizedOperation", "UnauthorizedAccess"}
)
UNKNOWN_KEY = frozenset({"InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"})
NO_DOCUMENT = frozenset({"InvalidDocument", "InvalidDocumentVersion"})
OTHER_DOCUMENT = frozenset({"InvalidDocumentContent", "InvalidDocumentSchemaVersion", "InvalidParameters"})
_REFUSALS = DENIED | UNKNOWN_KEY | NO_DOCUMENT | OTHER_DOCUMENT
_PUBLISHING = "deploy/passport-account.yaml (PublisherArn), and publish with --role PassportPublisher"
_RESOURCE = re.compile(r"on resource: (arn:[!-~]{1,400})")
# Whose stack allows it, where it is not that of the account.
_STACKS = {
    "CreateDocument": _PUBLISHING,
    "UpdateDocument": _PUBLISHING,
    "UpdateDocumentDefaultVersion": _PUBLISHING,
    "DescribeKey": "deploy/passport.yaml (CaKeyArn)",
    "GetPublicKey": "deploy/passport.yaml (CaKeyArn)",
    "Sign": "deploy/passport.yaml (CaKeyArn)",
}


class AwsError(PassportError):
    """AWS did not do it. ``answered`` is False when it may have, and only its answer is missing.

    ``resource`` is the ARN that Passport has no permission for, where AWS names one.
    """

    def __init__(self, sentence: str, *, code: str, retryable: bool, answered: bool = True, resource: str = "") -> None:
        super().__init__(sentence)
        self.resource = resource
        self.code = code
        self.retryable = retryable
        self.answered = answered

    @property
    def refused(self) -> bool:
        """Whether AWS surely did nothing, before it looked at what to do."""
        return self.answered and self.code in _REFUSALS


def expired(error: Exception) -> bool:
    """Whether AWS calls the credentials expired."""
    return isinstance(error, ClientError) and _code(error) in EXPIRED


def is_silence(error: Exception) -> bool:
    """Whether no answer came at all."""
    return isinstance(error, HTTPClientError | ConnectionError)


def not_asked(where: str) -> AwsError:
    """The error for a place that has not answered several others just now, and was not asked again."""
    return AwsError(f"AWS does not answer in {where}. I try again by myself.", code="NotAsked", retryable=True)


def translate(error: Exception, *, where: str, renewed: bool = False) -> AwsError:
    """The sentence for an error of boto3, and whether trying again helps; ``where`` is account and region.

    ``renewed``: the credentials that AWS calls expired are new ones already.
    """
    if isinstance(error, ClientError):
        return _translate_answer(error, where, renewed=renewed)
    code = type(error).__name__
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        sentence = f"Passport finds no AWS credentials for {where}. An admin must mend that; I go on trying."
        return AwsError(sentence, code=code, retryable=True)
    if is_silence(error):
        return AwsError(
            f"AWS does not answer in {where}. I try again by myself.", code=code, retryable=True, answered=False
        )
    assert isinstance(error, BotoCoreError)  # noqa: S101 - nothing else is caught
    return AwsError(f"Passport asked AWS in {where} for something impossible ({code}).", code=code, retryable=False)


def _translate_answer(error: ClientError, where: str, *, renewed: bool) -> AwsError:
    code = _code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
    if code in THROTTLED:
        return AwsError(f"AWS asks me to go slower in {where}. I try again by myself.", code=code, retryable=True)
    if code in EXPIRED:
        then = ". I renew it and try again."
        if renewed:
            then = ", and a new one is refused, too. An admin must mend that."
        sentence = f"My AWS sign-in for {where} has run out{then}"
        return AwsError(sentence, code=code, retryable=True)
    if status >= 500:
        sentence = f"AWS has trouble of its own in {where} ({code}). I try again by myself."
        return AwsError(sentence, code=code, retryable=True, answered=False)
    sentence = _refusal(code, where, str(error.operation_name))
    return AwsError(sentence, code=code, retryable=False, resource=_resource(error) if code in DENIED else "")


def _resource(error: ClientError) -> str:
    """What was denied, as "Troubleshoot access denied error messages" of the IAM user guide words it."""
    found = _RESOURCE.search(str(error.response.get("Error", {}).get("Message", "")))
    return found[1] if found else ""


def _refusal(code: str, where: str, operation: str) -> str:
    if code in DENIED and operation == "AssumeRole":
        return (
            f"AWS does not let Passport assume its role in {where}. An admin must mend the role's trust policy "
            "(the stack of deploy/passport-account.yaml: PassportRoleArn, ExternalId) or Passport's own (that of "
            "deploy/passport.yaml: AccountRoleArns); with source_identity each needs sts:SetSourceIdentity as well."
        )
    if code in DENIED:
        return denied(f"{operation} in {where}", operation)
    if code in UNKNOWN_KEY:
        return f"AWS does not know Passport's credentials for {where}. An admin must mend them."
    if code in NO_DOCUMENT:
        return (
            f"Passport's Systems Manager documents are missing in {where}: an admin runs `passport documents publish`."
        )
    if code in OTHER_DOCUMENT:
        return (
            f"Passport's Systems Manager documents in {where} are of another version: "
            "an admin runs `passport documents publish`."
        )
    return f"AWS refuses {operation} in {where} ({code})."


def denied(what: str, operation: str) -> str:
    """The sentence for a missing permission, with the stack that gives it."""
    stack = _STACKS.get(operation, "deploy/passport-account.yaml")
    return f"AWS does not let Passport's role call {what}. An admin must allow it: look at the stack of {stack}."


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "Unknown"))[:80]
