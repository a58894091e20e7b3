"""AWS sessions and clients, one set per account, and every call through one door."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialResolver
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader

from provisioning.assumed_roles import AssumedRole, acting_for, source_identity
from provisioning.aws_errors import AwsError, expired, is_silence, not_asked, translate
from provisioning.silences import Silences

# boto3 makes the methods of its clients at run time: no type is right.
Client = Any
Service = Literal["ec2", "kms", "ssm", "sts"]

CONNECT_SECONDS = 3
READ_SECONDS = 8
_TRIES = 3
_OWN_SECONDS: Mapping[Service, tuple[int, int]] = {"kms": (1, 2)}  # somebody waits for it in front of a screen


@dataclass(frozen=True, kw_only=True, slots=True)
class AwsAccount:
    """An AWS account that Passport serves; without ``role_arn`` Passport's own credentials are for it."""

    name: str  # ours, from the settings
    id: str  # AWS's twelve digits
    regions: tuple[str, ...]
    role_arn: str | None = None
    external_id: str | None = field(default=None, repr=False)
    source_identity: bool = False  # what Passport does for a person bears their name in CloudTrail
    only_tagged: bool = False  # its policy reaches servers with the tag passport = enabled only


class Sessions:
    """A client per account, region and service; safe to use from many threads.

    ``AWS_ENDPOINT_URL`` and the usual places of credentials count, as in any boto3 program.
    """

    def __init__(
        self,
        accounts: Sequence[AwsAccount],
        *,
        session_name: str = "passport",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.accounts: Mapping[str, AwsAccount] = {account.name: account for account in accounts}
        self._session_name = re.sub(r"[^\w+=,.@-]", "-", session_name, flags=re.ASCII)[:64].ljust(2, "-")
        self._lock = threading.RLock()
        self._loader = Loader()  # EC2's model alone has megabytes: read once for all accounts
        self._sessions: dict[str, boto3.Session] = {}
        self._clients: dict[tuple[str, str, Service, bool], Client] = {}
        self._confirmed: set[str] = set()
        self._renewed: set[str] = set()  # accounts whose credentials were dropped, and no new ones have worked yet
        self._silences = Silences[tuple[str, str, Service]](monotonic, patience=CONNECT_SECONDS + READ_SECONDS)

    def call(
        self,
        account: str,
        region: str,
        service: Service,
        operation: str,
        /,
        *,
        once: bool = False,
        person: str = "",
        **parameters: object,
    ) -> dict[str, Any]:
        """One call, like ``call("prod", "eu-west-1", "ssm", "send_command", …)``; raises AwsError.

        ``once``: never repeated by botocore, for what has no client token, or whose caller waits without a thread.
        ``person``: the email of whom it is done for, whom AWS then knows as the SourceIdentity, if the account's
        settings say so.
        """
        named = source_identity(person) if person and self.accounts[account].source_identity else ""
        for may_renew in (True, False):
            self._must_answer(account, region, service)
            client = self.client(account, region, service, once=once)
            try:
                with acting_for(named):
                    answer: dict[str, Any] = getattr(client, operation)(**parameters)
            except (ClientError, BotoCoreError) as error:
                failed = self._translated(error, account, region, service, client)
                if may_renew and expired(error):  # refused before anything was done, so even ``once`` may go again
                    continue
                raise failed from error
            self._worked(account, region, service)
            return answer
        raise AssertionError("the second round returns or raises")

    def pages(
        self,
        account: str,
        region: str,
        service: Service,
        operation: str,
        parameters: Mapping[str, object],
        /,
        *,
        page_size: int = 50,
        once: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Every page of a call that has pages, of 50 as Systems Manager allows at most; raises AwsError."""
        self._must_answer(account, region, service)
        client = self.client(account, region, service, once=once)
        pages = client.get_paginator(operation)
        try:
            for page in pages.paginate(**parameters, PaginationConfig={"PageSize": page_size}):
                self._worked(account, region, service)
                yield page
        except (ClientError, BotoCoreError) as error:
            raise self._translated(error, account, region, service, client) from error

    def client(self, account: str, region: str, service: Service, *, once: bool = False) -> Client:
        """The one client for this; making one is not thread safe in boto3, using one is."""
        key = (account, region, service, once)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._session(account).client(
                    service, region_name=region, config=_config(once, service)
                )
            return self._clients[key]

    def confirm_account(self, account: str) -> None:
        """Make sure that the credentials are of the account that the settings name; raises AwsError.

        An empty answer of the wrong account must not pass for "the server is gone".
        """
        known = self.accounts[account]
        if account in self._confirmed:
            return
        found = self.call(account, known.regions[0], "sts", "get_caller_identity").get("Account")
        if found != known.id:
            raise AwsError(
                f"Passport's credentials for {account} are of AWS account {found}, and the settings say {known.id}. "
                "An admin must mend the settings.",
                code="WrongAccount",
                retryable=False,
            )
        self._confirmed.add(account)

    def _must_answer(self, account: str, region: str, service: Service) -> None:
        """Raises AwsError where waiting for an answer would only keep a thread from the other regions."""
        if not self._silences.may_call((account, region, service)):
            raise not_asked(f"{account} {region}")

    def _worked(self, account: str, region: str, service: Service) -> None:
        self._silences.answered((account, region, service))
        self._renewed.discard(account)

    def _translated(
        self, error: ClientError | BotoCoreError, account: str, region: str, service: Service, client: Client
    ) -> AwsError:
        renewed = expired(error) and self._forget(account, client)
        if is_silence(error):
            self._silences.was_silent((account, region, service))
        elif isinstance(error, ClientError):
            self._silences.answered((account, region, service))
        return translate(error, where=f"{account} {region}", renewed=renewed)

    def _forget(self, account: str, client: Client) -> bool:
        """Drop credentials that AWS calls expired before their time, unless that was done since.

        The next call asks for new ones. True when these were such new ones: asking again is no help.
        """
        with self._lock:
            known = [key for key in self._clients if key[0] == account]
            if not any(self._clients[key] is client for key in known):
                return False
            were_new = account in self._renewed
            self._renewed.add(account)
            self._sessions.pop(account, None)
            self._confirmed.discard(account)
            for key in known:
                del self._clients[key]
            return were_new

    def _session(self, account: str) -> boto3.Session:
        if account not in self._sessions:
            self._sessions[account] = self._new_session(self.accounts[account])
        return self._sessions[account]

    def _new_session(self, account: AwsAccount) -> boto3.Session:
        core = self._core()
        if account.role_arn is None:
            return boto3.Session(botocore_session=core)
        own = boto3.Session(botocore_session=self._core())
        role = AssumedRole(lambda more: self._assumed(own, account, more))
        core.register_component("credential_provider", CredentialResolver(providers=[role]))
        return boto3.Session(botocore_session=core)

    def _assumed(self, own: boto3.Session, account: AwsAccount, more: Mapping[str, str]) -> Mapping[str, Any]:
        """Fresh credentials of the account's role; raises ClientError or BotoCoreError."""
        external = {"ExternalId": account.external_id} if account.external_id else {}
        with self._lock:  # making a client is not thread safe
            client: Client = own.client(
                "sts", region_name=account.regions[0], config=_config(once=False, service="sts")
            )
        answer: Mapping[str, Any] = client.assume_role(
            RoleArn=account.role_arn, RoleSessionName=self._session_name, **external, **more
        )
        found: Mapping[str, Any] = answer["Credentials"]
        return found

    def _core(self) -> botocore.session.Session:
        core = botocore.session.get_session()
        core.register_component("data_loader", self._loader)
        return core


def _config(once: bool, service: Service) -> Config:  # noqa: FBT001 - private, and its callers name it
    connect, read = _OWN_SECONDS.get(service, (CONNECT_SECONDS, READ_SECONDS))
    return Config(
        connect_timeout=connect,
        read_timeout=read,
        retries={"mode": "standard" if once else "adaptive", "total_max_attempts": 1 if once else _TRIES},
        max_pool_connections=20,
        user_agent_extra="passport",
    )
