"""A company whose Passport can be killed at any point, and that starts it again as often as it takes."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from access.service.linking import TICKET_LIFETIME
from bot import wiring
from sandbox.company import AUDIT_CHANNEL, LEADS_CHANNEL, Company, Employee
from sandbox.idp import IdentityProviderDouble
from sandbox.serving import Serving
from sandbox.slack import Message, SlackDouble
from sandbox.slack.deliveries import Delivery
from storage.unit_of_work import SqlStore
from tests.e2e.crash import killer
from tests.e2e.crash.record import HostUser, Tables, access_faults, read_tables
from tests.stores import SEALER

T = TypeVar("T")
ROOT = Path(__file__).parents[3]
PATIENCE = 120.0  # seconds: a command whose answer was lost is looked for during ten of them


class Branch(Company):
    """A company of its own, but for the AWS of another."""

    def __init__(self, folder: Path, headquarters: Company) -> None:
        super().__init__(folder)
        self.aws = headquarters.aws

    def __enter__(self) -> Self:
        self.slack = self._stack.enter_context(SlackDouble())
        self.idp = self._stack.enter_context(IdentityProviderDouble())
        self.slack.add_channel(AUDIT_CHANNEL, name="passport-audit")
        self.slack.add_channel(LEADS_CHANNEL, name="payments-leads")
        self._hire("ana", "Ana Ruiz", {"payments"})
        self._hire("ben", "Ben Ito", {"payments-leads"})
        self.slack.join(LEADS_CHANNEL, self.people["ben"].slack.id, self.people["ana"].slack.id)
        return self


class Mortal(Serving):
    """A Passport with the killer inside."""

    def __init__(self, company: Company, folder: Path, *, database_url: str = "", instance: str = "sandbox") -> None:
        settings = {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).with_name("site")), str(ROOT)]),
            killer.FOLDER: str(folder),
            "PASSPORT_INVENTORY_EVERY": "1h",  # it reads servers once at the start, and else for requests only
            "PASSPORT_OWN_AWS_CREDENTIALS": "false",
        }
        super().__init__(company, folder, database_url=database_url, instance=instance, settings=settings)

    def order(self, number: int, point: str = "") -> None:
        """From now on list the points; and die when this one is passed for this time."""
        self._points.unlink(missing_ok=True)
        new = self._folder / f"{killer.ORDER}.new"
        new.write_text(f"{number} {point}")
        new.rename(self._folder / killer.ORDER)

    def pardon(self) -> None:
        """List no more, and do not die."""
        killer.withdraw(self._folder)

    @property
    def database_url(self) -> str:
        """Of the database that it serves from."""
        return self._database_url

    @property
    def passed(self) -> list[str]:
        """The points that were passed since the order."""
        return self._points.read_text().splitlines() if self._points.exists() else []

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self._process is None or self._process.poll() is not None

    @property
    def _points(self) -> Path:
        return self._folder / killer.POINTS


class Town:
    """People who go on until what they wanted is done, and a Passport that may die meanwhile."""

    def __init__(
        self,
        company: Company,
        servers: Sequence[str],
        *,
        accounts: Callable[[], set[HostUser]],
        windows: Sequence[str] = (),
        database_url: str = "",
    ) -> None:
        self.company = company
        self.servers, self.windows = tuple(servers), tuple(windows)
        self.accounts = accounts  # everybody whom the servers let in, whoever made them
        self.ana, self.ben = company.people["ana"], company.people["ben"]
        self.passport = Mortal(company, company.folder / "passport", database_url=database_url)
        self.link = ""  # the last for Ana to sign in by
        self.deaths = 0
        self.faults: list[str] = []

    def open(self) -> None:
        """Set Passport up, and sign everybody in."""
        self.passport.run("migrate")
        self.passport.start(seconds=PATIENCE)
        self.passport.trust()
        for person in (self.ana, self.ben):
            self.company.link(person)

    def let_links_run_out(self) -> None:
        """As if ten minutes had passed: three links that a dying Passport has made and told nobody lock her out."""
        with self.beside() as store, store.unit_of_work() as uow:
            uow.sign_ins.purge(wiring.now() + TICKET_LIFETIME)
            uow.commit()

    def insist(self, act: Callable[[], Delivery | None]) -> Delivery | None:
        """Do it again for as long as Slack says that the app did not answer; None when there is nothing to do."""
        while True:
            done = act()
            if done is None or done.ok:
                return done
            self.revive()

    def wait(self, look: Callable[[], T | None], what: str) -> T:
        """Look until it is there, starting Passport again if it dies; raises TimeoutError."""
        end = time.monotonic() + PATIENCE
        while not (found := look()):
            if self.passport.is_dead:
                self.revive()
            if time.monotonic() > end:
                raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")
            time.sleep(0.1)
        return found

    def revive(self) -> None:
        """After a death by order: look around, start it again without the order."""
        deadline = time.monotonic() + 5
        while not self.passport.is_dead:
            assert time.monotonic() < deadline, "Passport does not answer, and is not dead"
            time.sleep(0.01)
        self.passport.pardon()
        self.deaths += 1
        self.faults += access_faults(self.accounts(), self.tables())  # not even now
        self.passport.start(seconds=PATIENCE)

    def tables(self) -> Tables:
        """The database, read beside whoever serves from it."""
        with self.beside() as store:
            return read_tables(store)

    @contextmanager
    def beside(self) -> Iterator[SqlStore]:
        """The store of a command that runs beside the server."""
        store = SqlStore(self.passport.database_url, sealing=SEALER, exclusive=False)
        try:
            yield store
        finally:
            store.close()

    def card_messages(self) -> list[Message]:
        """What the leads see."""
        return self.company.slack.messages(LEADS_CHANNEL)

    def audit_messages(self) -> list[Message]:
        """What the audit channel has."""
        return self.company.slack.messages(AUDIT_CHANNEL)

    def open_sessions(self) -> list[str]:
        """The tunnels to these servers that have not ended."""
        found = [session for session in self.company.aws.sessions if session.server.name in self.servers]
        return [session.id for session in found if session.ended_at is None]


def found_by(person: Employee, action_id: str, *words: str) -> Message | None:
    """The newest direct message with this button and these words in it."""
    for message in reversed(person.slack.direct_messages()):
        if action_id in message.actions and all(word in message.plain for word in words):
            return message
    return None
