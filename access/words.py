"""Durations and lists as people write them."""

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta

_PART = re.compile(r"(\d{1,6})\s*(days?|d|hours?|h|minutes?|mins?|m|seconds?|s)", re.IGNORECASE)
_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}


def parse_duration(text: str) -> timedelta:
    """``90m``, ``2h``, ``1h30m``, ``2 hours``; raises ValueError for anything else, zero included."""
    compact = text.strip()
    total, at = timedelta(), 0
    for part in _PART.finditer(compact):
        if compact[at : part.start()].strip():
            break
        total += int(part[1]) * _UNITS[part[2][0].lower()]
        at = part.end()
    if compact[at:].strip() or total <= timedelta():
        raise ValueError(f"{text!r} is not a duration")
    return total


def duration_words(duration: timedelta) -> str:
    """``2 h``, ``1 h 30 min``, ``45 min``, ``30 s``."""
    seconds = int(duration.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    return " ".join(part for part in (hours and f"{hours} h", minutes and f"{minutes} min") if part)


def join_words(words: Sequence[str], *, last: str = "and", most: int = 6) -> str:
    """``a``, ``a and b``, ``a, b and c``; of more than ``most``, the rest as a count."""
    shown = list(words[:most])
    if len(words) > most:
        shown.append(f"{len(words) - most} more")
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}"


def join_sentences(sentences: Iterable[str], *, most: int = 5) -> str:
    """Each different sentence once; of more than ``most``, the rest as a count."""
    different = list(dict.fromkeys(sentences))
    shown = different[:most]
    if len(different) > most:
        shown.append(f"And {len(different) - most} more.")
    return " ".join(shown)
