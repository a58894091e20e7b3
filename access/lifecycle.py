"""The states and the only tables of allowed transitions; anything else raises."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from access.errors import TransitionError
from access.model import AccessRequest, EndCause, Grant, GrantState, Progress, RequestState

REQUEST: Mapping[RequestState, frozenset[RequestState]] = {
    RequestState.PENDING: frozenset(
        {RequestState.APPROVED, RequestState.DENIED, RequestState.CANCELLED, RequestState.LAPSED}
    ),
    RequestState.APPROVED: frozenset({RequestState.ACTIVE, RequestState.ENDING}),
    RequestState.ACTIVE: frozenset({RequestState.ENDING}),
    RequestState.ENDING: frozenset({RequestState.ENDED}),
    RequestState.ENDED: frozenset(),
    RequestState.DENIED: frozenset(),
    RequestState.CANCELLED: frozenset(),
    RequestState.LAPSED: frozenset(),
}

GRANT: Mapping[GrantState, frozenset[GrantState]] = {
    GrantState.PROVISIONING: frozenset({GrantState.ACTIVE, GrantState.REMOVING}),
    GrantState.ACTIVE: frozenset({GrantState.REMOVING}),
    GrantState.REMOVING: frozenset({GrantState.REMOVED}),
    GrantState.REMOVED: frozenset(),
}


def move(request: AccessRequest, to: RequestState, *, due_at: datetime | None) -> AccessRequest:
    """The request in its next state, due for the reconciler at ``due_at``; raises TransitionError."""
    if to not in REQUEST[request.state]:
        raise TransitionError(f"{request.id} cannot go from {request.state} to {to}.")
    return replace(request, state=to, due_at=due_at, problem="", revision=request.revision + 1)


def decide(request: AccessRequest, to: RequestState, *, at: datetime) -> AccessRequest:
    """The pending request as approved (due at once), denied, cancelled or lapsed; raises TransitionError."""
    due_at = at if to is RequestState.APPROVED else None
    return replace(move(request, to, due_at=due_at), decided_at=at)


def begin_end(request: AccessRequest, cause: EndCause, detail: str, *, at: datetime) -> AccessRequest:
    """The request on its way to its end, due at once; raises TransitionError."""
    return replace(move(request, RequestState.ENDING, due_at=at), cause=cause, cause_detail=detail)


def end(request: AccessRequest, *, at: datetime) -> AccessRequest:
    """The request as over: every grant of it is removed; raises TransitionError."""
    return replace(move(request, RequestState.ENDED, due_at=None), ended_at=at)


def move_grant(grant: Grant, to: GrantState, *, outcome: str = "") -> Grant:
    """The grant in its next state, with a fresh start for the next operation; raises TransitionError."""
    if to not in GRANT[grant.state]:
        raise TransitionError(f"{grant.id} cannot go from {grant.state} to {to}.")
    return replace(grant, state=to, route=Progress(), account=Progress(), outcome=outcome or grant.outcome)
