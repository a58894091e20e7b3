"""Audit events as lines that people read, and as the messages of the audit channel. Pure."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

from access.audit import AuditEvent, Event, Head, Kind
from access.model import AccessRequest
from handlers import phrases

MAX_MESSAGE = 3500  # well under the 4,000 characters that Slack's page "chat.postMessage" advises
MAX_LINE = 1500
_VALUE = 160

# What a template does not mention is added at the line's end, so that nothing of an event is left unsaid.
TEMPLATES: Mapping[Kind, str] = {
    Kind.LINK_STARTED: "{who} began to sign in",
    Kind.LINK_MADE: "{who} signed in and is linked to {slack}",
    Kind.LINK_REFUSED: "{who} could not be linked: {reason}",
    Kind.LINK_REMOVED: "{who} unlinked",
    Kind.EXCEPTION_RECORDED: "{who} lets {slack} link to {email}: {reason}",
    Kind.EXCEPTION_REMOVED: "{who} no longer lets {slack} link to {email}: {reason}",
    Kind.KEY_ADDED: "{who} added the SSH key {fingerprint}",
    Kind.KEY_REMOVED: "{who} removed the SSH key {fingerprint}",
    Kind.GROUPS_CHANGED: "The groups of {who} changed",
    Kind.REQUEST_PARKED: "{who} asked for {servers}; it waits for their sign-in",
    Kind.REQUEST_UNPARKED: "What {who} asked for no longer waits: {servers}",
    Kind.REQUEST_SUBMITTED: "{who} asked for {about} · {duration} · {rights} · rule {rule}: “{reason}”",
    Kind.REQUEST_REFUSED: "{who} may not ask for {servers}: {reason}",
    Kind.REQUEST_APPROVAL: "{who} approved {about}, one of several who must",
    Kind.REQUEST_APPROVED: "{who} approved {about}",
    Kind.REQUEST_DENIED: "{who} denied {about}: “{reason}”",
    Kind.REQUEST_CANCELLED: "{who} cancelled {about}",
    Kind.REQUEST_LAPSED: "{about} lapsed: not enough people had decided",
    Kind.REQUEST_STARTED: "{about} is being opened, until {expires_at}",
    Kind.REQUEST_ACTIVE: "{about} is open",
    Kind.REQUEST_ENDING: "{about} is being closed ({cause}): {detail}",
    Kind.REQUEST_ENDED: "{about} is closed ({cause}): {detail}",
    Kind.GRANT_ACTIVE: "{server} is open to {requester} ({request})",
    Kind.GRANT_FAILED: "{server} could not be opened to {requester} ({request}): {reason}",
    Kind.GRANT_RETRIED: "{who} had {server} tried again ({request}, attempt {attempt})",
    Kind.GRANT_REMOVED: "{server} is closed to {requester} ({request})",
    Kind.GRANT_REMOVAL_LATE: (
        ":rotating_light: {reason} So I cannot prove that the user {user} of {requester} is gone from {server} "
        "({request}). I go on trying; attempts so far: {attempts}"
    ),
    Kind.CREDENTIALS_SHOWN: "{who} was shown the credentials of {about}",
    Kind.CERTIFICATE_ISSUED: "{who} got a certificate for {server} ({request})",
    Kind.TUNNEL_OPENED: "{who} opened a tunnel to {server} ({request})",
    Kind.TUNNEL_LATE: (
        ":rotating_light: {reason} So I cannot prove that the tunnels of {requester} to {server} are closed "
        "({request}). I go on trying; attempts so far: {attempts}"
    ),
    Kind.TUNNEL_ORPHANED: ":warning: A tunnel to {server} was still open without an access ({request}); I ended it",
    Kind.AUTHORITY_MADE: "{who} has its certificate authority's key {key}",
    Kind.AUTHORITY_ROTATION_STARTED: "{who} began to rotate the certificate authority's key from {old} to {new}",
    Kind.AUTHORITY_ROTATION_FINISHED: "{who} finished rotating the certificate authority's key: {new}, not {old}",
    Kind.AUTHORITY_ROTATION_ABORTED: "{who} called the rotation off: the certificate authority's key stays {old}",
    Kind.AUTHORITY_REPLACED: (
        ":rotating_light: {who} replaced the certificate authority's key at once, and ends all access: {reason}"
    ),
    Kind.REFUSED: "{who} was refused: {act} {about}",
    Kind.STRANGERS_REFUSED: "People who are not linked were refused",
}
# Said already by the request itself, wherever a line names it.
_KNOWN = frozenset({"requester", "servers", "email", "grant"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """One message of the audit channel, and the head of the log as it shows it."""

    text: str
    head: Head


def bundle(events: Sequence[AuditEvent], requests: Mapping[str, AccessRequest]) -> Bundle:
    """As many of the events as one message takes, at least one, ending with the head to verify against."""
    lines: list[str] = []
    room = MAX_MESSAGE - len(_witness(Head(sequence=events[-1].sequence)))
    for found in events:
        said = line(found, requests.get(found.event.request_id))
        room -= len(said) + 1
        if lines and room < 0:
            break
        lines.append(said)
    last = events[len(lines) - 1]
    head = Head(sequence=last.sequence, hash=last.hash)
    return Bundle(text="\n".join([*lines, _witness(head)]), head=head)


def line(found: AuditEvent, request: AccessRequest | None) -> str:
    """The event as one line: ``#12 03:04:05Z Ben Ito approved AR-7F3K (Ana Ruiz, web-1) · rule prod-root``."""
    event = found.event
    template = TEMPLATES[event.kind]
    said = {name for _, name, _, _ in string.Formatter().parse(template) if name}
    values = _Values({key: phrases.shown(value, _VALUE) for key, value in event.details.items()})
    values.update(_places(event, request))
    start = f"#{found.sequence} {event.at.astimezone(UTC):%H:%M:%SZ} {template.format_map(values).rstrip()}"
    for extra in _extras(event, request, said):
        if len(start) + len(extra) + 3 <= MAX_LINE:
            start += f" · {extra}"
    return start


class _Values(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def _places(event: Event, request: AccessRequest | None) -> dict[str, str]:
    named = [server for server in request.servers if server.key == event.server] if request and event.server else []
    return {
        "who": _who(event),
        "about": _about(event, request),
        "request": phrases.shown(event.request_id, 20),
        "requester": phrases.shown(request.person_name, 60) if request else "somebody",
        "server": (phrases.name_of(named[0]) if named else "") or phrases.shown(event.server, _VALUE) or "a server",
    }


def _who(event: Event) -> str:
    if event.actor.startswith("slack:"):
        return f"Somebody unlinked ({phrases.shown(event.actor, 60)})"
    return phrases.shown(event.actor_name, 60) or phrases.shown(event.actor, 60).capitalize()


def _about(event: Event, request: AccessRequest | None) -> str:
    if request is None:
        return phrases.shown(event.request_id, 20)
    servers = phrases.listed(request.servers)
    own = event.actor == request.person_id
    whose = servers if own else f"{phrases.shown(request.person_name, 60)}, {servers}"
    return f"{request.id} ({whose})"


def _extras(event: Event, request: AccessRequest | None, said: set[str]) -> list[str]:
    known = _KNOWN if request else frozenset[str]()
    extras = [
        f"{phrases.shown(key.replace('_', ' '), 40)} {phrases.shown(value, _VALUE)}"
        for key, value in event.details.items()
        if value and key not in said | known
    ]
    if request and event.kind in {Kind.REQUEST_APPROVED, Kind.REQUEST_APPROVAL}:
        extras.append(f"rule {phrases.shown(request.terms.rule, 80)}")
    return extras


def _witness(head: Head) -> str:
    return f"`passport audit verify --head {head.sequence}:{head.hash}`"
