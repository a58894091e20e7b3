"""Ending access: the requester is done, or a reviewer or admin revokes it."""

from slack_bolt import App

from access.service.submitting import REASON_LENGTH
from handlers import blocks, ids, phrases
from handlers.listening import Form, Listening
from handlers.operands import parse_request_id
from handlers.replies import Reply
from handlers.responding import Responding
from handlers.surface import Surface
from handlers.turn import Turn
from handlers.understood import Revoke


class Ends:
    """``/passport done`` and ``revoke``, and their buttons."""

    def __init__(self, surface: Surface, responding: Responding) -> None:
        self._surface = surface
        self._responding = responding

    def register(self, app: App, listening: Listening) -> None:
        """Two buttons and a form."""
        app.action(ids.REQUEST_COMPLETE)(listening.click(self.complete))
        app.action(ids.REQUEST_REVOKE)(listening.click(self.ask_why))
        app.view(ids.REQUEST_REVOKE_MODAL)(listening.form(self._revoked, fields={"": ids.REASON}))

    def complete(self, turn: Turn, request_id: str) -> Reply:
        """The requester is done; without an id, with the only one that runs."""
        wanted = parse_request_id(request_id) if request_id else ""
        request = self._surface.ending.complete(turn.caller, wanted)
        return Reply.plain(f"{request.id} ends now. I tell you when everything is removed.")

    def revoke(self, turn: Turn, wanted: Revoke) -> Reply | None:
        """End somebody's access; without a reason the form asks for it."""
        if not wanted.reason:
            self.ask_why(turn, wanted.request_id)
            return None
        request = self._surface.ending.revoke(turn.caller, wanted.request_id, wanted.reason)
        return Reply.plain(f"{request.id} ends now. {request.person_name}'s processes are stopped, the user removed.")

    def ask_why(self, turn: Turn, request_id: str) -> None:
        """Open the form, for those who may see the request."""
        request = self._surface.submitting.status(turn.caller, parse_request_id(request_id)).request
        about = f"{phrases.shown(request.person_name)}: {phrases.asked_for(request)} ({request.id})."
        view = blocks.reason_modal(
            "Revoke this access",
            about=about,
            callback_id=ids.REQUEST_REVOKE_MODAL,
            submit="Revoke",
            request_id=request.id,
            most=REASON_LENGTH,
        )
        self._responding.open_modal(turn, view)

    def _revoked(self, turn: Turn, form: Form) -> None:
        self._surface.ending.revoke(turn.caller, parse_request_id(form.metadata), form.text(ids.REASON))
