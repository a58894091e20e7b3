"""What the documents' answers mean for a grant."""

import logging
from dataclasses import replace
from datetime import datetime, timedelta

from access.authorities import KNOWN, Trust
from access.model import AccessRequest, Grant, Rights
from access.steps import Done, Failed, Step
from access.words import duration_words
from provisioning.command_intent import Intent
from provisioning.framing import Created, FramingError, Removed, parse_create, parse_remove
from provisioning.refusals import SENTENCES, RefusalCode, Refused
from provisioning.windows_framing import parse_create_windows

MOST_SKEW = timedelta(minutes=2)  # of a server's clock

# What a shell says when the script itself cannot be written.
_BEFORE_THE_SCRIPT = {
    "No space left on device": RefusalCode.DISK_FULL,
    "Read-only file system": RefusalCode.READ_ONLY,
}

_log = logging.getLogger(__name__)


def read_created(request: AccessRequest, grant: Grant, output: str, *, trust: Trust, now: datetime) -> Step:
    """The step that the create document's answer, read ``now``, means, while ``trust`` is what servers shall trust."""
    try:
        created = parse_create(output, request_id=request.id, user_name=request.user_name)
    except FramingError as error:
        return _unread(grant, error, output)
    match created:
        case Refused():
            return _not_made(request, grant, created, now)
        case Created():
            if request.expires_at is None or created.not_after > request.expires_at:
                return Failed(reason=f"{grant.server.name} would end the access too late.", retryable=True)
            wrong = _wrong_clock(grant, created.server_time, now)
            if wrong:
                return Failed(reason=wrong, retryable=False)
            if trust.fingerprints.isdisjoint(created.authorities):
                replaced = f"{grant.server.name} trusts only keys of Passport's that were replaced. Ask again."
                return Failed(reason=replaced, retryable=False)
            details = {
                "user": created.user_name,
                "uid": str(created.uid),
                "port": str(created.port),
                "host_keys": "\n".join(map(str, created.host_keys)),
                KNOWN: " ".join(created.authorities),
            }
            return Done(details=details)


def read_created_windows(request: AccessRequest, grant: Grant, output: str, *, now: datetime) -> Step:
    """The same on Windows: the password goes beside the details, which are kept in the clear."""
    try:
        created = parse_create_windows(output, request_id=request.id, user_name=request.user_name)
    except FramingError as error:
        return _unread(grant, error, output)
    if isinstance(created, Refused):
        return _not_made(request, grant, created, now)
    if request.expires_at is None or created.not_after > request.expires_at:
        return Failed(reason=f"{grant.server.name} would end the access too late.", retryable=True)
    if wrong := _wrong_clock(grant, created.server_time, now):
        return Failed(reason=wrong, retryable=False)
    details = {"user": created.user_name, "uid": str(created.uid), "port": str(created.port)}
    return Done(details=details, password=created.password)


def _wrong_clock(grant: Grant, server_time: datetime, now: datetime) -> str:
    """What is wrong with a server's clock; "" when it told a time between the command's making and its answer.

    Certificate and timer run out by that clock: one that is behind would give access after the end.
    """
    intent = Intent.of(grant.account.handle, "create")
    earliest = intent.made_at if intent else now
    if server_time < earliest - MOST_SKEW:
        lag, effect = earliest - server_time, "behind mine, so it could not end the access on time by itself"
    elif server_time > now + MOST_SKEW:
        lag, effect = server_time - now, "ahead of mine, so it would end the access too early"
    else:
        return ""
    minutes = timedelta(minutes=round(lag / timedelta(minutes=1)))
    return f"{grant.server.name}'s clock is {duration_words(minutes)} {effect}. Set it right, then ask again."


def read_removed(request: AccessRequest, grant: Grant, output: str) -> Step:
    """The step that the remove document's answer means."""
    try:
        removed = parse_remove(output, request_id=request.id, user_name=request.user_name)
    except FramingError as error:
        return _unread(grant, error, output)
    match removed:
        case Refused():
            return _refused(grant, removed)
        case Removed():
            return Done(details=_proof(removed, vouched_by=_vouched_by(removed, grant, request.terms.rights)))


def _unread(grant: Grant, error: FramingError, output: str) -> Failed:
    """The script said nothing that can be read; on a disk without room the agent cannot even write it down."""
    for words, code in _BEFORE_THE_SCRIPT.items():
        if words in output:
            return Failed(reason=f"{grant.server.name}: {SENTENCES[code]}", retryable=True, server_cannot=True)
    return Failed(reason=f"{grant.server.name}: {error.sentence}", retryable=True)


def _not_made(request: AccessRequest, grant: Grant, refused: Refused, now: datetime) -> Failed:
    """Why nobody was made; a server for which the end had come while it had not has a wrong clock."""
    failed = _refused(grant, refused)
    if refused.code is RefusalCode.AFTER_END and request.expires_at and now < request.expires_at - MOST_SKEW:
        ahead = "ahead of mine, so it took the request for over. Nothing was made. Set it right, then ask again."
        return replace(failed, reason=f"{grant.server.name}'s clock is {ahead}")
    return failed


def _refused(grant: Grant, refused: Refused) -> Failed:
    # What a tool on the server said is for whoever runs Passport; framing has kept it to a small alphabet.
    _log.warning("%s on %s: %s %s", grant.id, grant.server.key, refused.code, refused.detail)
    reason = f"{grant.server.name}: {refused.sentence}"
    return Failed(reason=reason, retryable=refused.retryable, server_cannot=refused.server_cannot)


def _vouched_by(removed: Removed, grant: Grant, rights: Rights) -> str:
    """Whose word the proof is, and what the person could have done about it."""
    if grant.server.platform == "windows":
        had_all = removed.had_sudo or rights.administrator
        return "reported by the host; the person was administrator" if had_all else "reported by the host"
    if removed.had_sudo or rights.sudo:
        return "reported by the host; the person had root"
    if removed.had_commands or rights.commands:
        return "reported by the host; the person had sudo for named commands"
    return "reported by the host"


def _proof(removed: Removed, *, vouched_by: str) -> dict[str, str]:
    proof = {
        "result": removed.result,
        "verified": "yes" if removed.verified else "no",
        "user": removed.user_name,
        "processes": str(removed.processes),
        "files": str(removed.files),
        "mounts": str(removed.mounts),
        "jobs": str(removed.jobs),
        "vouched_by": vouched_by,
    }
    optional = {
        "uid": removed.uid,
        "ended_at": _text(removed.ended_at),
        "swept_at": _text(removed.swept_at),
        "firewall": "" if removed.firewall == "none" else removed.firewall,
        "home_kept_until": _text(removed.kept_until),
    }
    return proof | {name: str(value) for name, value in optional.items() if value}


def terminated(grant: Grant) -> Done:
    """A server that is gone for good needs no other proof."""
    vouched = "EC2: the instance is terminated"
    return Done(details={"result": "terminated", "terminated": grant.server.instance_id, "vouched_by": vouched})


def never_made(grant: Grant) -> Done:
    """Nothing is ever sent for a request before its end is fixed, and what AWS refuses reaches no server."""
    vouched = "Passport: nothing was sent to the server"
    return Done(details={"result": "never made", "server": grant.server.instance_id, "vouched_by": vouched})


def _text(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}" if instant else ""
