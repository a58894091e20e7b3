"""The one translation of errors into what a person reads."""

import logging
import secrets
from dataclasses import replace

from access.errors import DuplicateDeliveryError, PassportError, RefusedError, SignInNeededError, TransitionError
from access.service.desk import Caller
from handlers import blocks
from handlers.replies import Reply
from handlers.surface import Surface

log = logging.getLogger(__name__)


class Translation:
    """From an exception to a sentence, with a way on where there is one."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def reply(self, error: Exception, caller: Caller) -> Reply | None:
        """What the person reads; None where a repeated delivery has had its answer already."""
        if isinstance(error, DuplicateDeliveryError):
            return None
        if isinstance(error, SignInNeededError):
            return self._sign_in(error, caller)
        if isinstance(error, PassportError) and not isinstance(error, TransitionError):
            return Reply.plain(error.sentence)
        return broken(error)

    def _sign_in(self, error: SignInNeededError, caller: Caller) -> Reply | None:
        try:
            # a key of its own: the delivery itself was not acted upon, and a replay must get no second link
            token = self._surface.linking.begin(replace(caller, delivery=f"{caller.delivery}/sign-in"))
        except DuplicateDeliveryError:
            return None
        except RefusedError as enough:
            return Reply.plain(f"You are not signed in. {enough.sentence}")
        except Exception as other:  # noqa: BLE001 - whatever it is, the person hears of it and the log has it
            return broken(other)
        return Reply.plain(error.sentence, blocks.sign_in_button(self._surface.link_url(token)))


def broken(error: Exception) -> Reply:
    """Log what nobody foresaw under an id, and give the person that id instead of a traceback."""
    number = secrets.token_hex(4)
    log.error("Something broke (id %s)", number, exc_info=error)
    return Reply.plain(
        f"Something broke on my side (id {number}). Nothing was lost; try again, "
        "and tell whoever runs Passport that id if it stays so."
    )
