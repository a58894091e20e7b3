"""500 servers in Slack: every message is one that Slack takes, and says what a person has to know first."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from slack_sdk.models.blocks import Block as SlackBlock

from access.audit import Event, Kind, chain
from access.audit import Head as ChainHead
from access.model import EndCause, Grant, GrantState, Progress, RequestState, Server
from access.policy import decide_submission
from access.service.submitting import Standing
from access.words import join_sentences
from handlers import ids
from handlers.audit_lines import MAX_LINE, MAX_MESSAGE, bundle, line
from handlers.cards import wanted_posts
from handlers.status import Statuses, listing
from handlers.wanted import ASKED, READY, Wanted
from sandbox.slack.blocks import check_message_blocks
from sandbox.slack.mrkdwn import read_blocks
from tests.unit.test_cards import actions_of, grants_of
from tests.values import ANA, NOW, a_person, a_policy, a_request, a_server

END = NOW + timedelta(hours=2)
FLEET = tuple(
    Server(
        account=f"prod-{number % 2}",
        region=("eu-west-1", "us-east-1", "ap-south-1")[number % 3],
        instance_id=f"i-{number:017x}",
        name=f"web-{number:03}.example.com",
        tags={"env": "prod", "Name": f"web-{number:03}"},
    )
    for number in range(500)
)
SILENT = "{name} does not answer: its SSM agent did not fetch the command in time. It last answered at 02:10 UTC."


def standing(state: RequestState, *states: GrantState, servers: tuple[Server, ...] = FLEET) -> Standing:
    """A fleet's grants go through these states in turn; what is not open has a reason of its own."""
    request = a_request(
        servers=servers,
        state=state,
        decided_at=NOW,
        expires_at=END,
        ended_at=END if state is RequestState.ENDED else None,
        cause=EndCause.EXPIRED if state in {RequestState.ENDING, RequestState.ENDED} else None,
    )
    turns = [states[number % len(states)] for number in range(len(servers))] if states else []
    grants = grants_of(request, *turns) if turns else []
    return Standing(request=request, grants=[_troubled(grant) for grant in grants], reviews=())


def _troubled(grant: Grant) -> Grant:
    said = SILENT.replace("{name}", grant.server.name)
    if grant.state is GrantState.ACTIVE:
        return grant
    if grant.state is GrantState.PROVISIONING:
        return replace(grant, account=Progress(attempts=1, problem=said, retry_at=NOW + timedelta(minutes=1)))
    return replace(grant, outcome=f"{grant.server.name}: The server has no sshd.", proof={"result": "absent"})


def posts(seen: Standing) -> dict[str, Wanted]:
    return {wanted.stage: wanted for wanted in wanted_posts(seen, now=NOW)}


MOMENTS = [
    standing(RequestState.PENDING),
    standing(RequestState.APPROVED, GrantState.PROVISIONING),
    standing(RequestState.ACTIVE, GrantState.ACTIVE),
    standing(RequestState.ACTIVE, GrantState.ACTIVE, GrantState.PROVISIONING, GrantState.REMOVED, GrantState.REMOVING),
    standing(RequestState.ENDING, GrantState.REMOVING, GrantState.REMOVED),
    standing(RequestState.ENDED, GrantState.REMOVED),
]


@pytest.mark.parametrize("seen", MOMENTS, ids=lambda seen: str(seen.request.state))
def test_cards_and_direct_messages_of_500_servers_are_taken_by_slack(seen: Standing) -> None:
    for wanted in wanted_posts(seen, now=NOW):
        check_message_blocks(json.loads(json.dumps(wanted.blocks)))
        for block in SlackBlock.parse_all([dict(block) for block in wanted.blocks]):
            block.validate_json()
        assert 0 < len(wanted.text) < 1000


@pytest.mark.parametrize("seen", MOMENTS, ids=lambda seen: str(seen.request.state))
def test_status_and_list_of_500_servers_are_taken_by_slack(seen: Standing) -> None:
    surface = type("Surface", (), {"submitting": type("S", (), {"status": lambda *_: seen})()})
    turn = type("Turn", (), {"caller": type("C", (), {"slack_user": ANA})()})
    said = Statuses(surface).status(turn, "AR-7F3K")  # type: ignore[arg-type]
    for blocks in (said.blocks, listing([seen] * 20, ANA)):
        check_message_blocks(json.loads(json.dumps(blocks)))
    if seen.grants:
        assert "And 440 more." in read_blocks(said.blocks)


def test_the_person_reads_how_many_are_open_and_what_is_the_matter_with_the_others() -> None:
    servers = tuple(a_server(f"db-{number}") for number in range(1, 13))
    seen = standing(RequestState.ACTIVE, GrantState.ACTIVE, servers=servers)
    silent = replace(seen.grants[6], state=GrantState.PROVISIONING)
    seen = replace(seen, grants=[*seen.grants[:6], _troubled(silent), *seen.grants[7:]])
    said = read_blocks(posts(seen)[READY].blocks)
    assert said.startswith("11 of 12 are open until ")
    assert "db-7 does not answer: its SSM agent did not fetch the command in time. It last answered at 02:10" in said
    assert "I go on trying." in said
    assert actions_of(posts(seen)[READY]) == [ids.CREDENTIALS_SHOW, ids.REQUEST_RETRY, ids.REQUEST_COMPLETE]


def test_retry_is_offered_while_a_server_is_missing_and_only_then() -> None:
    two = FLEET[:2]
    for state, offered in [
        (GrantState.ACTIVE, False),
        (GrantState.PROVISIONING, True),
        (GrantState.REMOVING, True),
        (GrantState.REMOVED, True),
    ]:
        seen = standing(RequestState.ACTIVE, GrantState.ACTIVE, state, servers=two)
        assert (ids.REQUEST_RETRY in actions_of(posts(seen)[READY])) is offered
    none_yet = standing(RequestState.APPROVED, GrantState.PROVISIONING, servers=two)
    assert actions_of(posts(none_yet)[ASKED]) == [ids.REQUEST_RETRY]
    under_way = replace(none_yet, grants=grants_of(none_yet.request, *[GrantState.PROVISIONING] * 2))
    assert actions_of(posts(under_way)[ASKED]) == []
    over = standing(RequestState.ENDED, GrantState.REMOVED, servers=two)
    assert not any(ids.REQUEST_RETRY in actions_of(wanted) for wanted in posts(over).values())


def test_what_became_of_the_latest_attempt_is_what_is_told() -> None:
    seen = standing(RequestState.ACTIVE, GrantState.ACTIVE, GrantState.REMOVED, servers=FLEET[:2])
    again = Grant(id="AR-7F3K.3", request_id="AR-7F3K", server=FLEET[1], details={"attempt": "2"})
    opening = read_blocks(posts(replace(seen, grants=[*seen.grants, again]))[READY].blocks)
    assert "1 of 2 is open" in opening
    assert "is still being opened" in opening
    assert "has no sshd" not in opening

    opened = replace(seen, grants=[*seen.grants, replace(again, state=GrantState.ACTIVE)])
    said = read_blocks(posts(opened)[READY].blocks)
    assert said.startswith(f"{FLEET[0].name} and {FLEET[1].name} are open until ")
    assert ids.REQUEST_RETRY not in actions_of(posts(opened)[READY])


@pytest.mark.parametrize("kind", Kind)
def test_audit_lines_of_500_servers_fit(kind: Kind) -> None:
    request = MOMENTS[2].request
    details = {
        "servers": ", ".join(f"{server.name} ({server.key})" for server in FLEET),
        "reason": " ".join(SILENT.replace("{name}", server.name) for server in FLEET),
    }
    event = Event(kind=kind, at=NOW, actor="P-ana", request_id=request.id, server=FLEET[7].key, details=details)
    events = [chain(ChainHead(sequence=number), event) for number in range(500)]
    assert len(line(events[0], request)) <= MAX_LINE
    assert len(bundle(events, {request.id: request}).text) <= MAX_MESSAGE


def test_a_refusal_of_500_servers_names_some_and_counts_the_rest() -> None:
    broken = [replace(server, problem=SILENT.replace("{name}", server.name)) for server in FLEET]
    said = decide_submission(a_policy(max_servers=500), a_person(), broken, timedelta(hours=1)).reason
    assert said.count("does not answer") == 5
    assert said.endswith("And 495 more.")


def test_sentences_are_said_once_and_of_many_the_rest_is_counted() -> None:
    assert join_sentences(["A.", "B.", "A."]) == "A. B."
    assert join_sentences(f"{number}." for number in range(7)) == "0. 1. 2. 3. 4. And 2 more."
    assert join_sentences([]) == ""
