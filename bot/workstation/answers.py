"""Answers as a POSIX shell reads them: a ``key=value`` a line, ``status`` first. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from math import ceil

from access.errors import BusyError, InvalidInputError, PassportError, UnavailableError
from access.service.choosing import NotYet
from access.service.connecting import RDP, IssuedCertificate, OpenedTunnel
from provisioning.connection import ssh_target

Answer = tuple[int, str]  # HTTP's status, and the text
PASSWORD = "Your password is in Slack: press Show credentials in the message about {}."  # noqa: S105 - says where it is
BROKEN = "Something broke on Passport's side. Try again in a minute."
AGAIN = timedelta(seconds=3)


def challenged(challenge: str) -> Answer:
    """What to sign."""
    return 200, _text("ok", [("challenge", challenge)])


def issued(found: IssuedCertificate) -> Answer:
    """A certificate, and what ssh needs beside it."""
    request, target = found.choice.request, ssh_target(found.choice.grant)
    pairs = [
        ("request", request.id),
        ("user", request.user_name),
        ("platform", found.choice.grant.server.platform.casefold()),
        ("alias", target.alias),
        ("port", target.port),
        ("until", _epoch(found.choice.expires_at)),
        ("certificate", found.certificate),
        ("valid_before", _epoch(found.valid_before)),
        *(("host_key", key) for key in target.host_keys),
        ("forwarding", "yes" if request.terms.rights.forwarding else "no"),
    ]
    return 200, _text("ready", pairs)


def opened(found: OpenedTunnel, act: str) -> Answer:
    """A running session, for session-manager-plugin."""
    request, tunnel = found.choice.request, found.tunnel
    pairs = [
        ("request", request.id),
        ("region", tunnel.region),
        ("response", tunnel.response),
        ("parameters", tunnel.parameters),
        ("endpoint", tunnel.endpoint),
    ]
    if act == RDP:
        pairs += [("user", request.user_name), ("message", PASSWORD.format(request.id))]
    return 200, _text("ready", pairs)


def waits(found: NotYet) -> Answer:
    """It is coming."""
    return 200, _text("wait", [("retry_in", _seconds(found.retry_in)), ("message", found.sentence)])


def failed(error: PassportError) -> Answer:
    """Busy, where trying again helps; refused otherwise."""
    if isinstance(error, UnavailableError):
        retry_in = error.retry_in if isinstance(error, BusyError) else AGAIN
        return 503, _text("busy", [("retry_in", _seconds(retry_in)), ("message", error.sentence)])
    return (400 if isinstance(error, InvalidInputError) else 403), _text("refused", [("message", error.sentence)])


def broken() -> Answer:
    """A mistake of Passport's, which is in its log."""
    return 500, _text("refused", [("message", BROKEN)])


def _text(status: str, pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{key}={_one_line(value)}\n" for key, value in [("status", status), *pairs])


def _one_line(value: str) -> str:
    """Whatever a server or a person has put into it stays one line, and moves no cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(value.split()))


def _epoch(at: datetime) -> str:
    return str(int(at.timestamp()))


def _seconds(duration: timedelta) -> str:
    return str(max(1, ceil(duration.total_seconds())))
