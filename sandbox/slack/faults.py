"""Ways in which Slack can fail on demand, and its real rate limits."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from sandbox.slack.wire import Clock, SlackError


class RateLimitedError(Exception):
    """Slack answers 429 with this Retry-After."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class BrokenAnswerError(Exception):
    """Slack closes the connection without an answer (status None) or with a bare HTTP status."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__(status)
        self.status = status


@dataclass(slots=True)
class _Fault:
    method: str | None
    times: int | None
    act: Callable[[], None]
    after_the_call: bool = False


class Faults:
    """What the next calls meet; every fault ends by its count, its time or `clear`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self._down_until = 0.0
        self._downs = 0
        self._fall: list[Callable[[], None]] = []
        self._held: list[Callable[[], object]] | None = None
        self._closing = threading.Event()

    def down(self, seconds: float | None = None) -> AbstractContextManager[None]:
        """Refuse every call, deliver nothing, end every socket: for some seconds, or as long as a `with` block lasts."""
        if seconds is not None:
            self._down_until = time.monotonic() + seconds
            self._go_down()
            return _nothing()
        return self._down_for_the_block()

    @property
    def is_down(self) -> bool:
        """Whether Slack is down now."""
        return self._downs > 0 or time.monotonic() < self._down_until

    def when_down(self, act: Callable[[], None]) -> None:
        """Do this, too, whenever Slack goes down."""
        self._fall.append(act)

    @contextmanager
    def hold_back(self) -> Iterator[list[Callable[[], object]]]:
        """Let what is sent to the app in a `with` block wait; it arrives when, and in the order in which, it is called."""
        held: list[Callable[[], object]] = []
        self._held = held
        try:
            yield held
        finally:
            self._held = None

    def holds_back(self, deliver: Callable[[], object]) -> bool:
        """Whether this delivery has to wait; it is kept then."""
        held = self._held
        if held is not None:
            held.append(deliver)
        return held is not None

    def rate_limit(self, method: str | None = None, *, retry_after: int = 30, times: int | None = 1) -> None:
        """Answer 429 to the next calls (of one method, or any)."""
        self._add(_Fault(method, times, _raiser(RateLimitedError(retry_after))))

    def fail(self, method: str | None, error: str, *, times: int | None = 1) -> None:
        """Answer `ok: false` with this error."""
        self._add(_Fault(method, times, _raiser(SlackError(error))))

    def http_error(self, method: str | None = None, *, status: int = 503, times: int | None = 1) -> None:
        """Answer with an HTTP error that is not Slack's JSON."""
        self._add(_Fault(method, times, _raiser(BrokenAnswerError(status))))

    def slow(self, seconds: float, method: str | None = None, *, times: int | None = None) -> None:
        """Wait before answering."""
        self._add(_Fault(method, times, lambda: self._wait(seconds)))

    def drop_answer(self, method: str | None = None, *, times: int | None = 1) -> None:
        """Carry the call out, then close the connection without an answer."""
        self._add(_Fault(method, times, _raiser(BrokenAnswerError()), after_the_call=True))

    def clear(self) -> None:
        """End every fault."""
        with self._lock:
            self._faults.clear()
            self._down_until = 0.0

    def close(self) -> None:
        """Let sleeping answers go, for the server's end."""
        self._closing.set()

    def before(self, method: str) -> None:
        """Meet what was arranged for this call; raises one of the errors above or SlackError."""
        if self.is_down:
            raise BrokenAnswerError
        self._meet(method, after_the_call=False)

    def after(self, method: str) -> None:
        """Meet what was arranged for after the call; raises BrokenAnswerError."""
        self._meet(method, after_the_call=True)

    def _meet(self, method: str, *, after_the_call: bool) -> None:
        with self._lock:
            due = [
                fault
                for fault in self._faults
                if fault.method in (None, method) and fault.after_the_call == after_the_call
            ]
            for fault in due:
                if fault.times is not None:
                    fault.times -= 1
            self._faults = [fault for fault in self._faults if fault.times is None or fault.times > 0]
        for fault in due:
            fault.act()

    def _add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _wait(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def _go_down(self) -> None:
        for act in self._fall:
            act()

    @contextmanager
    def _down_for_the_block(self) -> Iterator[None]:
        with self._lock:
            self._downs += 1
        self._go_down()
        try:
            yield
        finally:
            with self._lock:
                self._downs -= 1


class RateLimits:
    """Slack's own limits (page "Rate limits"): a tier a minute per method, a message a second per channel."""

    _TIERS = (
        (20, ("conversations.list", "users.list", "usergroups.list", "usergroups.users.list")),
        (50, ("chat.update", "chat.delete", "conversations.info", "conversations.open", "users.lookupByEmail")),
        (100, ("users.info", "conversations.members", "views.open", "views.update", "views.push", "views.publish")),
        (1, ("apps.connections.open",)),
    )
    _POST_BURST = 3  # "short bursts of more than 1 are allowed"; Slack does not say how short

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, deque[float]] = {}
        self._per_minute = {method: count for count, methods in self._TIERS for method in methods}

    def check(self, method: str, channel: str) -> None:
        """Count one call; raises RateLimitedError when it is one too many."""
        if method == "chat.postMessage":
            self._count(f"{method} {channel}", self._POST_BURST, float(self._POST_BURST))
        elif method in self._per_minute:
            self._count(method, self._per_minute[method], 60.0)

    def _count(self, key: str, most: int, window: float) -> None:
        with self._lock:
            now, seen = self._clock.now(), self._seen.setdefault(key, deque())
            while seen and seen[0] <= now - window:
                seen.popleft()
            if len(seen) >= most:
                raise RateLimitedError(max(1, int(seen[0] + window - now + 0.999)))
            seen.append(now)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _raiser(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise type(error)(*error.args)  # a new one, since threads may raise it at the same time

    return act
