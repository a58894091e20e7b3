"""Many runs of the story in a few towns at once, each killed at a point of its own."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from sandbox.company import Company
from tests.e2e.crash.steady_host import SteadyHost
from tests.e2e.crash.story import Story, Told
from tests.e2e.crash.town import Branch, Town

Point = tuple[int, str]  # the how-manieth time of what
ONCE = "conversations.open"  # of each person in the life of a process, so a later story need not pass it


class Kills:
    """A context manager around the towns; their servers keep their records in memory."""

    def __init__(self, folder: Path, *, towns: int) -> None:
        self._folder = folder
        self._count = towns
        self._stack = ExitStack()
        self._free: SimpleQueue[Town] = SimpleQueue()
        self.towns: list[Town] = []

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            headquarters = opening.enter_context(Company(self._folder / "headquarters"))
            for number in range(self._count):
                company = opening.enter_context(Branch(self._folder / f"town-{number}", headquarters))
                host = SteadyHost()
                headquarters.aws.add_server(f"web-{number}", tags={"env": "prod"}, answers=host.answer)
                self.towns.append(Town(company, f"web-{number}", has_access=host.users.__contains__))
                opening.callback(self.towns[-1].passport.kill)
            self.towns[0].passport.run("documents", "publish")
            self._pool = opening.enter_context(ThreadPoolExecutor(self._count))
            list(self._pool.map(Town.open, self.towns))
            self._stack = opening.pop_all()
        for town in self.towns:
            self._free.put(town)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._stack.close()

    def start(self, point: Point = (0, "")) -> "Future[Told]":
        """Have the story told in the next town that is free."""
        return self._pool.submit(self._tell, point)

    def _tell(self, point: Point) -> Told:
        town = self._free.get()
        try:
            return _until_killed(town, point)
        except BaseException:
            town.passport.kill()
            town.passport.pardon()
            town.passport.start()
            raise
        finally:
            self._free.put(town)


def _until_killed(town: Town, point: Point) -> Told:
    """Tell it again with an earlier time where the story was over before: how often is not always the same."""
    number, what = point
    told = Story(town, f"INC-{next(_numbers)}").play(number, what)
    while number > 1 and not told.killed_at and not told.faults:
        number = number * 2 // 3
        told = Story(town, f"INC-{next(_numbers)}").play(number, what)
    return told


_numbers = itertools.count(1)


def spread(lists: Sequence[Sequence[str]], count: int) -> list[Point]:
    """So many of the points that every run has: each kind's first, then evenly from all the others.

    How often a server is asked how it goes differs between runs, so only what all of them passed is chosen.
    """
    common = Counter(lists[0])
    for points in lists[1:]:
        common &= Counter(points)
    every = [point for point in _numbered(lists[0], common) if not point[1].endswith(ONCE)]
    firsts = [point for point in every if point[0] == 1]
    others = [point for point in every if point[0] > 1]
    room = max(count - len(firsts), 0)
    evenly = [others[number * len(others) // room] for number in range(room)] if others else []
    return [*firsts, *evenly][:count]


def _numbered(points: Iterable[str], most: Counter[str]) -> Iterable[Point]:
    seen: Counter[str] = Counter()
    for point in points:
        seen[point] += 1
        if seen[point] <= most[point]:
            yield seen[point], point
