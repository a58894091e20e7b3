"""Where AWS does not answer just now: threads that others need are not to wait there one after the other."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST = 3  # calls in a row without an answer, and the place counts as silent
REST_SECONDS = 5.0  # then one call looks again, while the others still go without

Place = TypeVar("Place", bound=Hashable)


@dataclass(slots=True)
class _Silence:
    calls: int = 0
    until: float = 0.0


class Silences(Generic[Place]):
    """A circuit breaker for each place; safe to use from many threads."""

    def __init__(self, monotonic: Callable[[], float], *, patience: float) -> None:
        """``patience``: how many seconds a call waits for an answer at most."""
        self._monotonic = monotonic
        self._patience = patience
        self._lock = threading.Lock()
        self._places: dict[Place, _Silence] = {}

    def may_call(self, place: Place) -> bool:
        """Whether a call is worth its while: it answered lately, or this is the one call that looks again."""
        with self._lock:
            silence = self._places.get(place)
            if silence is None or silence.calls < MOST:
                return True
            now = self._monotonic()
            if now < silence.until:
                return False
            silence.until = now + self._patience
            return True

    def answered(self, place: Place) -> None:
        """Whatever it said, it is there."""
        if place in self._places:
            with self._lock:
                self._places.pop(place, None)

    def was_silent(self, place: Place) -> None:
        """A call there had no answer."""
        with self._lock:
            silence = self._places.setdefault(place, _Silence())
            silence.calls += 1
            silence.until = self._monotonic() + REST_SECONDS
