"""One transaction for what many threads write at the same moment: they share its beginning, the head and the commit."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Protocol, cast

from access.errors import UnavailableError
from access.ports import T, UnitOfWork

MOST = 16  # acts in a transaction: all of them wait for its commit


class SharedUnitOfWork(UnitOfWork, Protocol):
    """A unit of work for one act after the other: ``commit`` only agrees to ``commit_all``."""

    def take_agreement(self) -> bool:
        """Whether ``commit`` was called since this was asked last."""
        ...

    def commit_all(self) -> None: ...


class Joint:
    """Carries acts out: the thread whose turn it is those of all who wait, its own among them."""

    def __init__(self, unit_of_work: Callable[[], SharedUnitOfWork]) -> None:
        self._unit_of_work = unit_of_work
        self._guard = threading.Lock()
        self._waiting: deque[_Act] = deque()
        self._is_led = False

    def carry_out(self, run: Callable[[UnitOfWork], T]) -> T:
        """What ``run`` returns or raises; UnavailableError, for all who share a transaction, when that fails."""
        mine = _Act(run)
        with self._guard:
            self._waiting.append(mine)
            leads, self._is_led = not self._is_led, True
        if not leads:
            mine.wait()
        if not mine.done:
            self._lead()
        return cast("T", mine.outcome())

    def _lead(self) -> None:
        """Carry out what waits, this thread's own first, and hand the lead to whoever came meanwhile."""
        with self._guard:
            acts = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST))]
        try:
            self._carry_out(acts)
        finally:  # an interrupted thread leaves the others theirs
            with self._guard:
                self._waiting.extendleft(act for act in reversed(acts[1:]) if not act.done)
                heir = self._waiting[0] if self._waiting else None
                self._is_led = heir is not None
            if heir is not None:
                heir.wake()
            for act in acts:
                if act.done:
                    act.wake()

    def _carry_out(self, acts: "Sequence[_Act]") -> None:
        """An act that does not agree undoes all; then each has a transaction of its own."""
        if self._together(acts) or len(acts) == 1:
            for act in acts:
                act.done = True
        else:
            for act in acts:
                self._carry_out([act])

    def _together(self, acts: "Sequence[_Act]") -> bool:
        try:
            with self._unit_of_work() as work:
                for act in acts:
                    act.run_in(work)
                work.commit_all()
        except UnavailableError as error:  # the unit of work's word for a database that fails, whoever met it
            for act in acts:
                act.error = error
        except Exception:
            if all(act.agreed for act in acts):
                raise
            return False
        return True


class _NotAgreedError(Exception):
    """An act that returned without a commit."""


class _Act:
    """What one thread wants to be done, with the context that its log lines belong to."""

    def __init__(self, run: Callable[[UnitOfWork], object]) -> None:
        self._run = run
        self._context = copy_context()
        self._asleep = threading.Lock()
        self._asleep.acquire()
        self._value: object = None
        self.error: Exception | None = None
        self.agreed = True
        self.done = False

    def wait(self) -> None:
        """Until it is done, or its thread has to lead."""
        self._asleep.acquire()

    def wake(self) -> None:
        """Tell the thread that waits."""
        self._asleep.release()

    def run_in(self, work: SharedUnitOfWork) -> None:
        """Carry it out, and keep what came of it; raises what undoes it."""
        self.error = None
        try:
            self._value = self._context.run(self._run, work)
        except Exception as error:  # noqa: BLE001 - raised where it belongs, in the thread that waits
            self.error = error
        self.agreed = work.take_agreement()
        if not self.agreed:
            raise self.error or _NotAgreedError

    def outcome(self) -> object:
        """Return, or raise, what came of it."""
        if self.error is not None:
            raise self.error
        return self._value
