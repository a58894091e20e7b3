"""Ending access early: by the one who has it, or by somebody else."""

from access import lifecycle
from access.audit import Kind
from access.errors import AlreadyDecidedError, InvalidInputError
from access.model import AccessRequest, EndCause, GrantState, Person, RequestState
from access.policy import decide_end
from access.ports import UnitOfWork
from access.service.desk import Caller, Desk, by_person, claim, known_person, live_link
from access.service.submitting import check_reason

_RUNNING = (RequestState.APPROVED, RequestState.ACTIVE)


class Ending:
    """The verbs complete and revoke; expiry is the reconciler's."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def complete(self, caller: Caller, request_id: str = "") -> AccessRequest:
        """The requester is done; without an id, their only running request.

        Raises SignInNeededError, InvalidInputError, NotFoundError, RefusedError or AlreadyDecidedError.
        """
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            person = known_person(uow, caller)
            request = uow.requests.get(request_id or self._only_running(uow, person), lock=True)
            claim(uow, caller, subject=request.id, at=now)
            if not person.is_same_human(request.person_id, request.person_email):
                details = {"act": "complete"}
                event = by_person(Kind.REFUSED, person, at=now, request_id=request.id, details=details)
                self._desk.refuse(
                    uow,
                    event,
                    f"{request.id} is {request.person_name}'s. To end it for them: /passport revoke {request.id}",
                )
            return self._end(uow, request, person, EndCause.COMPLETED, f"{person.name} was done")

    def revoke(self, caller: Caller, request_id: str, reason: str) -> AccessRequest:
        """A reviewer or admin ends somebody's access; raises as ``complete`` does."""
        now = self._desk.clock()
        check_reason(reason)
        with self._desk.store.unit_of_work() as uow:
            person, _ = live_link(uow, caller, now=now)
            request = uow.requests.get(request_id, lock=True)
            claim(uow, caller, subject=request.id, at=now)
            decision = decide_end(self._desk.policy, request, person, now=now)
            if not decision.allowed:
                details = {"act": "revoke", "reason": decision.reason}
                event = by_person(Kind.REFUSED, person, at=now, request_id=request.id, details=details)
                self._desk.refuse(uow, event, decision.reason)
            return self._end(uow, request, person, EndCause.REVOKED, f"{person.name} revoked it: {reason.strip()}")

    def _only_running(self, uow: UnitOfWork, person: Person) -> str:
        running = uow.requests.find(person_id=person.id, states=_RUNNING)
        if not running:
            raise AlreadyDecidedError("You have no access that could be ended. Nothing changed.")
        if len(running) > 1:
            ids = ", ".join(request.id for request in running)
            raise InvalidInputError(f"You have several: {ids}. Say which: /passport done {running[0].id}", field="id")
        return running[0].id

    def _end(
        self, uow: UnitOfWork, request: AccessRequest, person: Person, cause: EndCause, detail: str
    ) -> AccessRequest:
        now = self._desk.clock()
        if request.state is RequestState.PENDING:
            raise AlreadyDecidedError(
                f"{request.id} is not decided yet; to take it back: /passport cancel {request.id}"
            )
        if request.state not in _RUNNING:
            raise AlreadyDecidedError(f"{request.id} is {request.state} already. Nothing changed.")
        ending = lifecycle.begin_end(request, cause, detail, at=now)
        uow.requests.save(ending)
        for grant in uow.grants.of(request.id):
            if grant.state in {GrantState.PROVISIONING, GrantState.ACTIVE}:
                uow.grants.save(lifecycle.move_grant(grant, GrantState.REMOVING))
        details = {"cause": cause.value, "detail": detail}
        uow.record(by_person(Kind.REQUEST_ENDING, person, at=now, request_id=request.id, details=details))
        uow.commit()
        return ending
