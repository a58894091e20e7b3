"""From a database URL to an engine: how SQLite and PostgreSQL are told to behave."""

import fcntl
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from types import MappingProxyType

import psycopg
from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from storage.errors import StoreBusyError, StoreUrlError

POSTGRES_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "application_name": "passport",
        "connect_timeout": "5",
        "keepalives_idle": "30",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": "20000",
        "options": "-c timezone=UTC -c lock_timeout=5s -c statement_timeout=15s"
        " -c idle_in_transaction_session_timeout=60s"
        # what a machine held that is gone without a word is free within a minute
        " -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
    }
)
REST = 0.1  # seconds that a connection may lie idle before it is looked at
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",  # an acknowledged decision survives a power cut
    "busy_timeout=10000",
    "foreign_keys=ON",
    "recursive_triggers=ON",
)


def parse_url(text: str) -> URL:
    """The URL with its driver; raises StoreUrlError."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise StoreUrlError("The database URL cannot be read; sqlite:////var/lib/passport.db is one.") from None
    if url.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in {"sqlite", "sqlite+pysqlite"}:
        raise StoreUrlError(f"The database URL begins with {url.drivername}; Passport knows sqlite and postgresql.")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StoreUrlError("The database URL names no file: sqlite:////var/lib/passport.db does.")
    return url.set(drivername="sqlite+pysqlite")


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite database; None for PostgreSQL."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def make_engine(url: URL) -> Engine:
    """An engine for the URL; nothing connects yet, but a SQLite file is made. Raises StoreUrlError."""
    path = sqlite_path(url)
    return _postgres_engine(url) if path is None else _sqlite_engine(url, path)


class ProcessLock:
    """Keeps a second process from a SQLite database, by a lock on the file ``<database>.lock``."""

    def __init__(self, database: Path) -> None:
        """Take the lock; raises StoreBusyError if another process has it."""
        path = database.with_name(database.name + ".lock")
        _require_directory(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise StoreBusyError(
                f"Another Passport process uses {database}, and SQLite serves only one:"
                " stop that process, or give each the URL of a PostgreSQL database."
            ) from None

    def release(self) -> None:
        """Let the next process have it; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _postgres_engine(url: URL) -> Engine:
    defaults = {name: value for name, value in POSTGRES_DEFAULTS.items() if name not in url.query}
    engine = create_engine(
        url,
        connect_args=defaults,
        isolation_level="READ COMMITTED",
        pool_size=10,
        max_overflow=10,
        pool_timeout=5,
        pool_use_lifo=True,  # the connection that was used last has been seen to work last
        hide_parameters=True,
    )
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", partial(_look_after_a_rest, engine.dialect))
    return engine


def _note_use(_connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    entry.info["used_at"] = time.monotonic()


def _look_after_a_rest(
    dialect: Dialect, connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """Before a connection is used again, see whether its server is there: after a restart, Passport heals by itself.

    ``pool_pre_ping`` does the same each time, a round trip more for every unit of work.
    """
    used_at = entry.info.get("used_at")  # None for a new one
    if used_at is None or time.monotonic() - used_at < REST:
        return
    try:
        dialect.do_ping(connection)
    except psycopg.Error as error:
        raise InvalidatePoolError from error


def _sqlite_engine(url: URL, path: Path) -> Engine:
    _require_directory(path)
    _make_file(path)
    engine = create_engine(url, pool_size=20, max_overflow=20, pool_timeout=5, hide_parameters=True)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _make_file(path: Path) -> None:
    """Make the file, which SQLite would make readable for all; one that is there is not touched.

    To close it would end the locks that this process's other connections hold on it (fcntl(2)): a process that reads
    beside them would then take itself for the last one, and delete the log that they write to.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _prepare(connection: SqliteConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions begin where _begin says, not where sqlite3 guesses
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Take SQLite's write lock at once: a read that turns into a write later could only fail."""
    read_only = connection.get_execution_options().get("read_only", False)
    if connection.info.get("read_only") is not read_only:
        connection.exec_driver_sql(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        connection.info["read_only"] = read_only
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _require_directory(path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise StoreUrlError(f"The directory {path.absolute().parent} for the database does not exist.")
