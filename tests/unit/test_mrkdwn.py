"""What a person typed stays text, whatever Slack would make of it."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from handlers import mrkdwn
from sandbox.slack.mrkdwn import pings, plain

AT = datetime(2026, 11, 21, 3, 30, tzinfo=UTC)


@given(st.text().filter(lambda text: not set(text) & set("*_~`")))
def test_escaped_text_reads_as_typed(text: str) -> None:
    assert plain(mrkdwn.escape(text)).replace("\u200b", "") == text.replace("\u200b", "")


@given(st.text(alphabet="<>!@U|&;amplt*_~` channelhere^S0"))
def test_escaped_text_pings_nobody(text: str) -> None:
    assert pings(mrkdwn.escape(text)) == ()
    assert "<" not in mrkdwn.escape(text)


def test_a_mark_stands_between_zero_width_spaces() -> None:
    assert mrkdwn.escape("*a* `b`") == "\u200b*\u200ba\u200b*\u200b \u200b`\u200bb\u200b`\u200b"


def test_a_quotation_marks_every_line() -> None:
    assert mrkdwn.quote("one\n<!here>") == "> one\n> &lt;!here&gt;"
    assert mrkdwn.quote("") == "> "


def test_a_time_follows_the_readers_zone_and_has_words_for_others() -> None:
    assert mrkdwn.clock(AT) == f"<!date^{int(AT.timestamp())}^{{time}}|03:30 UTC>"


def test_a_cut_is_visible() -> None:
    assert mrkdwn.cut("abc", 3) == "abc"
    assert mrkdwn.cut("abcd", 3) == "ab…"
    assert len(mrkdwn.cut("x" * 9000)) == 3000
