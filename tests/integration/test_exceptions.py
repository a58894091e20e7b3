"""Email exceptions end and can be taken back; sign-in links have a limit; both are on record, and neither by strangers."""

from datetime import timedelta

import pytest

from access.audit import Kind
from access.errors import NotFoundError, RefusedError, SignInNeededError
from access.model import SlackUser, Submission
from access.service.desk import Caller
from access.service.linking import MOST_TICKETS, Linking
from access.service.submitting import Parked
from storage.unit_of_work import SqlStore
from tests.integration.test_service import CLEO, sign_in
from tests.values import ANA, BEN, NOW, a_person
from tests.world import World

OTHER = "c.park@corp.example"
ADMIN = Caller(slack_user=BEN)


@pytest.fixture
def world(store: SqlStore) -> World:
    made = World(store)
    made.add_person(a_person("Dana", groups=frozenset({"passport-admins"})), BEN, link_for=timedelta(days=900))
    return made


def still_admin(world: World) -> None:
    """Sign the admin in again: what is old about them must not decide the test."""
    dana = a_person("Dana", groups=frozenset({"passport-admins"}), groups_read_at=world.clock.now)
    world.add_person(dana, BEN, link_for=timedelta(days=900))


class TestExceptions:
    def test_one_lasts_as_long_as_the_settings_say(self, world: World) -> None:
        linking = Linking(world.desk)
        until = linking.record_exception(ADMIN, CLEO, OTHER, "merger")
        assert until == NOW + timedelta(days=90)
        world.clock.forward(days=89, hours=23)
        sign_in(world, email=OTHER)
        world.clock.forward(hours=1)
        with pytest.raises(RefusedError, match=rf"The exception for that ran out on {until:%Y-%m-%d}\. Ask a Passport"):
            sign_in(world, email=OTHER, assertion_id="two")
        assert world.kinds()[-1] is Kind.LINK_REFUSED
        still_admin(world)
        linking.record_exception(ADMIN, CLEO, OTHER, "the merger takes longer")
        sign_in(world, email=OTHER, assertion_id="three")

    def test_one_that_is_taken_back_takes_its_link_along(self, world: World) -> None:
        linking = Linking(world.desk)
        linking.record_exception(ADMIN, CLEO, OTHER, "merger")
        sign_in(world, email=OTHER)
        linking.remove_exception(ADMIN, CLEO, "she left")
        with pytest.raises(SignInNeededError):
            linking.whoami(Caller(slack_user=CLEO))
        with pytest.raises(RefusedError, match="ask a Passport admin for an exception"):
            sign_in(world, email=OTHER, assertion_id="two")
        with world.store.unit_of_work() as uow:
            (event,) = [found.event for found in uow.audit.all() if found.event.kind is Kind.EXCEPTION_REMOVED]
        assert event.actor_name == "Dana"
        assert event.details == {
            "slack": f"slack:{CLEO.team_id}/{CLEO.user_id}", "email": OTHER, "reason": "she left", "link": "removed",
        }  # fmt: skip

    def test_a_link_by_the_own_email_stays(self, world: World) -> None:
        linking = Linking(world.desk)
        linking.record_exception(ADMIN, CLEO, OTHER, "merger")
        sign_in(world)  # as the profile says
        linking.remove_exception(ADMIN, CLEO, "not needed")
        assert linking.whoami(Caller(slack_user=CLEO)).person.email == "cleo@example.com"

    def test_there_must_be_one(self, world: World) -> None:
        with pytest.raises(NotFoundError, match=r"no exception for them\. Nothing changed"):
            Linking(world.desk).remove_exception(ADMIN, CLEO, "tidy")

    def test_only_admins_with_fresh_groups_take_one_back(self, world: World) -> None:
        linking = Linking(world.desk)
        linking.record_exception(ADMIN, CLEO, OTHER, "merger")
        with pytest.raises(RefusedError, match="Only admins decide about exceptions"):
            linking.remove_exception(Caller(slack_user=ANA), CLEO, "spite")
        assert world.kinds()[-1] is Kind.REFUSED
        with pytest.raises(SignInNeededError):
            linking.remove_exception(Caller(slack_user=CLEO), CLEO, "spite")
        world.clock.forward(hours=13)
        with pytest.raises(RefusedError, match="groups"):
            linking.remove_exception(ADMIN, CLEO, "old news")
        with world.store.unit_of_work() as uow:
            assert uow.people.exception_of(CLEO) is not None


class TestSignInLinks:
    def begun(self, world: World) -> int:
        return world.kinds().count(Kind.LINK_STARTED)

    def test_there_are_three_at_a_time(self, world: World) -> None:
        linking, caller = Linking(world.desk), Caller(slack_user=CLEO)
        for _ in range(MOST_TICKETS):
            linking.begin(caller)
            world.clock.forward(minutes=1)
        for _ in range(20):
            with pytest.raises(
                RefusedError,
                match=rf"asked for 3 sign-in links just now.*after {NOW + timedelta(minutes=10):%H:%M:%S} UTC",
            ):
                linking.begin(caller)
        assert self.begun(world) == MOST_TICKETS
        linking.begin(Caller(slack_user=SlackUser(team_id="T0PASSPORT", user_id="U0ELSE")))  # everybody has their own
        world.clock.forward(minutes=7)
        linking.begin(caller)

    def test_using_them_up_makes_no_room(self, world: World) -> None:
        linking, caller = Linking(world.desk), Caller(slack_user=CLEO)
        for number in range(MOST_TICKETS):
            token = linking.begin(caller)
            linking.go_on(token, provider="okta", request_id=f"i-{number}", relay_state=f"r-{number}", browser="b")
        with pytest.raises(RefusedError):
            linking.begin(caller)

    def test_signing_in_does(self, world: World) -> None:
        for number in range(MOST_TICKETS + 2):
            sign_in(world, assertion_id=f"a-{number}")

    def test_what_is_asked_for_is_kept_all_the_same(self, world: World) -> None:
        for _ in range(MOST_TICKETS):
            Linking(world.desk).begin(Caller(slack_user=CLEO))
        wish = Submission(servers=("web-1",), reason="INC-1")
        assert isinstance(world.submitting.submit(Caller(slack_user=CLEO), wish), Parked)
