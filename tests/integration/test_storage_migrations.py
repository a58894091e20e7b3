"""The schema's versions: up, checked, down and up again, on both engines, all or nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine.interfaces import ReflectedIndex
from sqlalchemy.exc import DBAPIError

from access.errors import UnavailableError
from storage.engine import make_engine, parse_url
from storage.errors import SchemaError, StoreBusyError
from storage.migrations import check, downgrade, migrate
from storage.rows import metadata
from storage.unit_of_work import SqlStore
from tests.postgres import PostgresServer
from tests.stores import run_together


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = make_engine(parse_url(url))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def tables(url: str) -> set[str]:
    with connected(url) as connection:
        return set(inspect(connection).get_table_names())


def described(url: str) -> dict[str, object]:
    """The constraints and indexes that Alembic does not compare."""
    with connected(url) as connection:
        found = inspect(connection)
        return {
            name: (
                sorted((check["name"] or "", check["sqltext"]) for check in found.get_check_constraints(name)),
                sorted(
                    (index["name"] or "", str(index["column_names"]), options_of(index))
                    for index in found.get_indexes(name)
                ),
                sorted(str(key["name"]) for key in found.get_foreign_keys(name)),
                found.get_pk_constraint(name)["name"],
            )
            for name in metadata.tables
        }


def options_of(index: ReflectedIndex) -> str:
    return str({name: str(value) for name, value in index.get("dialect_options", {}).items()})


def test_up_down_and_up_again(empty_url: str) -> None:
    with pytest.raises(SchemaError, match="run `passport migrate`"):
        check(empty_url)
    migrate(empty_url)
    check(empty_url)
    migrate(empty_url)  # nothing left to do
    assert tables(empty_url) == {*metadata.tables, "alembic_version"}

    downgrade(empty_url, to="0002")
    with pytest.raises(SchemaError, match="not at this version's schema: run `passport migrate`"):
        check(empty_url)
    downgrade(empty_url)
    assert tables(empty_url) == {"alembic_version"}

    migrate(empty_url)
    check(empty_url)


def test_the_versions_make_the_tables_that_the_code_knows(empty_url: str) -> None:
    migrate(empty_url)
    with connected(empty_url) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    migrated = described(empty_url)

    downgrade(empty_url)
    with connected(empty_url) as connection:
        metadata.create_all(connection)
    assert described(empty_url) == migrated


def test_a_migration_that_fails_changes_nothing(empty_url: str) -> None:
    with connected(empty_url) as connection:
        connection.execute(text("CREATE TABLE audit_head (id INTEGER)"))  # in the way of the last version
    with pytest.raises((DBAPIError, UnavailableError)):
        migrate(empty_url)

    assert tables(empty_url) - {"alembic_version"} == {"audit_head"}


def test_a_database_of_a_newer_passport_is_left_alone(empty_url: str) -> None:
    migrate(empty_url)
    with connected(empty_url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(SchemaError, match="newer Passport"):
        check(empty_url)
    with pytest.raises(SchemaError, match="newer Passport"):
        migrate(empty_url)


def test_checking_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"There is no database .*none.db yet: run `passport migrate`"):
        check(f"sqlite:///{tmp_path / 'none.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_sqlite_database_in_use_is_not_migrated(sqlite_store: SqlStore, sqlite_url: str) -> None:
    check(sqlite_url)
    with pytest.raises(StoreBusyError, match="Another Passport process"):
        migrate(sqlite_url)


@pytest.mark.postgres
def test_replicas_that_migrate_at_once_wait_for_each_other(empty_postgres_url: str) -> None:
    run_together(*[lambda: migrate(empty_postgres_url)] * 3)
    check(empty_postgres_url)


@pytest.mark.postgres
def test_a_server_that_is_away_is_called_so(
    postgres_server: PostgresServer, postgres_url: str, open_store: Callable[[str], SqlStore]
) -> None:
    away = postgres_url.replace(f":{postgres_server.port}/", ":1/")
    for act in (check, migrate):
        with pytest.raises(UnavailableError, match="does not answer"):
            act(away)
    with pytest.raises(UnavailableError, match="does not answer"):
        open_store(away).ping()
