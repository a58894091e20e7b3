"""Inserts that meet an existing row, built once for each engine."""

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

ByEngine = Mapping[str, Executable]
Upsert = postgresql.Insert | sqlite.Insert


def by_engine(table: Table, build: Callable[[Upsert], Executable]) -> ByEngine:
    """An insert into the table, finished by ``build``: the engines share the words, SQLAlchemy has a class for each."""
    return {"postgresql": build(postgresql.insert(table)), "sqlite": build(sqlite.insert(table))}


def insert_new(table: Table, *keys: str) -> ByEngine:
    """Insert, unless the row is there, even by a transaction at the same moment; ``add_new`` carries it out.

    PostgreSQL waits for that transaction, and its own stays usable: no error is raised in the database. Nothing is
    returned, since the number of rows says as much: to read a result takes a quarter of such a statement's time.
    """
    added = by_engine(table, lambda insert: insert.on_conflict_do_nothing(index_elements=keys).inline())
    return {engine: statement.execution_options(preserve_rowcount=True) for engine, statement in added.items()}


def add_new(connection: Connection, statement: ByEngine, *rows: Mapping[str, object]) -> bool:
    """Carry out an ``insert_new``: whether none of the rows was there before."""
    if not rows:
        return True
    return connection.execute(statement[connection.dialect.name], one_or_all(rows)).rowcount == len(rows)


def one_or_all(rows: Sequence[Mapping[str, object]]) -> Mapping[str, object] | Sequence[Mapping[str, object]]:
    """What to execute a statement with: a list of one costs a quarter more on PostgreSQL (a pipeline)."""
    return rows[0] if len(rows) == 1 else rows


def insert_or_update(table: Table, keys: tuple[str, ...], changed: tuple[str, ...]) -> ByEngine:
    """Insert, or change these columns of the row that has the keys."""
    return by_engine(
        table,
        lambda insert: insert.on_conflict_do_update(
            index_elements=keys, set_={name: insert.excluded[name] for name in changed}
        ),
    )
