"""The company that the stories play in: two real servers, a real `passport serve`, four people who are signed in."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sandbox.company import AUDIT_CHANNEL, COMMAND, LEADS_CHANNEL, Company, Employee
from sandbox.hosts import HostWish
from sandbox.reading import first_url
from sandbox.serving import Serving
from sandbox.slack import Message
from storage.unit_of_work import SqlStore
from tests.e2e.crash.record import Tables, read_tables
from tests.postgres import PostgresServer
from tests.soak.plan import HOSTS
from tests.stores import SEALER

LAPSES_AFTER = 20  # seconds
_SETTINGS = {"PASSPORT_LAPSE_AFTER": f"{LAPSES_AFTER}s"}


class Ground:
    """Every third seed plays on PostgreSQL, every second over Socket Mode."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed = seed
        self._stack = ExitStack()
        self.company = Company(folder, [HostWish(name=HOSTS[0], init="systemd"), HostWish(name=HOSTS[1], init="cron")])
        self.postgres: PostgresServer | None = None
        self._keeper = ThreadPoolExecutor(1)  # a server dies with the thread that has started it
        self.database_url = ""
        self._links: dict[str, str] = {}  # the last for each person

    def __enter__(self) -> Self:
        """Boot everything, and sign everybody in."""
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing of it stays."""
        self._stack.close()

    def __str__(self) -> str:
        engine = "PostgreSQL" if self.postgres else "SQLite"
        return f"{engine}, {'Socket Mode' if self.over_sockets else 'HTTP'}"

    @property
    def over_sockets(self) -> bool:
        """Whether Slack comes by Socket Mode."""
        return self._seed % 2 == 1

    @property
    def reviewers(self) -> Sequence[Employee]:
        """Those who may decide."""
        return [self.company.people["ben"], self.company.people["dora"]]

    def tables(self) -> Tables:
        """Everything in the database, read beside the server."""
        with self._beside() as store:
            return read_tables(store)

    def state(self, request_id: str) -> str:
        """Where a request is; raises NotFoundError or UnavailableError."""
        with self._beside() as store, store.unit_of_work(read_only=True) as uow:
            return uow.requests.get(request_id).state.value

    def audit_channel(self) -> list[Message]:
        """What the audit channel shows."""
        return self.company.slack.messages(AUDIT_CHANNEL)

    def cards(self) -> list[Message]:
        """What the leads' channel shows."""
        return self.company.slack.messages(LEADS_CHANNEL)

    def start_postgres(self) -> None:
        """Again, after a trouble."""
        assert self.postgres is not None
        self._keeper.submit(self.postgres.start).result()

    def sign_in(self, person: Employee) -> str:
        """Ask for a link and follow it, or the last one where there is no other; the text of the last page."""
        message = person.slack.command(COMMAND, "link").message
        with suppress(LookupError):  # three at a time, and no more
            if message is not None:
                self._links[person.slack.id] = first_url(message)
        return self.company.sign_in(person, self._links[person.slack.id])

    @contextmanager
    def _beside(self) -> Iterator[SqlStore]:
        store = SqlStore(self.database_url, sealing=SEALER, exclusive=False)
        try:
            yield store
        finally:
            store.close()

    def _open(self) -> None:
        self._stack.enter_context(self.company)
        self.company._hire("dora", "Dora Lind", {"payments-leads"})
        self.company.slack.join(LEADS_CHANNEL, self.company.people["dora"].slack.id)
        folder = self.company.folder / "passport"
        self.database_url = self._postgres_url() if self._seed % 3 == 0 else f"sqlite:///{folder}/passport.db"
        self.passport = Serving(
            self.company,
            folder,
            database_url=self.database_url,
            socket_mode=self.over_sockets,
            settings=_SETTINGS,
        )
        self._stack.callback(self.passport.kill)
        self.passport.run("migrate")
        self.passport.run("documents", "publish")
        self.passport.start()
        self.passport.trust()
        for name, person in self.company.people.items():
            page = self.sign_in(person)
            if "You are signed in" not in page:
                raise LookupError(f"{name} is not signed in: {page}")
            person.slack.command(COMMAND, f"key add {person.public_key}")

    def _postgres_url(self) -> str:
        self.postgres = PostgresServer()
        self._stack.callback(self._keeper.shutdown)
        self._stack.callback(self.postgres.remove)
        self.start_postgres()
        return self.postgres.url(self.postgres.create_database())
