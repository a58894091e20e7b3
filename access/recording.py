"""What a step means for its grant, and its grants for a request; every change with its event."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from access import lifecycle
from access.audit import Event, Kind
from access.model import AccessRequest, EndCause, Grant, GrantState, Progress, RequestState
from access.ports import UnitOfWork
from access.steps import Done, Failed, Step, Waiting

PASSPORT = "passport"  # the actor of what nobody clicked
RUNNING = (RequestState.APPROVED, RequestState.ACTIVE)
MOVING = (GrantState.PROVISIONING, GrantState.REMOVING)


def backoff(attempts: int) -> timedelta:
    """2, 4, 8, … seconds, at most five minutes."""
    return timedelta(seconds=min(2.0 ** min(attempts, 16), 300.0))


def begin_end(uow: UnitOfWork, request: AccessRequest, cause: EndCause, detail: str, now: datetime) -> AccessRequest:
    """Send the request and all its grants to their end."""
    ending = lifecycle.begin_end(request, cause, detail, at=now)
    for grant in uow.grants.of(request.id):
        if grant.state in {GrantState.PROVISIONING, GrantState.ACTIVE}:
            uow.grants.save(lifecycle.move_grant(grant, GrantState.REMOVING))
    save(uow, ending, event(Kind.REQUEST_ENDING, ending, now, cause=cause.value, detail=detail))
    return ending


def merge(uow: UnitOfWork, request: AccessRequest, grant: Grant, step: Step, now: datetime) -> Grant:
    """The grant after the step, with the event that says so."""
    axis = axis_of(grant)
    progress: Progress = getattr(grant, axis)
    match step:
        case Waiting():
            return _with(grant, axis, replace(progress, handle=step.handle, retry_at=now + step.retry_in))
        case Done():
            return _finish(uow, grant, axis, step, now)
        case Failed():
            return _fail(uow, request, grant, axis, step, now)


def _with(grant: Grant, axis: str, progress: Progress) -> Grant:
    return replace(grant, route=progress) if axis == "route" else replace(grant, account=progress)


def _finish(uow: UnitOfWork, grant: Grant, axis: str, step: Done, now: datetime) -> Grant:
    finished = Progress(done=True)
    if grant.state is GrantState.PROVISIONING:
        grant = _with(replace(grant, details={**grant.details, **step.details}), axis, finished)
        if axis == "route":
            return grant
        uow.record(_grant_event(Kind.GRANT_ACTIVE, grant, now, _told(grant.details)))
        return lifecycle.move_grant(grant, GrantState.ACTIVE)
    grant = _with(replace(grant, proof={**grant.proof, **step.details}), axis, finished)
    if axis == "account":
        return grant
    uow.record(_grant_event(Kind.GRANT_REMOVED, grant, now, grant.proof))
    return lifecycle.move_grant(grant, GrantState.REMOVED)


def _fail(uow: UnitOfWork, request: AccessRequest, grant: Grant, axis: str, step: Failed, now: datetime) -> Grant:
    progress: Progress = getattr(grant, axis)
    attempts = progress.attempts + 1
    if grant.state is GrantState.PROVISIONING and not step.retryable:
        uow.record(_grant_event(Kind.GRANT_FAILED, grant, now, {"reason": step.reason}))
        return lifecycle.move_grant(grant, GrantState.REMOVING, outcome=step.reason)
    if grant.state is GrantState.REMOVING and _is_loud(attempts):
        details = {"reason": step.reason, "attempts": str(attempts), "user": request.user_name}
        uow.record(_grant_event(Kind.GRANT_REMOVAL_LATE, grant, now, details))
    failed = Progress(attempts=attempts, retry_at=now + backoff(attempts), problem=step.reason)
    return _with(grant, axis, failed)


def settle(uow: UnitOfWork, request: AccessRequest, now: datetime, before: Iterable[Grant]) -> AccessRequest:
    """The request as its grants make it, with the instant at which it is due next."""
    grants = uow.grants.of(request.id)
    states = {grant.state for grant in grants}
    if request.state is RequestState.APPROVED and GrantState.ACTIVE in states:
        request = lifecycle.move(request, RequestState.ACTIVE, due_at=None)
        uow.record(event(Kind.REQUEST_ACTIVE, request, now))
    if request.state in RUNNING and request.expires_at and states <= {GrantState.REMOVING, GrantState.REMOVED}:
        outcomes = " ".join(dict.fromkeys(grant.outcome for grant in grants if grant.outcome))
        request = begin_end(uow, request, EndCause.FAILED, outcomes or "no server could be opened", now)
    if request.state is RequestState.ENDING and states <= {GrantState.REMOVED}:
        request = lifecycle.end(request, at=now)
        uow.record(event(Kind.REQUEST_ENDED, request, now, cause=str(request.cause), detail=request.cause_detail))
    return _show(replace(request, due_at=_due_at(request, grants, now)), before, grants)


def _due_at(request: AccessRequest, grants: Sequence[Grant], now: datetime) -> datetime | None:
    if not request.is_open:
        return None
    if request.state is RequestState.PENDING:
        return request.lapses_at
    if request.expires_at is None and request.state is RequestState.APPROVED:
        return request.due_at or now
    moving = [_progress(grant).retry_at or now for grant in grants if grant.state in MOVING]
    ends = [request.expires_at] if request.expires_at and request.state in RUNNING else []
    return min(moving + ends, default=now)


def _show(request: AccessRequest, before: Iterable[Grant], grants: Sequence[Grant]) -> AccessRequest:
    """Count a change that a reader could see."""
    if request.state in RUNNING and request.expires_at is None:
        return request
    problem = " ".join(dict.fromkeys(p for grant in grants if (p := _progress(grant).problem)))
    moved = {grant.id: grant.state for grant in before} != {grant.id: grant.state for grant in grants}
    if problem == request.problem and not moved:
        return request
    return replace(request, problem=problem, revision=request.revision + 1)


def axis_of(grant: Grant) -> str:
    """What is next: a route before its account, and the other way round when it ends."""
    first, second = ("route", "account") if grant.state is GrantState.PROVISIONING else ("account", "route")
    return second if getattr(grant, first).done else first


def _progress(grant: Grant) -> Progress:
    progress: Progress = getattr(grant, axis_of(grant))
    return progress


def is_due(grant: Grant, now: datetime) -> bool:
    retry_at = _progress(grant).retry_at
    return retry_at is None or retry_at <= now


def _is_loud(attempts: int) -> bool:
    """Which failed removals are shouted about: the first, the third, and every tenth."""
    return attempts in {1, 3} or attempts % 10 == 0


def _told(details: Mapping[str, str]) -> dict[str, str]:
    """What of the details belongs on record: not the host keys, which are long and public."""
    return {key: value for key, value in details.items() if key != "host_keys"}


def with_problem(request: AccessRequest, sentence: str) -> AccessRequest:
    if sentence == request.problem:
        return request
    return replace(request, problem=sentence, revision=request.revision + 1)


def save(uow: UnitOfWork, request: AccessRequest, event: Event) -> None:
    uow.requests.save(request)
    uow.record(event)


def event(kind: Kind, request: AccessRequest, now: datetime, **details: str) -> Event:
    return Event(kind=kind, at=now, actor=PASSPORT, request_id=request.id, details=details)


def _grant_event(kind: Kind, grant: Grant, now: datetime, details: Mapping[str, str]) -> Event:
    return Event(
        kind=kind, at=now, actor=PASSPORT, request_id=grant.request_id, server=grant.server.key, details=details
    )
