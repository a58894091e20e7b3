"""One process a name: what bears a process's name in the database, leases and the feed's role, is its own alone."""

import time
from contextlib import ExitStack, suppress
from datetime import timedelta

from sqlalchemy import Connection, Engine, exc, text

from storage.errors import StoreBusyError

PATIENCE = timedelta(seconds=5)  # for PostgreSQL to see that a process of that name has died
_LOCK = text("SELECT pg_try_advisory_lock(hashtextextended('passport instance ' || :name, 0))")
_PING = text("SELECT 1")


class InstanceName:
    """Holds a name by a lock of PostgreSQL's, which lives as long as the connection that took it."""

    def __init__(self, engine: Engine, name: str) -> None:
        """Nothing connects yet."""
        self._engine = engine
        self._name = name
        self._connection: Connection | None = None

    def take(self, patience: timedelta = PATIENCE) -> None:
        """Have the name; raises StoreBusyError where another process keeps it, and SQLAlchemy's errors."""
        deadline = time.monotonic() + patience.total_seconds()
        with ExitStack() as opening:
            connection = opening.enter_context(self._engine.connect())
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # it stays out of the pool, whatever becomes of the others
            while not connection.execute(_LOCK, {"name": self._name}).scalar_one():
                if time.monotonic() > deadline:
                    raise StoreBusyError(
                        f"Another Passport process on this database is called {self._name}, and each would take the "
                        "other's work for its own: give each its own name in the setting instance, or stop one."
                    )
                time.sleep(0.1)
            opening.pop_all()
        self._connection = connection

    def keep(self) -> None:
        """Have the name again if the connection was cut; raises as ``take`` does."""
        try:
            if self._connection is not None:
                self._connection.execute(_PING)
                return
        except exc.DBAPIError:
            self.give_back()
        self.take(timedelta())

    def give_back(self) -> None:
        """Let another process have it; a second call does nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(exc.DBAPIError):
                connection.close()
