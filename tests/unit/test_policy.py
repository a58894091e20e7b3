"""Who may ask, who may decide: each answer with its reason."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.model import Review, Server, Verdict
from access.policy import (
    Policy,
    changed_tags,
    decide_end,
    decide_review,
    decide_submission,
    is_quorate,
    stale_groups,
)
from tests.values import BEN, NOW, a_person, a_policy, a_request, a_rule, a_server

GROUPS = st.frozensets(st.sampled_from(["payments", "payments-leads", "dba", "passport-admins"]))
HOUR = timedelta(hours=1)


def test_the_first_matching_rule_wins_and_is_named() -> None:
    policy = a_policy(rules=(a_rule(name="first", max_duration=HOUR), a_rule(name="second")))
    decision = decide_submission(policy, a_person(), [a_server()], HOUR)
    assert decision.allowed
    assert decision.rule
    assert decision.rule.name == "first"
    assert "first" in decision.reason
    too_long = decide_submission(policy, a_person(), [a_server()], 2 * HOUR)
    assert too_long.reason == "Rule first allows at most 1 h; you asked for 2 h."


def test_a_rule_speaks_of_groups_accounts_and_tags() -> None:
    for person, server in [
        (a_person(groups=frozenset({"dba"})), a_server()),
        (a_person(), a_server(tags={"env": "dev"})),
        (a_person(), a_server(tags={})),
    ]:
        decision = decide_submission(a_policy(), person, [server], HOUR)
        assert not decision.allowed
        assert "No rule lets you ask for web-1" in decision.reason
    other_account = a_policy(rules=(a_rule(accounts=frozenset({"dev"})),))
    assert not decide_submission(other_account, a_person(), [a_server()], HOUR).allowed


def test_servers_under_different_rules_need_different_requests() -> None:
    policy = a_policy(rules=(a_rule(), a_rule(name="dev", tags={"env": ("dev", "test*")})))
    decision = decide_submission(policy, a_person(), [a_server(), a_server("t", tags={"env": "test-3"})], HOUR)
    assert not decision.allowed
    assert decision.reason == (
        "These servers fall under different rules (web-1 under prod-root; t under dev). Ask for them one rule at a time."
    )


def test_a_server_with_a_problem_is_refused_with_it() -> None:
    broken = a_server(problem="web-1 is stopped. Start it, then ask again.")
    assert decide_submission(a_policy(), a_person(), [broken], HOUR).reason == broken.problem


@pytest.mark.parametrize("duration", [timedelta(), timedelta(seconds=-5), timedelta(minutes=4), timedelta(days=9)])
def test_durations_out_of_bounds_are_refused(duration: timedelta) -> None:
    assert not decide_submission(a_policy(), a_person(), [a_server()], duration).allowed


def test_too_many_servers_are_refused() -> None:
    servers = [a_server(f"web-{number}") for number in range(51)]
    assert "51 servers" in decide_submission(a_policy(), a_person(), servers, HOUR).reason
    assert not decide_submission(a_policy(), a_person(), [], HOUR).allowed


@given(groups=GROUPS, tags=st.dictionaries(st.sampled_from(["env", "team"]), st.sampled_from(["prod", "dev"])))
def test_whoever_is_allowed_is_in_a_group_of_the_rule_that_is_named(
    groups: frozenset[str], tags: dict[str, str]
) -> None:
    policy = a_policy(rules=(a_rule(tags={"env": ("prod",)}), a_rule(name="dba", groups=frozenset({"dba"}), tags={})))
    decision = decide_submission(policy, a_person(groups=groups), [a_server(tags=tags)], HOUR)
    if decision.allowed:
        assert decision.rule
        assert decision.rule.groups & groups
        assert all(tags[key] in values for key, values in decision.rule.tags.items())
    else:
        assert not (("payments" in groups and tags.get("env") == "prod") or "dba" in groups)


@given(groups=GROUPS)
def test_nobody_reviews_their_own_request_whatever_their_groups(groups: frozenset[str]) -> None:
    request = a_request()
    by_id = a_person("Someone Else", id=request.person_id, groups=groups)
    by_email = a_person("Someone Else", email=request.person_email.upper(), provider="other", groups=groups)
    for reviewer in (by_id, by_email):
        decision = decide_review(a_policy(), request, reviewer, now=NOW)
        assert not decision.allowed
        assert decision.reason == "You cannot review your own request. Any other member of payments-leads can."


def test_a_reviewer_is_of_the_rules_groups_and_freshly_known() -> None:
    ben = a_person("Ben Ito", groups=frozenset({"payments-leads"}))
    assert decide_review(a_policy(), a_request(), ben, now=NOW).allowed
    assert not decide_review(a_policy(), a_request(), a_person("Cleo"), now=NOW).allowed
    stale = decide_review(a_policy(), a_request(), ben, now=NOW + timedelta(hours=12, seconds=1))
    assert not stale.allowed
    assert "/passport link" in stale.reason
    assert not stale_groups(a_policy(), ben, now=NOW + timedelta(hours=12))


def test_reviewers_and_admins_may_revoke_and_nobody_else() -> None:
    for group, allowed in [("payments-leads", True), ("passport-admins", True), ("payments", False)]:
        person = a_person("Ben Ito", groups=frozenset({group}))
        assert decide_end(a_policy(), a_request(), person, now=NOW).allowed is allowed


def test_quorum_counts_persons_by_email_not_by_account() -> None:
    request = a_request(terms=a_rule(quorum=2).terms())
    first = Review(
        request_id=request.id, person_id="P-1", person_name="Ben", person_email="ben@example.com",
        slack_user=BEN, verdict=Verdict.APPROVE, at=NOW,
    )  # fmt: skip
    same_human = Review(
        request_id=request.id, person_id="P-2", person_name="Ben", person_email="BEN@example.com",
        slack_user=BEN, verdict=Verdict.APPROVE, at=NOW,
    )  # fmt: skip
    other = Review(
        request_id=request.id, person_id="P-3", person_name="Cleo", person_email="cleo@example.com",
        slack_user=BEN, verdict=Verdict.APPROVE, at=NOW,
    )  # fmt: skip
    assert not is_quorate(request, [first, same_human])
    assert is_quorate(request, [first, other])


@pytest.mark.parametrize(
    ("current", "words"),
    [
        (a_server(tags={"env": "dev"}), "The tag env of web-1 changed from prod to dev."),
        (a_server(tags={}), "The tag env of web-1 changed from prod to nothing."),
        (None, ""),
        (a_server(tags={"env": "prod", "other": "x"}), ""),
        (a_server(problem="web-1 is stopped."), ""),
    ],
)
def test_a_change_of_a_tag_that_policy_used_is_said(current: Server | None, words: str) -> None:
    assert changed_tags(a_policy(), a_server(), current) == words


def test_defaults_are_one_hour_and_twelve_at_most() -> None:
    policy = Policy(rules=())
    assert (policy.default_duration, policy.max_duration) == (HOUR, 12 * HOUR)
