"""The sandbox's Slack refuses the messages, modals and Homes that Slack refuses."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from sandbox.slack import SlackDouble
from sandbox.slack.blocks import check_message_blocks, check_suggestions, check_view
from sandbox.slack.wire import SlackError

Json = dict[str, Any]


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> Json:
    return {"type": "mrkdwn", "text": text}


def button(**extra: object) -> Json:
    return {"type": "button", "text": plain("Go"), "action_id": "go", **extra}


def actions(*elements: Json) -> Json:
    return {"type": "actions", "elements": list(elements)}


def section(**extra: object) -> Json:
    return {"type": "section", "text": mrkdwn("hello"), **extra}


def option(value: str = "v", text: str = "text") -> Json:
    return {"text": plain(text), "value": value}


def select(**extra: object) -> Json:
    return {"type": "static_select", "action_id": "pick", "options": [option()], **extra}


def question(element: Json | None = None, **extra: object) -> Json:
    asked = element or {"type": "plain_text_input", "action_id": "answer"}
    return {"type": "input", "block_id": "why", "label": plain("Why"), "element": asked, **extra}


def modal(*blocks: Json, **extra: object) -> Json:
    return {"type": "modal", "title": plain("T"), "submit": plain("Send"), "blocks": list(blocks), **extra}


def confirm(**extra: object) -> Json:
    return {"title": plain("Sure?"), "text": plain("Really"), "confirm": plain("Yes"), "deny": plain("No"), **extra}


def elements_of(count: int) -> list[Json]:
    return [button(action_id=f"go{number}") for number in range(count)]


AT_THE_LIMIT: dict[str, list[Json]] = {
    "50 blocks": [section()] * 50,
    "section text 3000": [section(text=mrkdwn("x" * 3000))],
    "10 fields of 2000": [section(fields=[mrkdwn("x" * 2000)] * 10)],
    "header 150": [{"type": "header", "text": plain("x" * 150)}],
    "25 elements": [actions(*elements_of(25))],
    "10 in a context": [{"type": "context", "elements": [mrkdwn("x")] * 10}],
    "button text 75": [actions(button(text=plain("x" * 75)))],
    "button value 2000": [actions(button(value="x" * 2000))],
    "url 3000": [actions(button(url="https://" + "x" * 2992))],
    "ids 255": [{**actions(button(action_id="x" * 255)), "block_id": "x" * 255}],
    "100 options": [actions(select(options=[option(str(n)) for n in range(100)]))],
    "option 75 and 150": [actions(select(options=[option("v" * 150, "t" * 75)]))],
    "confirm 100 and 300": [actions(button(confirm=confirm(title=plain("x" * 100), text=mrkdwn("x" * 300))))],
    "overflow 5": [
        section(accessory={"type": "overflow", "action_id": "o", "options": [option(str(n)) for n in range(5)]})
    ],
    "initial option": [actions(select(initial_option=option()))],
    "the same action id in two blocks": [actions(button()), actions(button())],
}

REFUSED: dict[str, tuple[list[Json], str]] = {
    "51 blocks": ([section()] * 51, "no more than 50 items allowed [json-pointer:/blocks]"),
    "section text": ([section(text=mrkdwn("x" * 3001))], "must be less than 3001 characters"),
    "empty text": ([section(text=mrkdwn(""))], "must be more than 0 characters"),
    "section of nothing": ([{"type": "section"}], "must define either `text` or `fields`"),
    "11 fields": ([section(fields=[mrkdwn("x")] * 11)], "no more than 10 items"),
    "field 2001": ([section(fields=[mrkdwn("x" * 2001)])], "/fields/0/text"),
    "header 151": ([{"type": "header", "text": plain("x" * 151)}], "less than 151"),
    "header in mrkdwn": ([{"type": "header", "text": mrkdwn("x")}], "unsupported type: mrkdwn"),
    "no elements": ([actions()], "no fewer than 1 items"),
    "26 elements": ([actions(*elements_of(26))], "no more than 25 items"),
    "11 in a context": ([{"type": "context", "elements": [mrkdwn("x")] * 11}], "no more than 10 items"),
    "button in a context": ([{"type": "context", "elements": [button()]}], "unsupported type: button"),
    "button text 76": ([actions(button(text=plain("x" * 76)))], "less than 76"),
    "button in mrkdwn": ([actions(button(text=mrkdwn("x")))], "unsupported type: mrkdwn"),
    "button value 2001": ([actions(button(value="x" * 2001))], "less than 2001"),
    "url 3001": ([actions(button(url="https://" + "x" * 2993))], "less than 3001"),
    "url that is none": ([actions(button(url="javascript:x"))], "must be a valid URL"),
    "style": ([actions(button(style="loud"))], "valid enum value"),
    "action id 256": ([actions(button(action_id="x" * 256))], "less than 256"),
    "block id 256": ([section(block_id="x" * 256)], "less than 256"),
    "same block id": ([section(block_id="a"), section(block_id="a")], "`block_id` `a` already exists"),
    "same action id": ([actions(button(), button())], "`action_id` `go` already exists"),
    "101 options": ([actions(select(options=[option(str(n)) for n in range(101)]))], "no more than 100"),
    "option text 76": ([actions(select(options=[option("v", "t" * 76)]))], "less than 76"),
    "option value 151": ([actions(select(options=[option("v" * 151)]))], "less than 151"),
    "option without value": ([actions(select(options=[{"text": plain("x")}]))], "missing required field: value"),
    "options and groups": (
        [actions(select(option_groups=[{"label": plain("g"), "options": [option()]}]))],
        "exactly one of: options, option_groups",
    ),
    "initial option elsewhere": ([actions(select(initial_option=option("other")))], "one of the provided options"),
    "same option twice": ([actions(select(options=[option(), option()]))], "option values must be unique"),
    "placeholder 151": ([actions(select(placeholder=plain("x" * 151)))], "less than 151"),
    "overflow 6": (
        [section(accessory={"type": "overflow", "action_id": "o", "options": [option(str(n)) for n in range(6)]})],
        "no more than 5",
    ),
    "confirm title 101": ([actions(button(confirm=confirm(title=plain("x" * 101))))], "less than 101"),
    "confirm text 301": ([actions(button(confirm=confirm(text=plain("x" * 301))))], "less than 301"),
    "confirm without deny": (
        [actions(button(confirm={"title": plain("a"), "text": plain("b"), "confirm": plain("c")}))],
        "missing required field: deny",
    ),
    "unknown block": ([{"type": "carousel"}], "unsupported type: carousel"),
    "unknown element": ([actions({"type": "slider", "action_id": "x"})], "unsupported type: slider"),
    "unknown field": ([section(colour="red")], "invalid additional property: colour"),
    "emoji in mrkdwn": ([section(text={**mrkdwn("x"), "emoji": True})], "invalid additional property: emoji"),
    "input element in actions": (
        [actions({"type": "plain_text_input", "action_id": "x"})],
        "unsupported type: plain_text_input",
    ),
}

VIEWS_REFUSED: dict[str, tuple[Json, str]] = {
    "101 blocks": (modal(*[section()] * 101), "no more than 100 items"),
    "title 25": (modal(section(), title=plain("x" * 25)), "less than 25"),
    "title in mrkdwn": (modal(section(), title=mrkdwn("x")), "unsupported type: mrkdwn"),
    "submit 25": (modal(section(), submit=plain("x" * 25)), "less than 25"),
    "close 25": (modal(section(), close=plain("x" * 25)), "less than 25"),
    "private_metadata 3001": (modal(section(), private_metadata="x" * 3001), "less than 3001"),
    "callback_id 256": (modal(section(), callback_id="x" * 256), "less than 256"),
    "input without submit": (
        {"type": "modal", "title": plain("T"), "blocks": [question()]},
        "missing required field: submit",
    ),
    "no title": ({"type": "modal", "blocks": [section()]}, "missing required field: title"),
    "no blocks": ({"type": "modal", "title": plain("T")}, "missing required field: blocks"),
    "button as an input": (modal(question(button())), "unsupported type: button"),
    "label in mrkdwn": (modal(question(label=mrkdwn("x"))), "unsupported type: mrkdwn"),
    "max_length 3001": (
        modal(question({"type": "plain_text_input", "action_id": "a", "max_length": 3001})),
        "between 1 and 3000",
    ),
    "initial value too long": (
        modal(question({"type": "plain_text_input", "action_id": "a", "max_length": 3, "initial_value": "four"})),
        "between 0 and 3 characters",
    ),
    "two focuses": (
        modal(
            question({"type": "plain_text_input", "action_id": "a", "focus_on_load": True}),
            question({"type": "plain_text_input", "action_id": "a", "focus_on_load": True}, block_id="b"),
        ),
        "only one element can have focus_on_load",
    ),
    "a Home": ({"type": "home", "blocks": []}, "unsupported type: home"),
    "no view": ({}, "unsupported type: None"),
}


@pytest.mark.parametrize("blocks", AT_THE_LIMIT.values(), ids=AT_THE_LIMIT.keys())
def test_a_message_at_the_limit_is_taken(blocks: list[Json]) -> None:
    check_message_blocks(blocks)


@pytest.mark.parametrize(("blocks", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_message_over_the_limit_is_refused_with_its_place(blocks: list[Json], words: str) -> None:
    with pytest.raises(SlackError) as refused:
        check_message_blocks(blocks)
    assert refused.value.code == "invalid_blocks"
    assert any(words in message for message in refused.value.messages), refused.value.messages


@pytest.mark.parametrize(("view", "words"), VIEWS_REFUSED.values(), ids=VIEWS_REFUSED.keys())
def test_a_modal_over_the_limit_is_refused(view: Json, words: str) -> None:
    with pytest.raises(SlackError) as refused:
        check_view(view, "modal")
    assert refused.value.code == "invalid_arguments"
    assert any(words in message for message in refused.value.messages), refused.value.messages


def test_a_modal_and_a_home_at_the_limit_are_taken() -> None:
    check_view(modal(*[section()] * 99, question(), private_metadata="x" * 3000, title=plain("x" * 24)), "modal")
    check_view({"type": "home", "blocks": [section()] * 100}, "home")


def test_a_home_has_no_title_and_needs_no_submit() -> None:
    check_view({"type": "home", "blocks": [question()]}, "home")
    with pytest.raises(SlackError) as refused:
        check_view({"type": "home", "blocks": [], "title": plain("T")}, "home")
    assert "invalid additional property: title" in refused.value.messages[0]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"options": [option(str(n)) for n in range(101)]},
        {"options": [option("v" * 151)]},
        {"options": [], "option_groups": []},
        {"options": "none"},
    ],
)
def test_suggestions_that_slack_would_not_show(answer: Json) -> None:
    with pytest.raises(SlackError, match="invalid_options"):
        check_suggestions(answer)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["section", "actions"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "text", "elements", "element", "accessory", "options", "option_groups", "action_id"]
                ),
                inner | st.sampled_from(["section", "actions", "input", "static_select", "button", "checkboxes"]),
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_nonsense_breaks_the_checks(nonsense: object) -> None:
    for blocks in ([nonsense], nonsense):
        with contextlib.suppress(SlackError):
            check_message_blocks(blocks)
    for view in ({"type": "modal", "blocks": [nonsense]}, nonsense):
        with contextlib.suppress(SlackError):
            check_view(view, "modal")
    with contextlib.suppress(SlackError):
        check_suggestions(nonsense)


def test_the_client_sees_slacks_messages() -> None:
    with SlackDouble() as slack:
        slack.add_member("U0ANA", name="ana")
        client = WebClient(token=slack.bot_token, base_url=slack.url)
        with pytest.raises(SlackApiError) as refused:
            client.chat_postMessage(channel="U0ANA", text="x", blocks=[section(text=mrkdwn("x" * 3001))])
        assert refused.value.response["error"] == "invalid_blocks"
        assert refused.value.response["response_metadata"]["messages"] == [
            "[ERROR] must be less than 3001 characters [json-pointer:/blocks/0/text/text]"
        ]
        assert slack.person("U0ANA").direct_messages() == []
