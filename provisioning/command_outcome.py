"""What a command came to on one server."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The script ran to an end; ``output`` is what it printed, as yet unread."""

    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Unanswered:
    """The script did not run, or its end is not known; ``reason`` is a sentence."""

    reason: str
    retryable: bool
    silent: bool = False  # the agent gave no sign of life
    never_sent: bool = False  # AWS refused the only try of it, for certain
