"""The certificate authority's key changes under running access: nobody is cut off, and nothing stays that should not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from access.audit import Kind, verify
from access.authorities import KNOWN, Authority, AuthorityRole, trust_of
from access.errors import AlreadyDecidedError, NotFoundError, RefusedError
from access.model import AccessRequest, EndCause, Grant, RequestState
from access.service.desk import Caller
from access.service.keys import Keys
from access.service.rotating import Operator, Rotating
from access.service.showing import Showing
from access.steps import Done, Failed, Step, Waiting
from provisioning.ssh_ca import SshCertificateAuthority
from provisioning.ssh_certificate import read_certificate
from storage.unit_of_work import SqlStore
from tests.authorities import an_authority, ring
from tests.stores import run_together
from tests.unit.test_ssh_keys import ED25519
from tests.values import ANA
from tests.world import World

NEW = SshCertificateAuthority.generate()
NEWER = SshCertificateAuthority.generate()


class Town(World):
    """A world whose servers trust what they are told at the moment."""

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store)
        self.db = store
        self.account.on_provision = self.install
        self.rotating = Rotating(store, operator=Operator(name="root"), clock=self.clock)
        Keys(self.desk).add(Caller(slack_user=ANA), line=ED25519, fingerprint="SHA256:abcd1")

    def install(self, request: AccessRequest, grant: Grant) -> Step:
        with self.store.unit_of_work(read_only=True) as uow:
            trust = trust_of(uow.authorities.all())
        return Done(details={KNOWN: " ".join(authority.fingerprint for authority in trust.authorities)})

    def opened(self, *servers: str, minutes: int = 60) -> AccessRequest:
        request = self.submit(*(servers or ("web-1",)), minutes=minutes)
        self.approve(request)
        self.reconcile()
        return self.standing(request.id).request

    def signer(self, request: AccessRequest) -> str:
        """The fingerprint of whoever signs for it now."""
        keys = (self.authority, NEW, NEWER)
        shown = Showing(self.desk, ring(*(replace_clock(key, self) for key in keys)))
        body, _, _ = read_certificate(shown.credentials(Caller(slack_user=ANA), request.id).certificate)
        (found,) = [key.fingerprint for key in keys if key._signature_key == body.signature_key]
        return found

    def roles(self) -> dict[str, str]:
        with self.store.unit_of_work(read_only=True) as uow:
            return {each.fingerprint: each.role.value for each in uow.authorities.all()}

    def generation(self) -> int:
        with self.store.unit_of_work(read_only=True) as uow:
            return trust_of(uow.authorities.all()).generation


def replace_clock(key: SshCertificateAuthority, world: World) -> SshCertificateAuthority:
    return SshCertificateAuthority(key._private_key, clock=world.clock)


def record_of(key: SshCertificateAuthority) -> Authority:
    return replace(an_authority(key), since=an_authority(key).since + timedelta(days=1))


@pytest.fixture
def town(store: SqlStore) -> Town:
    return Town(store)


def test_a_rotation_from_start_to_finish(town: Town) -> None:
    before = town.opened("web-1")
    town.rotating.start(record_of(NEW))
    after = town.opened("db-2", minutes=30)
    assert town.signer(before) == town.authority.fingerprint  # its server knows no other
    assert town.signer(after) == NEW.fingerprint  # and so what is shown now outlasts the rotation

    with pytest.raises(RefusedError, match=rf"the last until .* UTC: web-1 \({before.id}\)\. Finish after that"):
        town.rotating.finish()
    town.clock.forward(minutes=30)
    town.reconcile()
    with pytest.raises(RefusedError):
        town.rotating.finish()
    town.clock.forward(minutes=30)
    town.reconcile()
    assert town.rotating.finish().fingerprint == town.authority.fingerprint

    assert town.roles() == {town.authority.fingerprint: "retired", NEW.fingerprint: "current"}
    assert town.generation() == 3
    assert town.signer(town.opened()) == NEW.fingerprint
    with town.store.unit_of_work() as uow:
        events = list(uow.audit.all())
    assert verify(events) == []
    ours = [found.event for found in events if found.event.kind.value.startswith("ca.")]
    assert [event.kind for event in ours] == [Kind.AUTHORITY_ROTATION_STARTED, Kind.AUTHORITY_ROTATION_FINISHED]
    assert {(event.actor, event.actor_name) for event in ours} == {("os:root", "root")}
    assert ours[1].details == {"old": town.authority.fingerprint, "new": NEW.fingerprint}


def test_what_was_opened_during_the_rotation_goes_on_after_it(town: Town) -> None:
    town.rotating.start(record_of(NEW))
    request = town.opened()
    town.rotating.finish()
    assert town.signer(request) == NEW.fingerprint


def test_one_certificate_serves_servers_from_before_and_after_the_start(town: Town) -> None:
    tries = iter([Failed(reason="busy", retryable=True)])
    town.account.on_provision = lambda request, grant: (
        next(tries, None) or town.install(request, grant)
        if grant.server.name == "db-2"
        else town.install(request, grant)
    )
    request = town.opened("web-1", "db-2")
    town.rotating.start(record_of(NEW))
    town.clock.forward(seconds=10)
    town.reconcile()
    known = {grant.server.name: len(grant.details[KNOWN].split()) for grant in town.standing(request.id).grants}
    assert known == {"web-1": 1, "db-2": 2}
    assert town.signer(request) == town.authority.fingerprint


def test_it_does_not_finish_while_a_server_has_not_said_what_it_trusts(town: Town) -> None:
    town.account.on_provision = lambda request, grant: Waiting(handle={}, retry_in=timedelta(seconds=1))
    request = town.opened()
    town.rotating.start(record_of(NEW))
    with pytest.raises(RefusedError, match=request.id):
        town.rotating.finish()


def test_a_rotation_that_is_called_off_cuts_nobody_off(town: Town) -> None:
    town.rotating.start(record_of(NEW))
    request = town.opened()
    assert town.rotating.abort().fingerprint == NEW.fingerprint
    assert town.signer(request) == town.authority.fingerprint
    assert town.generation() == 3  # else a server would keep both
    with pytest.raises(RefusedError, match="No rotation is under way"):
        town.rotating.finish()
    with pytest.raises(RefusedError, match="No rotation is under way"):
        town.rotating.abort()
    with pytest.raises(RefusedError, match=r"is on record already\. Make a new KMS key"):
        town.rotating.start(record_of(NEW))
    town.rotating.start(record_of(NEWER))


def test_only_one_rotation_at_a_time(town: Town) -> None:
    town.rotating.start(record_of(NEW))
    with pytest.raises(AlreadyDecidedError, match=r"A rotation is under way since .* UTC"):
        town.rotating.start(record_of(NEWER))
    assert NEWER.fingerprint not in town.roles()


def test_before_the_first_start_there_is_nothing_to_rotate(store: SqlStore) -> None:
    rotating = Rotating(store, operator=Operator(name="root"), clock=lambda: an_authority(NEW).since)
    acts: Sequence[Callable[[], object]] = (
        lambda: rotating.start(record_of(NEW)),
        rotating.finish,
        rotating.abort,
        lambda: rotating.replace_at_once(record_of(NEW), reason="stolen"),
    )
    for act in acts:
        with pytest.raises(NotFoundError, match="no key yet"):
            act()
    assert rotating.standing() == []


@pytest.mark.postgres
def test_of_two_admins_at_the_same_moment_one_starts(postgres_store: SqlStore) -> None:
    town = Town(postgres_store)

    def start(key: SshCertificateAuthority) -> str:
        try:
            return town.rotating.start(record_of(key)).fingerprint
        except AlreadyDecidedError:
            return ""

    answers = run_together(lambda: start(NEW), lambda: start(NEWER))
    (winner,) = filter(None, answers)
    assert town.roles() == {town.authority.fingerprint: "current", winner: "next"}
    assert town.kinds().count(Kind.AUTHORITY_ROTATION_STARTED) == 1


class TestCompromised:
    """Nothing that trusts the old key may stay open: not even who is logged in, for it may be the thief."""

    def test_every_access_is_ended_and_the_key_is_gone_at_once(self, town: Town) -> None:
        running = town.opened("web-1")
        opening = town.submit("db-2")
        town.account.on_provision = lambda request, grant: Waiting(handle={}, retry_in=timedelta(seconds=1))
        town.approve(opening)
        town.reconcile()
        approved = town.submit("web-1")
        town.approve(approved)  # nothing was sent yet
        pending = town.submit("db-2")

        ended = town.rotating.replace_at_once(record_of(NEW), reason="the laptop of an admin was stolen")
        assert sorted(request.id for request in ended) == sorted([running.id, opening.id])
        assert town.roles() == {town.authority.fingerprint: "retired", NEW.fingerprint: "current"}
        town.account.on_provision = town.install
        with pytest.raises(AlreadyDecidedError):
            town.signer(running)

        town.reconcile()
        for request in (running, opening):
            found = town.standing(request.id).request
            assert (found.state, found.cause) == (RequestState.ENDED, EndCause.REVOKED)
            assert found.cause_detail == (
                "root replaced the key of the certificate authority: the laptop of an admin was stolen"
            )
        assert town.signer(town.standing(approved.id).request) == NEW.fingerprint
        assert town.standing(pending.id).request.state is RequestState.PENDING
        (event,) = [e for e in self.events(town) if e["kind"] == Kind.AUTHORITY_REPLACED]
        assert (event["new"], event["reason"]) == (NEW.fingerprint, "the laptop of an admin was stolen")

    def test_during_a_rotation_neither_of_its_keys_stays(self, town: Town) -> None:
        town.rotating.start(record_of(NEW))
        request = town.opened()
        town.rotating.replace_at_once(record_of(NEWER), reason="stolen")
        assert town.roles() == {
            town.authority.fingerprint: "retired",
            NEW.fingerprint: "retired",
            NEWER.fingerprint: "current",
        }
        assert town.standing(request.id).request.state is RequestState.ENDING
        assert town.generation() == 3

    def test_show_says_until_when_a_server_trusts_the_old_key(self, town: Town) -> None:
        request = town.opened("web-1")
        town.account.on_remove = lambda request, grant: Failed(reason="It does not answer.", retryable=True)
        town.rotating.replace_at_once(record_of(NEW), reason="stolen")
        town.reconcile()
        holds = self.trusting(town)
        assert [(hold.server, hold.until) for hold in holds[town.authority.fingerprint]] == [
            ("web-1", request.expires_at)
        ]
        assert holds[NEW.fingerprint] == []
        town.account.on_remove = lambda request, grant: Done()
        town.clock.forward(minutes=5)
        town.reconcile()
        assert self.trusting(town)[town.authority.fingerprint] == []

    def trusting(self, town: Town) -> Mapping[str, list[object]]:
        return {each.authority.fingerprint: list(each.trusting) for each in town.rotating.standing()}  # type: ignore[return-value]

    def events(self, town: Town) -> list[dict[str, object]]:
        with town.store.unit_of_work() as uow:
            return [{"kind": found.event.kind, **found.event.details} for found in uow.audit.all()]


def test_show_counts_who_depends_on_the_old_key_while_it_changes(town: Town) -> None:
    before = town.opened("web-1")
    town.rotating.start(record_of(NEW))
    town.opened("db-2")
    found = {each.authority.role: each for each in town.rotating.standing()}
    assert [hold.request_id for hold in found[AuthorityRole.CURRENT].only] == [before.id]
    assert [hold.server for hold in found[AuthorityRole.NEXT].only] == []
    assert [hold.server for hold in found[AuthorityRole.NEXT].trusting] == ["db-2"]
