"""Attacks on who is who: taken-over emails, second identities, people who left, powers that ran out."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from access.audit import Kind
from access.errors import RefusedError, UnavailableError
from access.model import EndCause, GrantState, RequestState, SlackUser
from access.ports import Certificate, Store
from access.service.desk import Caller
from access.service.keys import Keys
from access.service.linking import Linking
from access.service.refreshing import Refreshing
from access.service.showing import Showing
from handlers.cards import wanted_posts
from tests.values import ANA, BEN, a_person
from tests.world import World

SECOND = SlackUser(team_id="T0PASSPORT", user_id="U0SECOND")
LEADS = frozenset({"payments-leads"})


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


class Authority:
    def certify(self, wanted: Certificate, signers: Sequence[object]) -> str:
        assert signers
        return f"certificate {wanted.serial}"


class Directory:
    """An identity store that knows some people, and may be down."""

    def __init__(self, *known: str, refreshes: bool = True, is_down: bool = False) -> None:
        self.known, self.refreshes, self.is_down = known, refreshes, is_down
        self.asked: list[str] = []

    def groups_of(self, subject: str, email: str) -> frozenset[str] | None:
        self.asked.append(email)
        if self.is_down:
            raise UnavailableError("The identity store does not answer.")
        return LEADS | {"payments"} if email in self.known else None


def refresh(world: World, **stores: Directory) -> None:
    world.clock.forward(minutes=11)
    Refreshing(world.desk, stores, every=timedelta(minutes=10)).run()


class TestIdentity:
    def test_who_inherits_an_email_does_not_inherit_the_credentials(self, world: World) -> None:
        request = world.submit()
        world.approve(request)
        world.reconcile()
        heir = a_person("Ana Ruiz", id="P-heir", provider="contractors", subject="somebody-else")
        world.add_person(heir, SECOND)
        for who, name in ((ANA, "ana"), (SECOND, "heir")):
            Keys(world.desk).add(Caller(slack_user=who), line=f"ssh-ed25519 {name}", fingerprint=f"SHA256:{name}")
        showing = Showing(world.desk, Authority())
        with pytest.raises(RefusedError, match="theirs alone"):
            showing.credentials(Caller(slack_user=SECOND), request.id)
        assert Kind.CREDENTIALS_SHOWN not in world.kinds(request.id)
        assert showing.credentials(Caller(slack_user=ANA), request.id).key.line == "ssh-ed25519 ana"

    def test_a_slack_account_never_decides_on_what_it_asked_for(self, world: World) -> None:
        """One human with a second identity (an admin account, say) signs in anew between asking and deciding."""
        request = world.submit()
        privileged = a_person("Ana Admin", id="P-admin", subject="a-admin", email="adm-ana@example.com", groups=LEADS)
        world.add_person(privileged, ANA)
        with pytest.raises(RefusedError, match="cannot review your own request"):
            world.approve(request, ANA)
        assert world.standing(request.id).request.state is RequestState.PENDING
        assert Kind.REFUSED in world.kinds(request.id)


class TestPowersThatRanOut:
    def test_an_admin_whose_groups_are_stale_records_no_exception(self, world: World) -> None:
        world.add_person(a_person("Dana", groups=frozenset({"passport-admins"})), BEN)
        world.clock.forward(hours=13)
        with pytest.raises(RefusedError, match="confirm your groups"):
            Linking(world.desk).record_exception(Caller(slack_user=BEN), SECOND, "ceo@example.com", "trust me")
        with world.store.unit_of_work() as uow:
            assert uow.people.exception_of(SECOND) is None
        assert world.kinds()[-1] is Kind.REFUSED

    def test_groups_that_nobody_could_confirm_for_long_ask_for_nothing(self, world: World) -> None:
        world.clock.forward(hours=13)  # the link lives nine days here
        with pytest.raises(RefusedError, match="confirm your groups"):
            world.submit()
        assert world.kinds()[-1] is Kind.REQUEST_REFUSED


class TestWhoLeft:
    def test_gets_nothing_approved_any_more(self, world: World) -> None:
        pending = world.submit()
        refresh(world, okta=Directory("ben@example.com"))
        after = world.standing(pending.id).request
        assert (after.state, after.due_at) == (RequestState.CANCELLED, None)
        assert world.kinds(pending.id)[-1] is Kind.REQUEST_CANCELLED
        with pytest.raises(RefusedError, match="was cancelled at 03:11 UTC: the identity store no longer knows"):
            world.approve(pending)
        card, asked = wanted_posts(world.standing(pending.id), now=world.clock.now)
        assert "the identity store no longer knows this person." in str(card.blocks)
        assert "You cancelled" not in asked.text

    def test_is_noticed_while_they_have_access_even_unlinked(self, world: World) -> None:
        request = world.submit()
        world.approve(request)
        world.reconcile()
        Linking(world.desk).unlink(Caller(slack_user=ANA))
        refresh(world, okta=Directory("ben@example.com"))
        world.reconcile()
        ended = world.standing(request.id)
        assert (ended.request.state, ended.request.cause) == (RequestState.ENDED, EndCause.REVOKED)
        assert [grant.state for grant in ended.grants] == [GrantState.REMOVED]

    def test_loses_every_access_however_many(self, world: World) -> None:
        running = [world.submit() for _ in range(60)]
        for request in running:
            world.approve(request)
        world.reconcile()
        refresh(world, okta=Directory("ben@example.com"))
        world.reconcile()
        assert {world.standing(request.id).request.state for request in running} == {RequestState.ENDED}

    def test_is_noticed_behind_somebody_whose_answer_breaks(self, world: World) -> None:
        class Breaking(Directory):
            def groups_of(self, subject: str, email: str) -> frozenset[str] | None:
                if email == "aaa@example.com":
                    raise KeyError("displayName")
                return super().groups_of(subject, email)

        one = a_person("Aaa X", id="P-aaa", groups_read_at=world.clock.now - timedelta(hours=1))
        world.add_person(one, SECOND)
        request = world.submit()
        refresh(world, okta=Breaking("ben@example.com"))
        assert world.standing(request.id).request.state is RequestState.CANCELLED

    @pytest.mark.parametrize("trouble", [{"refreshes": False}, {"is_down": True}])
    def test_is_noticed_behind_a_crowd_that_cannot_be_looked_up(self, world: World, trouble: dict[str, bool]) -> None:
        other = Directory(**trouble)
        for number in range(120):
            one = a_person(f"C{number} X", provider="other", subject=f"s{number}")
            long_ago = replace(one, groups_read_at=world.clock.now - timedelta(hours=1))
            world.add_person(long_ago, SlackUser(team_id="T0PASSPORT", user_id=f"U0C{number}"))
        request = world.submit()
        world.approve(request)
        refresh(world, okta=Directory("ben@example.com"), other=other)
        assert world.standing(request.id).request.state is RequestState.ENDING
        assert len(other.asked) <= 10  # one that is down is not asked a hundred times
