"""Whatever people and servers are called, Slack takes the message: the limits of Block Kit hold."""

import json
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block as SlackBlock

from access.model import AccessRequest, EndCause, Grant, GrantState, Progress, RequestState, Review, Server, Verdict
from access.service.submitting import Standing
from handlers.cards import wanted_posts
from sandbox.slack.blocks import check_message_blocks
from sandbox.slack.mrkdwn import block_pings, pings
from tests.values import NOW, a_request

NASTY = st.sampled_from(["&" * 1000, "<!channel>" * 100, "*_~`" * 250, "\n" * 999 + "x", "🦊" * 1000, "> " * 500])
REASONS = st.one_of(NASTY, st.text(min_size=1, max_size=1000))
NAMES = st.one_of(st.text(max_size=256), st.sampled_from(["<" * 256, "a" * 256, "web-1", "<@U0BEN>", "\u202eweb"]))
SENTENCES = st.one_of(st.text(max_size=600), st.just("&" * 600), st.just(""))
SERVERS = st.builds(
    Server,
    account=NAMES,
    region=st.sampled_from(["eu-west-1", "us-gov-east-1"]),
    instance_id=st.from_regex(r"i-[0-9a-f]{17}", fullmatch=True),
    name=NAMES,
    tags=st.dictionaries(st.sampled_from(["env", "Name", "stage"]), NAMES, max_size=3),
)
MOMENTS = st.one_of(st.none(), st.just(NOW + timedelta(hours=1)))
REVIEWS = st.builds(
    Review,
    request_id=st.just("AR-7F3K"),
    person_id=st.just("P-ben"),
    person_name=NAMES,
    person_email=st.just("ben@example.com"),
    verdict=st.sampled_from(Verdict),
    at=st.just(NOW),
    reason=REASONS,
    duration=st.one_of(st.none(), st.just(timedelta(minutes=30))),
)


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    servers = tuple(draw(st.lists(SERVERS, min_size=1, max_size=50)))
    request: AccessRequest = a_request(
        person_name=draw(NAMES),
        servers=servers,
        reason=draw(REASONS),
        duration=timedelta(minutes=draw(st.integers(1, 720))),
        state=draw(st.sampled_from(RequestState)),
        cause=draw(st.one_of(st.none(), st.sampled_from(EndCause))),
        cause_detail=draw(REASONS),
        decided_at=draw(MOMENTS),
        expires_at=draw(MOMENTS),
        ended_at=draw(MOMENTS),
        problem=draw(SENTENCES),
        source_ip=draw(st.one_of(st.none(), st.just("203.0.113.7"))),
    )
    grants = [
        Grant(
            id=f"AR-7F3K.{number}",
            request_id="AR-7F3K",
            server=server,
            state=draw(st.sampled_from(GrantState)),
            account=Progress(problem=draw(SENTENCES)),
            outcome=draw(SENTENCES),
        )
        for number, server in enumerate(servers, start=1)
    ]
    return Standing(request=request, grants=draw(st.sampled_from([grants, []])), reviews=draw(st.lists(REVIEWS)))


@settings(max_examples=150, deadline=None)
@given(standing=standings())
def test_every_message_is_one_that_slack_takes(standing: Standing) -> None:
    for wanted in wanted_posts(standing, now=NOW):
        check_message_blocks(json.loads(json.dumps(wanted.blocks)))
        for block in SlackBlock.parse_all([dict(block) for block in wanted.blocks]):
            block.validate_json()
        assert 0 < len(wanted.text) < 4000
        assert wanted.text.strip()
        assert pings(wanted.text) == ()
        assert block_pings(wanted.blocks) == ()


def test_fifty_servers_fit_and_all_of_usual_names_are_shown() -> None:
    servers = tuple(
        Server(account="prod", region="eu-west-1", instance_id=f"i-{number:017x}", name=f"web-{number:02}")
        for number in range(50)
    )
    request = a_request(servers=servers)
    card = wanted_posts(Standing(request=request, grants=(), reviews=()), now=NOW)[0]
    shown = json.dumps(card.blocks)
    assert all(f"{server.name} ({server.instance_id})" in shown for server in servers)
    assert "50 servers" in shown


def test_servers_that_do_not_fit_are_counted() -> None:
    servers = tuple(
        Server(account="prod", region="eu-west-1", instance_id=f"i-{number:017x}", name=f"{number:02}" + "n" * 200)
        for number in range(50)
    )
    card = wanted_posts(Standing(request=a_request(servers=servers), grants=(), reviews=()), now=NOW)[0]
    shown = json.dumps(card.blocks, ensure_ascii=False)
    assert "more; all of them: /passport status AR-7F3K" in shown
