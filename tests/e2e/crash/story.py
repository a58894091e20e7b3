"""The story that is interrupted: asked, approved, open, shown, done, ended; and what must be true after it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from bot import wiring
from sandbox.company import COMMAND
from sandbox.slack import Message
from sandbox.slack.deliveries import Delivery
from tests.e2e.crash.record import Tables, channel_faults, channel_head, command_faults, record_faults
from tests.e2e.crash.town import Town, found_by

_REQUEST = re.compile(r"AR-[0-9A-Z]{4,8}")
_OVER = {"ended", "denied", "cancelled", "lapsed"}
_BUTTONS = {"review.approve", "review.deny", "request.revoke", "request.cancel", "credentials.show", "request.complete"}

_ONCE = (
    "request.submitted",
    "request.approved",
    "request.started",
    "grant.active",
    "request.active",
    "request.ending",
    "grant.removed",
    "request.ended",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """How one run went."""

    order: str
    killed_at: str  # "" when it was not
    points: tuple[str, ...]
    faults: tuple[str, ...]


class Story:
    """One run in a town, from outside: over Slack's HTTP only."""

    def __init__(self, town: Town, reason: str) -> None:
        self._town = town
        self._reason = reason
        self._before = {request.id for request in town.tables().requests}
        self._town.faults = []

    def play(self, number: int = 0, point: str = "") -> Told:
        """Tell it, with Passport killed when it passes the point for this time, and look at what came of it."""
        town, deaths = self._town, self._town.deaths
        town.passport.order(number, point)
        request_id = self.begin()
        self._show(request_id)
        town.insist(lambda: self._click(request_id, "request.complete"))
        self.wait_until_closed(request_id)
        self._tidy_up(request_id)
        self._wait_for_quiet()
        town.passport.pardon()
        points = tuple(town.passport.passed)
        if town.deaths == deaths and 0 < number <= points.count(point):  # dead or dying, with nothing left to do
            town.revive()
        died = town.deaths > deaths
        return Told(
            order=f"{point}, time {number}",
            killed_at=points[-1] if died else "",
            points=points,
            faults=(*town.faults, *self._faults(request_id, town.tables(), died=died)),
        )

    def begin(self) -> str:
        """Until it is approved; the request's id."""
        request_id = self._ask()
        self._approve(request_id)
        return request_id

    def wait_until_closed(self, request_id: str) -> None:
        """Until Ana reads that it is over."""
        self._town.wait(lambda: self._closed(request_id), f"{request_id} to be closed")

    def _ask(self) -> str:
        """What was not acknowledged is typed again: maybe it counted, and then there are two."""
        words = f"request {self._town.server} for 1h because {self._reason}"
        done = self._town.insist(lambda: self._town.ana.slack.command(COMMAND, words))
        assert done is not None
        found = _REQUEST.search(done.plain)
        assert found, done.plain
        return found[0]

    def _approve(self, request_id: str) -> None:
        self._town.wait(lambda: self._card(request_id, "review.approve"), f"the card of {request_id}")
        self._town.insist(lambda: self._click_card(request_id))

    def _click_card(self, request_id: str) -> Delivery | None:
        card = self._card(request_id, "review.approve")
        return self._town.ben.slack.click(card, "review.approve") if card else None

    def _show(self, request_id: str) -> None:
        """Credentials are shown only on a screen: where they do not appear, the button is pressed again."""
        town, ana = self._town, self._town.ana
        town.wait(lambda: found_by(ana, "credentials.show", request_id), f"{request_id} to be open")
        before = len(ana.slack.ephemerals())
        while True:
            deaths = town.deaths
            town.insist(lambda: self._click(request_id, "credentials.show"))
            town.wait(partial(self._is_answered, before, deaths), "the credentials")
            if self._appeared(before):
                return

    def _is_answered(self, before: int, deaths: int) -> bool:
        return self._appeared(before) or self._town.deaths > deaths

    def _appeared(self, before: int) -> bool:
        return any("Credentials for" in message.text for message in self._town.ana.slack.ephemerals()[before:])

    def _closed(self, request_id: str) -> bool:
        messages = self._town.ana.slack.direct_messages()
        return any("Closed: " in message.plain for message in messages if request_id in message.plain)

    def _tidy_up(self, request_id: str) -> None:
        """Ana takes back what she typed twice."""
        for other in self._ours() - {request_id}:
            self._town.wait(partial(found_by, self._town.ana, "request.cancel", other), f"{other} to cancel")
            self._town.insist(partial(self._click, other, "request.cancel"))

    def _click(self, request_id: str, action_id: str) -> Delivery | None:
        message = found_by(self._town.ana, action_id, request_id)
        return self._town.ana.slack.click(message, action_id) if message else None

    def _card(self, request_id: str, action_id: str) -> Message | None:
        for message in reversed(self._town.card_messages()):
            if action_id in message.actions and request_id in message.plain:
                return message
        return None

    def _ours(self) -> set[str]:
        return {request.id for request in self._town.tables().requests} - self._before

    def _wait_for_quiet(self) -> None:
        """Everything is over, and Slack shows it."""
        self._town.wait(self._is_quiet, "Slack to catch up")

    def _is_quiet(self) -> bool:
        with self._town.beside() as store, store.unit_of_work(read_only=True) as uow:
            head, stale = uow.audit.head(), uow.posts.stale(wiring.now() + timedelta(days=1), 1)
            open_ones = [request for request in uow.requests.find(limit=100_000) if request.state.value not in _OVER]
        return not stale and not open_ones and channel_head(self._town.audit_messages()) == head.sequence

    def _faults(self, request_id: str, tables: Tables, *, died: bool) -> Iterator[str]:
        """What is not as if nothing had happened."""
        town = self._town
        states = {request.id: request.state.value for request in tables.requests if request.id in self._ours()}
        if states.pop(request_id) != "ended" or set(states.values()) - {"cancelled"}:
            yield f"{request_id} and {states} have not come to their end"
        yield from record_faults(tables)
        yield from channel_faults(town.audit_messages(), tables.head)
        yield from command_faults(tables, town.company.aws.commands)
        left = [request.user_name for request in tables.requests if town.has_access(request.user_name)]
        yield from (f"{user} was left behind" for user in left)
        kinds = [found.event.kind.value for found in tables.of(request_id)]
        yield from (f"{request_id} has {kinds.count(kind)} events {kind}" for kind in _ONCE if kinds.count(kind) != 1)
        yield from self._stale_messages(request_id, died=died)

    def _stale_messages(self, request_id: str, *, died: bool) -> Iterator[str]:
        """A message that Slack took just before the kill is posted again, and nobody knows its twin: one at most."""
        told = [*self._town.card_messages(), *self._town.ana.slack.direct_messages()]
        live = [message for message in told if request_id in message.plain and _BUTTONS & set(message.actions)]
        if len(live) > died:
            yield f"{len(live)} messages of {request_id} still have buttons: {[message.plain for message in live]}"
        newest = [message.text for message in self._town.card_messages() if request_id in message.plain][-1]
        if not newest.startswith("Ended: "):
            yield f"the newest card says {newest!r}"
        for message in (message for message in live if "review.approve" in message.actions):
            answer = self._town.ben.slack.click(message, "review.approve")
            if not answer.ok or request_id in {r.id for r in self._town.tables().requests if r.state.value != "ended"}:
                yield "the twin of a card still did something"
