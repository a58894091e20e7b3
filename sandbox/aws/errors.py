"""An answer of AWS that says no."""

from __future__ import annotations

# The botocore model calls these 400; anything else names its status where it is raised.
DEFAULT_STATUS = 400


class AwsError(Exception):
    """A refusal with AWS's own code, as its JSON protocol reports it."""

    def __init__(self, code: str, message: str = "", *, status: int = DEFAULT_STATUS) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


class AnswerLostError(Exception):
    """The call was taken, and its answer never arrives."""
