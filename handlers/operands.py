"""The single words of a command: ids, addresses, routes, server names, and what is wrong with them."""

import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import NoReturn

from access.errors import InvalidInputError
from access.model import RouteName
from access.service.filing import shorten
from access.words import join_words, parse_duration
from handlers.typed import Word

KEYWORDS = ("for", "from", "via", "because")
MAX_WORD = 255  # the longest value of an AWS tag is 256


def parse_request_id(text: str) -> str:
    """``AR-7F3K`` from ``ar-7f3k`` or ``7f3k``; raises InvalidInputError."""
    found = re.fullmatch(r"(?:AR-)?([0-9A-Z]{3,9})", text.strip().upper(), re.ASCII)
    if not found:
        raise InvalidInputError(f"“{shorten(text)}” is no request id; they look like AR-7F3K.", field="id")
    return f"AR-{found[1]}"


def parse_address(text: str) -> str:
    """One IPv4 or IPv6 address that somebody can come from; raises InvalidInputError."""
    shown = shorten(text.strip())
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        _refuse_address(f"“{shown}” is not one IP address. Say it like 203.0.113.7 or 2001:db8::7.")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    plain = mapped or address
    if getattr(address, "scope_id", None):
        _refuse_address(f"“{shown}” names a network card of one machine. Say the address alone.")
    unfit = (
        ("is_unspecified", "means “any address”"),
        ("is_multicast", "is a multicast address"),
        ("is_loopback", "is every machine's own address"),
        ("is_link_local", "is a link-local address"),
        ("is_reserved", "is a reserved address"),
    )
    for name, meaning in unfit:
        if getattr(plain, name):
            _refuse_address(f"{shown} {meaning}: nobody comes from there. Say the address you come from.")
    return str(plain)


ROUTES = [route.value for route in RouteName]


def route(word: Word) -> RouteName:
    """The route of that name, dashes or not; raises InvalidInputError."""
    name = word.text.lower().replace("-", "_")
    if name not in ROUTES:
        ways = join_words(ROUTES, last="or")
        raise InvalidInputError(f"I know no route {word}. Say via {ways}, or leave it out.", field="route")
    return RouteName(name)


def server_names(word: Word) -> tuple[str, ...]:
    """The names in a word: commas may separate them; in quotes it is one name."""
    if word.quoted:
        names: Sequence[str] = [word.text]
    else:
        if word.text.lower() == "and":
            return ()
        names = [name for name in word.text.split(",") if name]
    for name in names:
        _check_name(name, word)
        if not word.quoted:
            _check_slip(name, word)
    return tuple(names)


def _check_name(name: str, word: Word) -> None:
    problem = ""
    if not name.strip():
        problem = f"Word {word.number} is empty quotes."
    elif len(name) > MAX_WORD:
        problem = f"Word {word.number} has {len(name)} characters; no server has so long a name."
    elif "{{" in name:
        problem = f"{word} holds “{{{{”, which no server name may hold."
    elif any(unicodedata.category(char)[0] == "C" for char in name):
        problem = f"{word} holds invisible characters. Type it again without them."
    elif any(unicodedata.category(char) in {"So", "Sk", "Zl", "Zp"} for char in name):
        problem = f"{word} holds an emoji or a sign that no server name has."
    if problem:
        raise InvalidInputError(problem, field="servers")


def _check_slip(name: str, word: Word) -> None:
    """Catch what was meant as a clause before it is looked up as a server."""
    if meant := _meant(name.lower()):
        raise InvalidInputError(
            f"I do not understand {word}. Did you mean “{meant}”? If a server is called that, put it in quotes.",
            field="servers",
        )
    if _is_duration(name):
        raise InvalidInputError(f"{word} looks like a length of time: say for {name}.", field="duration")
    if _is_address(name):
        raise InvalidInputError(f"{word} looks like an address: say from {name}.", field="source_ip")


def _meant(name: str) -> str:
    """The keyword of which this is a slip: its letters in another order, or nearly the same."""
    if name in KEYWORDS:
        return ""
    swapped = [keyword for keyword in KEYWORDS if sorted(name) == sorted(keyword)]
    return next(iter(swapped or get_close_matches(name, KEYWORDS, cutoff=0.8)), "")


def _is_duration(name: str) -> bool:
    try:
        parse_duration(name)
    except (ValueError, OverflowError):
        return False
    return True


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refuse_address(sentence: str) -> NoReturn:
    raise InvalidInputError(sentence, field="source_ip")


def without_comma(word: Word) -> Word:
    """The word without the comma that ends it."""
    return word if word.quoted else replace(word, text=word.text.rstrip(",") or word.text)
