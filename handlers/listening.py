"""From Bolt's listeners to plain functions: who called goes in, a reply comes out, errors are translated once."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from slack_bolt import Ack, BoltContext, BoltResponse

from access.about import about
from access.errors import InvalidInputError, PassportError
from handlers.blocks import Block
from handlers.errors import Translation
from handlers.gate import TURN
from handlers.replies import Reply
from handlers.responding import Responding
from handlers.turn import Turn

Listener: TypeAlias = Callable[..., BoltResponse | None]


class Form:
    """A submitted modal."""

    def __init__(self, view: Mapping[str, Any]) -> None:
        self.metadata = str(view.get("private_metadata") or "")
        self._values: Mapping[str, Mapping[str, Any]] = (view.get("state") or {}).get("values") or {}

    def text(self, block_id: str) -> str:
        """What was typed, "" for nothing."""
        return str(self._element(block_id).get("value") or "")

    def choice(self, block_id: str) -> str:
        """The value of the option chosen, "" for none."""
        return str((self._element(block_id).get("selected_option") or {}).get("value") or "")

    def choices(self, block_id: str) -> tuple[str, ...]:
        """The values of the options chosen."""
        return tuple(str(option["value"]) for option in self._element(block_id).get("selected_options") or [])

    def _element(self, block_id: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._values.get(block_id, {}).get(block_id, {})
        return found


class Listening:
    """Makes Bolt's listeners out of the journeys' methods."""

    def __init__(self, responding: Responding, translation: Translation) -> None:
        self._responding = responding
        self._translation = translation

    def command(self, act: Callable[[Turn, str], Reply | None]) -> Listener:
        """``act`` gets the text; its reply rides on the ack."""

        def listener(ack: Ack, body: dict[str, Any], context: BoltContext) -> None:
            turn: Turn = context[TURN]
            text = str(body.get("text") or "")
            with about(text):
                reply = self._attempt(turn, lambda: act(turn, text))
            if reply:
                ack(reply.body)
            else:
                ack()

        return listener

    def click(self, act: Callable[[Turn, str], Reply | None]) -> Listener:
        """``act`` gets the button's value and is done with before the ack; its reply goes to the response_url."""

        def listener(ack: Ack, body: dict[str, Any], context: BoltContext) -> BoltResponse | None:
            turn: Turn = context[TURN]
            value = str(body["actions"][0].get("value") or "")
            with about(value):
                failed = self._responding.answer(turn, lambda: self._attempt(turn, lambda: act(turn, value)))
            return failed or ack()

        return listener

    def form(
        self,
        act: Callable[[Turn, Form], Reply | None],
        *,
        fields: Mapping[str, str],
        keeps: tuple[type[PassportError], ...] = (InvalidInputError,),
    ) -> Listener:
        """``act`` gets the form; no reply closes it, a reply takes its place.

        Errors of the kinds in ``keeps`` are shown beneath the block that ``fields`` names for theirs, or the one
        under "", so that what was typed stays.
        """

        def listener(ack: Ack, body: dict[str, Any], context: BoltContext) -> None:
            form = Form(body["view"])
            with about(form.metadata):
                submitted(ack, form, context[TURN])

        def submitted(ack: Ack, form: Form, turn: Turn) -> None:
            try:
                reply = act(turn, form)
            except keeps as error:
                name = error.field if isinstance(error, InvalidInputError) else ""
                block = fields.get(name, fields[""])
                ack(response_action="errors", errors={block: error.sentence[:1000]})
                return
            except Exception as error:  # noqa: BLE001 - the translation logs what it does not know
                reply = self._translation.reply(error, turn.caller)
            if reply:
                ack(response_action="update", view=reply.modal())
            else:
                ack()

        return listener

    def options(self, search: Callable[[Turn, str], list[Block]]) -> Listener:
        """``search`` gets what was typed into a select."""

        def listener(ack: Ack, body: dict[str, Any], context: BoltContext) -> None:
            ack(options=search(context[TURN], str(body.get("value") or "")))

        return listener

    def _attempt(self, turn: Turn, act: Callable[[], Reply | None]) -> Reply | None:
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - the translation logs what it does not know
            return self._translation.reply(error, turn.caller)
