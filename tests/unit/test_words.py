"""Durations and lists as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.words import duration_words, join_words, parse_duration


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90m", 90), ("2h", 120), ("1h30m", 90), ("2 hours", 120), ("1 h 5 min", 65), ("1d", 1440), ("45 MIN", 45)],
)
def test_durations_are_understood(text: str, minutes: int) -> None:
    assert parse_duration(text) == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    "text", ["", "0", "0h", "-1h", "2", "h", "2x", "1h nonsense", "2h!", "１h x", "1.5h", "99999999h"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(minutes=st.integers(1, 60 * 48))
def test_what_is_written_is_read_back(minutes: int) -> None:
    duration = timedelta(minutes=minutes)
    assert parse_duration(duration_words(duration)) == duration


def test_lists_fold() -> None:
    assert [join_words(["a"]), join_words(["a", "b"]), join_words(["a", "b", "c"], last="or")] == [
        "a",
        "a and b",
        "a, b or c",
    ]
    assert join_words(list("abcdefgh"), most=3) == "a, b, c and 5 more"
    assert join_words([]) == ""
