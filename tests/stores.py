"""Stores for tests: on SQLite, on PostgreSQL, or on each in turn."""

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from storage.migrations import migrate
from storage.sealing import Sealer
from storage.unit_of_work import SqlStore

T = TypeVar("T")
SEALER = Sealer([("test", bytes(range(32)))])


def run_together(*acts: Callable[[], T], seconds: float = 60) -> list[T]:
    """Begin the acts at the same moment, a thread each; answers what they answered, in the order of the acts."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], T]) -> T:
        barrier.wait(timeout=10)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [running.result(timeout=seconds) for running in [pool.submit(run, act) for act in acts]]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a migrated database."""
    path = tmp_path / "passport.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database, on each engine in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, on each engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture
def open_store() -> Iterator[Callable[[str], SqlStore]]:
    """Opens stores that are closed after the test."""
    opened: list[SqlStore] = []

    def opening(url: str) -> SqlStore:
        opened.append(SqlStore(url, sealing=SEALER))
        return opened[-1]

    yield opening
    for store in opened:
        store.close()


@pytest.fixture
def store(database_url: str, open_store: Callable[[str], SqlStore]) -> SqlStore:
    """A store on each engine in turn."""
    return open_store(database_url)


@pytest.fixture
def sqlite_store(sqlite_url: str, open_store: Callable[[str], SqlStore]) -> SqlStore:
    """A store on SQLite alone, for tests that are not about storage."""
    return open_store(sqlite_url)


@pytest.fixture
def postgres_store(postgres_url: str, open_store: Callable[[str], SqlStore]) -> SqlStore:
    """A store on PostgreSQL alone, for tests of what only it can do."""
    return open_store(postgres_url)
