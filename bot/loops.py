"""Threads that wait to be told to look: the reconciler's and the feed's."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import ParamSpec, Protocol, TypeVar

from access.errors import UnavailableError
from access.model import AccessRequest, RequestState
from access.ports import Clock
from access.reconcile import Reconciler

_log = logging.getLogger(__name__)

IDLE = timedelta(seconds=5)  # the longest sleep: another replica's commit does not wake this one
AFTER_TROUBLE = timedelta(seconds=2)
REST = timedelta(milliseconds=10)  # of the reconciler, which commits wake
SOON = timedelta(milliseconds=50)  # to look again after work was handed out, unless its end wakes the loop before
MOST_TOGETHER = 32  # requests in one thread's piece of work: they share its transactions

P = ParamSpec("P")
T = TypeVar("T")


class Measure(Protocol):
    """Makes of an act the same act, timed under a name."""

    def __call__(self, loop: str, act: Callable[P, T], /) -> Callable[P, T]: ...


def unmeasured(_loop: str, act: Callable[P, T], /) -> Callable[P, T]:
    """The act as it is."""
    return act


class Loop:
    """One thread that takes a turn whenever it is woken, or when its last turn asked to be.

    A wake-up during a turn is not lost: the event stays set and the next turn follows after the ``rest``, so that
    a burst of wake-ups is one turn.
    """

    def __init__(self, name: str, turn: Callable[[], timedelta | None], *, rest: timedelta = timedelta()) -> None:
        self._turn = turn
        self._rest = rest
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first turn comes at once."""
        self._thread.start()

    def wake(self) -> None:
        """Ask for a turn; returns at once."""
        self._woken.set()

    def stop(self, timeout: float = 10.0) -> None:
        """Let the turn under way finish, and end."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._woken.clear()
            if self._stopping.is_set():  # looked at after the line above, which may have wiped stop()'s wake-up out
                return
            delay = self._take_turn()
            self._stopping.wait(self._rest.total_seconds())
            self._woken.wait((min(delay, IDLE) - self._rest).total_seconds())

    def _take_turn(self) -> timedelta:
        try:
            asked = self._turn()
        except Exception as error:  # noqa: BLE001 - the loop outlives whatever breaks a turn
            _tell(f"{self._thread.name}: a turn failed; trying again", error)
            return AFTER_TROUBLE
        return IDLE if asked is None else max(asked, timedelta())


class ReconcilerTurns:
    """Shares the reconciler's work among a few threads, some of them kept free for removals."""

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        clock: Clock,
        threads: int = 8,
        kept_for_removals: int = 3,
        measure: Measure = unmeasured,
    ) -> None:
        self._reconciler = reconciler
        self._clock = clock
        self._threads = threads
        self._kept = kept_for_removals
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reconcile")
        self._lock = threading.Lock()
        self._busy = 0
        self._told = threading.Event()  # by a commit: something is due for certain
        self._told_of_ends = threading.Event()
        self._work = measure("work", reconciler.work)
        self.loop = Loop("reconciler", measure("reconciler", self.turn), rest=REST)

    def turn(self) -> timedelta | None:
        """Hand out what is due; the delay until there may be more."""
        may_end = True
        if self._told.is_set():
            self._told.clear()
            may_end = self._told_of_ends.is_set()
            self._told_of_ends.clear()
        else:
            delay = self._delay()
            if delay is None or delay > timedelta():  # a look is cheaper than two claims that find nothing
                return delay
        handed_out = self._hand_out(self._free(0), removals_only=True) if may_end else 0
        handed_out += self._hand_out(self._free(self._kept), removals_only=False)
        if self._free(0) <= 0:  # a thread that gets free wakes the loop
            return IDLE
        return SOON if handed_out or self._free(self._kept) <= 0 else self._delay()

    def _delay(self) -> timedelta | None:
        """Until something is due; None when nothing ever will be."""
        next_due = self._reconciler.next_due_at()
        return None if next_due is None else max(next_due - self._clock(), timedelta())

    def wake_if_due(self, saved: Sequence[AccessRequest]) -> None:
        """After a commit: look for what of this is due, unless the next look comes before it anyway."""
        now, soonest = self._clock(), min((request.due_at for request in saved if request.due_at), default=None)
        if soonest is None or soonest > now + IDLE:
            return
        if soonest <= now:
            if any(request.state is RequestState.ENDING for request in saved):
                self._told_of_ends.set()
            self._told.set()
        self.loop.wake()

    def stop(self) -> None:
        """Finish what is under way; nothing new begins."""
        self.loop.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _free(self, kept: int) -> int:
        with self._lock:
            return self._threads - kept - self._busy

    def _hand_out(self, free: int, *, removals_only: bool) -> int:
        """A pile for each free thread: of one request usually, of several when more are due than threads are free.

        Says how many requests that were.
        """
        if free <= 0:
            return 0
        claimed = self._reconciler.claim(free * MOST_TOGETHER, removals_only=removals_only)
        for pile in filter(None, (claimed[first::free] for first in range(free))):
            with self._lock:
                self._busy += 1
            self._pool.submit(self._work, *pile).add_done_callback(self._done)
        return len(claimed)

    def _done(self, future: "Future[None]") -> None:
        with self._lock:
            self._busy -= 1
        error = None if future.cancelled() else future.exception()
        if error:
            _tell("A piece of work failed and will be tried again", error)
        self.loop.wake()


def _tell(what: str, error: BaseException) -> None:
    """In the log: a line about what is away and comes back by itself; the whole trace of anything else."""
    if isinstance(error, UnavailableError):
        _log.warning("%s: %s", what, error.sentence)
    else:
        _log.error(what, exc_info=error)
