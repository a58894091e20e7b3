"""A story as it is played: people act as planned, again where Slack says that the app did not answer."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from access.errors import PassportError
from sandbox.company import COMMAND
from sandbox.idp.browser import BrowserError
from sandbox.reading import code_blocks, wait_for, with_button
from sandbox.slack import Message
from sandbox.slack.deliveries import Delivery
from sandbox.slack.people import Person
from sandbox.slack.wire import NotPossibleError
from tests.soak.ground import Ground
from tests.soak.plan import Plan
from tests.soak.told import APPROVED, CANCELLED, COMPLETED, DENIED, REVOKED, Told
from tests.stores import run_together

PATIENCE = 30.0  # seconds that people wait for something before they give up
_REASON = {"reason": "not now"}
_REQUEST = re.compile(r"AR-[0-9A-Z]{4,8}")
_PLANT = "crontab - <<< '* * * * * true'; (sleep 900 & sudo -n sleep 901 &) ; echo x > /dev/shm/left-behind"


class GaveUpError(Exception):
    """Something did not come as people expect it on a calm day."""


# What an act may end with while things are down; on a calm day it is a violation like any other.
SETBACKS = (
    GaveUpError,
    TimeoutError,
    LookupError,
    NotPossibleError,
    BrowserError,
    OSError,
    PassportError,
    subprocess.SubprocessError,
)


def stories(ground: Ground, plan: Plan) -> "list[Story]":
    """The story of the plan, and the one beside it."""
    return [Story(ground, each) for each in (plan, plan.beside) if each]


class Story:
    """One plan, played to its end."""

    def __init__(self, ground: Ground, plan: Plan) -> None:
        self._ground, self._plan = ground, plan
        self._company = ground.company
        people = ground.company.people
        self._asker = people[plan.requester]
        self._other = people["cleo" if plan.requester == "ana" else "ana"]
        self.told = Told(email=self._asker.email, servers=frozenset(plan.servers), seconds=plan.seconds)

    def play(self) -> Told:
        """Everything, as far as the weather allows; says what it met."""
        try:
            self._play()
        except SETBACKS as setback:
            self.told.setback = f"{type(setback).__name__}: {setback}"
        return self.told

    def _play(self) -> None:
        if self._plan.slip:
            self._insist(lambda: self._asker.slack.command(COMMAND, self._plan.slip))
        self._ask()
        self._decide()
        if not self._plan.decision.startswith("approve") or self._ground.state(self.told.request_id) == "denied":
            return
        ready = self._ready()
        if ready is None:
            return
        self.told.opened = True
        if self._plan.logs_in:
            self._log_in(ready)
        self._end(ready)

    def _ask(self) -> None:
        if self._plan.relinks:
            self._insist(lambda: self._asker.slack.command(COMMAND, "unlink"))
        words = f"request {' '.join(self._plan.servers)} for {self._plan.seconds}s because story {self._plan.number}"
        sent = self._insist(lambda: self._type_request(words))
        if self._plan.repeats:
            self._company.slack.resend(sent)
        found = _REQUEST.search(self._sign_in_again() if self._plan.relinks else sent.plain)
        if found is None:
            raise GaveUpError(f"no request: {sent.plain}")
        self.told.request_id = found[0]

    def _type_request(self, words: str) -> Delivery:
        self.told.typed += 1
        return self._asker.slack.command(COMMAND, words)

    def _sign_in_again(self) -> str:
        """The page after the sign-in, tried again while it fails."""

        def page() -> str | None:
            with suppress(*SETBACKS):
                return self._ground.sign_in(self._asker)
            return None

        return wait_for(page, "a sign-in", seconds=PATIENCE)

    def _decide(self) -> None:
        ben, dora = (reviewer.slack for reviewer in self._ground.reviewers)
        if self._plan.tries_alone:
            self._asker.slack.click(self._card(), "review.approve")
        match self._plan.decision:
            case "approve":
                card = self._card()
                clicked = self._insist(lambda: self._approve(ben, card))
                if self._plan.repeats:
                    self._company.slack.resend(clicked)
            case "approve twice":
                card = self._card()
                run_together(*(partial(self._approve, who, card) for who in (ben, dora, ben)))
                self._insist(lambda: self._approve(ben, card))
            case "approve and deny":
                card = self._card()
                self._open_form(dora, card)
                run_together(partial(self._approve, ben, card), partial(self._deny, dora))
                self._insist(lambda: self._approve(ben, card))
            case "deny":
                self._open_form(ben, self._card())
                self._deny(ben)
            case "cancel":
                self._cancel()

    def _approve(self, reviewer: Person, card: Message) -> Delivery:
        self._note(APPROVED, reviewer)
        return reviewer.click(card, "review.approve")

    def _deny(self, reviewer: Person) -> Delivery:
        """A form that closes was counted; one that stays says why not."""
        self._note(DENIED, reviewer)
        sent = reviewer.submit(None, _REASON)
        if sent.ok and not sent.json():
            self.told.answered.add(DENIED)
        return sent

    def _cancel(self) -> None:
        self._note(CANCELLED, self._asker.slack)
        sent = self._insist(lambda: self._asker.slack.command(COMMAND, f"cancel {self.told.request_id}"))
        if f"{self.told.request_id} is cancelled" in sent.plain:
            self.told.answered.add(CANCELLED)

    def _note(self, act: str, who: Person) -> None:
        self.told.said.add((act, who.member.real_name))

    def _card(self) -> Message:
        return wait_for(
            lambda: with_button(self._ground.cards(), "review.approve", self.told.request_id),
            "the card",
            seconds=PATIENCE,
        )

    def _open_form(self, reviewer: Person, card: Message) -> None:
        """Deny…; a form of an earlier story that was never sent is closed first."""
        if reviewer.view():
            reviewer.close()
        self._insist(lambda: reviewer.click(card, "review.deny"))
        wait_for(reviewer.view, "the form that asks why not", seconds=PATIENCE)

    def _ready(self) -> Message | None:
        """The message that all servers are open; None where the time was up before they were."""

        def ready() -> Message | None:
            found = with_button(self._asker.slack.direct_messages(), "credentials.show", self.told.request_id)
            return None if found is None or "still being opened" in found.plain else found

        try:
            return wait_for(ready, "the servers to be open", seconds=min(PATIENCE, self._plan.seconds + 5))
        except TimeoutError:
            if self._plan.end == "expires":
                return None
            raise

    def _log_in(self, ready: Message) -> None:
        install, commands = self._credentials(ready)
        self.told.logins = commands
        self._company.shell(self._asker, install)
        for command in commands:
            done = self._company.shell(self._asker, f"{command} 'id -un; sudo -n id -u'")
            self.told.logged_in += done.returncode == 0
            if done.returncode and self._plan.end != "expires":
                raise GaveUpError(f"no login: {done.stderr[-300:]}")
            if self._plan.plants:
                self._company.shell(self._asker, f"""{command} "bash -c \\"{_PLANT}\\" </dev/null >/dev/null 2>&1" """)
        if self._plan.thief:
            self._try_theft(commands)

    def _try_theft(self, commands: list[str]) -> None:
        """The other one has the certificates, but not the key."""
        loot = self._other.home / ".ssh/passport"
        shutil.copytree(self._asker.home / ".ssh/passport", loot, dirs_exist_ok=True)
        done = [self._company.shell(self._other, f"{command} true") for command in commands]
        shutil.rmtree(loot)
        if any(each.returncode != 255 for each in done):
            self.told.intruded = f"{self._other.email} got in with the certificate of {self._asker.email}"

    def _credentials(self, ready: Message) -> tuple[str, list[str]]:
        before = len(self._asker.slack.ephemerals())
        self._insist(lambda: self._asker.slack.click(ready, "credentials.show"))
        blocks = wait_for(lambda: self._shown(before), "the credentials", seconds=PATIENCE)
        first = next(number for number, block in enumerate(blocks) if block.startswith("ssh "))
        lines = [line for block in blocks[first:] for line in block.splitlines() if line.startswith("ssh ")]
        return "\n".join(blocks[:first]), lines

    def _shown(self, before: int) -> list[str]:
        """The code of the message that shows credentials, once it is there."""
        for message in self._asker.slack.ephemerals()[before:]:
            blocks = code_blocks(message)
            if any(block.startswith("ssh ") for block in blocks):
                return blocks
        return []

    def _end(self, ready: Message) -> None:
        ben = self._ground.reviewers[0].slack
        if self._plan.end == "done":
            self._note(COMPLETED, self._asker.slack)
            self._insist(lambda: self._asker.slack.click(ready, "request.complete"))
        if self._plan.end == "revoked":
            self._note(REVOKED, ben)
            words = f"revoke {self.told.request_id} because story {self._plan.number} is over"
            sent = self._insist(lambda: ben.command(COMMAND, words))
            if f"{self.told.request_id} ends now" in sent.plain:
                self.told.answered.add(REVOKED)

    def _insist(self, act: Callable[[], Delivery]) -> Delivery:
        """Do it again for as long as Slack says that the app did not answer; raises GaveUpError."""
        deadline = time.monotonic() + PATIENCE
        while not (done := act()).ok:
            if time.monotonic() > deadline:
                raise GaveUpError(f"no answer: {done.kind} {done.error} {done.status}")
            time.sleep(0.3)
        return done
