"""Where the benches stand: a folder, migrated databases on both engines, and how much to do."""

import itertools
import shutil
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from storage.migrations import migrate
from tests.postgres import PostgresServer

Engine = Literal["sqlite", "postgres"]
ENGINES: tuple[Engine, ...] = ("sqlite", "postgres")


class Ground:
    """A context manager; PostgreSQL starts when it is first asked for, and writes to disk as it would anywhere."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.folder = Path(tempfile.mkdtemp(prefix="passport-bench-"))
        self._numbers = itertools.count(1)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def much(self, full: int) -> int:
        """So much of it, or a fifth in a quick run."""
        return max(1, full // 5) if self.quick else full

    def new_folder(self) -> Path:
        """A folder of one's own."""
        folder = self.folder / str(next(self._numbers))
        folder.mkdir()
        return folder

    def database(self, engine: Engine) -> str:
        """The URL of a new database with the newest schema."""
        if engine == "postgres":
            url = self._postgres.url(self._postgres.create_database())
        else:
            url = f"sqlite:///{self.new_folder() / 'passport.db'}"
        migrate(url)
        return url

    @cached_property
    def _postgres(self) -> PostgresServer:
        server = PostgresServer(fsync="on", shared_buffers="128MB")
        self._stack.callback(server.remove)
        server.start()
        return server
