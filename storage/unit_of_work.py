"""Transactions: ``SqlStore`` hands out units of work, ``SqlUnitOfWork`` is one."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, exc

from access.audit import Event
from access.errors import UnavailableError
from access.model import AccessRequest
from access.ports import (
    AuditLog,
    Authorities,
    Deliveries,
    Grants,
    Outbox,
    Passwords,
    People,
    Posts,
    Requests,
    Reviews,
    SignIns,
)
from storage.engine import ProcessLock, make_engine, parse_url, sqlite_path
from storage.instance_name import InstanceName
from storage.repositories.audit import SqlAuditLog
from storage.repositories.authorities import SqlAuthorities
from storage.repositories.feed import SqlOutbox, SqlPosts
from storage.repositories.figures import SqlFigures
from storage.repositories.grants import SqlGrants, SqlReviews
from storage.repositories.passwords import SqlPasswords
from storage.repositories.people import SqlPeople
from storage.repositories.requests import SqlRequests
from storage.repositories.secrets import SqlSecrets
from storage.repositories.sign_ins import SqlDeliveries, SqlSignIns
from storage.sealing import Sealer

NO_ANSWER = "The database does not answer; nothing was changed. Try again in a minute."
NO_ANSWER_TO_COMMIT = "The database stopped answering while this was saved. See whether it counts, then try again."
AT_ONCE = "Somebody else changed the same thing at this moment; nothing was changed. Try again."
CommitListener = Callable[[Sequence[AccessRequest]], None]
_WAIT_FOR_WRITERS = 10.0  # seconds
_TAKEN = frozenset({"23505", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"})
_OUR_FAULT = frozenset({"SQLITE_ERROR", "SQLITE_READONLY"})  # a missing table, a write in a read-only unit of work


class SqlStore:
    """Where units of work come from: one per process and database."""

    def __init__(self, url: str, *, sealing: Sealer, exclusive: bool = True) -> None:
        """Open the database; nothing connects yet.

        ``exclusive=False`` is for commands that run beside the server: on SQLite they take no process lock.
        Raises StoreUrlError, StoreBusyError.
        """
        parsed = parse_url(url)
        path = sqlite_path(parsed)
        self._lock = ProcessLock(path) if path is not None and exclusive else None
        self._engine = make_engine(parsed)
        self._writers = Turns() if path is not None else None
        self._sealing = sealing
        self._name: InstanceName | None = None
        self._listeners: list[CommitListener] = []

    def __repr__(self) -> str:
        return f"SqlStore({self._engine.url.render_as_string(hide_password=True)})"

    def unit_of_work(self, *, read_only: bool = False) -> "SqlUnitOfWork":
        """A transaction; a read-only one never waits for a writer, and the database refuses it any change."""
        turn: AbstractContextManager[None] = nullcontext()
        if self._writers is not None and not read_only:
            turn = self._writers.take()
        return SqlUnitOfWork(
            self._engine, turn=turn, sealing=self._sealing, read_only=read_only, committed=self._tell_listeners
        )

    def on_commit(self, listener: CommitListener) -> None:
        """Call the listener after every commit that recorded events; it must be quick and not raise.

        It is told which requests were saved, but for those whose lease goes on. A commit that recorded none (a lease,
        say) is told to nobody: the reconciler would wake itself for ever.
        """
        self._listeners.append(listener)

    def ping(self) -> None:
        """Read something from the database; raises UnavailableError."""
        try:
            with self.unit_of_work(read_only=True) as work:
                work.audit.head()
        except exc.SQLAlchemyError as error:
            raise UnavailableError("The database answers, but not with Passport's tables.") from error

    def take_name(self, name: str) -> None:
        """Be the only process of this name (on SQLite any is); raises StoreBusyError, UnavailableError."""
        if self._engine.dialect.name == "postgresql":
            self._name = InstanceName(self._engine, name)
            with _translated(NO_ANSWER):
                self._name.take()

    def keep_name(self) -> None:
        """Take the name again where the database was away meanwhile; raises StoreBusyError, UnavailableError."""
        if self._name is not None:
            with _translated(NO_ANSWER):
                self._name.keep()

    def close(self) -> None:
        """Close every connection and let another process have the name and the database."""
        if self._name is not None:
            self._name.give_back()
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def _tell_listeners(self, saved: Sequence[AccessRequest]) -> None:
        for listener in self._listeners:
            listener(saved)


class SqlUnitOfWork:
    """One transaction with its repositories; see ``access.ports.UnitOfWork``.

    Raises UnavailableError when the database does not answer, on entering, on commit, or on leaving.
    """

    requests: Requests
    grants: Grants
    reviews: Reviews
    people: People
    sign_ins: SignIns
    deliveries: Deliveries
    posts: Posts
    outbox: Outbox
    authorities: Authorities
    audit: AuditLog
    passwords: Passwords
    sealed_passwords: SqlPasswords
    secrets: SqlSecrets
    figures: SqlFigures

    def __init__(
        self,
        engine: Engine,
        *,
        turn: AbstractContextManager[None],
        sealing: Sealer,
        read_only: bool,
        committed: CommitListener,
    ) -> None:
        self._engine = engine
        self._turn = turn
        self._sealing = sealing
        self._read_only = read_only
        self._committed = committed
        self._events: list[Event] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening, _translated(NO_ANSWER):
            opening.enter_context(self._turn)
            self._connection = opening.enter_context(self._engine.connect())
            if self._read_only:
                self._connection.execution_options(read_only=True, postgresql_readonly=True)
            self._make_repositories(self._connection)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.clear()
        with _translated(NO_ANSWER):
            self._open.close()  # what is not committed is rolled back here
        if error is not None and (sentence := _sentence(error, NO_ANSWER)):
            raise UnavailableError(sentence) from error

    def record(self, event: Event) -> None:
        """Keep the event for the chain, to which ``commit`` appends it."""
        if self._read_only:
            raise RuntimeError("a read-only unit of work records nothing")
        self._events.append(event)

    def commit(self) -> None:
        """Append the recorded events, then make everything permanent; raises UnavailableError."""
        recorded = tuple(self._events)
        self._events.clear()
        if recorded:
            with _translated(NO_ANSWER):
                self._log.append(recorded)
        with _translated(NO_ANSWER_TO_COMMIT):
            self._connection.commit()
        if recorded:
            self._committed(self._requests.saved)

    def _make_repositories(self, connection: Connection) -> None:
        self.requests = self._requests = SqlRequests(connection)
        self.grants = SqlGrants(connection)
        self.reviews = SqlReviews(connection)
        self.people = SqlPeople(connection)
        self.sign_ins = SqlSignIns(connection)
        self.deliveries = SqlDeliveries(connection)
        self.posts = SqlPosts(connection)
        self.outbox = SqlOutbox(connection)
        self.authorities = SqlAuthorities(connection)
        self.audit = self._log = SqlAuditLog(connection)
        self.passwords = self.sealed_passwords = SqlPasswords(connection, self._sealing)
        self.secrets = SqlSecrets(connection, self._sealing)
        self.figures = SqlFigures(connection)


class Turns:
    """Lets the threads of this process write to SQLite one after the other.

    SQLite's own waiting is a series of sleeps without an order: of 8 writers some waited for seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for one's turn and hold it; raises UnavailableError, and RuntimeError inside a turn of the thread."""
        if self._owner == threading.get_ident():
            raise RuntimeError("a unit of work that writes was opened inside another one")
        if not self._lock.acquire(timeout=_WAIT_FOR_WRITERS):
            raise UnavailableError(NO_ANSWER)
        self._owner = threading.get_ident()
        try:
            yield
        finally:
            self._owner = None
            self._lock.release()


@contextmanager
def _translated(no_answer: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if sentence := _sentence(error, no_answer):
            raise UnavailableError(sentence) from error
        raise


def _sentence(error: BaseException, no_answer: str) -> str:
    """What to tell people of a failure that trying again may mend; nothing for any other."""
    if isinstance(error, exc.TimeoutError | exc.PendingRollbackError):
        return no_answer
    if not isinstance(error, exc.DBAPIError):
        return ""
    if isinstance(error, exc.IntegrityError) and _code(error) in _TAKEN:
        return AT_ONCE
    if error.connection_invalidated:
        return no_answer
    outside = isinstance(error, exc.OperationalError | exc.InterfaceError) and _code(error) not in _OUR_FAULT
    return no_answer if outside else ""


def _code(error: exc.DBAPIError) -> str:
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None)
    return code or ""
