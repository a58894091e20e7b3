"""Who calls: moto knows every access key that it gave out, its account, and when it runs out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from sandbox.aws.errors import AwsError

CREDENTIAL = re.compile(r"Credential=([^/, ]+)/(\d{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request")


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """An account, a region, and who it is there."""

    account: str
    region: str
    arn: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What a request's signature says about it."""

    access_key: str
    region: str
    service: str


def scope_of(authorization: str) -> Scope | None:
    """The credential scope of a SigV4 header, or None."""
    found = CREDENTIAL.search(authorization)
    return Scope(access_key=found[1], region=found[3], service=found[4]) if found else None


def caller_of(scope: Scope | None) -> Caller:
    """Who signed; raise AwsError for nobody, an unknown key or one that has run out."""
    if scope is None:
        raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token")
    for account, partitions in list(iam_backends.items()):
        key = partitions["aws"].access_keys.get(scope.access_key)
        if key is None:
            continue
        role = _assumed(scope.access_key)
        if role is None:
            return Caller(account=account, region=scope.region, arn=f"arn:aws:iam::{account}:user/{key.user_name}")
        if role[1] <= datetime.now(UTC):
            raise AwsError("ExpiredTokenException", "The security token included in the request is expired")
        return Caller(account=account, region=scope.region, arn=role[0])
    raise AwsError("UnrecognizedClientException", "The security token included in the request is invalid.")


def _assumed(access_key: str) -> tuple[str, datetime] | None:
    for _, partitions in list(sts_backends.items()):
        for backend in partitions.values():
            role = backend.get_assumed_role_from_access_key(access_key)
            if role is not None:
                ends = role.expiration if role.expiration.tzinfo else role.expiration.replace(tzinfo=UTC)
                account = role.role_arn.split(":")[4]
                name = role.role_arn.rpartition("/")[2]
                return f"arn:aws:sts::{account}:assumed-role/{name}/{role.session_name}", ends
    return None
