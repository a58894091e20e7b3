"""A small world around the rules: a store, a fixed inventory, and routes and accounts that do as a test says."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from access.audit import Kind
from access.errors import UnavailableError
from access.model import (
    AccessRequest,
    AccountName,
    Grant,
    Link,
    Person,
    RouteName,
    Server,
    SlackUser,
    Submission,
    Verdict,
)
from access.policy import Policy
from access.ports import Store
from access.reconcile import Reconciler
from access.service.desk import Caller, Desk
from access.service.ending import Ending
from access.service.filing import Submitted
from access.service.retrying import Retrying
from access.service.reviewing import Reviewing
from access.service.submitting import Standing, Submitting, standing
from access.steps import Done, Step, Waiting
from provisioning.ssh_ca import SshCertificateAuthority
from tests.authorities import put_on_record
from tests.values import ANA, BEN, FakeClock, a_person, a_policy, a_server

Answer = Callable[[AccessRequest, Grant], Step]


def done(request: AccessRequest, grant: Grant) -> Step:
    """It worked at once."""
    return Done()


@dataclass
class FixedInventory:
    """Servers that a test names."""

    servers: list[Server]
    now: dict[str, Server] | None = None  # what ``read_again`` finds, if it differs
    is_down: bool = False
    is_listed: bool = True

    def find(self, words: str) -> Sequence[Server]:
        found = [server for server in self.servers if words in {server.name, server.instance_id}]
        if not found and not self.is_listed:
            raise UnavailableError("The servers have not been listed yet. Try again in a moment.")
        return found

    def search(self, text: str, limit: int) -> Sequence[Server]:
        return [server for server in self.servers if text in server.name][:limit]

    def read_again(self, servers: Sequence[Server]) -> Mapping[str, Server]:
        if self.is_down:
            raise UnavailableError("AWS does not answer. I go on trying.")
        found = self.now if self.now is not None else {server.key: server for server in self.servers}
        return {server.key: found[server.key] for server in servers if server.key in found}


@dataclass
class ScriptedSide:
    """A route or an account: answers as scripted, and remembers what it was asked."""

    on_provision: Answer = done
    on_remove: Answer = done
    on_intend: Callable[[Grant], Waiting | None] = lambda _: None
    asked: list[tuple[str, str]] = field(default_factory=list)

    def provision(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:
        return self._answer("provision", self.on_provision, request, grants)

    def remove(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:
        return self._answer("remove", self.on_remove, request, grants)

    def intend(self, _: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Waiting]:
        return {grant.id: intent for grant in grants if (intent := self.on_intend(grant))}

    def _answer(self, verb: str, answer: Answer, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:
        self.asked += [(verb, grant.id) for grant in grants]
        return {grant.id: answer(request, grant) for grant in grants}


class World:
    """Ana of payments asks, Ben of their leads decides."""

    def __init__(self, store: Store, policy: Policy | None = None) -> None:
        self.store = store
        self.clock = FakeClock()
        self.inventory = FixedInventory([a_server("web-1"), a_server("db-2")])
        self.route, self.account = ScriptedSide(), ScriptedSide()
        numbers = itertools.count(1)
        self.desk = Desk(
            store=store,
            policy=policy or a_policy(),
            inventory=self.inventory,
            clock=self.clock,
            token=lambda: f"token-{next(numbers):04d}-of-a-test-that-is-long",
            request_id=lambda _: f"AR-T{next(numbers):03d}",
        )
        self.submitting, self.reviewing, self.ending = Submitting(self.desk), Reviewing(self.desk), Ending(self.desk)
        self.retrying = Retrying(self.desk)
        self.authority = SshCertificateAuthority.generate(clock=self.clock)
        put_on_record(store, self.authority)
        self.ana = self.add_person(a_person("Ana Ruiz"), ANA)
        self.ben = self.add_person(a_person("Ben Ito", groups=frozenset({"payments-leads"})), BEN)

    def add_person(self, person: Person, slack_user: SlackUser, *, link_for: timedelta = timedelta(days=9)) -> Person:
        """Somebody with a live link."""
        link = Link(
            slack_user=slack_user,
            person_id=person.id,
            linked_at=self.clock.now,
            expires_at=self.clock.now + link_for,
        )
        with self.store.unit_of_work() as uow:
            uow.people.save(person)
            uow.people.save_link(link)
            uow.commit()
        return person

    def reconciler(self, owner: str = "one") -> Reconciler:
        """A process's reconciler."""
        return Reconciler(
            self.store,
            policy=self.desk.policy,
            inventory=self.inventory,
            routes={RouteName.SESSION_MANAGER: self.route},
            accounts={AccountName.SHORT_LIVED_USER: self.account},
            clock=self.clock,
            owner=owner,
        )

    def submit(
        self, *servers: str, minutes: int = 60, who: SlackUser = ANA, source_ip: str | None = None
    ) -> AccessRequest:
        """A request that is pending."""
        duration = timedelta(minutes=minutes)
        words = Submission(servers=servers or ("web-1",), reason="INC-1", duration=duration, source_ip=source_ip)
        filed = self.submitting.submit(Caller(slack_user=who), words)
        assert isinstance(filed, Submitted)
        return filed.request

    def approve(self, request: AccessRequest, who: SlackUser = BEN) -> Standing:
        """Ben says yes."""
        return self.reviewing.review(Caller(slack_user=who), request.id, Verdict.APPROVE)

    def reconcile(self, reconciler: Reconciler | None = None) -> list[str]:
        """Everything that is due now, until nothing is."""
        worker = reconciler or self.reconciler()
        worked: list[str] = []
        while claimed := worker.claim(50, removals_only=False):
            for request_id in claimed:
                worker.work(request_id)
            worked += claimed
        return worked

    def standing(self, request_id: str) -> Standing:
        """The request as the database has it."""
        with self.store.unit_of_work() as uow:
            return standing(uow, uow.requests.get(request_id))

    def kinds(self, request_id: str = "") -> list[Kind]:
        """What the audit log holds, in order."""
        with self.store.unit_of_work() as uow:
            found = uow.audit.of(request_id) if request_id else list(uow.audit.all())
            return [event.event.kind for event in found]


def retag(server: Server, **tags: str) -> Server:
    """The same server with other tags."""
    return replace(server, tags={**server.tags, **tags})
