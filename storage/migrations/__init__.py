"""The schema's versions, applied by ``passport migrate`` and checked at start; Alembic without a file of settings."""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError

from access.errors import UnavailableError
from storage.engine import ProcessLock, make_engine, parse_url, sqlite_path
from storage.errors import SchemaError

_ONE_AT_A_TIME = 7_277_467  # any number, the same in every Passport


def migrate(url: str, *, to: str = "head") -> None:
    """Bring the database to this version's schema, or none of it.

    Raises UnavailableError, StoreUrlError, SchemaError if a newer Passport made the database, and StoreBusyError if
    a Passport runs on it (SQLite).
    """
    _run(url, lambda config: command.upgrade(config, to))


def downgrade(url: str, *, to: str = "base") -> None:
    """Take the database back to an older schema; what the newer tables hold is lost. Raises as ``migrate``."""
    _run(url, lambda config: command.downgrade(config, to))


def check(url: str) -> None:
    """Raise SchemaError unless the database has this version's schema; raises UnavailableError, StoreUrlError."""
    parsed = parse_url(url)
    path = sqlite_path(parsed)
    if path is not None and not path.exists():
        raise SchemaError(f"There is no database {path} yet: run `passport migrate`.")
    engine = make_engine(parsed)
    try:
        with engine.connect().execution_options(read_only=True) as connection:
            found = _versions_in(connection)
    except DBAPIError as error:
        raise UnavailableError("The database does not answer; its tables could not be checked.") from error
    finally:
        engine.dispose()
    if found != set(ScriptDirectory.from_config(_config()).get_heads()):
        raise SchemaError("The database is not at this version's schema: run `passport migrate`.")


def _run(url: str, step: Callable[[Config], None]) -> None:
    parsed = parse_url(url)
    path = sqlite_path(parsed)
    lock = None if path is None else ProcessLock(path)
    engine = make_engine(parsed)
    config = _config()
    try:
        with engine.begin() as connection:
            _wait_for_others(connection)
            _versions_in(connection)
            config.attributes["connection"] = connection
            step(config)
    except DBAPIError as error:
        if error.connection_invalidated or isinstance(error, OperationalError):
            raise UnavailableError("The database does not answer; nothing was changed.") from error
        raise
    finally:
        engine.dispose()
        if lock is not None:
            lock.release()


def _versions_in(connection: Connection) -> set[str]:
    """The schema's versions that the database has; raises SchemaError if a newer Passport made one of them."""
    found = set(MigrationContext.configure(connection).get_current_heads())
    known = {version.revision for version in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found - known:
        raise SchemaError("The database was made by a newer Passport: start that version.")
    return found


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _wait_for_others(connection: Connection) -> None:
    """Let the replicas of a deployment migrate one after the other, and let a long migration take its time."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = '5min'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ONE_AT_A_TIME})
