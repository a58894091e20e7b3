"""Many runs of the story in a few towns at once, each killed at points of its own."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from sandbox.company import Company
from sandbox.windows import WindowsHost
from tests.e2e.crash.points import Point, in_runs
from tests.e2e.crash.record import HostUser
from tests.e2e.crash.steady_host import SteadyHost
from tests.e2e.crash.story import Story, Told
from tests.e2e.crash.town import PATIENCE, Branch, Town

ROUNDS = 3  # not every run passes the same points


class SteadyTown(Town):
    """A town whose servers keep their records in memory: two with Linux, or one of them with Windows."""

    def __init__(self, company: Branch, number: int, *, desktop: WindowsHost | None, database_url: str) -> None:
        # Every company of this process has the same EC2, so that no two towns may have servers of one name.
        names = [f"web-w{number}", f"win-{number}"] if desktop else [f"web-{number}", f"db-{number}"]
        self.hosts = {name: SteadyHost() for name in names[: 1 if desktop else 2]}
        self.desktop = desktop
        for name, host in self.hosts.items():
            company.aws.add_server(name, tags={"env": "prod"}, answers=host.answer)
        if desktop:
            company.aws.add_server(names[1], host=desktop, platform="Windows", tags={"env": "prod"})
        windows = names[1:] if desktop else []
        super().__init__(company, names, windows=windows, accounts=self._users, database_url=database_url)

    def _users(self) -> set[HostUser]:
        users = {(name, user) for name, host in self.hosts.items() for user in tuple(host.users)}
        if self.desktop:
            users |= {(self.servers[1], name) for name in tuple(self.desktop.machine.accounts) if name[:3] == "pp-"}
        return users


class Kills:
    """A context manager around the towns."""

    def __init__(self, folder: Path, *, towns: int, windows: bool = False, database_url: str = "") -> None:
        self._folder = folder
        self._count = towns
        self._windows = windows
        self._database_url = database_url
        self._stack = ExitStack()
        self._free: SimpleQueue[SteadyTown] = SimpleQueue()
        self._numbers = itertools.count(1)
        self.towns: list[SteadyTown] = []

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            headquarters = opening.enter_context(Company(self._folder / "headquarters"))
            for number in range(self._count):
                company = opening.enter_context(Branch(self._folder / f"town-{number}", headquarters))
                desktop = opening.enter_context(WindowsHost(f"win-{number}")) if self._windows else None
                town = SteadyTown(company, number, desktop=desktop, database_url=self._database_url)
                self.towns.append(town)
                opening.callback(town.passport.kill)
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

    def start(self, points: Sequence[Point] = (), *, fresh: bool = False) -> "Future[Told]":
        """Have the story told in the next town that is free; ``fresh`` with a process that has not met anybody."""
        return self._pool.submit(self._tell, points, fresh=fresh)

    def everywhere(self, points: Iterable[Point]) -> list[Told]:
        """Runs that are killed at all of the points, tried again with those that were not passed."""
        left, told = list(points), list[Told]()
        for _ in range(ROUNDS):
            told += [running.result() for running in [self.start(run) for run in in_runs(left)]]
            killed = {point for run in told for point in run.killed}
            left = [point for point in left if point not in killed]
        return told

    @contextmanager
    def town(self) -> Iterator[SteadyTown]:
        """One of them, for as long as it takes."""
        town = self._free.get()
        try:
            yield town
        except BaseException:
            town.passport.kill()
            town.passport.pardon()
            town.passport.start(seconds=PATIENCE)
            raise
        finally:
            self._free.put(town)

    def _tell(self, points: Sequence[Point], *, fresh: bool) -> Told:
        with self.town() as town:
            return Story(town, f"INC-{next(self._numbers)}").play(points, fresh=fresh)
