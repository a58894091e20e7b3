"""Passport in this process, without Slack and AWS: real storage, rules and loops; servers that answer at once.

At once, but in as many rounds as Run Command takes. Left out are AWS itself, what its calls cost Passport (signing,
HTTP, parsing), and the 50 ms before the first look at a command.
"""

from collections.abc import Callable
from datetime import timedelta

from access.model import AccessRequest, AccountName, Grant, Link, RouteName, SshKey, Submission, Verdict
from access.ports import Account
from access.reconcile import Reconciler
from access.service.desk import Caller, Desk
from access.service.ending import Ending
from access.service.filing import Submitted
from access.service.reviewing import Reviewing
from access.service.showing import Showing
from access.service.submitting import Submitting
from access.steps import Done, Step, Waiting
from bot import wiring
from bot.loops import ReconcilerTurns
from provisioning.ssh_ca import SshCertificateAuthority
from storage.unit_of_work import SqlStore
from tests.authorities import put_on_record, ring
from tests.stores import SEALER
from tests.unit.test_ssh_keys import ED25519
from tests.values import ANA, BEN, a_person, a_policy, a_server
from tests.world import FixedInventory, ScriptedSide

Noticed = Callable[[AccessRequest], None]


class Rounds(ScriptedSide):
    """As Run Command goes: an intent that is saved, the command sent, a look that finds it done."""

    def __init__(
        self,
        sent: Callable[[AccessRequest, Grant], None] = lambda _request, _grant: None,
        *,
        look_after: timedelta = timedelta(),
    ) -> None:
        super().__init__(self._round, self._round, on_intend=lambda _: _at("intended"))
        self._sent = sent
        self._look_after = look_after

    def _round(self, request: AccessRequest, grant: Grant) -> Step:
        match grant.account.handle.get("at"):
            case None:
                return _at("intended")
            case "intended":
                self._sent(request, grant)
                return _at("sent", self._look_after)
            case _:
                return Done()


def _at(round_: str, retry_in: timedelta = timedelta()) -> Waiting:
    return Waiting(handle={"at": round_}, retry_in=retry_in)


class Office:
    """One replica: Ana asks, Ben decides; ``noticed`` hears of every request that this replica has brought further."""

    def __init__(self, url: str, *, owner: str, noticed: Noticed, account: Account | None = None) -> None:
        self.store = SqlStore(url, sealing=SEALER)
        inventory = FixedInventory([a_server()])
        desk = Desk(
            store=self.store,
            policy=a_policy(),
            inventory=inventory,
            clock=wiring.now,
            token=wiring.new_token,
            request_id=wiring.new_request_id,
        )
        self.submitting, self.reviewing, self.ending = Submitting(desk), Reviewing(desk), Ending(desk)
        authority = SshCertificateAuthority.generate()
        put_on_record(self.store, authority)
        self.showing = Showing(desk, ring(authority))
        self.reconciler = Reconciler(
            self.store,
            policy=desk.policy,
            inventory=inventory,
            routes={RouteName.SESSION_MANAGER: ScriptedSide()},
            accounts={AccountName.SHORT_LIVED_USER: account or Rounds()},
            clock=wiring.now,
            owner=owner,
            observe=lambda _, recorded: noticed(recorded),
        )
        self.turns = ReconcilerTurns(self.reconciler, clock=wiring.now)
        self.store.on_commit(self.turns.wake_if_due)

    def submit(self) -> AccessRequest:
        """Ana asks."""
        filed = self.submitting.submit(
            Caller(slack_user=ANA, delivery=wiring.new_token()),
            Submission(servers=("web-1",), reason="INC-1: disk full", duration=timedelta(hours=1)),
        )
        assert isinstance(filed, Submitted)
        return filed.request

    def approve(self, request_id: str) -> None:
        """Ben says yes."""
        self.reviewing.review(Caller(slack_user=BEN, delivery=wiring.new_token()), request_id, Verdict.APPROVE)

    def complete(self, request_id: str) -> None:
        """Ana is done."""
        self.ending.complete(Caller(slack_user=ANA, delivery=wiring.new_token()), request_id)

    def close(self) -> None:
        """Stop the loops."""
        self.turns.stop()
        self.store.close()


def settle_in(url: str) -> None:
    """Ana of payments and Ben of their leads, linked, and Ana's key."""
    now = wiring.now()
    people = (
        (ANA, a_person("Ana Ruiz", groups_read_at=now)),
        (BEN, a_person("Ben Ito", groups_read_at=now, groups=frozenset({"payments-leads"}))),
    )
    store = SqlStore(url, sealing=SEALER)
    with store.unit_of_work() as uow:
        for slack_user, person in people:
            uow.people.save(person)
            until = now + timedelta(days=1)
            uow.people.save_link(Link(slack_user=slack_user, person_id=person.id, linked_at=now, expires_at=until))
        uow.people.add_key(SshKey(fingerprint="SHA256:bench", person_id="P-ana", line=ED25519, added_at=now))
        uow.commit()
    store.close()
