"""What every use case needs: who is calling, the store, the policy, the clock."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Never

from access.audit import Event, Kind
from access.errors import RefusedError, SignInNeededError
from access.model import Link, Person, SlackUser
from access.policy import Policy
from access.ports import Clock, Inventory, Store, UnitOfWork

SIGN_IN = "I do not know who you are yet, or your sign-in has run out. Type /passport link to sign in."


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Somebody in Slack, and the delivery by which they act ("" where a repeat does no harm)."""

    slack_user: SlackUser
    delivery: str = ""

    @property
    def actor(self) -> str:
        """How the audit log names somebody without a link."""
        return f"slack:{self.slack_user.team_id}/{self.slack_user.user_id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """The shared surroundings of the use cases."""

    store: Store
    policy: Policy
    inventory: Inventory
    clock: Clock
    token: Callable[[], str]  # a fresh unguessable text, at least 128 bits
    request_id: Callable[[int], str]  # a candidate for a request id (AR-7F3K), after so many that were taken

    def refuse(self, uow: UnitOfWork, event: Event, sentence: str) -> Never:
        """Put the refusal on record, undoing nothing else that this unit of work has done; raises RefusedError."""
        uow.record(event)
        uow.commit()
        raise RefusedError(sentence)


def live_link(uow: UnitOfWork, caller: Caller, *, now: datetime) -> tuple[Person, Link]:
    """The person behind the Slack user; raises SignInNeededError where no live link says who that is."""
    found = uow.people.behind(caller.slack_user)
    if found is None or found[1].expires_at <= now:
        raise SignInNeededError(SIGN_IN)
    return found


def known_person(uow: UnitOfWork, caller: Caller) -> Person:
    """Whoever once linked, even if the sign-in has run out: to want less access is always fine.

    Raises SignInNeededError.
    """
    found = uow.people.behind(caller.slack_user)
    if found is None:
        raise SignInNeededError(SIGN_IN)
    return found[0]


def claim(uow: UnitOfWork, caller: Caller, *, subject: str, at: datetime) -> None:
    """Make sure that this delivery counts once; raises DuplicateDeliveryError."""
    if caller.delivery:
        uow.deliveries.claim(caller.delivery, subject=subject, at=at)


def by_person(
    kind: Kind,
    person: Person,
    *,
    at: datetime,
    request_id: str = "",
    server: str = "",
    details: Mapping[str, str] | None = None,
) -> Event:
    """An event that a person caused."""
    return Event(
        kind=kind,
        at=at,
        actor=person.id,
        actor_name=person.name,
        request_id=request_id,
        server=server,
        details=details or {},
    )
