"""One act for what many threads bring at the same moment: they share its transaction, and each gets its own outcome."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from access.errors import UnavailableError

MOST = 16  # items in an act: all of them wait for its commit

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Together(Generic[Item, Outcome]):
    """Acts on items: the thread whose turn it is on those of all who wait, its own among them.

    ``act`` returns what came of each item, in their order: a value, or the exception to raise for it. When it raises,
    nothing has happened, and each item is acted upon alone; UnavailableError is told to all at once.
    """

    def __init__(self, act: Callable[[Sequence[Item]], Sequence[Outcome | Exception]]) -> None:
        self._act = act
        self._guard = threading.Lock()
        self._waiting: deque[_Turn[Item, Outcome]] = deque()
        self._is_led = False

    def act_on(self, item: Item) -> Outcome:
        """What came of the item; raises what the act raises."""
        mine = _Turn[Item, Outcome](item)
        with self._guard:
            self._waiting.append(mine)
            leads, self._is_led = not self._is_led, True
        if not leads:
            mine.wait()
        if not mine.outcome:
            self._lead()
        return mine.take()

    def _lead(self) -> None:
        """Act on what waits, this thread's own first, and hand the lead to whoever came meanwhile."""
        with self._guard:
            turns = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST))]
        try:
            self._act_on_all(turns)
        finally:  # an interrupted thread leaves the others theirs
            with self._guard:
                self._waiting.extendleft(turn for turn in reversed(turns[1:]) if not turn.outcome)
                heir = self._waiting[0] if self._waiting else None
                self._is_led = heir is not None
            if heir is not None:
                heir.wake()
            for turn in turns:
                if turn.outcome:
                    turn.wake()

    def _act_on_all(self, turns: "Sequence[_Turn[Item, Outcome]]") -> None:
        try:
            outcomes = self._act([turn.item for turn in turns])
        except UnavailableError as error:
            outcomes = [error] * len(turns)
        except Exception as error:  # noqa: BLE001 - raised where it belongs, in the thread that waits
            if len(turns) > 1:
                for turn in turns:
                    self._act_on_all([turn])
                return
            outcomes = [error]
        for turn, outcome in zip(turns, outcomes, strict=True):
            turn.outcome = [outcome]


class _Turn(Generic[Item, Outcome]):
    """An item, and the thread that waits for what comes of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: list[Outcome | Exception] = []  # one, as soon as something has come of it
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wait(self) -> None:
        """Until something came of it, or its thread has to lead."""
        self._asleep.acquire()

    def wake(self) -> None:
        """Tell the thread that waits."""
        self._asleep.release()

    def take(self) -> Outcome:
        """Return what came of it, or raise it."""
        (outcome,) = self.outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
