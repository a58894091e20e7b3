"""The pieces of sentences that cards, direct messages and the audit channel share; all of them escaped."""

import re
import unicodedata
from collections.abc import Callable, Sequence

from access.model import AccessRequest, Grant, Review, Server, Verdict
from access.words import join_words
from handlers import mrkdwn

_TYPED = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")  # what the laptop's script takes for a name
_ENVIRONMENT_TAGS = frozenset({"env", "environment", "stage"})
_SENTENCE = 250
_NAME = 60


def one_line(text: str, most: int = _SENTENCE) -> str:
    """The text without line breaks and invisible characters, cut with ``…``; not yet escaped."""
    plain = " ".join(text.split())
    if not plain.isprintable():
        visible = (char for char in plain if char == "\u200d" or unicodedata.category(char) not in {"Cc", "Cf", "Cs"})
        plain = "".join(visible)
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def shown(text: str, most: int = _SENTENCE) -> str:
    """Somebody's text as one escaped line of at most ``most`` characters."""
    return _fitting(mrkdwn.escape, one_line(text, most), most)


def quoted(text: str, most: int = mrkdwn.MAX_SECTION) -> str:
    """Somebody's words as an escaped quotation of at most ``most`` characters."""
    return _fitting(mrkdwn.quote, text, most)


def sentence(text: str, most: int = _SENTENCE) -> str:
    """The text as one escaped line that ends like a sentence."""
    line = shown(text, most)
    return line if not line or line.endswith((".", "!", "?", "…")) else f"{line}."


def name_of(server: Server) -> str:
    """The server's name as people read it."""
    return shown(server.name, _NAME) or shown(server.instance_id, _NAME)


def on_laptop(server: Server) -> str:
    """What to type on a laptop for this server, as it stands: by its name, or by its id where that cannot be typed."""
    name = server.name.lower()
    typed = name if _TYPED.fullmatch(name) else server.instance_id
    return f"passport-connect rdp {typed}" if server.platform == "windows" else f"ssh {typed}.passport"


def names(servers: Sequence[Server], *, most: int = 6) -> str:
    """``web-1 and db-2``; of many, the first and a count."""
    return join_words([name_of(server) for server in servers], most=most)


def listed(servers: Sequence[Server], *, most: int = 4) -> str:
    """``web-1, db-2``, shorter still, for the first words of a notification."""
    parts = [name_of(server) for server in servers[:most]]
    if len(servers) > most:
        parts.append(f"{len(servers) - most} more")
    return ", ".join(parts)


def environment(servers: Sequence[Server]) -> str:
    """``prod``, or ``prod and staging``, from the servers' tags; "" where they do not say."""
    found = [value for server in servers for key, value in server.tags.items() if key.casefold() in _ENVIRONMENT_TAGS]
    return join_words([shown(value, 30) for value in sorted(set(found))], most=3)


def rights(request: AccessRequest) -> str:
    """``root``, ``administrator``, ``sudo for …`` or ``access``: what is asked for, short."""
    rights = request.terms.rights
    if all(server.is_windows for server in request.servers):
        return "administrator" if rights.administrator else "access"
    if rights.commands:
        more = f" and {len(rights.commands) - 1} more" if len(rights.commands) > 1 else ""
        return f"sudo for {shown(rights.commands[0], 60)}{more}"
    return "root" if rights.sudo else "access"


def as_whom(request: AccessRequest) -> list[str]:
    """``as root``, ``as administrator``: the powers that the servers asked for would give, each of its platform."""
    found, windows = [], {server.is_windows for server in request.servers}
    if False in windows:
        found.append("as root" if request.terms.rights.sudo else sudo_words(request))
    if True in windows and request.terms.rights.administrator:
        found.append("as administrator" if False not in windows else "as administrator on Windows")
    return found


def sudo_words(request: AccessRequest) -> str:
    """``with sudo for `…` and `…```: the named commands, every one, to be copied; "" when there are none.

    As code they need no escape, which would be copied with them: the settings admit no mark that Slack reads in it.
    """
    commands = () if all(server.is_windows for server in request.servers) else request.terms.rights.commands
    return f"with sudo for {join_words([f'`{each}`' for each in commands], most=10)}" if commands else ""


def asked_for(request: AccessRequest) -> str:
    """``root on web-1, db-2 (prod)``."""
    where = environment(request.servers)
    preposition = "to" if rights(request) == "access" else "on"
    return f"{rights(request)} {preposition} {listed(request.servers)}{f' ({where})' if where else ''}"


def reviewers(request: AccessRequest) -> str:
    """The groups whose members may decide."""
    return join_words([shown(group, 80) for group in sorted(request.terms.reviewers)], last="or")


def approvers(reviews: Sequence[Review]) -> str:
    """Who approved."""
    return join_words([shown(r.person_name, _NAME) for r in reviews if r.verdict is Verdict.APPROVE]) or "Somebody"


def troubles(grants: Sequence[Grant], said: Callable[[Grant], str], *, lead: str = "", most: int = 5) -> list[str]:
    """What ``said`` has to say of each grant, its server named; of many, the first and a count."""
    spoken = [_of(grant.server, text, lead) for grant in grants if (text := said(grant))]
    return spoken[:most] + ([f"And {len(spoken) - most} more."] if len(spoken) > most else [])


def problem_of(grant: Grant) -> str:
    """What holds the grant up now."""
    return grant.account.problem or grant.route.problem


def _of(server: Server, text: str, lead: str) -> str:
    said, name = sentence(text), name_of(server)
    named = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said)
    return said if named and not lead else f"{name}{lead}: {said}"


def _fitting(render: Callable[[str], str], text: str, most: int) -> str:
    """The rendered text; cut before rendering, so that no entity is cut in two."""
    kept, tail = len(text), ""
    while len(render(text[:kept] + tail)) > most and kept:
        kept, tail = kept * 9 // 10, "…"
    return render(text[:kept] + tail)
