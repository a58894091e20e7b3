"""The loop that makes the world agree with the database. Only this changes servers.

A piece of work is three short transactions around one act: move what time has moved, act outside of any, then
reload under the row's lock, merge and record. A process that dies between any two lines resumes from what is saved.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from access import lifecycle
from access.audit import Kind
from access.errors import PassportError
from access.model import AccessRequest, AccountName, EndCause, Grant, GrantState, RequestState, RouteName
from access.policy import Policy, changed_tags
from access.ports import Account, Clock, Inventory, Route, Store, UnitOfWork
from access.recording import (
    MOVING,
    RUNNING,
    axis_of,
    backoff,
    begin_end,
    event,
    is_due,
    merge,
    save,
    settle,
    with_problem,
)
from access.steps import Done, Failed, Step

_log = logging.getLogger(__name__)

LEASE = timedelta(minutes=2)
MOST_ROUNDS = 20  # of one claim; the next claim goes on


@dataclass(frozen=True, kw_only=True, slots=True)
class Acted:
    """What an act found: steps by grant id, or why the request cannot start."""

    steps: Mapping[str, Step]
    start: Step | None = None  # for a request that is to start: Done, or Failed


class Reconciler:
    """Claims due requests and brings each a little further."""

    def __init__(
        self,
        store: Store,
        *,
        policy: Policy,
        inventory: Inventory,
        routes: Mapping[RouteName, Route],
        accounts: Mapping[AccountName, Account],
        clock: Clock,
        owner: str,
    ) -> None:
        self._store = store
        self._policy = policy
        self._inventory = inventory
        self._routes = routes
        self._accounts = accounts
        self._clock = clock
        self._owner = owner

    def reclaim(self) -> int:
        """At start: take back what this very instance had leased when it died."""
        with self._store.unit_of_work() as uow:
            count = uow.requests.release_all(owner=self._owner)
            uow.commit()
        return count

    def claim(self, limit: int, *, removals_only: bool) -> Sequence[str]:
        """Lease up to ``limit`` due requests, those to end first."""
        now = self._clock()
        with self._store.unit_of_work() as uow:
            claimed = uow.requests.claim_due(
                now, owner=self._owner, lease_until=now + LEASE, limit=limit, removals_only=removals_only
            )
            uow.commit()
        return claimed

    def next_due_at(self) -> datetime | None:
        """When there is something to do again."""
        with self._store.unit_of_work(read_only=True) as uow:
            return uow.requests.next_due_at()

    def work(self, request_id: str) -> None:
        """Bring one claimed request as far as it goes without waiting, and give its lease back."""
        try:
            for _ in range(MOST_ROUNDS):
                if not self._round(request_id):
                    return
        finally:
            with self._store.unit_of_work() as uow:
                uow.requests.release(request_id, owner=self._owner)
                uow.commit()

    def _round(self, request_id: str) -> bool:
        """One act; whether another can follow at once."""
        request, grants = self._begin(request_id)
        if request.due_at is None or request.due_at > self._clock():
            return False
        acted = self._act(request, grants)
        request = self._record(request_id, {grant.id: grant for grant in grants}, acted)
        return request.due_at is not None and request.due_at <= self._clock()

    def _begin(self, request_id: str) -> tuple[AccessRequest, Sequence[Grant]]:
        """Move what time alone moves."""
        now = self._clock()
        with self._store.unit_of_work() as uow:
            request = uow.requests.get(request_id, lock=True)
            if request.state is RequestState.PENDING and request.lapses_at <= now:
                request = lifecycle.decide(request, RequestState.LAPSED, at=now)
                save(uow, request, event(Kind.REQUEST_LAPSED, request, now))
                uow.commit()
            elif request.state in RUNNING and request.expires_at and request.expires_at <= now:
                request = begin_end(uow, request, EndCause.EXPIRED, "its time was up", now)
                uow.commit()
            return request, uow.grants.of(request_id)

    def _act(self, request: AccessRequest, grants: Sequence[Grant]) -> Acted:
        if request.state is RequestState.APPROVED and request.expires_at is None:
            return Acted(steps={}, start=self._may_start(request))
        now, steps = self._clock(), dict[str, Step]()
        for state in reversed(MOVING):  # removals first
            due = [grant for grant in grants if grant.state is state and is_due(grant, now)]
            for axis in ("route", "account"):
                chosen = [grant for grant in due if axis_of(grant) == axis]
                if chosen:
                    steps.update(self._call(axis, state, request, chosen))
        return Acted(steps=steps)

    def _call(
        self, axis: str, state: GrantState, request: AccessRequest, grants: Sequence[Grant]
    ) -> Mapping[str, Step]:
        adapter: Route | Account = self._routes[request.route] if axis == "route" else self._accounts[request.account]
        operation = adapter.provision if state is GrantState.PROVISIONING else adapter.remove
        silent = Failed(reason="Something broke on Passport's side.", retryable=True)
        try:
            steps = operation(request, grants)
            return {grant.id: steps.get(grant.id, silent) for grant in grants}
        except Exception as error:  # noqa: BLE001 - one poisoned request must not stop the others, nor be forgotten
            _log.exception("%s: %s of %s failed", request.id, operation.__qualname__, [grant.id for grant in grants])
            failed = Failed(reason=error.sentence, retryable=True) if isinstance(error, PassportError) else silent
            return {grant.id: failed for grant in grants}

    def _may_start(self, request: AccessRequest) -> Step:
        """Read again what policy looked at; a change since submission stops the request."""
        try:
            current = self._inventory.read_again(request.servers)
        except PassportError as error:
            return Failed(reason=error.sentence, retryable=True)
        changes = [changed_tags(self._policy, pinned, current.get(pinned.key)) for pinned in request.servers]
        sentence = " ".join(change for change in changes if change)
        return Failed(reason=sentence, retryable=False) if sentence else Done()

    def _record(self, request_id: str, before: Mapping[str, Grant], acted: Acted) -> AccessRequest:
        now = self._clock()
        with self._store.unit_of_work() as uow:
            request = uow.requests.get(request_id, lock=True)
            grants = uow.grants.of(request_id)
            if acted.start is not None:
                request = self._start(uow, request, acted.start, now)
            for grant in grants:
                step = acted.steps.get(grant.id)
                if step is not None and grant == before.get(grant.id):  # else somebody moved it: the step is history
                    uow.grants.save(merge(uow, request, grant, step, now))
            request = settle(uow, request, now, before.values())
            uow.requests.save(request)
            uow.commit()
        return request

    def _start(self, uow: UnitOfWork, request: AccessRequest, step: Step, now: datetime) -> AccessRequest:
        if request.state is not RequestState.APPROVED or request.expires_at is not None:
            return request
        if isinstance(step, Done):
            started = replace(request, expires_at=now + request.duration, problem="", revision=request.revision + 1)
            uow.record(event(Kind.REQUEST_STARTED, started, now, expires_at=f"{started.expires_at:%Y-%m-%dT%H:%M:%SZ}"))
            return started
        if not isinstance(step, Failed):
            return request
        waited = now - (request.decided_at or now)
        if step.retryable and waited < self._policy.lapse_after:
            due_at = now + backoff(int(waited.total_seconds() // 10) + 1)
            return replace(with_problem(request, step.reason), due_at=due_at)
        return begin_end(uow, request, EndCause.FAILED, step.reason, now)
