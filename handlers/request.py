"""Asking for access, and taking it back before anybody has decided."""

from slack_bolt import App

from access.errors import (
    DuplicateDeliveryError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    SignInNeededError,
    UnavailableError,
)
from access.model import AccessRequest
from access.ports import Inventory
from access.service.desk import Caller
from access.service.submitting import Parked
from access.words import duration_words
from handlers import blocks, ids, mrkdwn, phrases
from handlers.blocks import Block
from handlers.listening import Form, Listening
from handlers.named_only import NamedOnly
from handlers.operands import parse_request_id
from handlers.replies import Reply
from handlers.request_form import FIELDS, request_form, server_option, submission_of
from handlers.responding import Responding
from handlers.surface import Surface
from handlers.turn import Turn
from handlers.understood import Parsed

IN_ONE_LINE = "Or say it in one line: /passport request web-1 for 2h because INC-123: disk full"


class Requests:
    """``/passport request``, its form, and ``cancel``."""

    def __init__(self, surface: Surface, responding: Responding) -> None:
        self._surface = surface
        self._responding = responding

    def register(self, app: App, listening: Listening) -> None:
        """The form with its options, and the Cancel button."""
        keeps = (InvalidInputError, NotFoundError, RefusedError, UnavailableError)
        app.view(ids.REQUEST_MODAL)(listening.form(self._submitted, fields=FIELDS, keeps=keeps))
        app.options(ids.REQUEST_SERVERS)(listening.options(self._options))
        app.action(ids.REQUEST_CANCEL)(listening.click(self.cancel))

    def ask(self, turn: Turn, parsed: Parsed) -> Reply | None:
        """File it, or open the form for what is missing."""
        if parsed.missing:
            return self._open(turn, parsed)
        try:
            done = self._surface.submitting.submit(turn.caller, parsed.submission)
        except DuplicateDeliveryError as again:
            return self._same_as_before(turn, again)
        return self._parked(turn, done) if isinstance(done, Parked) else asked(done.request)

    def cancel(self, turn: Turn, request_id: str) -> Reply:
        """Take it back."""
        request = self._surface.submitting.cancel(turn.caller, parse_request_id(request_id))
        return Reply.plain(f"{request.id} is cancelled. Nobody needs to decide any more.")

    def _open(self, turn: Turn, parsed: Parsed) -> Reply | None:
        try:
            self._responding.open_modal(turn, request_form(parsed, self._inventory(turn), self._surface.policy))
        except UnavailableError as error:
            return Reply.plain(f"{error.sentence} {IN_ONE_LINE}")
        return None

    def _submitted(self, turn: Turn, form: Form) -> Reply | None:
        """The form closes over what was filed; a direct message says the rest."""
        done = self._surface.submitting.submit(turn.caller, submission_of(form))
        return self._parked(turn, done) if isinstance(done, Parked) else None

    def _options(self, turn: Turn, text: str) -> list[Block]:
        found = self._inventory(turn).search(text, blocks.MAX_OPTIONS)
        return [server_option(server) for server in found[: blocks.MAX_OPTIONS]]

    def _inventory(self, turn: Turn) -> Inventory:
        """Which servers there are is not for everybody in the workspace."""
        inventory = self._surface.inventory
        return inventory if self._surface.linking.knows(turn.caller) else NamedOnly(inventory)

    def _parked(self, turn: Turn, done: Parked) -> Reply:
        # no delivery: the park was counted under it, and a repeat of it does not come here
        try:
            token = self._surface.linking.begin(Caller(slack_user=turn.caller.slack_user))
        except RefusedError as enough:
            return Reply.plain(f"{_KEPT} {enough.sentence}")
        button = blocks.sign_in_button(self._surface.link_url(token))
        if done.linked_at is None:
            return Reply.plain(f"I do not know who you are yet. {_KEPT}", button)
        ends = "ends before this access would" if self._is_linked(turn) else "has run out"
        plain = f"Your sign-in from {done.linked_at:%H:%M} UTC {ends}. {_KEPT}"
        seen = f"Your sign-in from {mrkdwn.clock(done.linked_at)} {ends}. {_KEPT}"
        return Reply(sentence=plain, blocks=(blocks.section(seen), button))

    def _is_linked(self, turn: Turn) -> bool:
        try:
            self._surface.linking.whoami(turn.caller)
        except SignInNeededError:
            return False
        return True

    def _same_as_before(self, turn: Turn, again: DuplicateDeliveryError) -> Reply:
        if not again.subject:
            return Reply.plain(again.sentence)
        return asked(self._surface.submitting.status(turn.caller, again.subject).request)


_KEPT = "I keep this request and send it when you are back."


def asked(request: AccessRequest) -> Reply:
    """The request is with its reviewers."""
    length, lapses = duration_words(request.duration), request.lapses_at
    several = request.terms.quorum > 1
    when = f"{request.terms.quorum} of them have decided" if several else "one decides"
    who, what = phrases.reviewers(request), phrases.asked_for(request)
    seen = (
        f"Asked {who} for {what}, {length} ({request.id}), by rule {request.terms.rule}. "
        f"I tell you when {when}. Lapses {mrkdwn.clock(lapses)}."
    )
    names = ", ".join(server.name for server in request.servers[:6])
    plain = f"Asked for {names}, {length} ({request.id}). I tell you when {when}. Lapses {lapses:%H:%M} UTC."
    cancel = blocks.actions(blocks.button("Cancel", ids.REQUEST_CANCEL, value=request.id))
    return Reply(sentence=plain, blocks=(blocks.section(seen), cancel))
