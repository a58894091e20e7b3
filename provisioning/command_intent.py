"""A command that is to be sent: saved first, and known by its token ever after."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from access.model import Grant
from access.steps import Waiting
from provisioning.command_outcome import Answered, Unanswered
from provisioning.documents import Document

Outcome = Waiting | Answered | Unanswered


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What shall run on every server of some grants."""

    request_id: str
    document: Document
    parameters: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=dict)  # by grant: the modulus that its server encrypts to
    person: str = ""  # whom it is done for, by email

    @property
    def act(self) -> str:
        """``create`` or ``remove``."""
        return self.document.action


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """A command that is to be sent, or was: what a grant's handle holds."""

    act: str
    token: str
    made_at: datetime
    at: datetime  # of the last try to send it
    tries: int = 0
    command_id: str = ""

    @classmethod
    def of(cls, handle: Mapping[str, str], act: str) -> "Intent | None":
        """The intent in a handle; None for none, or one of another act."""
        if handle.get("act") != act:
            return None
        return cls(
            act=act,
            token=handle["intent"],
            made_at=datetime.fromisoformat(handle["made_at"]),
            at=datetime.fromisoformat(handle["at"]),
            tries=int(handle["tries"]),
            command_id=handle.get("command_id", ""),
        )

    def wait(self, retry_in: timedelta, *, problem: str | None = None, is_retry: bool = False) -> Waiting:
        """The step that has this saved."""
        handle = {
            "act": self.act,
            "intent": self.token,
            "made_at": self.made_at.isoformat(),
            "at": self.at.isoformat(),
            "tries": str(self.tries),
        }
        if self.command_id:
            handle["command_id"] = self.command_id
        return Waiting(handle=handle, retry_in=retry_in, problem=problem, is_retry=is_retry)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Grants that share an intent, and so account and region."""

    order: Order
    intent: Intent
    grants: tuple[Grant, ...]
    is_first: bool = False  # surely, nothing of it was ever sent

    @property
    def place(self) -> tuple[str, str]:
        """Account and region."""
        return self.grants[0].server.account, self.grants[0].server.region

    @property
    def ids(self) -> list[str]:
        """The instance ids."""
        return [grant.server.instance_id for grant in self.grants]

    @property
    def parameters(self) -> Mapping[str, str]:
        """What all of its servers get; each finds its own key by its instance id."""
        if not self.order.keys:
            return self.order.parameters
        keys = [f"{grant.server.instance_id}:{self.order.keys[grant.id]}" for grant in self.grants]
        return {**self.order.parameters, "PublicKeys": ",".join(keys)}

    @property
    def comment(self) -> str:
        """What the command is found again by; SendCommand takes 100 characters."""
        return f"passport {self.order.request_id} {self.intent.act} {self.intent.token}"

    def all(self, outcome: Outcome) -> dict[str, Outcome]:
        """The same for every grant."""
        return {grant.id: outcome for grant in self.grants}

    def only(self, grants: Iterable[Grant]) -> "Batch":
        """A part of it."""
        return replace(self, grants=tuple(grants))


class FreshIntents:
    """The intents that this process made and has not tried to send: those need no looking for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[str, None] = {}

    def add(self, token: str) -> None:
        """Remember one."""
        with self._lock:
            self._tokens[token] = None
            while len(self._tokens) > 10_000:  # of requests that another instance went on with
                self._tokens.pop(next(iter(self._tokens)))

    def take(self, token: str) -> bool:
        """Whether it was there; it is not any more."""
        with self._lock:
            return token in self._tokens and self._tokens.pop(token, None) is None
