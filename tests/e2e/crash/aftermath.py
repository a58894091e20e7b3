"""What must be true after a run of the story, as if nothing had happened to it; looked at from outside."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from tests.e2e.crash.record import (
    BUTTONS,
    Tables,
    access_faults,
    channel_faults,
    command_faults,
    record_faults,
)
from tests.e2e.crash.town import Town

_ONCE = (
    "request.submitted",
    "request.approved",
    "request.started",
    "request.active",
    "request.ending",
    "request.ended",
)
_ONCE_EACH = ("grant.active", "grant.removed")  # of every server


@dataclass(frozen=True, kw_only=True, slots=True)
class Aftermath:
    """A run that is over: its requests, how often Passport died and by order, and what came to the laptop."""

    town: Town
    request_id: str
    ours: AbstractSet[str]  # with what was typed twice
    deaths: int
    killed: int
    repeats: int  # in the audit channel, before
    received: AbstractSet[str]  # sessions and serials

    def faults(self) -> Iterator[str]:
        """A sentence for everything that is not so."""
        town, tables = self.town, self.town.tables()
        if self.deaths != self.killed:
            yield f"it died {self.deaths} times, and was killed {self.killed} times"
        states = {request.id: request.state.value for request in tables.requests if request.id in self.ours}
        if states.pop(self.request_id) != "ended" or set(states.values()) - {"cancelled"}:
            yield f"{self.request_id} and {states} have not come to their end"
        yield from record_faults(tables)
        yield from channel_faults(town.audit_messages(), tables.head, repeats=self.repeats + self.deaths)
        yield from command_faults(tables, town.company.aws.commands)
        yield from access_faults(town.accounts(), tables)
        yield from (f"{user} was left behind on {server}" for server, user in sorted(town.accounts()))
        yield from (f"the tunnel {session} was left open" for session in town.open_sessions())
        yield from self._event_faults(tables)
        yield from self._stale_messages()

    def _event_faults(self, tables: Tables) -> Iterator[str]:
        events = [found.event for found in tables.of(self.request_id)]
        kinds = [event.kind.value for event in events]
        times = {**dict.fromkeys(_ONCE, 1), **dict.fromkeys(_ONCE_EACH, len(self.town.servers))}
        for kind, count in times.items():
            if kinds.count(kind) != count:
                yield f"{self.request_id} has {kinds.count(kind)} events {kind}"
        if "refused" not in kinds:
            yield f"{self.request_id}: her own review is not on record"
        recorded = {event.details.get(name, "") for event in events for name in ("session", "serial")}
        yield from (f"{each} came to the laptop without a record" for each in sorted(self.received - recorded))

    def _stale_messages(self) -> Iterator[str]:
        """A message that Slack took just before a kill is posted again, and nobody knows its twin: one at most."""
        told = [*self.town.card_messages(), *self.town.ana.slack.direct_messages()]
        live = [message for message in told if self.request_id in message.plain and BUTTONS & set(message.actions)]
        if len(live) > self.deaths:
            shown = [message.plain for message in live]
            yield f"{len(live)} messages of {self.request_id} still have buttons: {shown}"
        newest = [message.text for message in self.town.card_messages() if self.request_id in message.plain][-1]
        if not newest.startswith("Ended: "):
            yield f"the newest card says {newest!r}"
        for message in (message for message in live if "review.approve" in message.actions):
            answer = self.town.ben.slack.click(message, "review.approve")
            unended = {request.id for request in self.town.tables().requests if request.state.value != "ended"}
            if not answer.ok or self.request_id in unended:
                yield "the twin of a card still did something"
