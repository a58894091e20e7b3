"""A message as it shall be, and the names by which the database knows it."""

from dataclasses import dataclass

from handlers.blocks import Block

REVIEWERS, REQUESTER = "reviewers", "requester"  # audiences
CARD, ASKED, READY, DENIED, LAPSED, ENDED = "card", "asked", "ready", "denied", "lapsed", "ended"  # stages


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A message as it shall be. ``closed``: change it where it is shown, but do not ring anybody up for it."""

    audience: str
    recipients: tuple[str, ...]  # channels, users, and user groups whose members are meant
    stage: str
    text: str  # what a locked phone shows
    blocks: tuple[Block, ...]
    closed: bool = False
