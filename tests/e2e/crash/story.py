"""The story that is interrupted: parked, signed in, reviewed, open, used, ended."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

import requests
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from bot import wiring
from sandbox.company import COMMAND
from sandbox.reading import first_url
from sandbox.slack import Message
from sandbox.slack.deliveries import Delivery
from tests.e2e.crash.aftermath import Aftermath
from tests.e2e.crash.points import END, EXPIRY, ONCE, OPENING, REVIEW, SIGN_IN, USE, Passed, Point
from tests.e2e.crash.record import channel_head, channel_repeats
from tests.e2e.crash.town import PATIENCE, Town, found_by
from tests.integration.workstation_lab import Answer, Laptop

T = TypeVar("T")
_CLOSED = re.compile(r"^Closed(: | at )", re.MULTILINE)  # the latter where nobody ever was on a server
_REQUEST = re.compile(r"AR-[0-9A-Z]{4,8}")
_OVER = {"ended", "denied", "cancelled", "lapsed"}
_SHORT = "30s"  # for what ends by itself: enough to be open before, on a slow machine, too


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """How one run went."""

    killed: tuple[Point, ...]
    passed: Passed
    faults: tuple[str, ...]

    def __str__(self) -> str:
        return "\n  ".join([f"killed at {', '.join(map(str, self.killed))}:", *self.faults])


class Story:
    """One run in a town, from outside: over Slack's HTTP and Passport's pages only."""

    def __init__(self, town: Town, reason: str) -> None:
        self._town = town
        self._reason = reason
        self._before = {request.id for request in town.tables().requests}
        self._repeats = channel_repeats(town.audit_messages())
        self._began = self._deaths = town.deaths
        self._stage = ""
        self._wanted: dict[str, Point] = {}
        self._killed: list[Point] = []
        self._passed: dict[str, Sequence[str]] = {}
        self._received: set[str] = set()  # sessions and serials that came to the laptop
        self.laptop = Laptop(town.passport)
        town.faults = []
        town.let_links_run_out()

    def play(self, points: Sequence[Point] = (), *, fresh: bool = False) -> Told:
        """Tell it, with Passport killed once in each stage that has a point, and look at what came of it."""
        self._wanted = {point.stage: point for point in points}
        if fresh or any(point.what.endswith(ONCE) for point in points):
            self._town.passport.kill()
            self._town.passport.start(seconds=PATIENCE)
        is_short = EXPIRY in self._wanted
        request_id = self.begin(_SHORT if is_short else "1h")
        self._town.wait(lambda: self._is_open(request_id) or self._closed(request_id), f"{request_id} to be open")
        if is_short:
            self._enter(EXPIRY)
        else:
            self._use(request_id)
            self._enter(END)
            self._town.insist(lambda: self._click(request_id, "request.complete"))
        self.wait_until_closed(request_id)
        self._tidy_up(request_id)
        self._wait_for_quiet()
        self._leave()
        return Told(
            killed=tuple(self._killed),
            passed=self._passed,
            faults=(*self._town.faults, *self._aftermath(request_id).faults()),
        )

    def begin(self, duration: str = "1h") -> str:
        """Until it is approved; the request's id."""
        self._enter(SIGN_IN)
        request_id = self._ask(duration)
        self._enter(REVIEW)
        self._review_herself(request_id)
        self._add_key()
        self._enter(OPENING)
        self._approve(request_id)
        return request_id

    def wait_until_closed(self, request_id: str) -> None:
        """Until Ana reads that it is over."""
        self._town.wait(lambda: self._closed(request_id), f"{request_id} to be closed")

    # Stages

    def _enter(self, stage: str) -> None:
        """From now on count anew, and die at the point of this stage."""
        self._leave()
        self._stage, self._deaths = stage, self._town.deaths
        point = self._wanted.get(stage)
        self._town.passport.order(point.number if point else 0, point.what if point else "")

    def _leave(self) -> None:
        if not self._stage:
            return
        self._town.passport.pardon()
        self._passed[self._stage] = self._town.passport.passed
        point = self._wanted.get(self._stage)
        if point and self._passed[self._stage].count(point.what) >= point.number:
            if self._town.deaths == self._deaths:  # dead or dying, with nothing left to do
                self._town.revive()
            self._killed.append(point)

    # What people do

    def _ask(self, duration: str) -> str:
        """What was not acknowledged is typed again: maybe it counted, and then there are two."""
        words = f"request {' '.join(self._town.servers)} for {duration} because {self._reason}"
        self._type("unlink")
        page = self._sign_in(self._type(words))
        if found := _REQUEST.search(page):
            return found[0]
        with suppress(TimeoutError):  # it was filed by the Passport that died, or is by the one that came after
            return min(self._town.wait(self._ours, "the parked request"))
        self._town.faults.append(f"the parked request was lost: {page}")
        typed = self._type(words).plain
        found = _REQUEST.search(typed)
        assert found, f"{page}\n{typed}"
        return found[0]

    def _type(self, words: str) -> Delivery:
        done = self._town.insist(lambda: self._town.ana.slack.command(COMMAND, words))
        assert done is not None
        return done

    def _sign_in(self, said: Delivery) -> str:
        """Follow the link, and a new one if that is used up; the last page."""
        while True:
            assert said.message is not None
            with suppress(LookupError):  # three at a time, and no more: then the last one is still good
                self._town.link = first_url(said.message)
            page = self._reach(lambda: self._town.company.sign_in(self._town.ana, self._town.link))
            if page is not None and "You are signed in" in page:
                return page
            said = self._type("link")

    def _reach(self, act: Callable[[], T]) -> T | None:
        """Ask Passport's pages; None where it died of that."""
        try:
            return act()
        except requests.ConnectionError:
            self._town.revive()
            return None

    def _review_herself(self, request_id: str) -> None:
        self._town.wait(lambda: self._card(request_id, "review.approve"), f"the card of {request_id}")
        self._until_told("cannot review your own request", lambda: self._click_card(request_id, by_herself=True))

    def _add_key(self) -> None:
        assert self.laptop.fingerprint in self._type(f"key add {self.laptop.line}").plain
        assert self.laptop.fingerprint in self._type("setup").plain

    def _approve(self, request_id: str) -> None:
        self._town.insist(lambda: self._click_card(request_id))

    def _is_open(self, request_id: str) -> bool:
        ready = found_by(self._town.ana, "credentials.show", request_id)
        return ready is not None and "still being opened" not in ready.plain

    def _click_card(self, request_id: str, *, by_herself: bool = False) -> Delivery | None:
        card = self._card(request_id, "review.approve")
        who = self._town.ana if by_herself else self._town.ben
        return who.slack.click(card, "review.approve") if card else None

    def _use(self, request_id: str) -> None:
        """Credentials on the screen, a certificate for each Linux server, and a tunnel to every one."""
        self._enter(USE)
        self._until_told("Credentials for", lambda: self._click(request_id, "credentials.show"))
        for server in self._town.servers:
            if server in self._town.windows:
                self._get("rdp", server)
            else:
                self._get("certificate", server)
                self._get("tunnel", server)

    def _get(self, act: str, server: str) -> None:
        """What the script on the laptop asks for; what came is remembered."""
        home = {"home": self._town.passport.url}
        answer: Answer | None = None
        while not answer:
            answer = self._reach(lambda: self.laptop.ask(act, server, stated=home))
        assert answer["status"] == ["ready"], answer
        if act == "certificate":
            certificate = load_ssh_public_identity(answer["certificate"][0].encode())
            assert isinstance(certificate, SSHCertificate)
            self._received.add(str(certificate.serial))
        else:
            found = re.search(r'"SessionId": ?"([^"]+)"', answer["response"][0])
            assert found, answer
            self._received.add(found[1])

    def _until_told(self, words: str, click: Callable[[], Delivery | None]) -> None:
        """What is shown only on a screen: where it does not appear, the button is pressed again."""
        town = self._town
        before = len(town.ana.slack.ephemerals())
        while not self._appeared(words, before):
            deaths = town.deaths
            town.insist(click)
            town.wait(partial(self._is_answered, words, before, deaths), f"{words!r} on the screen")

    def _is_answered(self, words: str, before: int, deaths: int) -> bool:
        return self._appeared(words, before) or self._town.deaths > deaths

    def _appeared(self, words: str, before: int) -> bool:
        return any(words in message.text for message in self._town.ana.slack.ephemerals()[before:])

    def _closed(self, request_id: str) -> bool:
        messages = self._town.ana.slack.direct_messages()
        return any(_CLOSED.search(message.plain) for message in messages if request_id in message.plain)

    def _tidy_up(self, request_id: str) -> None:
        """Ana takes back what she typed twice, and her key."""
        for other in self._ours() - {request_id}:
            self._town.wait(partial(found_by, self._town.ana, "request.cancel", other), f"{other} to cancel")
            self._town.insist(partial(self._click, other, "request.cancel"))
        self._type(f"key remove {self.laptop.fingerprint}")

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

    def _aftermath(self, request_id: str) -> Aftermath:
        return Aftermath(
            town=self._town,
            request_id=request_id,
            ours=self._ours(),
            deaths=self._town.deaths - self._began,
            killed=len(self._killed),
            repeats=self._repeats,
            received=self._received,
        )

    def _wait_for_quiet(self) -> None:
        """Everything is over, and Slack shows it."""
        self._town.wait(self._is_quiet, "Slack to catch up")

    def _is_quiet(self) -> bool:
        with self._town.beside() as store, store.unit_of_work(read_only=True) as uow:
            head, stale = uow.audit.head(), uow.posts.stale(wiring.now() + timedelta(days=1), 1)
            open_ones = [request for request in uow.requests.find(limit=100_000) if request.state.value not in _OVER]
        return not stale and not open_ones and channel_head(self._town.audit_messages()) == head.sequence
