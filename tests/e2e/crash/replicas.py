"""Two Passports on one PostgreSQL, and people who click at both at once."""

import itertools
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg

from sandbox.company import COMMAND, LEADS_CHANNEL, Company, Employee
from sandbox.reading import wait_for, with_button
from sandbox.slack import Message, payloads
from sandbox.slack.deliveries import Answer, Courier, Delivery, HttpTransport
from storage.unit_of_work import SqlStore
from tests.e2e.crash.record import Tables, read_tables
from tests.e2e.crash.steady_host import SteadyHost
from tests.e2e.crash.town import Mortal
from tests.stores import SEALER

S = TypeVar("S")
T = TypeVar("T")
_REQUEST = re.compile(r"AR-[0-9A-Z]{4,8}")
SERVERS = 4
CALLERS = 8


class Replica(Mortal):
    """A Passport on the shared database; a second one has the keys of the first."""

    def __init__(self, company: Company, name: str, database_url: str, *, of: "Replica | None" = None) -> None:
        super().__init__(company, company.folder / name, database_url=database_url, instance=name)
        self.name = name
        self._first = of
        if of is not None:
            self._secrets = of._secrets

    def start(self, *, seconds: float = 120, slack: bool = True) -> None:
        """With the files of the first, which has made the certificate authority's key at its own first start."""
        for file in self._first._folder.glob("[sc]a*") if self._first else ():
            if file.name.startswith(("saml.", "ca.sealed")):
                shutil.copy(file, self._folder / file.name)
        super().start(seconds=seconds, slack=slack)

    @property
    def request_url(self) -> str:
        """Where Slack delivers."""
        return f"{self.url}/slack/events"


class Doors:
    """A load balancer: every delivery goes to the next Passport, be it alive or not."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._next = itertools.cycle([HttpTransport(url) for url in urls])
        self._lock = threading.Lock()

    def carry(self, delivery: Delivery, envelope: str, seconds: float) -> Answer:
        """Bring it to one of them."""
        with self._lock:
            door = next(self._next)
        return door.carry(delivery, envelope, seconds)


class Replicas:
    """A context manager around the company, its two Passports, and a sample of every click."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder = folder
        self.database_url = database_url
        self._stack = ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self.company = opening.enter_context(Company(self._folder))
            self.company._hire("dan", "Dan Oka", {"payments-leads"})
            self.ana, self.ben, self.cleo, self.dan = (
                self.company.people[name] for name in ("ana", "ben", "cleo", "dan")
            )
            self.slack = self.company.slack
            self.slack.join(LEADS_CHANNEL, self.dan.slack.id)
            self.hosts = [SteadyHost() for _ in range(SERVERS)]
            for number, host in enumerate(self.hosts):
                self.company.aws.add_server(f"web-{number}", tags={"env": "prod"}, answers=host.answer)
            self.a = Replica(self.company, "a", self.database_url)
            self.b = Replica(self.company, "b", self.database_url, of=self.a)
            self.store = SqlStore(self.database_url, sealing=SEALER)
            opening.callback(self.store.close)
            self.pool = opening.enter_context(ThreadPoolExecutor(CALLERS))
            for replica in (self.b, self.a):
                opening.callback(replica.kill)
            self._open()
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def connect(self, *replicas: Replica) -> None:
        """Let Slack deliver to these in turn."""
        self.slack._courier.transport = Doors([replica.request_url for replica in replicas or (self.a, self.b)])

    def ask(self, person: Employee | None = None) -> str:
        """Ana asks for a server, or somebody else; the request's id."""
        number, asker = next(self._numbers), (person or self.ana).slack

        def request_id() -> str:
            found = _REQUEST.search(asker.command(COMMAND, self.words(number)).plain)
            return found[0] if found else ""

        return wait_for(request_id, "a request", seconds=60)

    def words(self, number: int) -> str:
        """What Ana types."""
        return f"request web-{number % SERVERS} for 1h because INC-{number}: race"

    def approval(self, person: Employee, request_id: str) -> Delivery:
        """A click on Approve that is on its way; the card need not have come yet."""
        payload = deepcopy(self._approve)
        payload["actions"][0]["value"] = request_id
        return self._made("block_actions", person, payload)

    def denial(self, person: Employee, request_id: str) -> Delivery:
        """The form of Deny that is on its way."""
        payload = deepcopy(self._deny)
        payload["view"]["private_metadata"] = request_id
        return self._made("view_submission", person, payload)

    def deliver(self, made: Delivery, replica: Replica | None = None) -> Delivery:
        """Bring a click to one of them, or to the next one."""
        courier = Courier(self.slack.signing_secret, lambda: None, self.slack.faults)
        courier.transport = HttpTransport(replica.request_url) if replica else self.slack._courier.transport
        return courier.carry(replace(made, headers={**made.headers, **courier.signed(made.body, int(time.time()))}))

    def insist(self, act: Callable[[], Delivery]) -> Delivery:
        """Again, as a person does whose click was not taken."""
        return wait_for(lambda: done if (done := act()).ok else None, "an answer", seconds=60)

    def all_at_once(self, act: Callable[[S], T], things: Sequence[S]) -> list[T]:
        """With every one of them, by a few callers at a time."""
        return list(self.pool.map(act, things))

    def approve(self, request_id: str) -> Delivery:
        """Ben's click, until it is taken."""
        return self.insist(lambda: self.deliver(self.approval(self.ben, request_id)))

    def finish(self, person: Employee, request_id: str) -> Delivery:
        """The requester is done."""
        return self.insist(lambda: person.slack.command(COMMAND, f"done {request_id}"))

    def tables(self) -> Tables:
        """The database."""
        return read_tables(self.store)

    def states(self) -> dict[str, str]:
        """The state of every request."""
        with self.store.unit_of_work(read_only=True) as uow:
            return {request.id: request.state.value for request in uow.requests.find(limit=100_000)}

    def leased_to(self, replica: Replica) -> list[str]:
        """What it is working on, or was when it died."""
        with psycopg.connect(self.database_url) as connection:
            found = connection.execute("SELECT id FROM requests WHERE lease_owner = %s", [replica.name])
            return [str(row[0]) for row in found]

    def let_leases_run_out(self, replica: Replica) -> None:
        """As if two minutes had passed."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute("UPDATE requests SET lease_until = now() WHERE lease_owner = %s", [replica.name])

    def wait_for_states(self, request_ids: Iterable[str], state: str, *, seconds: float = 60) -> None:
        """Until all of them are there."""
        wanted = list(request_ids)
        query = "SELECT NOT EXISTS (SELECT FROM requests WHERE id = ANY(%s) AND state <> %s)"
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            wait_for(lambda: connection.execute(query, [wanted, state]).fetchone() == (True,), state, seconds=seconds)

    def _open(self) -> None:
        self.a.run("documents", "publish")
        self.a.start()
        self.a.trust()
        for person in (self.ana, self.ben, self.cleo, self.dan):
            self.company.link(person)
        self.b.start()
        self.connect()
        self._take_samples()

    def _take_samples(self) -> None:
        """One real approval and one real denial, whose payloads the others have."""
        for number in range(2):
            request_id = self.ask()
            card = wait_for(partial(self._card, request_id), "the card")
            if number:
                self.dan.slack.click(card, "review.deny")
                self._deny = self.dan.slack.submit(values={"reason": "not now"}).payload
            else:
                self._approve = self.ben.slack.click(card, "review.approve").payload

    def _card(self, request_id: str) -> Message | None:
        return with_button(self.slack.messages(LEADS_CHANNEL), "review.approve", request_id)

    def _made(self, kind: str, person: Employee, payload: dict[str, Any]) -> Delivery:
        payload["user"] = {**payload["user"], "id": person.slack.id, "username": person.slack.member.name}
        payload["trigger_id"] = self.slack.views.make_trigger(person.slack.id)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = payloads.interaction(json.loads(json.dumps(payload)))
        return Delivery(kind=kind, user=person.slack.id, body=body, headers=headers, payload=payload)
