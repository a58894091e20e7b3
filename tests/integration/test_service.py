"""The use cases against real storage: link, submit, park, review, end, keys, credentials, refresh."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from access.audit import Kind
from access.authorities import Authority
from access.errors import (
    AlreadyDecidedError,
    DuplicateDeliveryError,
    InvalidInputError,
    NotFoundError,
    PassportError,
    RefusedError,
    SignInNeededError,
    UnavailableError,
)
from access.model import AccessRequest, EndCause, Login, RequestState, SignIn, SlackUser, Submission, Verdict
from access.ports import Certificate, Store
from access.service.desk import Caller
from access.service.filing import Submitted
from access.service.keys import Keys
from access.service.linking import Linked, Linking
from access.service.refreshing import Refreshing
from access.service.showing import Showing
from access.service.submitting import Parked, Submitting
from storage.repositories.requests import SqlRequests
from tests.stores import run_together
from tests.values import ANA, BEN, NOW, a_person, a_policy, a_rule, a_server
from tests.world import World

CLEO = SlackUser(team_id="T0PASSPORT", user_id="U0CLEO")
AGAIN = SlackUser(team_id="T0PASSPORT", user_id="U0ANATWO")


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def a_sign_in(**changes: object) -> SignIn:
    said = SignIn(
        provider="okta",
        subject="subject-cleo",
        email="cleo@example.com",
        name="Cleo Park",
        groups=frozenset({"payments"}),
        assertion_id="assertion-1",
        not_on_or_after=NOW + timedelta(minutes=5),
    )
    return replace(said, **changes)  # type: ignore[arg-type]


def begin(linking: Linking, *, browser: str = "browser") -> str:
    """From the link in Slack to the identity provider; answers the relay state."""
    token = linking.begin(Caller(slack_user=CLEO))
    linking.go_on(token, provider="okta", request_id="id-1", relay_state=f"relay-{token}", browser=browser)
    return f"relay-{token}"


def sign_in(world: World, **changes: object) -> Linked:
    linking = Linking(world.desk)
    login = linking.take_login(begin(linking), "browser")
    return linking.link(login, a_sign_in(**changes), profile_email="Cleo@example.com")


class TestLinking:
    def test_a_link_names_the_person_and_runs_out(self, world: World) -> None:
        linked = sign_in(world)
        assert (linked.person.email, linked.link.expires_at) == ("cleo@example.com", NOW + timedelta(hours=12))
        assert Linking(world.desk).whoami(Caller(slack_user=CLEO)).person == linked.person
        world.clock.forward(hours=12)
        with pytest.raises(SignInNeededError):
            Linking(world.desk).whoami(Caller(slack_user=CLEO))

    def test_looking_uses_nothing_up_and_going_on_does(self, world: World) -> None:
        linking = Linking(world.desk)
        token = linking.begin(Caller(slack_user=CLEO))
        for _ in range(3):
            assert linking.look(token).slack_user == CLEO
        linking.go_on(token, provider="okta", request_id="id-1", relay_state="r", browser="b")
        for act in (
            lambda: linking.look(token),
            lambda: linking.go_on(token, provider="okta", request_id="i", relay_state="q", browser="b"),
        ):
            with pytest.raises(NotFoundError, match="used before or has run out"):
                act()

    def test_a_link_lives_ten_minutes(self, world: World) -> None:
        token = Linking(world.desk).begin(Caller(slack_user=CLEO))
        world.clock.forward(minutes=10)
        with pytest.raises(NotFoundError):
            Linking(world.desk).look(token)

    def test_only_the_browser_that_began_may_finish_and_only_once(self, world: World) -> None:
        linking = Linking(world.desk)
        relay = begin(linking)
        with pytest.raises(RefusedError, match="another browser"):
            linking.take_login(relay, "somebody else's")
        assert world.kinds()[-1] is Kind.LINK_REFUSED
        assert linking.take_login(relay, "browser").slack_user == CLEO  # the stranger used nothing up
        with pytest.raises(RefusedError, match="used before"):
            linking.take_login(relay, "browser")

    def test_two_finishing_at_once_is_one(self, world: World) -> None:
        linking = Linking(world.desk)
        relay = begin(linking)

        def finish() -> Login | PassportError:
            try:
                return linking.take_login(relay, "browser")
            except PassportError as error:
                return error

        results = run_together(*[finish] * 4)
        assert sum(isinstance(result, Login) for result in results) == 1

    def test_another_email_is_refused_with_the_reason_until_an_admin_says_so(self, world: World) -> None:
        linking = Linking(world.desk)
        with pytest.raises(
            RefusedError, match=r"signed in as c\.park@corp\.example, but your Slack profile says Cleo@example\.com"
        ):
            sign_in(world, email="c.park@corp.example")
        assert world.kinds()[-1] is Kind.LINK_REFUSED
        with pytest.raises(RefusedError, match="Only admins"):
            linking.record_exception(Caller(slack_user=ANA), CLEO, "c.park@corp.example", "merger")
        world.add_person(a_person("Dana", groups=frozenset({"passport-admins"})), BEN)
        linking.record_exception(Caller(slack_user=BEN), CLEO, "C.Park@corp.example", "merger")
        assert sign_in(world, email="c.park@corp.example", assertion_id="two").person.email == "c.park@corp.example"

    def test_a_replayed_assertion_is_refused(self, world: World) -> None:
        sign_in(world)
        with pytest.raises(RefusedError, match="used before"):
            sign_in(world)

    def test_the_same_person_by_two_slack_accounts_is_one_person(self, world: World) -> None:
        first = sign_in(world)
        linking = Linking(world.desk)
        login = linking.take_login(begin(linking), "browser")
        second = linking.link(
            replace(login, slack_user=AGAIN), a_sign_in(assertion_id="two"), profile_email="cleo@example.com"
        )
        assert second.person.id == first.person.id

    def test_unlink(self, world: World) -> None:
        linking = Linking(world.desk)
        linking.unlink(Caller(slack_user=ANA))
        with pytest.raises(SignInNeededError):
            linking.whoami(Caller(slack_user=ANA))
        with pytest.raises(NotFoundError):
            linking.unlink(Caller(slack_user=ANA))


class TestSubmitting:
    def test_a_request_is_pinned_to_its_servers_and_rule(self, world: World) -> None:
        request = world.submit("web-1", "db-2")
        stored = world.standing(request.id).request
        assert stored == request
        assert [server.name for server in stored.servers] == ["web-1", "db-2"]
        assert stored.terms == a_rule().terms()
        assert stored.state is RequestState.PENDING

    def test_without_a_link_it_is_parked_and_submits_itself(self, world: World) -> None:
        words = Submission(servers=("web-1",), reason="INC-1", duration=timedelta(hours=1))
        parked = world.submitting.submit(Caller(slack_user=CLEO), words)
        assert isinstance(parked, Parked)
        sign_in(world)
        done = world.submitting.unpark(CLEO)
        assert done[0].request
        assert world.standing(done[0].request.id).request.reason == "INC-1"
        assert world.submitting.unpark(CLEO) == []

    def test_a_link_that_would_die_before_the_end_parks_but_a_fresh_one_is_enough(self, world: World) -> None:
        policy = a_policy(rules=(a_rule(max_duration=timedelta(hours=12)),))
        desk = replace(world.desk, policy=policy)
        world.add_person(a_person("Ana Ruiz"), ANA, link_for=timedelta(minutes=59))
        submitting = type(world.submitting)(desk)
        parked = submitting.submit(
            Caller(slack_user=ANA), Submission(servers=("web-1",), reason="x", duration=timedelta(hours=12))
        )
        assert isinstance(parked, Parked)
        assert parked.linked_at == NOW
        world.add_person(a_person("Ana Ruiz"), ANA, link_for=timedelta(hours=12))
        world.clock.forward(seconds=1)
        assert submitting.unpark(ANA)[0].request

    def test_a_parked_request_that_is_refused_is_answered(self, world: World) -> None:
        world.submitting.submit(Caller(slack_user=CLEO), Submission(servers=("no-such",), reason="x"))
        sign_in(world)
        assert "no server no-such" in world.submitting.unpark(CLEO)[0].sentence
        with world.store.unit_of_work() as uow:
            assert [message[2] for message in uow.outbox.due(world.clock(), 9)] == [
                "I could not send your request: I know no server no-such. Check the name."
            ]

    def test_what_a_dying_process_left_parked_after_the_sign_in_is_filed_by_housekeeping(self, world: World) -> None:
        words = Submission(servers=("web-1",), reason="INC-1", duration=timedelta(hours=1))
        world.submitting.submit(Caller(slack_user=CLEO), words)
        world.submitting.file_left_behind()
        with world.store.unit_of_work() as uow:
            assert len(uow.sign_ins.parked_of(CLEO)) == 1  # nobody has signed in
        world.clock.forward(seconds=1)
        sign_in(world)  # and the process dies here, before it files what waited
        world.submitting.file_left_behind()
        with world.store.unit_of_work() as uow:
            assert uow.sign_ins.parked_of(CLEO) == []
            (filed,) = uow.requests.find(states=(RequestState.PENDING,))
        assert (filed.slack_user, filed.reason) == (CLEO, "INC-1")

    def test_what_is_parked_stays_so_until_the_servers_are_listed(self, world: World) -> None:
        """A new process looks for what the old one left behind, maybe before it has read which servers there are."""
        servers, world.inventory.servers, world.inventory.is_listed = world.inventory.servers, [], False
        words = Submission(servers=("web-1",), reason="INC-1", duration=timedelta(hours=1))
        world.submitting.submit(Caller(slack_user=CLEO), words)
        world.clock.forward(seconds=1)
        sign_in(world)
        (waits,) = world.submitting.unpark(CLEO)
        assert (waits.request, waits.is_kept) == (None, True)
        assert waits.sentence.startswith("I know no server web-1 so far. The servers have not been listed yet.")
        world.submitting.file_left_behind()
        with world.store.unit_of_work() as uow:
            assert len(uow.sign_ins.parked_of(CLEO)) == 1
            assert uow.outbox.due(world.clock(), 9) == []
        assert Kind.REQUEST_UNPARKED not in world.kinds()
        world.inventory.servers, world.inventory.is_listed = servers, True
        world.submitting.file_left_behind()
        with world.store.unit_of_work() as uow:
            assert uow.sign_ins.parked_of(CLEO) == []
            (filed,) = uow.requests.find(states=(RequestState.PENDING,))
        assert (filed.slack_user, filed.reason) == (CLEO, "INC-1")

    def test_what_could_not_be_sent_since_the_sign_in_lapses_and_says_so(self, world: World) -> None:
        world.inventory.is_listed = False
        world.submitting.submit(Caller(slack_user=CLEO), Submission(servers=("web-9",), reason="x"))
        world.clock.forward(seconds=1)
        sign_in(world)
        world.clock.forward(minutes=61)
        world.submitting.file_left_behind()
        world.submitting.lapse_parked()
        with world.store.unit_of_work() as uow:
            (told,) = [message[2] for message in uow.outbox.due(world.clock(), 9)]
            assert uow.sign_ins.parked_of(CLEO) == []
            *_, last = uow.audit.all()
        assert told.startswith("Your request for web-9 could not be sent since you signed in, and has lapsed.")
        assert (last.event.kind, last.event.details["why"]) == (Kind.REQUEST_UNPARKED, "it could not be sent")

    def test_before_the_servers_are_listed_nobody_is_told_to_check_the_name(self, world: World) -> None:
        world.inventory.is_listed = False
        with pytest.raises(UnavailableError) as told:
            world.submitting.submit(Caller(slack_user=ANA), Submission(servers=("web",), reason="x"))
        assert told.value.sentence == (
            "I know no server web so far. Did you mean web-1? "
            "The servers have not been listed yet. Try again in a moment."
        )
        assert world.submit("web-1").servers[0].name == "web-1"

    def test_a_link_that_was_there_before_files_nothing_that_waits_for_a_longer_one(self, world: World) -> None:
        world.add_person(a_person("Ana Ruiz"), ANA, link_for=timedelta(minutes=59))
        world.clock.forward(seconds=1)
        words = Submission(servers=("web-1",), reason="x", duration=timedelta(hours=1))
        assert isinstance(world.submitting.submit(Caller(slack_user=ANA), words), Parked)
        world.submitting.file_left_behind()
        with world.store.unit_of_work() as uow:
            assert len(uow.sign_ins.parked_of(ANA)) == 1
            assert uow.requests.find() == []

    def test_a_sign_in_at_the_same_moment_finds_nothing_parked_and_the_request_is_sent_all_the_same(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        park = Submitting._park

        def overtaken(self: Submitting, caller: Caller, submission: Submission) -> Parked:
            parked = park(self, caller, submission)
            world.clock.now -= timedelta(seconds=1)  # the sign-in began before, and saw nothing parked
            sign_in(world)
            world.clock.forward(seconds=1)
            return parked

        monkeypatch.setattr(Submitting, "_park", overtaken)
        words = Submission(servers=("web-1",), reason="INC-1", duration=timedelta(hours=1))
        done = world.submitting.submit(Caller(slack_user=CLEO), words)
        assert isinstance(done, Submitted)
        assert world.standing(done.request.id).request.reason == "INC-1"
        with world.store.unit_of_work() as uow:
            assert uow.sign_ins.parked_of(CLEO) == []

    def test_a_slack_user_can_park_only_so_many(self, world: World) -> None:
        words = Submission(servers=("web-1",), reason="x")
        for _ in range(5):
            world.submitting.submit(Caller(slack_user=CLEO), words)
        with pytest.raises(RefusedError, match="wait for your sign-in already"):
            world.submitting.submit(Caller(slack_user=CLEO), words)

    def test_a_parked_request_lapses_with_a_word(self, world: World) -> None:
        world.submitting.submit(Caller(slack_user=CLEO), Submission(servers=("web-1",), reason="x"))
        world.clock.forward(minutes=61)
        world.submitting.lapse_parked()
        with world.store.unit_of_work() as uow:
            assert "has lapsed" in uow.outbox.due(world.clock(), 9)[0][2]
            assert uow.sign_ins.parked_of(CLEO) == []

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"servers": ("wbe-1",)}, "I know no server wbe-1. Check the name."),
            ({"servers": ("web",)}, "Did you mean web-1?"),
            ({"servers": ("x" * 3000,)}, "I know no server xxx"),
            ({"servers": ("a\u202eb\n{{",)}, "I know no server a�b�{{"),
            ({"servers": ()}, "Name at least one server."),
            ({"reason": "  "}, "Say why"),
            ({"reason": "x" * 3000}, "The reason has 3000 characters"),
            ({"reason": "fix \u202e evil"}, "invisible control characters"),
            ({"duration": timedelta(minutes=1)}, "Ask for at least 5 min."),
            ({"duration": timedelta(hours=5)}, "at most 4 h"),
        ],
    )
    def test_bad_input_gets_a_sentence_and_leaves_nothing(
        self, world: World, changes: dict[str, object], words: str
    ) -> None:
        submission = replace(Submission(servers=("web-1",), reason="x"), **changes)  # type: ignore[arg-type]
        with pytest.raises(PassportError) as refused:
            world.submitting.submit(Caller(slack_user=ANA), submission)
        assert words in refused.value.sentence
        assert world.submitting.own(Caller(slack_user=ANA)) == []

    def test_emoji_and_newlines_are_fine_in_a_reason(self, world: World) -> None:
        reason = "🔥 disk full 👩‍💻\nsecond line"
        filed = world.submitting.submit(Caller(slack_user=ANA), Submission(servers=("web-1",), reason=reason))
        assert isinstance(filed, Submitted)
        assert filed.request.reason == reason

    def test_an_ambiguous_name_is_answered_with_the_candidates(self, world: World) -> None:
        world.inventory.servers.append(a_server("web-1", instance_id="i-other", region="us-east-1"))
        with pytest.raises(
            InvalidInputError, match=r"2 servers are called web-1: say .* or i-other \(prod-payments, us-east-1\)"
        ):
            world.submitting.submit(Caller(slack_user=ANA), Submission(servers=("web-1",), reason="x"))

    def test_the_same_delivery_is_one_request(self, world: World) -> None:
        caller = Caller(slack_user=ANA, delivery="trigger-1")
        words = Submission(servers=("web-1",), reason="x")
        filed = world.submitting.submit(caller, words)
        assert isinstance(filed, Submitted)
        with pytest.raises(DuplicateDeliveryError) as again:
            world.submitting.submit(caller, words)
        assert again.value.subject == filed.request.id
        assert len(world.submitting.own(caller)) == 1

    def test_cancel_is_for_the_requester_and_for_pending_requests(self, world: World) -> None:
        request = world.submit()
        with pytest.raises(RefusedError, match="Only Ana Ruiz can cancel"):
            world.submitting.cancel(Caller(slack_user=BEN), request.id)
        assert world.submitting.cancel(Caller(slack_user=ANA), request.id).state is RequestState.CANCELLED
        with pytest.raises(AlreadyDecidedError):
            world.submitting.cancel(Caller(slack_user=ANA), request.id)

    def test_status_is_seen_by_those_concerned_only(self, world: World) -> None:
        request = world.submit()
        assert world.submitting.status(Caller(slack_user=BEN), request.id).request == request
        world.add_person(a_person("Cleo", groups=frozenset({"payments"})), CLEO)
        with pytest.raises(NotFoundError):
            world.submitting.status(Caller(slack_user=CLEO), request.id)


class TestReviewing:
    def test_deny_needs_a_reason_and_ends_it(self, world: World) -> None:
        request = world.submit()
        with pytest.raises(InvalidInputError):
            world.reviewing.review(Caller(slack_user=BEN), request.id, Verdict.DENY)
        denied = world.reviewing.review(Caller(slack_user=BEN), request.id, Verdict.DENY, reason="not now")
        assert denied.request.state is RequestState.DENIED
        assert denied.reviews[0].reason == "not now"
        assert denied.grants == []

    def test_not_ones_own_even_by_another_slack_account_or_provider(self, world: World) -> None:
        request = world.submit()
        leads = frozenset({"payments-leads"})
        world.add_person(a_person("Ana Ruiz", id="P-other", provider="entra", subject="s2", groups=leads), AGAIN)
        for who in (ANA, AGAIN):
            with pytest.raises(RefusedError, match="you cannot review your own request"):
                world.approve(request, who)
        assert world.kinds(request.id).count(Kind.REFUSED) == 2
        assert world.standing(request.id).request.state is RequestState.PENDING

    def test_someone_unlinked_or_not_of_the_group_is_refused(self, world: World) -> None:
        request = world.submit()
        with pytest.raises(SignInNeededError):
            world.approve(request, CLEO)
        world.add_person(a_person("Cleo"), CLEO)
        with pytest.raises(RefusedError, match="wants someone of payments-leads"):
            world.approve(request, CLEO)

    def test_stale_groups_are_refused(self, world: World) -> None:
        policy = a_policy(lapse_after=timedelta(days=2))
        world.desk = replace(world.desk, policy=policy)
        world.submitting = type(world.submitting)(world.desk)
        world.reviewing = type(world.reviewing)(world.desk)
        request = world.submit()
        world.clock.forward(hours=13)
        with pytest.raises(RefusedError, match="Sign in again"):
            world.approve(request)

    def test_quorum_counts_persons(self, world: World) -> None:
        world.desk = replace(world.desk, policy=a_policy(rules=(a_rule(quorum=2),)))
        world.submitting = type(world.submitting)(world.desk)
        request = world.submit()
        world.approve(request)
        with pytest.raises(AlreadyDecidedError, match="2 different people"):
            world.approve(request)
        assert world.standing(request.id).request.state is RequestState.PENDING
        world.add_person(a_person("Ben's other", groups=frozenset({"payments-leads"})), BEN)
        with pytest.raises(AlreadyDecidedError, match="2 different people"):
            world.approve(request)  # the same Slack account, linked to somebody else by now
        world.add_person(a_person("Cleo", groups=frozenset({"payments-leads"})), CLEO)
        assert world.approve(request, CLEO).request.state is RequestState.APPROVED

    def test_a_reviewer_may_shorten_and_not_lengthen(self, world: World) -> None:
        request = world.submit(minutes=120)
        with pytest.raises(InvalidInputError, match="not lengthen"):
            world.reviewing.review(Caller(slack_user=BEN), request.id, Verdict.APPROVE, duration=timedelta(hours=3))
        half = world.reviewing.review(
            Caller(slack_user=BEN), request.id, Verdict.APPROVE, duration=timedelta(minutes=30)
        )
        assert half.request.duration == timedelta(minutes=30)

    def test_a_later_click_is_told_who_decided(self, world: World) -> None:
        request = world.submit()
        world.approve(request)
        world.add_person(a_person("Cleo", groups=frozenset({"payments-leads"})), CLEO)
        with pytest.raises(
            AlreadyDecidedError, match=r"Ben Ito approved this at 03:00 UTC, before your click\. Nothing changed\."
        ):
            world.reviewing.review(Caller(slack_user=CLEO), request.id, Verdict.DENY, reason="no")

    def test_a_lapsed_request_takes_no_click(self, world: World) -> None:
        request = world.submit()
        world.clock.forward(minutes=30)
        with pytest.raises(AlreadyDecidedError, match="lapsed"):
            world.approve(request)

    @pytest.mark.parametrize("same_person", [False, True])
    def test_clicks_at_once_are_one_decision(self, world: World, same_person: bool) -> None:
        other = BEN if same_person else CLEO
        if not same_person:
            world.add_person(a_person("Cleo", groups=frozenset({"payments-leads"})), CLEO)
        for _ in range(5):
            request = world.submit()

            def click(who: SlackUser, verdict: Verdict, request_id: str = request.id) -> Callable[[], str]:
                def act() -> str:
                    try:
                        return world.reviewing.review(
                            Caller(slack_user=who), request_id, verdict, reason="r"
                        ).request.state
                    except (AlreadyDecidedError, DuplicateDeliveryError) as error:
                        return error.sentence

                return act

            results = run_together(click(BEN, Verdict.APPROVE), click(other, Verdict.DENY))
            decided = [result for result in results if result in {RequestState.APPROVED, RequestState.DENIED}]
            assert len(decided) == 1, results
            assert world.standing(request.id).request.state == decided[0]
            assert len(world.standing(request.id).reviews) == 1


class TestEnding:
    def test_done_without_an_id_means_the_only_one(self, world: World) -> None:
        with pytest.raises(AlreadyDecidedError):
            world.ending.complete(Caller(slack_user=ANA))
        first, second = world.submit(), world.submit("db-2")
        for request in (first, second):
            world.approve(request)
        with pytest.raises(InvalidInputError, match="Say which"):
            world.ending.complete(Caller(slack_user=ANA))
        assert world.ending.complete(Caller(slack_user=ANA), first.id).cause is EndCause.COMPLETED
        assert world.ending.complete(Caller(slack_user=ANA)).id == second.id

    def test_whoever_has_access_may_always_give_it_back(self, world: World) -> None:
        request = world.submit()
        world.approve(request)
        world.clock.forward(days=10)  # the link has run out
        assert world.ending.complete(Caller(slack_user=ANA), request.id).state is RequestState.ENDING

    def test_revoke_is_for_reviewers_and_admins(self, world: World) -> None:
        request = world.submit()
        world.approve(request)
        with pytest.raises(RefusedError, match="Only payments-leads and admins"):
            world.ending.revoke(Caller(slack_user=ANA), request.id, "x")
        ended = world.ending.revoke(Caller(slack_user=BEN), request.id, "wrong server")
        assert (ended.cause, ended.cause_detail) == (EndCause.REVOKED, "Ben Ito revoked it: wrong server")
        with pytest.raises(AlreadyDecidedError):
            world.ending.revoke(Caller(slack_user=BEN), request.id, "again")

    def test_a_stranger_cannot_complete_it(self, world: World) -> None:
        request = world.submit()
        world.approve(request)
        with pytest.raises(RefusedError, match="is Ana Ruiz's"):
            world.ending.complete(Caller(slack_user=BEN), request.id)


class RecordingAuthority:
    """Remembers what it was asked to certify; the real one has tests of its own."""

    def __init__(self) -> None:
        self.asked: list[Certificate] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def certify(self, wanted: Certificate, signers: Sequence[Authority]) -> str:
        assert signers
        self.asked.append(wanted)
        self.meanwhile()
        return f"certificate {wanted.serial}"


class TestKeysAndCredentials:
    def test_a_key_belongs_to_one_person_who_is_told(self, world: World) -> None:
        keys = Keys(world.desk)
        keys.add(Caller(slack_user=ANA), line="ssh-ed25519 AAAA1", fingerprint="SHA256:abcd1")
        keys.add(Caller(slack_user=ANA), line="ssh-ed25519 AAAA1", fingerprint="SHA256:abcd1")
        with pytest.raises(RefusedError, match="registered by somebody else"):
            keys.add(Caller(slack_user=BEN), line="ssh-ed25519 AAAA1", fingerprint="SHA256:abcd1")
        with world.store.unit_of_work() as uow:
            assert [(m[1], "was added" in m[2]) for m in uow.outbox.due(world.clock(), 9)] == [(ANA, True)]
        assert keys.remove(Caller(slack_user=ANA), "abcd1").line == "ssh-ed25519 AAAA1"
        assert keys.all(Caller(slack_user=ANA)) == []
        with pytest.raises(NotFoundError):
            keys.remove(Caller(slack_user=ANA), "abcd1")

    def test_at_most_five_keys(self, world: World) -> None:
        for number in range(5):
            Keys(world.desk).add(Caller(slack_user=ANA), line=f"k{number}", fingerprint=f"SHA256:{number:04}")
        with pytest.raises(RefusedError, match="5 keys"):
            Keys(world.desk).add(Caller(slack_user=ANA), line="k6", fingerprint="SHA256:0006")

    def test_credentials_are_for_the_requester_while_it_is_active(self, world: World) -> None:
        authority = RecordingAuthority()
        showing = Showing(world.desk, authority)
        request = world.submit()
        world.approve(request)
        with pytest.raises(AlreadyDecidedError, match="is not active"):
            showing.credentials(Caller(slack_user=ANA), request.id)
        world.reconcile()
        with pytest.raises(NotFoundError, match="Register your public key"):
            showing.credentials(Caller(slack_user=ANA), request.id)
        Keys(world.desk).add(Caller(slack_user=ANA), line="ssh-ed25519 AAAA1", fingerprint="SHA256:abcd1")
        with pytest.raises(RefusedError, match="theirs alone"):
            showing.credentials(Caller(slack_user=BEN), request.id)
        shown = [showing.credentials(Caller(slack_user=ANA), request.id) for _ in range(2)]
        assert len({one.certificate for one in shown}) == 2
        wanted = authority.asked[-1]
        assert wanted.principal == shown[0].request.user_name
        assert wanted.valid_before == shown[0].request.expires_at
        assert wanted.source_addresses == ("127.0.0.1/32", "::1/128")
        assert wanted.key_id == f"passport:{request.id}:ana@example.com"
        assert world.kinds(request.id).count(Kind.CREDENTIALS_SHOWN) == 2
        world.clock.forward(hours=1)
        with pytest.raises(AlreadyDecidedError):
            showing.credentials(Caller(slack_user=ANA), request.id)

    def test_a_request_that_ends_while_the_certificate_is_signed_opens_nothing(self, world: World) -> None:
        authority = RecordingAuthority()
        request = world.submit()
        world.approve(request)
        world.reconcile()
        Keys(world.desk).add(Caller(slack_user=ANA), line="ssh-ed25519 AAAA1", fingerprint="SHA256:abcd1")
        authority.meanwhile = lambda: world.ending.complete(Caller(slack_user=ANA), request.id)  # no lock is held
        with pytest.raises(AlreadyDecidedError, match="is not active"):
            Showing(world.desk, authority).credentials(Caller(slack_user=ANA), request.id)
        assert Kind.CREDENTIALS_SHOWN not in world.kinds(request.id)


class Directory:
    """An identity store that says what a test wants."""

    refreshes = True

    def __init__(self, answer: frozenset[str] | Exception | None) -> None:
        self.answer = answer

    def groups_of(self, subject: str, email: str) -> frozenset[str] | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class TestRefreshing:
    def refresh(self, world: World, answer: frozenset[str] | Exception | None) -> None:
        world.clock.forward(minutes=11)
        Refreshing(world.desk, {"okta": Directory(answer)}, every=timedelta(minutes=10)).run()

    def test_groups_follow_the_directory(self, world: World) -> None:
        self.refresh(world, frozenset({"dba"}))
        with world.store.unit_of_work() as uow:
            assert uow.people.get("P-ana").groups == {"dba"}
            assert uow.people.get("P-ana").groups_read_at == world.clock.now
        assert Kind.GROUPS_CHANGED in world.kinds()

    def test_a_directory_that_is_down_changes_nothing(self, world: World) -> None:
        self.refresh(world, UnavailableError("down"))
        with world.store.unit_of_work() as uow:
            assert uow.people.get("P-ana").groups_read_at == NOW

    def test_whoever_is_gone_loses_link_and_access(self, world: World) -> None:
        request = world.submit()
        world.approve(request)
        self.refresh(world, None)
        with pytest.raises(SignInNeededError):
            Linking(world.desk).whoami(Caller(slack_user=ANA))
        world.reconcile()
        ended = world.standing(request.id).request
        assert (ended.state, ended.cause) == (RequestState.ENDED, EndCause.REVOKED)

    def test_whoever_is_gone_has_their_requests_locked_in_the_order_that_the_reconciler_takes(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [world.submit().id for _ in range(3)]  # newest first is the other way round
        locked: list[str] = []
        get = SqlRequests.get

        def noted(requests: SqlRequests, request_id: str, *, lock: bool = False) -> AccessRequest:
            locked.extend([request_id] if lock else [])
            return get(requests, request_id, lock=lock)

        monkeypatch.setattr(SqlRequests, "get", noted)
        self.refresh(world, None)
        assert locked == sorted(ids)
