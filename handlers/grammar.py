"""What can be typed after ``/passport``.

::

    line      = "request" , { server | clause } , [ "because" , reason ]
              | "revoke" , id , "because" , reason
              | "exception" , ( mention , email | "remove" , mention ) , "because" , reason
              | ( "status" | "cancel" ) , id  |  "done" , [ id ]
              | "key" , ( "add" , public key | "list" | "remove" , fingerprint )
              | "link" | "whoami" | "unlink" | "setup" | "list" | "help" | nothing ;
    server    = word [ "," ] ;                      a name, an instance id, or tag:key=value
    clause    = "for" , duration | "from" , address | "via" , route ;      in any order, each once
    duration  = { number , unit } ;                 90m, 2h, 1h30m, 2 hours
    word      = plain characters | quoted ;         "my server", 'my server', “my server”
    reason    = everything that follows, verbatim ;
    id        = [ "AR-" ] , letters and digits ;    in either case

Keywords are understood in either case; in quotes they are words. Inside double quotes a backslash keeps the next
character. What Slack does to typed text is undone first: ``&amp; &lt; &gt;`` are characters again, a link that Slack
made of a host name is its label, and a mention is the text of it, so that it reaches nobody.

The source address may be private: people reach servers through VPNs and peered networks.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from difflib import get_close_matches
from itertools import islice, takewhile
from typing import NoReturn

from access.errors import InvalidInputError
from access.words import parse_duration
from handlers.operands import KEYWORDS, ROUTES, parse_address, parse_request_id, route, server_names, without_comma
from handlers.typed import Word, typed, words
from handlers.understood import About, AddKey, Command, Exempt, Parsed, Plain, RemoveKey, Revoke, Unexempt

MAX_TEXT = 12_000
_FOR_EXAMPLE = "Say for 90m, for 2h or for 1h30m."


def parse(text: str) -> Command:
    """Understand the text of a command as Slack sends it; raises InvalidInputError."""
    if len(text) > MAX_TEXT:
        raise InvalidInputError(f"That is {len(text)} characters long. Say it shorter.")
    coming = words(text)
    verb = next(coming, None)
    if verb is None:
        return Plain(verb="help")
    understand = _VERBS.get(verb.text.lower())
    return understand(_Rest(text, verb, coming)) if understand else _refuse_verb(verb)


class _Rest:
    """The words after the subcommand, read one by one: what follows a reason or a key is never read as words."""

    def __init__(self, text: str, verb: Word, coming: Iterator[Word]) -> None:
        self.text = text
        self.verb = verb
        self.at = 0
        self._read: list[Word] = []
        self._coming = coming

    def ahead(self, count: int) -> list[Word]:
        """The next words, at most so many, not taken yet."""
        missing = self.at + count - len(self._read)
        self._read += islice(self._coming, max(missing, 0))
        return self._read[self.at : self.at + count]

    def peek(self) -> Word | None:
        return next(iter(self.ahead(1)), None)

    def next(self) -> Word | None:
        word = self.peek()
        self.at += word is not None
        return word

    def raw(self) -> str:
        """Everything that follows the words taken so far, as typed."""
        last = self._read[self.at - 1] if self.at else self.verb
        return typed(self.text[last.end :]).strip()

    def end(self) -> None:
        if word := self.peek():
            raise InvalidInputError(f"I do not understand {word}. Say just: /passport {self.verb.text.lower()}")

    def request_id(self, *, last: bool = True) -> str:
        word = self.next()
        if word is None or word.is_keyword("because"):
            verb = self.verb.text.lower()
            raise InvalidInputError(f"Say which request: /passport {verb} AR-7F3K", field="id")
        found = parse_request_id(word.text)
        if last:
            self.end()
        return found

    def because(self) -> str:
        word = self.next()
        if word is not None and not word.is_keyword("because"):
            raise InvalidInputError(f"I do not understand {word}. Say because, and then why.", field="reason")
        return self.raw() if word else ""


def _request(rest: _Rest) -> Parsed:
    found, said = Parsed(), set[str]()
    while word := rest.next():
        if not word.is_keyword(*KEYWORDS):
            found = replace(found, servers=found.servers + server_names(word))
            continue
        keyword = word.text.lower()
        if keyword in said:
            raise InvalidInputError(f"You say “{keyword}” twice, again as word {word.number}. Say it once.")
        said.add(keyword)
        found = _clause(keyword, found, rest)
    return replace(found, servers=tuple(dict.fromkeys(found.servers)))


def _clause(keyword: str, found: Parsed, rest: _Rest) -> Parsed:
    match keyword:
        case "for":
            return replace(found, duration=_duration(rest))
        case "from":
            word = _operand(rest, keyword, "your IP address: from 203.0.113.7", "source_ip")
            return replace(found, source_ip=parse_address(word.text))
        case "via":
            return replace(found, route=route(_operand(rest, keyword, f"a route: via {ROUTES[0]}", "route")))
    return replace(found, reason=rest.raw())


def _operand(rest: _Rest, keyword: str, wanted: str, field: str) -> Word:
    word = rest.next()
    if word is None or word.is_keyword(*KEYWORDS):
        raise InvalidInputError(f"After “{keyword}” say {wanted}.", field=field)
    return without_comma(word)


def _duration(rest: _Rest) -> timedelta:
    first = _operand(rest, "for", "how long: for 2h", "duration")
    following = list(takewhile(lambda word: not word.is_keyword(*KEYWORDS), rest.ahead(3)))  # "1 h 30 min" has four
    for extra in range(len(following), -1, -1):
        said = [first, *following[:extra]]
        if any(word.quoted for word in said[1:]):
            continue
        try:
            found = parse_duration(" ".join(without_comma(word).text for word in said))
        except (ValueError, OverflowError):
            continue
        rest.at += extra
        return found
    raise InvalidInputError(f"{first} is not a length of time. {_FOR_EXAMPLE}", field="duration")


def _plain(rest: _Rest) -> Plain:
    rest.end()
    return Plain(verb=rest.verb.text.lower())


def _about(rest: _Rest) -> About:
    verb = rest.verb.text.lower()
    may_leave_out = verb == "done" and rest.peek() is None
    return About(verb=verb, request_id="" if may_leave_out else rest.request_id())


def _revoke(rest: _Rest) -> Revoke:
    return Revoke(request_id=rest.request_id(last=False), reason=rest.because())


def _key(rest: _Rest) -> Command:
    word = rest.next()
    if word is not None and word.is_keyword("add"):
        return AddKey(line=rest.raw())
    if word is not None and word.is_keyword("list"):
        rest.end()
        return Plain(verb="key list")
    if word is not None and word.is_keyword("remove"):
        fingerprint = rest.next()
        rest.end()
        return RemoveKey(fingerprint=fingerprint.text if fingerprint else "")
    what = f"I do not understand {word}. " if word else ""
    raise InvalidInputError(f"{what}Say /passport key add, /passport key list or /passport key remove.")


def _exception(rest: _Rest) -> Exempt | Unexempt:
    if (word := rest.peek()) is not None and word.is_keyword("remove"):
        rest.next()
        return _exception_removed(rest)
    how = "Say /passport exception @somebody their@email.example because …"
    user_id, email = _mentioned(rest, how), rest.next()
    if email is None or not _EMAIL.fullmatch(email.text):
        raise InvalidInputError(f"Say which email address they sign in with. {how}", field="email")
    reason = rest.because()
    if not reason:
        raise InvalidInputError(f"Say why. {how}", field="reason")
    return Exempt(user_id=user_id, email=email.text, reason=reason)


def _exception_removed(rest: _Rest) -> Unexempt:
    how = "Say /passport exception remove @somebody because …"
    user_id = _mentioned(rest, how)
    reason = rest.because()
    if not reason:
        raise InvalidInputError(f"Say why. {how}", field="reason")
    return Unexempt(user_id=user_id, reason=reason)


def _mentioned(rest: _Rest, how: str) -> str:
    mention = rest.next()
    found = _MENTION.fullmatch(rest.text[mention.start : mention.end]) if mention else None
    if found is None:
        raise InvalidInputError(f"Say whom, as a mention that Slack turns into a name. {how}")
    return found[1]


def _refuse_verb(verb: Word) -> NoReturn:
    near = get_close_matches(verb.text.lower()[:40], list(_VERBS), n=1, cutoff=0.6)
    hint = f"Did you mean /passport {near[0]}? " if near else ""
    raise InvalidInputError(f"I do not know {verb}. {hint}/passport help shows what I understand.")


_MENTION = re.compile(r"<@([UW][A-Z0-9]+)(?:\|[^<>]*)?>")
_EMAIL = re.compile(r"[^@\s\"'<>,]{1,64}@[^@\s\"'<>,]{1,190}")
_VERBS: Mapping[str, Callable[[_Rest], Command]] = {
    "request": _request,
    "list": _plain,
    "status": _about,
    "cancel": _about,
    "done": _about,
    "revoke": _revoke,
    "link": _plain,
    "whoami": _plain,
    "unlink": _plain,
    "setup": _plain,
    "key": _key,
    "exception": _exception,
    "help": _plain,
}
