"""What a person reads in a message, whom it pings, and how Slack escapes what people type."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from sandbox.slack.wire import Json

_TOKEN = re.compile(r"<([^<>]+)>")
_PING = re.compile(r"<(!channel|!here|!everyone|@[UW][A-Z0-9]+|!subteam\^S[A-Z0-9]+)(?:\|[^<>]*)?>")
_STYLES = (
    re.compile(r"```(.+?)```", re.DOTALL),
    re.compile(r"`([^`\n]+)`"),
    re.compile(r"(?<![\w*])\*(\S(?:[^*\n]*\S)?)\*(?![\w*])"),
    re.compile(r"(?<![\w_])_(\S(?:[^_\n]*\S)?)_(?![\w_])"),
    re.compile(r"(?<![\w~])~(\S(?:[^~\n]*\S)?)~(?![\w~])"),
)
_NOBODY: Mapping[str, str] = {}

# In one pass, so that a link inside an address is not linked twice. Slack links bare host names, too.
_TYPED = re.compile(
    r"(?P<url>https?://[^\s<>|]+)"
    r"|(?P<email>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)"
    r"|(?P<host>(?<![\w@.:/=-])(?:[a-z0-9-]+\.)+(?:com|org|net|io|dev|edu|gov|cloud|app)\b(?![\w@-]))"
    r"|(?<![\w@])@(?P<at>[\w][\w.-]*[\w]|\w)"
    r"|(?<![\w#])#(?P<channel>[\w-]+)"
)
_BROADCASTS = ("channel", "here", "everyone")


def escape(text: str) -> str:
    """Text as an app must escape it so that nothing in it is markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """The reverse of `escape`."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def plain(text: str, names: Mapping[str, str] = _NOBODY) -> str:
    """What a person reads when Slack renders this mrkdwn; `names` maps ids to names."""
    shown = _TOKEN.sub(lambda match: _read_token(match.group(1), names), text)
    for style in _STYLES:
        shown = style.sub(r"\1", shown)
    return unescape(shown)


def pings(text: str) -> tuple[str, ...]:
    """Every mention in this mrkdwn that would notify somebody, in order."""
    return tuple(f"<{match.group(1)}>" for match in _PING.finditer(text))


def escape_command(text: str, ids: Mapping[str, str]) -> str:
    """What Slack sends for a typed command under `should_escape`; `ids` maps `@name` and `#name` to ids."""
    return _TYPED.sub(lambda match: _linked(match, ids), escape(text))


def read_blocks(blocks: Sequence[Json], names: Mapping[str, str] = _NOBODY) -> str:
    """What a person reads in these blocks, a line per text; buttons are shown as `[label]`."""
    return "\n".join(line for block in blocks for line in _lines(block, names) if line)


def block_pings(blocks: Sequence[Json]) -> tuple[str, ...]:
    """Every mention in these blocks that would notify somebody."""
    return tuple(ping for block in blocks for ping in _pings_within(block))


def _read_token(token: str, names: Mapping[str, str]) -> str:
    target, _, label = token.partition("|")
    if target.startswith(("@", "#")):
        return target[0] + (names.get(target[1:]) or label or target[1:])
    if target.startswith("!subteam^"):
        return label or "@" + names.get(target.removeprefix("!subteam^"), target.removeprefix("!subteam^"))
    if target.startswith("!date^"):
        return label
    if target.startswith("!"):
        return label or "@" + target[1:]
    return label or target.removeprefix("mailto:")


def _linked(match: re.Match[str], ids: Mapping[str, str]) -> str:
    shapes: dict[str, Callable[[str], str]] = {
        "url": lambda found: f"<{found}>",
        "email": lambda found: f"<mailto:{found}|{found}>",
        "host": lambda found: f"<http://{found}|{found}>",
        "at": lambda found: _mention(found, ids),
        "channel": lambda found: f"<#{ids['#' + found]}|{found}>" if "#" + found in ids else f"#{found}",
    }
    kind = match.lastgroup or ""
    return shapes[kind](match.group(kind))


def _mention(name: str, ids: Mapping[str, str]) -> str:
    if name in _BROADCASTS:
        return f"<!{name}>"
    found = ids.get("@" + name)
    if found is None:
        return f"@{name}"
    return f"<!subteam^{found}|@{name}>" if found.startswith("S") else f"<@{found}|{name}>"


def _lines(part: object, names: Mapping[str, str]) -> Iterator[str]:
    if isinstance(part, list):
        for item in part:
            yield from _lines(item, names)
    elif isinstance(part, dict):
        yield from _lines_of(part, names)


def _lines_of(part: Json, names: Mapping[str, str]) -> Iterator[str]:
    kind, text = part.get("type"), part.get("text")
    if kind == "button":
        yield f"[{unescape(part['text']['text'])}]"
    elif kind in ("plain_text", "text") and isinstance(text, str):
        yield unescape(text)
    elif kind in ("mrkdwn", "markdown") and isinstance(text, str):
        yield plain(text, names)
    elif kind in ("user", "usergroup"):
        found = str(part.get("user_id") or part.get("usergroup_id"))
        yield "@" + names.get(found, found)
    elif kind == "broadcast":
        yield f"@{part['range']}"
    else:
        for key, value in part.items():
            if key != "confirm":
                yield from _lines(value, names)


def _pings_within(part: object) -> Iterator[str]:
    if isinstance(part, list):
        for item in part:
            yield from _pings_within(item)
    elif isinstance(part, dict):
        kind = part.get("type")
        if kind in ("mrkdwn", "markdown"):
            yield from pings(str(part.get("text", "")))
        elif kind == "user":
            yield f"<@{part['user_id']}>"
        elif kind == "usergroup":
            yield f"<!subteam^{part['usergroup_id']}>"
        elif kind == "broadcast":
            yield f"<!{part['range']}>"
        else:
            for value in part.values():
                yield from _pings_within(value)
