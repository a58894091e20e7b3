"""Block Kit within Slack's limits, whatever the texts; the judge is the strict double's own checker."""

from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handlers import blocks, ids
from handlers.replies import Reply
from handlers.request_form import request_form, server_option
from handlers.understood import Parsed
from sandbox.slack.blocks import check_message_blocks, check_view
from sandbox.slack.mrkdwn import block_pings, plain, read_blocks
from tests.values import a_policy, a_server
from tests.world import FixedInventory

texts = st.text(max_size=4000)


@given(texts)
@example("<!channel> <@U0BEN> <http://x.example|*x*>")
@settings(max_examples=60)
def test_a_sentence_is_always_shown_and_never_obeyed(text: str) -> None:
    reply = Reply.plain(text, blocks.sign_in_button("https://passport.example.com/link/x"))
    check_message_blocks(reply.body["blocks"])
    check_view(reply.modal(), "modal")
    assert block_pings(reply.body["blocks"]) == ()
    assert "<" not in reply.body["text"]
    assert reply.body["response_type"] == "ephemeral"
    assert reply.beside["replace_original"] is False


@given(st.text(max_size=9000))
@settings(max_examples=60)
def test_code_is_split_within_sections_and_reads_as_it_was(text: str) -> None:
    found = list(blocks.code(text))
    check_message_blocks(found[:50])
    assert block_pings(found) == ()
    assert all(block["text"]["text"].count("```") == 2 for block in found)


def test_code_is_cut_between_lines_and_complete() -> None:
    lines = [f"line {number} <&> " + "x" * 90 for number in range(100)]
    found = list(blocks.code("\n".join(lines)))
    assert len(found) > 3
    inside = [block["text"]["text"].removeprefix("```\n").removesuffix("\n```") for block in found]
    assert plain("\n".join(inside)).split("\n") == lines


def test_a_fence_in_code_does_not_end_it() -> None:
    [block] = blocks.code("before\n```\n*after*")
    assert block["text"]["text"].count("```") == 2


def test_paragraphs_are_packed_in_order() -> None:
    paragraphs = [f"*web-{number}*\n{blocks.fenced('ssh ' + 'x' * 500)}" for number in range(50)]
    found = list(blocks.packed(paragraphs))
    check_message_blocks(found)
    assert len(found) <= 10
    assert [f"web-{number}" in read_blocks(found) for number in range(50)] == [True] * 50
    assert list(blocks.packed([])) == []


@given(name=st.text(max_size=300), account=st.text(max_size=80), problem=st.text(max_size=300))
@settings(max_examples=60)
def test_any_server_is_an_option(name: str, account: str, problem: str) -> None:
    server = a_server(name, account=account, problem=problem)
    option = server_option(server)
    select = {"type": "multi_external_select", "action_id": "a", "initial_options": [option]}
    check_view(blocks.modal("T", [blocks.field("b", "L", select)], submit="Ask"), "modal")
    assert option["value"] == server.instance_id


@pytest.mark.parametrize("asked", [None, timedelta(minutes=90), timedelta(days=3), timedelta(seconds=1)])
def test_the_request_form_is_one_slack_takes(asked: timedelta | None) -> None:
    inventory = FixedInventory([a_server(f"web-{number}", instance_id=f"i-{number:017x}") for number in range(200)])
    many = tuple(server.instance_id for server in inventory.servers)
    parsed = Parsed(servers=(*many, "nosuch", "<!channel>"), duration=asked, reason="x" * 5000)
    view = request_form(parsed, inventory, a_policy())
    check_view(view, "modal")
    assert block_pings(view["blocks"]) == ()
    assert view["callback_id"] == ids.REQUEST_MODAL
    servers = next(block for block in view["blocks"] if block.get("block_id") == ids.REQUEST_SERVERS)
    assert servers["element"]["min_query_length"] == 1
    assert len(servers["element"]["initial_options"]) == 50


def test_the_reason_form_is_one_slack_takes() -> None:
    view = blocks.reason_modal(
        "Deny this request", about="x" * 4000, callback_id="c", submit="Deny", request_id="AR-7F3K", most=1000
    )
    check_view(view, "modal")
    assert view["private_metadata"] == "AR-7F3K"


def test_ids_are_all_different() -> None:
    found = [value for name, value in vars(ids).items() if name.isupper()]
    assert len(found) == len(set(found))
