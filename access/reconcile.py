"""The loop that makes the world agree with the database. Only this changes servers.

A piece of work is a few short transactions around its acts: claim and see; act outside of any; then merge and record,
with what time has moved, if nobody has changed it meanwhile, else once more with what is read again under lock. A
process that dies between any two lines resumes from what is saved. Many requests that are due together share their
transactions, in which most of the time would go.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from access.about import about
from access.acting import Acted, Acting
from access.audit import Kind
from access.errors import PassportError, UnavailableError
from access.model import AccessRequest, AccountName, EndCause, RequestState, RouteName
from access.policy import Policy
from access.ports import Account, Clock, Inventory, Leased, Route, Store, UnitOfWork
from access.recording import (
    Case,
    backoff,
    ending,
    event,
    merge,
    moved_by_time,
    save_changes,
    save_grants,
    settle,
    with_problem,
)
from access.steps import Done, Failed, Step

_log = logging.getLogger(__name__)

LEASE = timedelta(minutes=2)
MOST_ROUNDS = 20  # of one claim; the next claim goes on
LONGEST_ROUND = timedelta(seconds=5)  # then what nobody has acted on is given back: the lease must outlast a round

Observe = Callable[[AccessRequest, AccessRequest], None]  # a request before and after a round
Held = dict[str, datetime | None]  # the requests at work, and until when their leases were taken, if that is known


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
        observe: Observe = lambda _before, _after: None,
    ) -> None:
        self._store = store
        self._policy = policy
        self._acting = Acting(policy=policy, inventory=inventory, routes=routes, accounts=accounts, clock=clock)
        self._clock = clock
        self._owner = owner
        self._observe = observe
        self._kept_leases: set[str] = set()  # that could not be given back
        self._seen: dict[str, Case] = {}  # by a claim, for the work that follows at once
        self._leases: dict[str, datetime] = {}  # until when, for the same

    def reclaim(self) -> int:
        """At start: take back what this very instance had leased when it died."""
        with self._store.unit_of_work() as uow:
            count = uow.requests.release_all(owner=self._owner)
            uow.commit()
        return count

    def claim(self, limit: int, *, removals_only: bool) -> Sequence[str]:
        """Lease up to ``limit`` due requests, those to end first."""
        now, kept = self._clock(), tuple(self._kept_leases)
        until = now + LEASE
        with self._store.unit_of_work() as uow:
            uow.requests.release(*kept, owner=self._owner)
            claimed = uow.requests.claim_due(
                now, owner=self._owner, lease_until=until, limit=limit, removals_only=removals_only
            )
            self._kept_leases.update(claimed)  # a commit without an answer may have leased them all the same
            cases = self._readable(uow, claimed)
            uow.commit()
        self._kept_leases.difference_update(kept, claimed)
        self._seen.update({case.request.id: case for case in cases})
        self._leases.update(dict.fromkeys(claimed, until))
        return claimed

    def next_due_at(self) -> datetime | None:
        """When there is something to do again: at once while a lease is still to be given back."""
        if self._kept_leases:
            return self._clock()
        with self._store.unit_of_work(read_only=True) as uow:
            return uow.requests.next_due_at()

    def work(self, *request_ids: str) -> None:
        """Bring claimed requests as far as they go without waiting, and give their leases back.

        What breaks one of several must not stop the others, so each then goes alone. What nobody foresaw would
        break again at once: then the lease stays, so that others have their turn until it runs out.
        """
        held = {request_id: self._leases.pop(request_id, None) for request_id in request_ids}
        with about(" ".join(request_ids) if len(request_ids) == 1 else ""):
            try:
                self._go_on(held)
            except UnavailableError:
                self._give_back(held)
                raise
            except Exception:
                if len(request_ids) == 1:
                    raise
                _log.warning("One of %s breaks the work on all; each goes alone", ", ".join(held))
                self._each_alone(held)
            else:
                self._give_back(held)

    def _each_alone(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            try:
                self.work(request_id)
            except UnavailableError:
                raise
            except Exception:  # noqa: BLE001 - see work
                _log.exception("%s: a piece of work failed and will be tried again", request_id)

    def _give_back(self, request_ids: Iterable[str]) -> None:
        """End the leases; what a lost database keeps from it, the next claim does: nobody waits until they run out."""
        if not request_ids:
            return
        try:
            with self._store.unit_of_work() as uow:
                uow.requests.release(*request_ids, owner=self._owner)
                uow.commit()
        except PassportError:
            self._kept_leases.update(request_ids)
            raise

    def _go_on(self, held: Held) -> None:
        """Round after round, until nothing is due; whose lease has ended is no longer held."""
        seen = [self._seen.pop(request_id, None) for request_id in held]
        cases = [case for case in seen if case]
        if len(cases) < len(held):
            cases = self._look(held)
        for _ in range(MOST_ROUNDS):
            acted = self._act(cases)
            if not acted:
                return
            cases = self._record(acted, held)

    def _look(self, request_ids: Iterable[str]) -> list[Case]:
        with self._store.unit_of_work(read_only=True) as uow:
            return self._load(uow, request_ids)

    def _readable(self, uow: UnitOfWork, request_ids: Sequence[str]) -> list[Case]:
        """What a claim finds; nothing if one cannot be read, which is the matter of those who work on each."""
        try:
            return self._load(uow, request_ids) if request_ids else []
        except UnavailableError:
            raise
        except (PassportError, TypeError, ValueError):  # not what breaks the transaction: the leases are to be kept
            return []

    def _load(self, uow: UnitOfWork, request_ids: Iterable[str], *, lock: bool = False) -> list[Case]:
        requests = uow.requests.get_all(list(request_ids), lock=lock)
        grants = uow.grants.of_all([request.id for request in requests])
        return [Case(request=request, grants=tuple(grants.get(request.id, ()))) for request in requests]

    def _act(self, cases: Sequence[Case]) -> list[tuple[Case, Acted]]:
        """Act on what is due, for as long as a round may take."""
        began, acted = self._clock(), list[tuple[Case, Acted]]()
        for case in cases:
            now = self._clock()
            if _is_due(case, now) and now - began < LONGEST_ROUND:
                with about(case.request.id):
                    acted.append((case, self._acting.act(case)))
        return acted

    def _record(self, acted: Sequence[tuple[Case, Acted]], held: Held) -> list[Case]:
        """Record a round and end the leases of what is done with; the cases of which another can follow at once."""
        now = self._clock()
        recorded = self._record_as_seen(acted, held, now) or self._record_anew(acted, now)
        for (before, _), case in zip(acted, recorded, strict=True):
            self._observe(before.request, case.request)
            if not _is_due(case, now):
                del held[case.request.id]
        return [case for case in recorded if case.request.id in held]

    def _record_as_seen(self, acted: Sequence[tuple[Case, Acted]], held: Held, now: datetime) -> list[Case]:
        """Record what is still as it was seen, reading and locking nothing; nothing, if somebody has changed it."""
        seen = [case for case, _ in acted]
        leases = [until for case in seen if (until := held[case.request.id])]
        if len(leases) < len(seen):
            return []
        with self._store.unit_of_work() as uow:
            recorded = self._after_all(uow, seen, acted, now)
            leased = [
                Leased(
                    request=after.request,
                    until=until,
                    revision=before.request.revision,
                    is_finished=not _is_due(after, now),
                )
                for before, after, until in zip(seen, recorded, leases, strict=True)
            ]
            if not uow.requests.save_leased(leased, owner=self._owner):
                return []
            save_grants(uow, seen, recorded)
            uow.commit()
        return recorded

    def _record_anew(self, acted: Sequence[tuple[Case, Acted]], now: datetime) -> list[Case]:
        """The same with what is read again, under lock."""
        with self._store.unit_of_work() as uow:
            current = self._load(uow, [case.request.id for case, _ in acted], lock=True)
            recorded = self._after_all(uow, current, acted, now)
            save_changes(uow, current, recorded)
            finished = [case.request.id for case in recorded if not _is_due(case, now)]
            uow.requests.release(*finished, owner=self._owner)
            uow.commit()
        return recorded

    def _after_all(
        self, uow: UnitOfWork, cases: Sequence[Case], acted: Sequence[tuple[Case, Acted]], now: datetime
    ) -> list[Case]:
        return [self._after(uow, case, before, found, now) for case, (before, found) in zip(cases, acted, strict=True)]

    def _after(self, uow: UnitOfWork, case: Case, before: Case, found: Acted, now: datetime) -> Case:
        """The case after what its acts found, and after what time has moved."""
        if found.start is not None:
            case = self._start(uow, case, found.start, now)
        known = {grant.id: grant for grant in before.grants}
        grants = []
        for grant in case.grants:
            merged = grant
            if grant == known.get(grant.id):  # else somebody moved it: the steps are history
                for axis, step in found.steps.get(grant.id, ()):
                    merged = merge(uow, case.request, merged, axis, step, now)
            grants.append(merged)
        case = settle(uow, replace(case, grants=tuple(grants)), now, before.grants)
        return self._intended(uow, moved_by_time(uow, case, now), now)

    def _intended(self, uow: UnitOfWork, case: Case, now: datetime) -> Case:
        """The case with what its account is to do next, which so needs no transaction of its own."""
        found = self._acting.intend(case)
        grants = [
            merge(uow, case.request, grant, "account", found[grant.id], now) if grant.id in found else grant
            for grant in case.grants
        ]
        return replace(case, grants=tuple(grants))

    def _start(self, uow: UnitOfWork, case: Case, step: Step, now: datetime) -> Case:
        request = case.request
        if request.state is not RequestState.APPROVED or request.expires_at is not None:
            return case
        if isinstance(step, Done):
            started = replace(request, expires_at=now + request.duration, problem="", revision=request.revision + 1)
            uow.record(event(Kind.REQUEST_STARTED, started, now, expires_at=f"{started.expires_at:%Y-%m-%dT%H:%M:%SZ}"))
            return replace(case, request=started)
        if not isinstance(step, Failed):
            return case
        waited = now - (request.decided_at or now)
        if step.retryable and waited < self._policy.lapse_after:
            due_at = now + backoff(int(waited.total_seconds() // 10) + 1)
            return replace(case, request=replace(with_problem(request, step.reason), due_at=due_at))
        return ending(uow, case, EndCause.FAILED, step.reason, now)


def _is_due(case: Case, now: datetime) -> bool:
    return case.request.due_at is not None and case.request.due_at <= now
