"""What reviewers and requester read at each moment."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from access.model import AccessRequest, EndCause, Grant, GrantState, Progress, RequestState, Review, Rights, Verdict
from access.service.submitting import Standing
from handlers import ids
from handlers.blocks import Block
from handlers.cards import wanted_posts
from handlers.wanted import ASKED, CARD, DENIED, ENDED, LAPSED, READY, Wanted
from sandbox.slack.mrkdwn import read_blocks
from tests.values import BEN, NOW, a_request, a_server

TWO = (a_server("web-1"), a_server("db-2"))
DECIDED, END = NOW + timedelta(minutes=4), NOW + timedelta(hours=2, minutes=6)


def a_review(name: str = "Ben Ito", verdict: Verdict = Verdict.APPROVE, **changes: object) -> Review:
    review = Review(
        request_id="AR-7F3K",
        person_id=f"P-{name}",
        person_name=name,
        person_email=f"{name}@example.com",
        slack_user=BEN,
        verdict=verdict,
        at=DECIDED,
    )
    return replace(review, **changes)  # type: ignore[arg-type]


def grants_of(request: AccessRequest, *states: GrantState) -> list[Grant]:
    return [
        Grant(id=f"{request.id}.{number}", request_id=request.id, server=server, state=state)
        for number, (server, state) in enumerate(zip(request.servers, states, strict=True), start=1)
    ]


def late(grant: Grant, problem: str) -> Grant:
    return replace(grant, account=Progress(attempts=2, problem=problem))


def posts(request: AccessRequest, grants: Sequence[Grant] = (), reviews: Sequence[Review] = ()) -> dict[str, Wanted]:
    found = wanted_posts(Standing(request=request, grants=grants, reviews=reviews), now=DECIDED)
    return {wanted.stage: wanted for wanted in found}


def read(wanted: Wanted) -> str:
    return read_blocks(wanted.blocks)


def actions_of(wanted: Wanted) -> list[str]:
    return [button["action_id"] for button in _buttons(wanted)]


def _buttons(wanted: Wanted) -> list[Block]:
    return [element for block in wanted.blocks if block["type"] == "actions" for element in block["elements"]]


def decided(state: RequestState, **changes: object) -> AccessRequest:
    request = a_request(servers=TWO, state=state, decided_at=DECIDED)
    return replace(request, **changes)  # type: ignore[arg-type]


class TestReviewersCard:
    def test_notification_starts_with_the_point(self) -> None:
        card = posts(a_request(servers=TWO, reason="INC-123 disk full"))[CARD]
        assert card.text == "Ana Ruiz asks for root on web-1, db-2 (prod), 2 h: INC-123 disk full"

    def test_says_who_what_how_long_why_and_which_rule(self) -> None:
        words = read(posts(a_request(servers=TWO, reason="INC-123 disk full"))[CARD])
        assert words.splitlines()[0] == "Ana Ruiz · 2 prod servers · 2 h · as root"
        assert "prod-payments · eu-west-1: web-1 (i-" in words
        assert all(server.instance_id in words for server in TWO)
        assert "> INC-123 disk full" in words
        assert "Rule prod-root: 1 of payments-leads. Lapses 03:30 UTC." in words
        assert words.splitlines()[-3:] == ["[Approve 2 h]", "[30 min]", "[Deny…]"]

    def test_buttons_carry_the_request_and_the_minutes(self) -> None:
        values = {button["action_id"]: button["value"] for button in _buttons(posts(a_request())[CARD])}
        assert values == {
            ids.REVIEW_APPROVE: "AR-7F3K",
            ids.REVIEW_APPROVE_SHORTER: "AR-7F3K 30",
            ids.REVIEW_DENY: "AR-7F3K",
        }

    def test_no_shorter_button_for_a_short_request(self) -> None:
        card = posts(a_request(duration=timedelta(minutes=30)))[CARD]
        assert actions_of(card) == [ids.REVIEW_APPROVE, ids.REVIEW_DENY]

    def test_login_without_root_says_access(self) -> None:
        request = a_request()
        card = posts(replace(request, terms=replace(request.terms, rights=Rights())))[CARD]
        assert card.text.startswith("Ana Ruiz asks for access to web-1 (prod), 2 h")
        assert "as root" not in read(card)

    def test_named_commands_are_all_on_the_card_and_in_the_message_that_says_ready(self) -> None:
        commands = ("/usr/bin/systemctl restart nginx", "/usr/sbin/nginx -t")
        request = decided(RequestState.ACTIVE, expires_at=END)
        request = replace(request, terms=replace(request.terms, rights=Rights(commands=commands, metadata=True)))
        found = posts(request, grants_of(request, GrantState.ACTIVE, GrantState.ACTIVE), [a_review()])
        assert found[CARD].text.endswith(
            "Ana Ruiz asks for sudo for /usr/bin/systemctl restart nginx and 1 more on web-1, db-2 (prod), 2 h"
        )
        assert read(found[CARD]).splitlines()[0] == (
            "Ana Ruiz · 2 prod servers · 2 h · with sudo for /usr/bin/systemctl restart nginx and /usr/sbin/nginx -t"
            " · with the servers' AWS credentials"
        )
        assert (
            "You log in with sudo for /usr/bin/systemctl restart nginx and /usr/sbin/nginx -t: exactly as written, "
            "and nothing else."
        ) in read(found[READY])

    def test_a_kept_home_is_told_at_the_end(self) -> None:
        request = decided(RequestState.ENDED, cause=EndCause.EXPIRED, expires_at=END, ended_at=END)
        one, two = grants_of(request, GrantState.REMOVED, GrantState.REMOVED)
        kept = replace(one, proof={"verified": "yes", "home_kept_until": "2025-11-28T05:06:00Z"})
        words = read(posts(request, [kept, replace(two, proof={"verified": "yes"})], [a_review()])[ENDED])
        assert "The home folder on web-1 is kept, for root only, until " in words
        assert "db-2 is kept" not in words

    def test_first_of_two_approvals_is_shown(self) -> None:
        request = a_request()
        card = posts(replace(request, terms=replace(request.terms, quorum=2)), reviews=[a_review()])[CARD]
        assert "Ben Ito approved at 03:04 UTC; 1 more needed." in read(card)
        assert ids.REVIEW_APPROVE in actions_of(card)

    def test_running_access_can_be_revoked(self) -> None:
        request = decided(RequestState.ACTIVE, expires_at=END)
        card = posts(request, grants_of(request, GrantState.ACTIVE, GrantState.ACTIVE), [a_review()])[CARD]
        assert actions_of(card) == [ids.REQUEST_REVOKE]
        assert "Ben Ito approved at 03:04 UTC." in read(card)
        assert "web-1 and db-2 are open until 05:06 UTC." in read(card)
        assert not card.closed

    def test_denied_says_who_when_and_why_without_buttons(self) -> None:
        denial = a_review(verdict=Verdict.DENY, reason="use the *replica*")
        card = posts(decided(RequestState.DENIED), reviews=[denial])[CARD]
        assert actions_of(card) == []
        assert "Denied by Ben Ito at 03:04 UTC." in read(card)
        assert "replica" in read(card)
        assert card.closed

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            (RequestState.CANCELLED, "Cancelled by Ana Ruiz at 03:04 UTC."),
            (RequestState.LAPSED, "Lapsed at 03:04 UTC: not enough people had decided."),
        ],
    )
    def test_other_ends_close_the_card(self, state: RequestState, words: str) -> None:
        card = posts(decided(state))[CARD]
        assert words in read(card)
        assert actions_of(card) == []
        assert card.closed

    def test_requester_gets_no_card_as_a_reviewer(self) -> None:
        request = a_request()
        terms = replace(request.terms, tell=("C0LEADS", request.slack_user.user_id, "S0LEADS"))
        assert posts(replace(request, terms=terms))[CARD].recipients == ("C0LEADS", "S0LEADS")


class TestDirectMessages:
    def test_waiting_can_be_cancelled(self) -> None:
        asked = posts(a_request())[ASKED]
        assert asked.text == (
            "Asked payments-leads, by rule prod-root. I tell you when one decides. Lapses <!date^1795231800^{time}|03:30 UTC>."
        )
        assert actions_of(asked) == [ids.REQUEST_CANCEL]
        assert asked.recipients == ("U0ANA",)

    def test_approval_updates_the_same_message(self) -> None:
        found = posts(decided(RequestState.APPROVED), reviews=[a_review()])
        assert "Ben Ito approved at 03:04 UTC. I am opening web-1 and db-2." in read(found[ASKED])
        assert actions_of(found[ASKED]) == []
        assert READY not in found

    def test_a_shorter_approval_says_so(self) -> None:
        half = timedelta(minutes=30)
        found = posts(decided(RequestState.APPROVED, duration=half), reviews=[a_review(duration=half)])
        assert "Ben Ito approved 30 min at 03:04 UTC." in read(found[ASKED])

    def test_ready_is_a_message_of_its_own_with_buttons(self) -> None:
        request = decided(RequestState.ACTIVE, expires_at=END)
        ready = posts(request, grants_of(request, GrantState.ACTIVE, GrantState.ACTIVE), [a_review()])[READY]
        assert ready.text.startswith("web-1 and db-2 are open until ")
        assert ready.text.endswith(" On your laptop: `ssh web-1.passport`")
        assert actions_of(ready) == [ids.CREDENTIALS_SHOW, ids.REQUEST_COMPLETE]
        assert not ready.closed

    def test_partly_ready_names_what_is_missing_and_why(self) -> None:
        servers = tuple(a_server(f"web-{number}") for number in range(1, 13))
        request = decided(RequestState.ACTIVE, servers=servers, expires_at=END)
        grants = grants_of(request, *[GrantState.ACTIVE] * 11, GrantState.PROVISIONING)
        grants[11] = late(grants[11], "The agent of web-12 last answered at 02:10.")
        words = read(posts(request, grants, [a_review()])[READY])
        assert "11 of 12 are open until 05:06 UTC: web-1, web-2" in words
        assert "The agent of web-12 last answered at 02:10.\nI go on trying." in words

    def test_server_that_cannot_be_opened_is_named(self) -> None:
        request = decided(RequestState.ACTIVE, expires_at=END)
        grants = grants_of(request, GrantState.ACTIVE, GrantState.REMOVED)
        grants[1] = replace(grants[1], outcome="There is an account of that name already.")
        words = read(posts(request, grants, [a_review()])[READY])
        assert "1 of 2 is open until 05:06 UTC: web-1." in words
        assert "db-2 could not be opened: There is an account of that name already." in words

    def test_ready_loses_its_buttons_when_it_ends(self) -> None:
        request = decided(RequestState.ENDING, cause=EndCause.EXPIRED)
        found = posts(request, grants_of(request, GrantState.REMOVING, GrantState.REMOVING), [a_review()])
        assert actions_of(found[READY]) == []
        assert found[READY].closed
        assert "Closing web-1 and db-2. The time was up." in read(found[ENDED])

    def test_denied_tells_the_reason_in_a_message_of_its_own(self) -> None:
        denial = a_review(verdict=Verdict.DENY, reason="Use the replica.")
        found = posts(decided(RequestState.DENIED), reviews=[denial])
        assert "Not approved: Ben Ito said no at 03:04 UTC.\n> Use the replica." in read(found[DENIED])
        assert not found[DENIED].closed
        assert found[ASKED].closed

    def test_lapsed_says_what_to_do(self) -> None:
        lapsed = posts(decided(RequestState.LAPSED))[LAPSED]
        assert lapsed.text.startswith("Nobody decided in time: your request for web-1 and db-2 lapsed")
        assert "/passport request" in read(lapsed)

    def test_late_removal_says_what_cannot_be_proved(self) -> None:
        request = decided(RequestState.ENDING, cause=EndCause.REVOKED, cause_detail="Ben Ito revoked it: INC-9")
        request = replace(request, expires_at=END)
        grants = grants_of(request, GrantState.REMOVING, GrantState.REMOVED)
        words = read(posts(request, [late(grants[0], "web-1 does not answer."), grants[1]], [a_review()])[ENDED])
        assert "web-1 does not answer.\nSo I cannot prove that pp-7f3k is gone from web-1." in words
        assert "The server ends the account itself at 05:06 UTC." in words
        assert "Gone from db-2." in words
        assert "I go on trying. Why it ends: Ben Ito revoked it: INC-9." in words

    def test_late_removal_promises_no_timer_where_the_server_itself_cannot(self) -> None:
        request = decided(RequestState.ENDING, cause=EndCause.EXPIRED)
        grants = grants_of(request, GrantState.REMOVING, GrantState.REMOVING)
        silent, stuck = (late(grant, f"{grant.server.name} does not.") for grant in grants)
        stuck = replace(stuck, account=replace(stuck.account, server_cannot=True))
        for expires_at, said in ((END, "runs out at 05:06 UTC at the latest."), (NOW, "ran out at 03:00 UTC.")):
            words = read(posts(replace(request, expires_at=expires_at), [silent, stuck], [a_review()])[ENDED])
            assert f"The certificate {said} The timer on db-2 cannot finish either until that is mended." in words
            assert "itself" not in words and "own timer" not in words

    def test_late_removal_says_that_the_tunnel_is_closed(self) -> None:
        request = replace(decided(RequestState.ENDING, cause=EndCause.EXPIRED), expires_at=END)
        grants = grants_of(request, GrantState.REMOVING, GrantState.REMOVED)
        silent = replace(late(grants[0], "web-1 does not answer."), route=Progress(done=True))
        words = read(posts(request, [silent, grants[1]], [a_review()])[ENDED])
        assert "pp-7f3k is gone from web-1. The tunnel is closed. The server ends the account itself at" in words
        open_ = replace(grants[0], account=Progress(done=True), route=Progress(problem="AWS does not answer."))
        words = read(posts(request, [open_, grants[1]], [a_review()])[ENDED])
        assert "pp-7f3k is gone, but I cannot prove that the tunnel to web-1 is closed." in words
        assert "itself" not in words

    def test_closed_says_verified_only_where_there_is_proof(self) -> None:
        request = decided(RequestState.ENDED, cause=EndCause.COMPLETED, cause_detail="Ana Ruiz was done", ended_at=END)
        grants = grants_of(request, GrantState.REMOVED, GrantState.REMOVED)
        proved = [replace(grant, proof={"verified": "yes"}) for grant in grants]
        ended = posts(request, proved, [a_review()])[ENDED]
        assert "Closed: pp-7f3k removed from web-1 and db-2, verified at 05:06 UTC." in read(ended)
        assert "The servers say so themselves, and root was given on them." in read(ended)
        assert "Why: Ana Ruiz was done." in read(ended)
        assert "verified" not in read(posts(request, grants, [a_review()])[ENDED])

    def test_closed_counts_every_attempt_on_a_server(self) -> None:
        request = decided(RequestState.ENDED, cause=EndCause.EXPIRED, ended_at=END)
        first, other = grants_of(request, GrantState.REMOVED, GrantState.REMOVED)
        again = replace(first, id=f"{request.id}.3", details={"attempt": "2"})
        absent = {"result": "absent", "verified": "yes"}
        removed = {"result": "removed", "uid": "200000", "verified": "yes"}
        for earlier, later in ((absent, removed), (removed, absent), (absent, absent | {"uid": "200000"})):
            grants = [replace(first, proof=earlier), replace(other, proof=absent), replace(again, proof=later)]
            words = read(posts(request, grants, [a_review()])[ENDED])
            assert "Closed: pp-7f3k removed from web-1, verified at 05:06 UTC. Nothing was ever made on db-2." in words
            assert "The servers say so themselves, and root was given on them." in words
        grants = [replace(grant, proof={"result": "terminated"}) for grant in (first, other)]
        words = read(posts(request, grants, [a_review()])[ENDED])
        assert "UTC. web-1 and db-2 were terminated, says EC2, so nobody is on them." in words
        assert "say so themselves" not in words


def test_what_people_type_stays_text() -> None:
    nasty = "<!channel> <@U0BEN> *bold* `code` & <https://evil.example|INC-1>"
    request = a_request(reason=nasty, person_name="<!here>", servers=(a_server("<!everyone>"),))
    for wanted in posts(request).values():
        shown = "".join([wanted.text, str(wanted.blocks)])
        assert "<!channel" not in shown
        assert "<!here" not in shown
        assert "<!everyone" not in shown
        assert "<@" not in shown
        assert "<https" not in shown
