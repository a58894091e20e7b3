"""What people said and were told in a story, held against what is on record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from access.audit import Event, Kind
from access.model import AccessRequest, EndCause, RequestState
from tests.e2e.crash.record import Tables

APPROVED, DENIED, CANCELLED, LAPSED = "approved", "denied", "cancelled", "lapsed"
DECISIONS = {
    Kind.REQUEST_APPROVED: APPROVED,
    Kind.REQUEST_DENIED: DENIED,
    Kind.REQUEST_CANCELLED: CANCELLED,
    Kind.REQUEST_LAPSED: LAPSED,
}
_SECOND = timedelta(seconds=1)  # servers know no smaller one: theirs can be over before ours
COMPLETED, REVOKED = EndCause.COMPLETED.value, EndCause.REVOKED.value


@dataclass(slots=True)
class Told:
    """What came of a story, for those who look at it afterwards."""

    email: str = ""  # who asked
    servers: frozenset[str] = frozenset()
    seconds: int = 0
    typed: int = 0  # commands that may have made a request
    request_id: str = ""  # of the one that was answered as made
    said: set[tuple[str, str]] = field(
        default_factory=set
    )  # decision or cause, and the name of who clicked or typed it
    answered: set[str] = field(default_factory=set)  # those of them that were answered as done
    opened: bool = False
    logged_in: int = 0
    logins: list[str] = field(default_factory=list)  # commands that opened a shell, or could have
    setback: str = ""
    intruded: str = ""


def hear(told: Told, shown: Sequence[str]) -> None:
    """Add the answers that came after the ack: texts on the screens of those who clicked."""
    for act, words in (
        (APPROVED, f"Approved {told.request_id}: "),
        (COMPLETED, f"{told.request_id} ends now. I tell you"),
    ):
        if any(words in text for text in shown):
            told.answered.add(act)


def told_faults(told: Told, tables: Tables, *, calm: bool) -> Iterator[str]:
    """What was answered and is not so, and what is so though nobody said it."""
    if not told.request_id:
        return
    found = [request for request in tables.requests if request.id == told.request_id]
    if not found:
        yield f"{told.request_id} was answered as made, and is not there"
        return
    (request,) = found
    events = [each.event for each in tables.of(request.id)]
    asked = (told.email, told.servers, float(told.seconds))
    kept = (request.person_email, _names(request), request.duration.total_seconds())
    if asked != kept:
        yield f"{request.id} was asked for as {asked}, and is {kept}"
    yield from _decision_faults(told, events, calm=calm)
    yield from _end_faults(told, request, events, calm=calm)


def unheard_faults(tolds: Sequence[Told], new: Sequence[AccessRequest]) -> Iterator[str]:
    """Requests whose making was never answered, so that nobody can have decided on them."""
    for request in new:
        if request.id not in {told.request_id for told in tolds} and request.state is not RequestState.LAPSED:
            yield f"{request.id} is {request.state}, though nobody was told that there is such a request"


def _names(request: AccessRequest) -> frozenset[str]:
    return frozenset(server.name for server in request.servers)


def _decision_faults(told: Told, events: Sequence[Event], *, calm: bool) -> Iterator[str]:
    wanted = {act for act, _ in told.said} & set(DECISIONS.values())
    for event in events:
        decision = DECISIONS.get(event.kind)
        if decision is None:
            continue
        if decision != LAPSED and (decision, event.actor_name) not in told.said:
            yield f"{told.request_id} was {decision} by {event.actor_name}, who never said so"
        if decision == LAPSED and calm and wanted:
            yield f"on a calm day: {told.request_id} lapsed, though it was {' and '.join(sorted(wanted))}"
        for answered in (told.answered & set(DECISIONS.values())) - {decision}:
            yield f"{told.request_id} was answered as {answered}, and is on record as {decision}"


def _end_faults(told: Told, request: AccessRequest, events: Sequence[Event], *, calm: bool) -> Iterator[str]:
    for event in events:
        if event.kind is not Kind.REQUEST_ENDING:
            continue
        cause = event.details["cause"]
        if cause in {COMPLETED, REVOKED} and (cause, event.actor_name) not in told.said:
            yield f"{request.id} was {cause} by {event.actor_name}, who never said so"
        if cause == EndCause.EXPIRED and (request.expires_at is None or event.at < request.expires_at):
            yield f"{request.id} ended as expired at {event.at}, before {request.expires_at}"
        in_time = request.expires_at is None or event.at < request.expires_at - _SECOND
        if cause == EndCause.FAILED and (told.opened or (calm and in_time)):
            yield f"{request.id} ended as failed{', though it was open' if told.opened else ' on a calm day'}"
        for answered in (told.answered & {COMPLETED, REVOKED}) - {cause}:
            yield f"{request.id} was answered as {answered}, and ended as {cause}"
