"""A reviewer's click on the card: approve, approve for a shorter time, deny with a reason."""

from dataclasses import replace
from datetime import timedelta

from slack_bolt import App

from access.errors import InvalidInputError
from access.model import RequestState, Verdict
from access.service.submitting import REASON_LENGTH, Standing
from access.words import duration_words
from handlers import blocks, ids, phrases
from handlers.listening import Form, Listening
from handlers.operands import parse_request_id
from handlers.replies import Reply
from handlers.responding import Responding
from handlers.surface import Surface
from handlers.turn import Turn


class Reviews:
    """The buttons of the card and the form that asks why not."""

    def __init__(self, surface: Surface, responding: Responding) -> None:
        self._surface = surface
        self._responding = responding

    def register(self, app: App, listening: Listening) -> None:
        """Three buttons and a form."""
        app.action(ids.REVIEW_APPROVE)(listening.click(self.approve))
        app.action(ids.REVIEW_APPROVE_SHORTER)(listening.click(self.approve))
        app.action(ids.REVIEW_DENY)(listening.click(self.ask_why))
        app.view(ids.REVIEW_DENY_MODAL)(listening.form(self.deny, fields={"": ids.REASON}))

    def approve(self, turn: Turn, value: str) -> Reply:
        """Count the approval; the value may end with the minutes that the button promised."""
        request_id, duration = _parsed(value)
        if self._is_left_behind(turn, request_id):
            return _SENT_TWICE
        standing = self._surface.reviewing.review(turn.caller, request_id, Verdict.APPROVE, duration=duration)
        return Reply.plain(_approved(standing))

    def ask_why(self, turn: Turn, value: str) -> Reply | None:
        """Open the form, for those who may decide."""
        request_id, _ = _parsed(value)
        if self._is_left_behind(turn, request_id):
            return _SENT_TWICE
        request = self._surface.reviewing.look(turn.caller, request_id).request
        about = f"{phrases.shown(request.person_name)} asks for {phrases.asked_for(request)}.\n"
        view = blocks.reason_modal(
            "Deny this request",
            about=about + phrases.quoted(request.reason, 2000),
            callback_id=ids.REVIEW_DENY_MODAL,
            submit="Deny",
            request_id=request.id,
            most=REASON_LENGTH,
        )
        self._responding.open_modal(turn, view)
        return None

    def deny(self, turn: Turn, form: Form) -> None:
        """Count the denial with its reason; the card says the rest."""
        request_id = parse_request_id(form.metadata)
        self._surface.reviewing.review(turn.caller, request_id, Verdict.DENY, reason=form.text(ids.REASON))

    def _is_left_behind(self, turn: Turn, request_id: str) -> bool:
        return self._surface.reviewing.is_left_behind(request_id, turn.channel, turn.message_ts)


_SENT_TWICE = replace(
    Reply.plain("I sent this card twice, and this one no longer counts. Decide on the other one in this channel."),
    takes_place=True,
)


def _parsed(value: str) -> tuple[str, timedelta | None]:
    request_id, _, minutes = value.partition(" ")
    if not minutes:
        return parse_request_id(request_id), None
    if not minutes.isdecimal() or not minutes.isascii() or len(minutes) > 5:
        raise InvalidInputError("I do not know this button any more. Use /passport status to see where it stands.")
    return parse_request_id(request_id), timedelta(minutes=int(minutes))


def _approved(standing: Standing) -> str:
    request = standing.request
    approvals = sum(review.verdict is Verdict.APPROVE for review in standing.reviews)
    if request.state is RequestState.PENDING:
        more = request.terms.quorum - approvals
        return f"Your approval of {request.id} counts. It needs {more} more."
    return f"Approved {request.id}: {request.person_name}, {duration_words(request.duration)}."
