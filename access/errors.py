"""Everything Passport raises on purpose.

PassportError                     its text is one plain sentence for the person
├── InvalidInputError             the words cannot be understood; says which and what would be right
├── RefusedError                  understood, and not allowed; goes to the audit log
│   └── AlreadyDecidedError       someone else was first, or it is over
├── NotFoundError                 there is no such request, server, key or link
├── SignInNeededError             no live link; the person signs in and goes on
├── DuplicateDeliveryError        this very delivery was acted upon before
├── UnavailableError              something outside does not answer; trying again later helps
│   └── BusyError                 too many ask for the same at this moment; says when to try again
└── TransitionError               a bug: the lifecycle has no such transition
"""

from datetime import timedelta


class PassportError(Exception):
    """The root of what Passport raises; ``sentence`` is fit to be shown."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class InvalidInputError(PassportError):
    """What the person typed cannot be understood; ``field`` names the part (``servers``, ``duration``, …)."""

    def __init__(self, sentence: str, *, field: str = "") -> None:
        super().__init__(sentence)
        self.field = field


class RefusedError(PassportError):
    """What was asked is understood and not allowed."""


class AlreadyDecidedError(RefusedError):
    """The request was decided, or ended, before this act."""


class NotFoundError(PassportError):
    """Nothing by that name exists, or it is not this person's to see."""


class SignInNeededError(PassportError):
    """The act needs a live link between the Slack user and a person."""


class DuplicateDeliveryError(PassportError):
    """This delivery of Slack was acted upon before; ``subject`` says what came of it (a request id or "")."""

    def __init__(self, subject: str) -> None:
        super().__init__("I have done this already. Nothing changed.")
        self.subject = subject


class UnavailableError(PassportError):
    """Something outside does not answer now."""


class BusyError(UnavailableError):
    """Too many ask for the same just now; trying again after ``retry_in`` helps."""

    def __init__(self, sentence: str, *, retry_in: timedelta) -> None:
        super().__init__(sentence)
        self.retry_in = retry_in


class TransitionError(PassportError):
    """The lifecycle allows no such transition: a bug in Passport."""
