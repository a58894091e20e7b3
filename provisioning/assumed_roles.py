"""Credentials of a role in another account: Passport's own, or those of a session that names whom it acts for."""

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from botocore.credentials import CredentialProvider, DeferredRefreshableCredentials, ReadOnlyCredentials

MOST_PERSONS = 200  # of an account, whose sessions are kept; the longest unused makes room
_LONGEST = 64  # "AssumeRole", Security Token Service API reference: SourceIdentity is [\w+=,.@-]{2,64}
_FORBIDDEN = re.compile(r"[^\w+=,.@-]", re.ASCII)

# Whom the call under way is for: a client signs deep within botocore, in the thread of its caller.
_identity: ContextVar[str] = ContextVar("passport_source_identity", default="")

Assume = Callable[[Mapping[str, str]], Mapping[str, Any]]  # from more parameters of AssumeRole to its Credentials


def source_identity(person: str) -> str:
    """How AWS names a person, by email: where characters have to go, a mark keeps two persons apart."""
    plain = _FORBIDDEN.sub("-", person)
    if plain == person and 2 <= len(plain) <= _LONGEST and not plain.lower().startswith("aws"):
        return plain
    mark = hashlib.sha256(person.encode()).hexdigest()[:12]
    return f"p-{plain[: _LONGEST - len(mark) - 3]}-{mark}"


@contextmanager
def acting_for(identity: str) -> Iterator[None]:
    """What is signed within names this SourceIdentity; "" for none."""
    token = _identity.set(identity)
    try:
        yield
    finally:
        _identity.reset(token)


class AssumedRole(CredentialProvider):
    """Where a session finds the credentials of its role."""

    METHOD = "passport-assume-role"
    CANONICAL_NAME = None

    def __init__(self, assume: Assume) -> None:
        super().__init__()
        self._assume = assume

    def load(self) -> "RoleCredentials":
        """Credentials that are fetched when they are first needed."""
        return RoleCredentials(self._assume, self.METHOD)


class RoleCredentials(DeferredRefreshableCredentials):
    """Renewed by botocore 10 to 15 minutes before they run out; within ``acting_for``, the person's."""

    def __init__(self, assume: Assume, method: str) -> None:
        super().__init__(refresh_using=lambda: _renewed(assume({})), method=method)
        self._assume = assume
        self._of_persons: OrderedDict[str, DeferredRefreshableCredentials] = OrderedDict()
        self._persons_lock = threading.Lock()

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What the call under way is signed with."""
        identity = _identity.get()
        return self._of(identity).get_frozen_credentials() if identity else super().get_frozen_credentials()

    def _of(self, identity: str) -> DeferredRefreshableCredentials:
        with self._persons_lock:
            if identity not in self._of_persons:
                self._of_persons[identity] = DeferredRefreshableCredentials(
                    refresh_using=lambda: _renewed(self._assume({"SourceIdentity": identity})), method=self.method
                )
                while len(self._of_persons) > MOST_PERSONS:
                    self._of_persons.popitem(last=False)
            self._of_persons.move_to_end(identity)
            return self._of_persons[identity]


def _renewed(credentials: Mapping[str, Any]) -> dict[str, str]:
    ends: datetime = credentials["Expiration"]
    return {
        "access_key": credentials["AccessKeyId"],
        "secret_key": credentials["SecretAccessKey"],
        "token": credentials["SessionToken"],
        "expiry_time": ends.isoformat(),
    }
