"""The probe on many servers at once. It changes nothing, so nothing of it is saved and no request stands behind it."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from access.model import Grant, Progress, Server
from access.ports import Clock
from access.steps import Waiting
from provisioning.command_intent import Order, Outcome
from provisioning.command_outcome import Answered, Unanswered
from provisioning.documents import PREFIX, Document, probe_document, windows_documents
from provisioning.framing import FramingError, Probed, parse_probe
from provisioning.refusals import Refused
from provisioning.run_command import MOST_SERVERS, RunCommand
from provisioning.windows_probe import ProbedWindows, parse_probe_windows

Said = Probed | ProbedWindows | Refused

MOST_COMMANDS = 20  # under way at once: a thousand servers

_PROBES: Mapping[str, tuple[Callable[[str], Document], Callable[[str], Said]]] = {
    "linux": (probe_document, parse_probe),
    "windows": (lambda prefix: windows_documents(prefix)[2], parse_probe_windows),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What a server said of itself, or why it did not; its clock showed a time between the two."""

    server: Server
    said: Said | Unanswered
    asked_at: datetime
    heard_at: datetime


class Probes:
    """Asks servers with the probe document; ``sleep`` takes seconds."""

    def __init__(
        self, commands: RunCommand, *, clock: Clock, sleep: Callable[[float], None], prefix: str = PREFIX
    ) -> None:
        self._commands = commands
        self._clock = clock
        self._sleep = sleep
        self._prefix = prefix

    def ask(self, servers: Sequence[Server]) -> Iterator[Heard]:
        """Every server's word, in the order of their coming; a server that cannot be asked is missing."""
        waiting = deque(_Flight(order=self._order(part[0]), servers=part, at=self._clock()) for part in _parts(servers))
        under_way: list[_Flight] = []
        while waiting or under_way:
            while waiting and len(under_way) < MOST_COMMANDS:
                under_way.append(waiting.popleft())
            for flight in under_way:
                if flight.due_at <= self._clock():
                    yield from flight.go_on(self._commands, self._clock)
            under_way = [flight for flight in under_way if flight.grants]
            if under_way:
                pause = min(flight.due_at for flight in under_way) - self._clock()
                self._sleep(max(pause.total_seconds(), 0.0))

    def _order(self, server: Server) -> Order:
        document, _ = _PROBES[server.platform]
        return Order(request_id="doctor", document=document(self._prefix), parameters={})


class _Flight:
    """One command and the servers that have not answered it."""

    def __init__(self, *, order: Order, servers: Sequence[Server], at: datetime) -> None:
        self.due_at = at
        # A grant is what Run Command goes by; these are in no database.
        self.grants = {each.key: Grant(id=each.key, request_id=order.request_id, server=each) for each in servers}
        self._order = order
        self._asked_at = at

    def go_on(self, commands: RunCommand, clock: Clock) -> Iterator[Heard]:
        """A step further; who has answered is in flight no more."""
        begun = clock()
        outcomes = commands.run(self._order, list(self.grants.values()))
        pauses = [self._keep(key, each, begun) for key, each in outcomes.items() if isinstance(each, Waiting)]
        for key, outcome in outcomes.items():
            if not isinstance(outcome, Waiting):
                server = self.grants.pop(key).server
                said = _read(server, outcome)
                yield Heard(server=server, said=said, asked_at=self._asked_at, heard_at=clock())
        self.due_at = clock() + min(pauses, default=timedelta())

    def _keep(self, key: str, outcome: Waiting, begun: datetime) -> timedelta:
        grant = self.grants[key]
        if "command_id" not in grant.account.handle:
            self._asked_at = begun  # it may be sent within this very step
        self.grants[key] = replace(grant, account=Progress(handle=dict(outcome.handle)))
        return outcome.retry_in


def can_be_asked(server: Server) -> bool:
    """Whether there is a probe for what it runs."""
    return server.platform in _PROBES


def _parts(servers: Sequence[Server]) -> Iterator[Sequence[Server]]:
    """As many servers as a command takes, of one account, region and platform."""
    places: dict[tuple[str, str, str], list[Server]] = defaultdict(list)
    for server in servers:
        if can_be_asked(server):
            places[server.account, server.region, server.platform].append(server)
    for together in places.values():
        for start in range(0, len(together), MOST_SERVERS):
            yield together[start : start + MOST_SERVERS]


def _read(server: Server, outcome: Outcome) -> Said | Unanswered:
    if not isinstance(outcome, Answered):
        assert isinstance(outcome, Unanswered)  # noqa: S101 - a Waiting one is in flight
        return outcome
    _, parse = _PROBES[server.platform]
    try:
        return parse(outcome.output)
    except FramingError as error:
        return Unanswered(reason=error.sentence, retryable=True)
