"""What people read in the sandbox's Slack, whom it pings, and how it escapes what they type."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.slack import mrkdwn

NAMES = {"U0ANA": "ana", "C0AUDIT": "passport-audit", "S0LEADS": "payments-leads"}
IDS = {"@ana": "U0ANA", "#passport-audit": "C0AUDIT", "@payments-leads": "S0LEADS"}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("*Ana* asks for `web-1` _now_, ~later~", "Ana asks for web-1 now, later"),
        ("fix: db_main_2 and 2*3*4", "fix: db_main_2 and 2*3*4"),
        ("<@U0ANA> in <#C0AUDIT|old-name> for <!subteam^S0LEADS>", "@ana in #passport-audit for @payments-leads"),
        ("<@U0GONE|zoe>", "@zoe"),
        ("<https://example.com|the page> and <https://example.com>", "the page and https://example.com"),
        ("until <!date^1700000000^{time}|05:06>", "until 05:06"),
        ("<!channel> and <!here>", "@channel and @here"),
        ("&lt;!channel&gt; &amp;amp; 1 &lt; 2", "<!channel> &amp; 1 < 2"),
        ("```ssh web-1\nexit```", "ssh web-1\nexit"),
    ],
)
def test_plain_is_what_a_person_reads(text: str, read: str) -> None:
    assert mrkdwn.plain(text, NAMES) == read


@pytest.mark.parametrize(
    ("text", "pinged"),
    [
        ("<!channel> <!here> <!everyone|all>", ("<!channel>", "<!here>", "<!everyone>")),
        ("<@U0ANA|ana> <!subteam^S0LEADS|@leads>", ("<@U0ANA>", "<!subteam^S0LEADS>")),
        ("&lt;!channel&gt; @channel <#C0AUDIT> <https://x>", ()),
    ],
)
def test_pings_are_the_mentions_that_notify(text: str, pinged: tuple[str, ...]) -> None:
    assert mrkdwn.pings(text) == pinged


def test_pings_hide_in_no_block() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "plain_text", "text": "<!channel> is only text here"}},
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "<!here>"}]},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "<@U0ANA>"}]},
        {
            "type": "rich_text",
            "elements": [{"type": "rich_text_section", "elements": [{"type": "broadcast", "range": "everyone"}]}],
        },
    ]
    assert mrkdwn.block_pings(blocks) == ("<!here>", "<@U0ANA>", "<!everyone>")


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("@ana #passport-audit", "<@U0ANA|ana> <#C0AUDIT|passport-audit>"),
        ("@payments-leads @nobody #nowhere", "<!subteam^S0LEADS|@payments-leads> @nobody #nowhere"),
        ("wake @channel and @here", "wake <!channel> and <!here>"),
        ("a & b <!channel>", "a &amp; b &lt;!channel&gt;"),
        ("see https://example.com/x?a=1", "see <https://example.com/x?a=1>"),
        ("mail ana@example.com", "mail <mailto:ana@example.com|ana@example.com>"),
        ("on db.example.com", "on <http://db.example.com|db.example.com>"),
        ("tag:env=prod web-1 for 2h", "tag:env=prod web-1 for 2h"),
    ],
)
def test_commands_arrive_escaped_as_slack_escapes_them(typed: str, sent: str) -> None:
    assert mrkdwn.escape_command(typed, IDS) == sent


@given(st.text())
def test_escaped_text_pings_nobody_and_comes_back(text: str) -> None:
    assert mrkdwn.pings(mrkdwn.escape(text)) == ()
    assert mrkdwn.unescape(mrkdwn.escape(text)) == text


def test_buttons_and_headers_are_read_too() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": "Ana Ruiz"}},
        {"type": "section", "text": {"type": "mrkdwn", "text": "*2 servers*"}},
        {
            "type": "actions",
            "elements": [{"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "Approve"}}],
        },
    ]
    assert mrkdwn.read_blocks(blocks) == "Ana Ruiz\n2 servers\n[Approve]"
