"""Who may do what: every call of Passport's identities goes through the policies under ``deploy/``."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sandbox.aws.authorization import Request, World
from sandbox.aws.callers import Caller
from sandbox.aws.errors import AwsError
from sandbox.aws.iam import Ask, PolicyError, decide
from sandbox.aws.templates import Stack, deploy

ROLE = "PassportServers"  # passport-account.yaml's default
PUBLISHER = "PassportPublisher"
EXTERNAL_ID = "sesame-2222"
# The sandbox's own hands, and the people who have credentials of their own: no policy of Passport's is about them.
FREE_USERS = frozenset({"admin", "person"})
FREE_ROLES = frozenset({"sandbox"})

Statements = list[Mapping[str, Any]]


class Gate:
    """Passport's own stack, and one of passport-account.yaml in every account.

    In Passport's own account, where the settings need not name a role, its user stands for both roles at once.
    """

    def __init__(self, home: str, world: World, *, servers: str = "all") -> None:
        self._home = home
        self._world = world
        self._servers = servers
        self._stacks: dict[str, Stack] = {}
        self._lock = threading.Lock()
        # Keys and roles are made as a test goes, so the parameters have wildcards that real ones have not.
        own: dict[str, str | list[str]] = {
            "AccountRoleArns": [f"arn:aws:iam::*:role/{ROLE}"],
            "CaKeyArn": f"arn:aws:kms:*:{home}:key/*",
        }
        self._own = deploy("passport.yaml", home, own).statements("Policy")

    def check(self, action: str, caller: Caller, request: Request) -> None:
        """Raise AwsError: AccessDeniedException for what the caller may not, or what nobody here knows enough of."""
        statements = self._statements(caller)
        if statements is None:
            return
        try:
            self._check(statements, action, caller, request)
        except PolicyError as error:
            raise AwsError("NotKnownToTheSandbox", str(error)) from error

    def _check(self, statements: Statements, action: str, caller: Caller, request: Request) -> None:
        refused = [_refused(statements, asks) for asks in self._world.asks(action, caller, request)]
        if all(refused):
            raise _denied(caller, refused[0])
        if action == "sts:AssumeRole":
            self._check_trust(caller, request)

    def _check_trust(self, caller: Caller, request: Request) -> None:
        """The other account's say: it trusts Passport's role only, and with the external id only."""
        account, _, role = request["RoleArn"].removeprefix("arn:aws:iam::").partition(":role/")
        asks = [
            replace(each, principal=f"arn:aws:iam::{self._home}:role/Passport")
            for each in self._world.asks("sts:AssumeRole", caller, request)[0]
        ]
        trust = self._stack(account).trust("Publisher" if role == PUBLISHER else "Role")
        if refused := _refused(trust, asks):
            raise _denied(caller, refused)

    def _statements(self, caller: Caller) -> Statements | None:
        kind, _, name = caller.arn.rpartition(":")[2].partition("/")
        name = name.partition("/")[0]
        if name in (FREE_USERS if kind == "user" else FREE_ROLES):
            return None
        match kind, name:
            case "user", "passport":
                return self._own + self._stack(caller.account, role="Passport").statements("Policy")
            case "assumed-role", "PassportServers":
                return self._stack(caller.account).statements("Policy")
            case "assumed-role", "PassportPublisher":
                return self._stack(caller.account).statements("PublisherPolicy")
        return []  # nobody gave it anything

    def _stack(self, account: str, role: str = ROLE) -> Stack:
        with self._lock:
            key = f"{account} {role}"
            if key not in self._stacks:
                parameters: dict[str, str | list[str]] = {
                    "PassportRoleArn": f"arn:aws:iam::{self._home}:role/Passport",
                    "ExternalId": EXTERNAL_ID,
                    "Servers": self._servers,
                    "RoleName": role,
                    "PublisherArn": f"arn:aws:iam::{self._home}:role/Admins",
                }
                self._stacks[key] = deploy("passport-account.yaml", account, parameters)
            return self._stacks[key]


def _refused(statements: Statements, asks: list[Ask]) -> tuple[Ask, str] | None:
    """The first question that is answered with no, and how."""
    for ask in asks:
        verdict = decide(statements, ask)
        if verdict != "allowed":
            return ask, verdict
    return None


def _denied(caller: Caller, refused: tuple[Ask, str] | None) -> AwsError:
    assert refused is not None
    ask, verdict = refused
    why = "with an explicit deny" if verdict == "denied" else f"because no policy allows the {ask.action} action"
    message = f"User: {caller.arn} is not authorized to perform: {ask.action} on resource: {ask.resource} {why}"
    return AwsError("AccessDeniedException", message)
