"""Servers that are asked for again: each attempt is a grant of its own, and the latest of a server is what counts."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from access.model import AccessRequest, Grant, GrantState, Progress

ATTEMPT = "attempt"  # in a grant's details, from the second on


def attempt_of(grant: Grant) -> int:
    """How often the grant's request has asked for this server."""
    return int(grant.details.get(ATTEMPT, "1"))


def latest(grants: Iterable[Grant]) -> list[Grant]:
    """The last attempt on each server, in the order of the first."""
    return list({grant.server.key: grant for grant in sorted(grants, key=attempt_of)}.values())


def has_failed(grant: Grant) -> bool:
    """Whether this grant of a running request came to nothing."""
    return grant.state in {GrantState.REMOVING, GrantState.REMOVED}


def is_held_up(grant: Grant, now: datetime) -> bool:
    """Whether the server could not be opened so far and will be tried again later by itself."""
    return grant.state is GrantState.PROVISIONING and any(
        progress.problem and progress.retry_at and progress.retry_at > now for progress in (grant.route, grant.account)
    )


def at_once(grant: Grant) -> Grant:
    """The grant that is held up, as due now."""

    def due(progress: Progress) -> Progress:
        return replace(progress, retry_at=None)

    return replace(grant, route=due(grant.route), account=due(grant.account))


def next_attempts(request: AccessRequest, grants: Sequence[Grant], failed: Sequence[Grant]) -> list[Grant]:
    """A new grant for each of the failed, numbered after all others of the request."""
    last = max((int(grant.id.rpartition(".")[2]) for grant in grants), default=0)
    return [
        Grant(
            id=f"{request.id}.{last + number}",
            request_id=request.id,
            server=grant.server,
            details={ATTEMPT: str(attempt_of(grant) + 1)},
        )
        for number, grant in enumerate(failed, start=1)
    ]


def is_unread(grant: Grant) -> bool:
    """Whether it is a further attempt before whose beginning the server's tags have to be read again."""
    return attempt_of(grant) > 1 and not (grant.route.done or grant.route.handle)
