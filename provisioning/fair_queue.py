"""A queue that is fair to people and keeps AWS's rates: round robin over persons, so many a second in each place."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class _Lane(Generic[T]):
    """What waits in one place: persons in the order of their next turn, and when the last turns were."""

    waiting: OrderedDict[str, deque[T]] = field(default_factory=OrderedDict)
    turns: deque[float] = field(default_factory=deque)
    paused_until: float = 0.0


class FairQueue(Generic[T]):
    """Hands out pieces of work; safe to use from many threads."""

    def __init__(self, *, a_second: int, monotonic: Callable[[], float]) -> None:
        self._a_second = a_second
        self._monotonic = monotonic
        self._lanes: dict[Hashable, _Lane[T]] = {}
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, place: Hashable, person: str, piece: T) -> None:
        """Add a piece of a person's."""
        with self._changed:
            lane = self._lanes.setdefault(place, _Lane())
            lane.waiting.setdefault(person, deque()).append(piece)
            self._changed.notify()

    def put_back(self, place: Hashable, person: str, piece: T, *, pause: float) -> None:
        """What came too fast for AWS goes first again, after a pause of the whole place; seconds."""
        with self._changed:
            lane = self._lanes.setdefault(place, _Lane())
            lane.waiting.setdefault(person, deque()).appendleft(piece)
            lane.waiting.move_to_end(person, last=False)
            lane.paused_until = self._monotonic() + pause
            self._changed.notify()

    def take(self) -> T | None:
        """The next piece, once it is its turn; None when the queue is closed."""
        with self._changed:
            while not self._is_closed:
                delay = None
                for lane in self._lanes.values():
                    if lane.waiting:
                        wait = self._wait_of(lane)
                        if wait <= 0:
                            return self._next(lane)
                        delay = wait if delay is None else min(delay, wait)
                self._changed.wait(delay)
            return None

    def close(self) -> None:
        """Hand out nothing any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _wait_of(self, lane: _Lane[T]) -> float:
        """Seconds until this place may have its next turn."""
        now = self._monotonic()
        while lane.turns and now - lane.turns[0] >= 1.0:
            lane.turns.popleft()
        full = lane.turns[0] + 1.0 - now if len(lane.turns) >= self._a_second else 0.0
        return max(full, lane.paused_until - now)

    def _next(self, lane: _Lane[T]) -> T:
        person, pieces = next(iter(lane.waiting.items()))
        piece = pieces.popleft()
        del lane.waiting[person]
        if pieces:
            lane.waiting[person] = pieces  # behind everybody else
        lane.turns.append(self._monotonic())
        return piece
