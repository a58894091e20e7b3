"""What a step means for its grant, and its grants for a request; every change with its event."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from access import lifecycle
from access.attempts import latest
from access.audit import Event, Kind
from access.authorities import KNOWN
from access.model import AccessRequest, EndCause, Grant, GrantState, Progress, RequestState
from access.ports import UnitOfWork
from access.steps import Done, Failed, Step, Waiting
from access.words import join_sentences

PASSPORT = "passport"  # the actor of what nobody clicked
RUNNING = (RequestState.APPROVED, RequestState.ACTIVE)
MOVING = (GrantState.PROVISIONING, GrantState.REMOVING)
AXES: Mapping[GrantState, tuple[str, str]] = MappingProxyType(
    {GrantState.PROVISIONING: ("route", "account"), GrantState.REMOVING: ("account", "route")}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A request with its grants."""

    request: AccessRequest
    grants: tuple[Grant, ...]


def backoff(attempts: int) -> timedelta:
    """2, 4, 8, … seconds, at most five minutes."""
    return timedelta(seconds=min(2.0 ** min(attempts, 16), 300.0))


def begin_end(uow: UnitOfWork, request: AccessRequest, cause: EndCause, detail: str, now: datetime) -> AccessRequest:
    """Send the request and all its grants to their end."""
    case = Case(request=request, grants=tuple(uow.grants.of(request.id)))
    ended = ending(uow, case, cause, detail, now)
    save_changes(uow, [case], [ended])
    return ended.request


def ending(uow: UnitOfWork, case: Case, cause: EndCause, detail: str, now: datetime) -> Case:
    """The case on its way to its end."""
    request = lifecycle.begin_end(case.request, cause, detail, at=now)
    grants = tuple(
        lifecycle.move_grant(grant, GrantState.REMOVING)
        if grant.state in {GrantState.PROVISIONING, GrantState.ACTIVE}
        else grant
        for grant in case.grants
    )
    uow.record(event(Kind.REQUEST_ENDING, request, now, cause=cause.value, detail=detail))
    return Case(request=request, grants=grants)


def is_over(request: AccessRequest, now: datetime) -> bool:
    """Whether time alone moves the request: nobody decided, or its end has come."""
    if request.state is RequestState.PENDING:
        return request.lapses_at <= now
    return request.state in RUNNING and request.expires_at is not None and request.expires_at <= now


def moved_by_time(uow: UnitOfWork, case: Case, now: datetime) -> Case:
    """The case after its time is over; the same while it is not."""
    if not is_over(case.request, now):
        return case
    if case.request.state in RUNNING:
        return ending(uow, case, EndCause.EXPIRED, "its time was up", now)
    lapsed = lifecycle.decide(case.request, RequestState.LAPSED, at=now)
    uow.record(event(Kind.REQUEST_LAPSED, lapsed, now))
    return replace(case, request=lapsed)


def save_changes(uow: UnitOfWork, before: Sequence[Case], now: Sequence[Case]) -> None:
    """Save what differs, of many cases in few statements."""
    pairs = zip(before, now, strict=True)
    uow.requests.save_all([new.request for old, new in pairs if new.request != old.request])
    save_grants(uow, before, now)


def save_grants(uow: UnitOfWork, before: Sequence[Case], now: Sequence[Case]) -> None:
    """Save the grants that differ."""
    pairs = zip(before, now, strict=True)
    uow.grants.save_all(
        [new for was, is_ in pairs for old, new in zip(was.grants, is_.grants, strict=True) if new != old]
    )


def merge(uow: UnitOfWork, request: AccessRequest, grant: Grant, axis: str, step: Step, now: datetime) -> Grant:
    """The grant after a step of its route or account, with the event that says so."""
    match step:
        case Waiting():
            return _wait(uow, request, grant, axis, step, now)
        case Done():
            return _finish(uow, grant, axis, step, now)
        case Failed():
            return _fail(uow, request, grant, axis, step, now)


def after(grant: Grant, axis: str, step: Done) -> Grant:
    """The grant with what the step found, and that axis done."""
    found = {**step.details}
    if grant.state is GrantState.PROVISIONING:
        told = replace(grant, details={**grant.details, **found})
    else:
        told = replace(grant, proof={**grant.proof, **found})
    return _with(told, axis, Progress(done=True))


def _with(grant: Grant, axis: str, progress: Progress) -> Grant:
    return replace(grant, route=progress) if axis == "route" else replace(grant, account=progress)


def _finish(uow: UnitOfWork, grant: Grant, axis: str, step: Done, now: datetime) -> Grant:
    if step.password:
        uow.passwords.keep(grant.id, step.password)
    grant = after(grant, axis, step)
    if open_axes(grant):
        return grant
    if grant.state is GrantState.PROVISIONING:
        uow.record(_grant_event(Kind.GRANT_ACTIVE, grant, now, _told(grant.details)))
        return lifecycle.move_grant(grant, GrantState.ACTIVE)
    if grant.server.is_windows:
        uow.passwords.destroy(grant.id)
    uow.record(_grant_event(Kind.GRANT_REMOVED, grant, now, grant.proof))
    return lifecycle.move_grant(grant, GrantState.REMOVED)


def _wait(uow: UnitOfWork, request: AccessRequest, grant: Grant, axis: str, step: Waiting, now: datetime) -> Grant:
    progress = replace(_progress(grant, axis), handle=step.handle, retry_at=now + step.retry_in)
    if step.problem is not None:
        progress = replace(progress, problem=step.problem, server_cannot=False)
    if step.problem:
        progress = replace(progress, attempts=progress.attempts + 1)
        _shout(uow, request, grant, axis, step.problem, progress.attempts, now)
    return _with(grant, axis, progress)


def _fail(uow: UnitOfWork, request: AccessRequest, grant: Grant, axis: str, step: Failed, now: datetime) -> Grant:
    attempts = _progress(grant, axis).attempts + 1
    if grant.state is GrantState.PROVISIONING and not step.retryable:
        uow.record(_grant_event(Kind.GRANT_FAILED, grant, now, {"reason": step.reason}))
        kept = replace(grant, details={**grant.details, **step.details})
        return lifecycle.move_grant(kept, GrantState.REMOVING, outcome=step.reason)
    _shout(uow, request, grant, axis, step.reason, attempts, now)
    failed = Progress(
        attempts=attempts, retry_at=now + backoff(attempts), problem=step.reason, server_cannot=step.server_cannot
    )
    return _with(grant, axis, failed)


def settle(uow: UnitOfWork, case: Case, now: datetime, before: Iterable[Grant]) -> Case:
    """The request as its grants make it, with the instant at which it is due next."""
    request, states = case.request, {grant.state for grant in case.grants}
    if request.state is RequestState.APPROVED and GrantState.ACTIVE in states:
        request = lifecycle.move(request, RequestState.ACTIVE, due_at=None)
        uow.record(event(Kind.REQUEST_ACTIVE, request, now))
    if request.state in RUNNING and request.expires_at and states <= {GrantState.REMOVING, GrantState.REMOVED}:
        outcomes = join_sentences(grant.outcome for grant in latest(case.grants) if grant.outcome)
        failed = replace(case, request=request)
        request = ending(uow, failed, EndCause.FAILED, outcomes or "no server could be opened", now).request
    if request.state is RequestState.ENDING and states <= {GrantState.REMOVED}:
        request = lifecycle.end(request, at=now)
        uow.record(event(Kind.REQUEST_ENDED, request, now, cause=str(request.cause), detail=request.cause_detail))
    due_at = _due_at(request, case.grants, now)
    return replace(case, request=_show(replace(request, due_at=due_at), before, case.grants))


def _due_at(request: AccessRequest, grants: Sequence[Grant], now: datetime) -> datetime | None:
    if not request.is_open:
        return None
    if request.state is RequestState.PENDING:
        return request.lapses_at
    if request.expires_at is None and request.state is RequestState.APPROVED:
        return request.due_at or now
    moving = [_progress(grant, axis).retry_at or now for grant in grants for axis in open_axes(grant)]
    ends = [request.expires_at] if request.expires_at and request.state in RUNNING else []
    return min(moving + ends, default=now)


def _show(request: AccessRequest, before: Iterable[Grant], grants: Sequence[Grant]) -> AccessRequest:
    """Count a change that a reader could see."""
    if request.state in RUNNING and request.expires_at is None:
        return request
    problem = join_sentences(p for grant in grants if (p := problem_of(grant)))
    moved = {grant.id: grant.state for grant in before} != {grant.id: grant.state for grant in grants}
    if problem == request.problem and not moved:
        return request
    return replace(request, problem=problem, revision=request.revision + 1)


def open_axes(grant: Grant) -> Sequence[str]:
    """What is next: a route before its account. A removal goes on with both, so that neither keeps the other open."""
    left = [axis for axis in AXES.get(grant.state, ()) if not _progress(grant, axis).done]
    return left[:1] if grant.state is GrantState.PROVISIONING else left


def problem_of(grant: Grant) -> str:
    """What holds the grant up now, or "": the account's trouble first."""
    problems = {axis: _progress(grant, axis).problem for axis in open_axes(grant)}
    return problems.get("account") or problems.get("route") or ""


def _progress(grant: Grant, axis: str) -> Progress:
    return grant.route if axis == "route" else grant.account


def is_due(grant: Grant, axis: str, now: datetime) -> bool:
    retry_at = _progress(grant, axis).retry_at
    return retry_at is None or retry_at <= now


def _shout(
    uow: UnitOfWork, request: AccessRequest, grant: Grant, axis: str, reason: str, attempts: int, now: datetime
) -> None:
    if grant.state is GrantState.REMOVING and _is_loud(attempts):
        uow.record(_late(request, grant, axis, reason, attempts, now))


def _late(request: AccessRequest, grant: Grant, axis: str, reason: str, attempts: int, now: datetime) -> Event:
    details = {"reason": reason, "attempts": str(attempts)}
    if axis == "route":
        return _grant_event(Kind.TUNNEL_LATE, grant, now, details)
    tunnel = {"tunnel": "closed"} if grant.route.done else {}
    return _grant_event(Kind.GRANT_REMOVAL_LATE, grant, now, {**details, "user": request.user_name, **tunnel})


def _is_loud(attempts: int) -> bool:
    """Which failed removals are shouted about: the first, the third, and every tenth."""
    return attempts in {1, 3} or attempts % 10 == 0


def _told(details: Mapping[str, str]) -> dict[str, str]:
    """What of the details belongs on record: not keys, which are long and public."""
    return {key: value for key, value in details.items() if key not in {"host_keys", KNOWN}}


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
