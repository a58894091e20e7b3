"""The record against the world: what the audit log alone says must be what the tables, the channel and AWS say."""

import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import pairwise

from access.audit import AuditEvent, Head, Kind, verify
from access.model import AccessRequest, Grant, GrantState
from sandbox.aws.commands import Command
from sandbox.slack import Message
from storage.unit_of_work import SqlStore

HostUser = tuple[str, str]  # the name of a server, and of a user that it has
BUTTONS = {"review.approve", "review.deny", "request.revoke", "request.cancel", "credentials.show", "request.complete"}
_LINE = re.compile(r"^#(\d+) .*$", re.MULTILINE)
_HEAD = re.compile(r"--head (\d+):([0-9a-f]{64})")
_SERVER = re.compile(r"\(([^()\s]+/[^()\s]+/[^()\s]+)\)")
_STATES = {
    Kind.REQUEST_SUBMITTED: "pending",
    Kind.REQUEST_APPROVED: "approved",
    Kind.REQUEST_DENIED: "denied",
    Kind.REQUEST_CANCELLED: "cancelled",
    Kind.REQUEST_LAPSED: "lapsed",
    Kind.REQUEST_ACTIVE: "active",
    Kind.REQUEST_ENDING: "ending",
    Kind.REQUEST_ENDED: "ended",
}
_GRANTS = {Kind.GRANT_ACTIVE: "active", Kind.GRANT_FAILED: "removing", Kind.GRANT_REMOVED: "removed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Where a request is, as far as it is told: its state, why it ended, whether it started, its servers' states."""

    state: str = ""
    cause: str = ""
    started: bool = False
    servers: frozenset[str] = frozenset()
    grants: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """Everything that the database holds of requests, read at one instant."""

    events: Sequence[AuditEvent]
    requests: Sequence[AccessRequest]
    grants: Sequence[Grant]

    def of(self, request_id: str) -> list[AuditEvent]:
        """The events of one request."""
        return [found for found in self.events if found.event.request_id == request_id]

    @property
    def head(self) -> Head:
        """The last link of the chain."""
        return Head(sequence=self.events[-1].sequence, hash=self.events[-1].hash) if self.events else Head()


def read_tables(store: SqlStore) -> Tables:
    """Read it all."""
    with store.unit_of_work(read_only=True) as uow:
        requests = uow.requests.find(limit=100_000)
        grants = [grant for request in requests for grant in uow.grants.of(request.id)]
        return Tables(events=list(uow.audit.all()), requests=requests, grants=grants)


def record_faults(tables: Tables) -> Iterator[str]:
    """What the tables say and the log does not, or the other way round; and where the chain is broken."""
    yield from verify(tables.events)
    told = rebuild(tables.events)
    kept = {request.id: _kept(request, tables.grants) for request in tables.requests}
    for request_id in sorted(told.keys() | kept.keys()):
        if told.get(request_id) != kept.get(request_id):
            yield f"{request_id}: the log tells {told.get(request_id)}, the tables hold {kept.get(request_id)}"


def rebuild(events: Iterable[AuditEvent]) -> dict[str, Account]:
    """Every request as the audit log alone tells it."""
    told: dict[str, Account] = {}
    for event in (found.event for found in events if found.event.request_id):
        known = told.get(event.request_id, Account())
        if event.kind is Kind.REQUEST_SUBMITTED:
            known = replace(known, servers=frozenset(_SERVER.findall(event.details["servers"])))
        if event.kind is Kind.REQUEST_APPROVED:
            known = replace(known, grants=dict.fromkeys(known.servers, "provisioning"))
        if event.kind is Kind.REQUEST_STARTED:
            known = replace(known, started=True)
        if event.kind is Kind.REQUEST_ENDING:
            grants = {server: "removing" if at != "removed" else at for server, at in known.grants.items()}
            known = replace(known, cause=event.details["cause"], grants=grants)
        if event.kind in _GRANTS:
            known = replace(known, grants={**known.grants, event.server: _GRANTS[event.kind]})
        told[event.request_id] = replace(known, state=_STATES.get(event.kind, known.state))
    return told


def access_faults(accounts: AbstractSet[HostUser], tables: Tables) -> Iterator[str]:
    """Who has access without a record of it."""
    users = {request.id: request.user_name for request in tables.requests if request.expires_at}
    recorded = {
        (grant.server.name, users[grant.request_id])
        for grant in tables.grants
        if grant.request_id in users and grant.state is not GrantState.REMOVED
    }
    yield from (f"{user} has access to {server} without a record" for server, user in sorted(accounts - recorded))


def channel_faults(messages: Sequence[Message], head: Head, *, repeats: int | None = None) -> Iterator[str]:
    """What the audit channel lacks, has out of order, repeats in other words, or more often than ``repeats``.

    A message that Slack took from somebody who died before they noted it comes again, with what has happened since.
    None is for any number of them, where the answers of Slack's are lost.
    """
    told = [message for message in map(_lines, messages) if message]
    yield from _order_faults([[number for number, _ in message] for message in told], repeats)
    first: dict[int, str] = {}
    for number, line in (line for message in told for line in message):
        if first.setdefault(number, line) != line:
            yield f"event {number} was told as {first[number]!r} and as {line!r}"
    if list(first) != list(range(1, head.sequence + 1)):
        yield f"the channel has the events {list(first)}, the log 1 to {head.sequence}"
    for sequence, digest in (found.groups() for message in messages for found in _HEAD.finditer(message.text)):
        if int(sequence) == head.sequence and digest != head.hash:
            yield f"the channel's head {sequence}:{digest} is not the log's"


def channel_repeats(messages: Sequence[Message]) -> int:
    """How many messages begin where the one before them began."""
    begins = [message[0][0] for message in map(_lines, messages) if message]
    return sum(begin == before for before, begin in pairwise(begins))


def channel_head(messages: Sequence[Message]) -> int:
    """The highest event that the channel vouches for."""
    return max((int(found[1]) for message in messages for found in _HEAD.finditer(message.text)), default=0)


def command_faults(tables: Tables, commands: Sequence[Command]) -> Iterator[str]:
    """Commands that would give access before its record, or once its end had begun."""
    for command in commands:
        if not command.document.endswith("CreateUser"):
            continue
        (request_id,) = command.parameters["RequestId"]
        if not tables.of(request_id):
            continue  # another company's, on the same AWS
        kinds = {found.event.kind: found.event.at.timestamp() for found in tables.of(request_id)}
        if command.requested_at < kinds.get(Kind.REQUEST_STARTED, float("inf")):
            yield f"{request_id}: a create was sent before its start was on record"
        if command.requested_at > kinds.get(Kind.REQUEST_ENDING, float("inf")):
            yield f"{request_id}: a create was sent after its end had begun"


def _lines(message: Message) -> list[tuple[int, str]]:
    return [(int(found[1]), found[0]) for found in _LINE.finditer(message.text)]


def _order_faults(messages: Iterable[Sequence[int]], repeats: int | None) -> Iterator[str]:
    """Every message goes on where the one before it ended, or begins where that one began."""
    begin, end = 1, 0
    for numbers in messages:
        if list(numbers) != list(range(numbers[0], numbers[0] + len(numbers))):
            yield f"a message has the events {numbers}"
        if numbers[0] != end + 1 and (numbers[0] != begin or numbers[-1] < end):
            yield f"after the events {begin} to {end} comes a message from {numbers[0]} to {numbers[-1]}"
        if numbers[0] != end + 1 and repeats is not None:
            repeats -= 1
            if repeats < 0:
                yield f"the events from {numbers[0]} to {numbers[-1]} were repeated"
        begin, end = numbers[0], numbers[-1]


def _kept(request: AccessRequest, grants: Sequence[Grant]) -> Account:
    return Account(
        state=request.state.value,
        cause=request.cause.value if request.cause else "",
        started=request.expires_at is not None,
        servers=frozenset(server.key for server in request.servers),
        grants={grant.server.key: grant.state.value for grant in grants if grant.request_id == request.id},
    )
