"""The audit log: event kinds, and the hash chain that makes a change of the past visible."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

GENESIS = "0" * 64  # the head of an empty log


class Kind(StrEnum):
    """What can happen; every transition writes one of these in its own transaction."""

    LINK_STARTED = "link.started"
    LINK_MADE = "link.made"
    LINK_REFUSED = "link.refused"
    LINK_REMOVED = "link.removed"
    EXCEPTION_RECORDED = "link.exception_recorded"
    EXCEPTION_REMOVED = "link.exception_removed"
    KEY_ADDED = "key.added"
    KEY_REMOVED = "key.removed"
    GROUPS_CHANGED = "person.groups_changed"
    REQUEST_PARKED = "request.parked"
    REQUEST_UNPARKED = "request.unparked"
    REQUEST_SUBMITTED = "request.submitted"
    REQUEST_REFUSED = "request.refused"
    REQUEST_APPROVAL = "request.approval"  # one of several needed
    REQUEST_APPROVED = "request.approved"
    REQUEST_DENIED = "request.denied"
    REQUEST_CANCELLED = "request.cancelled"
    REQUEST_LAPSED = "request.lapsed"
    REQUEST_STARTED = "request.started"  # expires_at is stamped, provisioning begins
    REQUEST_ACTIVE = "request.active"
    REQUEST_ENDING = "request.ending"
    REQUEST_ENDED = "request.ended"
    GRANT_ACTIVE = "grant.active"
    GRANT_FAILED = "grant.failed"
    GRANT_RETRIED = "grant.retried"
    GRANT_REMOVED = "grant.removed"
    GRANT_REMOVAL_LATE = "grant.removal_late"
    CREDENTIALS_SHOWN = "credentials.shown"
    CERTIFICATE_ISSUED = "certificate.issued"
    TUNNEL_OPENED = "tunnel.opened"
    TUNNEL_LATE = "tunnel.late"  # it could not be shown to be closed
    TUNNEL_ORPHANED = "tunnel.orphaned"  # found open though its request is not, and ended
    AUTHORITY_MADE = "ca.made"  # the first key, at the first start
    AUTHORITY_ROTATION_STARTED = "ca.rotation_started"
    AUTHORITY_ROTATION_FINISHED = "ca.rotation_finished"
    AUTHORITY_ROTATION_ABORTED = "ca.rotation_aborted"
    AUTHORITY_REPLACED = "ca.replaced"  # at once: the old key may be stolen or is lost
    REFUSED = "refused"
    STRANGERS_REFUSED = "strangers.refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened, before it has its place in the chain."""

    kind: Kind
    at: datetime
    actor: str  # a person id, ``slack:T…/U…`` for somebody unlinked, ``os:…``, or ``passport``
    actor_name: str = ""
    request_id: str = ""
    server: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEvent:
    """An event with its place in the chain: ``hash`` covers everything else, ``previous`` included."""

    sequence: int
    event: Event
    previous: str
    hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The last link of the chain."""

    sequence: int = 0
    hash: str = GENESIS


def chain(head: Head, event: Event) -> AuditEvent:
    """Give the event its place after the head."""
    sequence = head.sequence + 1
    digest = _digest(sequence, head.hash, event)
    return AuditEvent(sequence=sequence, event=event, previous=head.hash, hash=digest)


def verify(events: Iterable[AuditEvent], *, witness: Head | None = None) -> list[str]:
    """Say what is wrong with the log, a sentence each; nothing when it is whole.

    ``witness`` is a head from outside Passport's reach (the audit channel): only it can show that the whole
    chain was written anew, or that its end was cut off.
    """
    findings: list[str] = []
    head, seen_witness = Head(), witness is None or witness == Head()
    for found in events:
        findings += _faults(head, found)
        head = Head(sequence=found.sequence, hash=found.hash)
        if witness and found.sequence == witness.sequence:
            seen_witness = True
            if found.hash != witness.hash:
                findings.append(f"Event {found.sequence} is not the one the channel saw: the chain was rewritten.")
    if witness and not seen_witness:
        findings.append(
            f"The log ends at event {head.sequence}, the channel saw event {witness.sequence}: the end is cut off."
        )
    return findings


def as_json(found: AuditEvent) -> dict[str, object]:
    """The exported form, a JSON object a line."""
    return {
        **_content(found.sequence, found.previous, found.event),
        "hash": found.hash,
    }


def _faults(head: Head, found: AuditEvent) -> list[str]:
    if found.sequence != head.sequence + 1:
        return [f"Between event {head.sequence} and event {found.sequence} something is missing."]
    if found.previous != head.hash:
        return [f"Event {found.sequence} does not follow event {head.sequence}: the chain is broken there."]
    if found.hash != _digest(found.sequence, found.previous, found.event):
        return [f"Event {found.sequence} was altered: its content does not match its hash."]
    return []


def _digest(sequence: int, previous: str, event: Event) -> str:
    text = json.dumps(_content(sequence, previous, event), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(sequence: int, previous: str, event: Event) -> dict[str, object]:
    return {
        "sequence": sequence,
        "previous": previous,
        "at": event.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "kind": event.kind.value,
        "actor": event.actor,
        "actor_name": event.actor_name,
        "request_id": event.request_id,
        "server": event.server,
        "details": dict(event.details),
    }
