"""Typed text as Slack sends it: escapes, links and mentions undone, and cut into words."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from access.errors import InvalidInputError
from access.service.filing import shorten

_TOKEN = re.compile(r"<([^<>]*)>")
_BARE = re.compile(rf"(?:{_TOKEN.pattern}|\S)+")
_PAIRS = {'"': '"“”„‟', "'": "'‘’‚‛"}  # an opening quote is closed by any of its kind: keyboards mix them
_QUOTES = {opening: kind for kind, family in _PAIRS.items() for opening in family}


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """A word as typed, its number in the line, and where in the raw text it begins and ends."""

    text: str
    number: int
    start: int
    end: int
    quoted: bool = False

    def is_keyword(self, *keywords: str) -> bool:
        """Whether it is one of these, outside quotes."""
        return not self.quoted and self.text.lower() in keywords

    def __str__(self) -> str:
        return f"“{shorten(self.text)}” (word {self.number})"


def typed(raw: str) -> str:
    """The text as the person typed it, out of what Slack made of it."""
    return _unescape(_TOKEN.sub(lambda token: _typed_token(token[1]), raw))


def words(text: str) -> Iterator[Word]:
    """The words of the raw text, read as they are asked for; ``because`` is the last, since a reason is verbatim."""
    at, number = 0, 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return
        number += 1
        word = _quoted(text, at, number) if text[at] in _QUOTES else _bare(text, at, number)
        yield word
        if number > 1 and word.is_keyword("because"):
            return
        at = word.end


def _bare(text: str, start: int, number: int) -> Word:
    found = _BARE.match(text, start)
    end = found.end() if found else start
    return Word(text=typed(text[start:end]), number=number, start=start, end=end)


def _quoted(text: str, start: int, number: int) -> Word:
    kind = _QUOTES[text[start]]
    closing, kept, at = _PAIRS[kind], "", start + 1
    while at < len(text) and text[at] not in closing:
        if text[at] == "\\" and kind == '"' and at + 1 < len(text):
            at += 1
            kept += "\\" + text[at]
        else:
            kept += text[at]
        at += 1
    if at == len(text):
        raise InvalidInputError(f"The quote that word {number} opens is never closed.")
    at += 1
    if at < len(text) and text[at] == ",":
        at += 1
    elif at < len(text) and not text[at].isspace():
        raise InvalidInputError(f"After the closing quote of word {number} leave a space.")
    plain = typed(kept)
    return Word(
        text=re.sub(r"\\(.)", r"\1", plain, flags=re.DOTALL) if kind == '"' else plain,
        number=number,
        start=start,
        end=at,
        quoted=True,
    )


def _typed_token(token: str) -> str:
    """What stood for ``<token>``: page "Formatting text", "Retrieving messages"."""
    target, _, label = token.partition("|")
    if target.startswith(("@", "#")):
        return target[0] + (label or target[1:])
    if target.startswith("!subteam^"):
        return label or target.removeprefix("!subteam^")
    if target.startswith("!"):
        return label if target.startswith("!date^") else "@" + (label or target[1:]).lstrip("@")
    return label or target.removeprefix("mailto:")


def _unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
