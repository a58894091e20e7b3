"""Text for Slack: what a person typed stays text, times follow the reader's zone."""

from datetime import datetime

MAX_SECTION = 3000  # Slack: "Section block", text
_ESCAPED = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {mark: f"\u200b{mark}\u200b" for mark in "*_~`"},
)


def escape(text: str) -> str:
    """The text so that mrkdwn shows it as typed: no mention, link or format can be smuggled in.

    Slack's page "Formatting text": ``& < >`` are its control characters; a zero-width space stops the
    formatting marks, which have no escape.
    """
    return text.translate(_ESCAPED)


def quote(text: str) -> str:
    """Somebody's words, marked as such on every line."""
    return "\n".join(f"> {line}" for line in escape(text).splitlines() or [""])


def clock(at: datetime) -> str:
    """The time of day in the reader's zone."""
    return f"<!date^{int(at.timestamp())}^{{time}}|{at:%H:%M} UTC>"


def day(at: datetime) -> str:
    """The day in the reader's zone."""
    return f"<!date^{int(at.timestamp())}^{{date_short}}|{at:%Y-%m-%d}>"


def cut(text: str, most: int = MAX_SECTION) -> str:
    """The text, shortened visibly where Slack would refuse it."""
    return text if len(text) <= most else text[: most - 1] + "…"
