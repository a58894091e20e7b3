"""What every part of the Slack double shares: JSON, ids, time, and the ways things go wrong."""

import itertools
import secrets
import threading
import time
from typing import Any, TypeAlias

# Slack's JSON is open-ended; the checks in `blocks` are what gives it a shape.
Json: TypeAlias = dict[str, Any]


class SlackError(Exception):
    """Slack's answer `ok: false`, with the code that Slack's documentation names."""

    def __init__(self, code: str, *messages: str, **extra: str) -> None:
        super().__init__(code, *messages)
        self.code = code
        self.messages = messages
        self.extra = extra

    def answer(self) -> Json:
        """The body that Slack sends."""
        body: Json = {"ok": False, "error": self.code, **self.extra}
        if self.messages:
            body["response_metadata"] = {"messages": list(self.messages)}
            body["errors"] = [message.removeprefix("[ERROR] ") for message in self.messages]
        return body


class NotPossibleError(Exception):
    """A person tried what Slack's own client would not let them do."""


class Clock:
    """Time for whatever expires; a test moves it forward instead of waiting."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Seconds since 1970, as the double sees them."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let that much time pass at once."""
        self._ahead += seconds


class Ids:
    """Message timestamps and ids that never repeat, whichever thread asks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0
        self._numbers = itertools.count(1)

    def ts(self) -> str:
        """The next message timestamp, always later than the one before."""
        with self._lock:
            self._last = max(self._last + 1, int(self._clock.now() * 1_000_000))
            return f"{self._last // 1_000_000}.{self._last % 1_000_000:06d}"

    def next(self, prefix: str) -> str:
        """An id such as `V000A`, in Slack's capitals."""
        with self._lock:
            return f"{prefix}{next(self._numbers):06X}"

    def trigger(self) -> str:
        """A trigger id, which nobody can guess."""
        return f"{self.ts()}.{secrets.token_hex(16)}"
