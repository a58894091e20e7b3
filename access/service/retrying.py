"""Trying the servers again that could not be opened: by the one who asked, while the request runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from access.attempts import at_once, attempt_of, has_failed, is_held_up, latest, next_attempts
from access.audit import Kind
from access.errors import AlreadyDecidedError
from access.model import AccessRequest, Grant, Person, RequestState
from access.ports import UnitOfWork
from access.service.desk import Caller, Desk, by_person, claim, live_link


@dataclass(frozen=True, kw_only=True, slots=True)
class Retried:
    """The request, and the grants that are tried again now."""

    request: AccessRequest
    grants: Sequence[Grant]


class Retrying:
    """The verb retry: it only asks; the reconciler reads the tags again and opens."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def retry(self, caller: Caller, request_id: str) -> Retried:
        """Make a new attempt on each server that failed, and have those that wait for their next try tried now.

        Raises SignInNeededError, NotFoundError, RefusedError, AlreadyDecidedError or DuplicateDeliveryError.
        """
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            person, _ = live_link(uow, caller, now=now)
            request = uow.requests.get(request_id, lock=True)
            claim(uow, caller, subject=request_id, at=now)
            if person.id != request.person_id:  # an email may have passed to somebody else: it opens nothing
                event = by_person(Kind.REFUSED, person, at=now, request_id=request_id, details={"act": "retry"})
                self._desk.refuse(uow, event, f"Only {request.person_name} can try the servers of {request_id} again.")
            if not _is_running(request, now):
                raise AlreadyDecidedError(f"{request_id} is not running. Ask anew: /passport request")
            again = self._again(uow, request, person, now)
            if not again:
                raise AlreadyDecidedError(f"No server of {request_id} waits for a retry. Nothing changed.")
            request = replace(request, due_at=now, revision=request.revision + 1)
            uow.requests.save(request)
            uow.commit()
        return Retried(request=request, grants=again)

    def _again(self, uow: UnitOfWork, request: AccessRequest, person: Person, now: datetime) -> list[Grant]:
        grants = uow.grants.of(request.id)
        current = latest(grants)
        anew = next_attempts(request, grants, [grant for grant in current if has_failed(grant)])
        sooner = [at_once(grant) for grant in current if is_held_up(grant, now)]
        for grant in anew:
            uow.grants.add(grant)
        uow.grants.save_all(sooner)
        for grant in (*anew, *sooner):
            event = by_person(
                Kind.GRANT_RETRIED,
                person,
                at=now,
                request_id=request.id,
                details={"grant": grant.id, "attempt": str(attempt_of(grant))},
            )
            uow.record(replace(event, server=grant.server.key))
        return [*anew, *sooner]


def _is_running(request: AccessRequest, now: datetime) -> bool:
    """Whether its servers are open, or being opened, and not yet over."""
    return (
        request.state in {RequestState.APPROVED, RequestState.ACTIVE}
        and request.expires_at is not None
        and request.expires_at > now
    )
