"""What the documents answer, read strictly: a frame with a fixed beginning and end, and nothing believed beyond it.

A server is not trusted. Its answer becomes typed values here or is refused as a whole; text that people may see is
kept to a small alphabet, and host keys are decoded and checked before they are called keys.
"""

import base64
import binascii
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from access.errors import UnavailableError
from provisioning.refusals import RefusalCode, Refused

__all__ = [
    "Created",
    "Frame",
    "FramingError",
    "HostKey",
    "Present",
    "Probed",
    "RefusalCode",
    "Refused",
    "Removed",
    "parse_create",
    "parse_host_keys",
    "parse_probe",
    "parse_remove",
    "read_frame",
    "read_present",
]

# "Data elements": ListCommandInvocations cuts an output at 2,500 characters; GetCommandInvocation at 24,000.
MOST_CHARACTERS = 24_000
HOST_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
MOST_HOST_KEYS = 4
MOST_AUTHORITIES = 2  # while it changes

_LINE = re.compile(r"([a-z][a-z_]{0,30})=([0-9A-Za-z +/=:,.@_*?-]{0,1100})")
_FAILED = re.compile(r"passport:end:failed:([a-z_]{1,30})")
# What the agent puts after the output of a script that wrote to its standard error or failed.
_AFTER = re.compile(r"\s*(?:(?:-{2,}\s*ERROR\s*-{2,}|failed to run commands:).*)?", re.DOTALL)


class FramingError(UnavailableError):
    """The answer is cut, or is not one of Passport's scripts'."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostKey:
    """A server's public SSH key: a known type, and base64 that decodes to a key of that type."""

    kind: str
    blob: str

    def __str__(self) -> str:
        return f"{self.kind} {self.blob}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Created:
    """The user is there, and so is its end."""

    request_id: str
    user_name: str
    uid: int
    existing: bool  # it was there before: the command came twice, or moved the end
    not_after: datetime
    server_time: datetime
    timer: str  # systemd or cron
    sshd: str  # drop_in or block
    port: int
    firewall: str  # what keeps users from the instance metadata service: nft, iptables, ip or none
    host_keys: tuple[HostKey, ...]
    authorities: tuple[str, ...]  # SHA256:… of the certificate authority's keys that the server trusts now


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """Nothing of the user is left, as far as the server knows and tells."""

    request_id: str
    user_name: str
    result: str  # removed; absent: gone before; superseded: a later attempt's user stands
    uid: int | None = None
    ended_at: datetime | None = None  # when the last process was dead; None if all was gone before
    swept_at: datetime | None = None  # when the search of all disks was over
    processes: int = 0
    files: int = 0
    mounts: int = 0
    jobs: int = 0
    had_sudo: bool = False  # the person had root there, so the server's word is not proof
    had_commands: bool = False  # the person had sudo for named commands
    firewall: str = "none"  # the wall before the metadata service: removed, stays (for other users) or none
    kept_until: datetime | None = None  # when the home, which is root's alone now, is purged; None: it is gone
    verified: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Present:
    """One Passport user that a server has."""

    request_id: str
    user_name: str
    uid: int
    not_after: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """What a server says of itself."""

    system: str
    server_time: datetime
    timer: str  # systemd, cron or none
    sshd: str  # running, stopped, broken or absent
    sshd_version: str = ""
    include: bool = False
    use_pam: bool = False
    denies: str = ""  # the DenyUsers or DenyGroups pattern that shuts Passport's users out
    read_only: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # programs that create or remove would miss
    free_kb: Mapping[str, int] = field(default_factory=dict)
    firewalls: tuple[str, ...] = ()  # what could keep users from the metadata service: nft, iptables, ip; best first
    selinux: str = ""  # enforcing, permissive, disabled; "" where there is none
    shell: str = ""  # what /bin/sh leads to
    no_logins: str = ""  # the file that keeps everybody out, /etc/nologin or /run/nologin; "" when there is none
    sudo_version: str = ""
    homes_kept: int = 0
    users: tuple[Present, ...] = ()  # at most twenty
    user_count: int = 0


T = TypeVar("T")


def parse_create(output: str, *, request_id: str, user_name: str) -> Created | Refused:
    """Read the create document's answer about this user; raises FramingError."""
    frame = read_frame(output, "create")
    if frame.refused is not None:
        return frame.refused
    frame.must_be("request", request_id)
    frame.must_be("user", user_name)
    return Created(
        request_id=request_id,
        user_name=user_name,
        uid=frame.number("uid"),
        existing=frame.choice("existing", "yes", "no") == "yes",
        not_after=frame.instant("not_after"),
        server_time=frame.instant("now"),
        timer=frame.choice("timer", "systemd", "cron"),
        sshd=frame.choice("sshd", "drop_in", "block"),
        port=frame.port("port"),
        firewall=frame.optional("firewall") or "none",
        host_keys=parse_host_keys(frame.many("host_key")),
        authorities=_authorities(frame.many("authority")),
    )


def parse_remove(output: str, *, request_id: str, user_name: str) -> Removed | Refused:
    """Read the remove document's answer about this user; raises FramingError."""
    frame = read_frame(output, "remove")
    if frame.refused is not None:
        return frame.refused
    frame.must_be("request", request_id)
    frame.must_be("user", user_name)
    result = frame.choice("result", "removed", "absent", "superseded")
    if result == "superseded":
        return Removed(request_id=request_id, user_name=user_name, result=result)
    frame.must_be("verified", "yes")
    return Removed(
        request_id=request_id,
        user_name=user_name,
        result=result,
        uid=frame.number("uid") if frame.one("uid") else None,
        ended_at=frame.instant("ended_at") if frame.one("ended_at") != "0" else None,
        swept_at=frame.instant("swept_at"),
        processes=frame.number("processes"),
        files=frame.number("files"),
        mounts=frame.number("mounts"),
        jobs=frame.number("jobs"),
        had_sudo=frame.many("sudo") == ("all",),
        had_commands=frame.many("sudo") == ("named",),
        firewall=frame.optional("firewall") or "none",
        kept_until=frame.instant("kept_until") if frame.optional("kept_until") else None,
        verified=True,
    )


def parse_probe(output: str) -> Probed | Refused:
    """Read the probe document's answer; raises FramingError."""
    frame = read_frame(output, "probe")
    if frame.refused is not None:
        return frame.refused
    return Probed(
        system=frame.one("os").strip(),
        server_time=frame.instant("now"),
        timer=frame.choice("timer", "systemd", "cron", "none"),
        sshd=frame.choice("sshd", "running", "stopped", "broken", "absent"),
        sshd_version=frame.optional("sshd_version"),
        include=frame.optional("include") == "yes",
        use_pam=frame.optional("use_pam") == "yes",
        denies=frame.optional("denies"),
        read_only=frame.many("read_only"),
        missing=frame.many("missing"),
        firewalls=tuple(frame.optional("firewalls").split()),
        selinux=frame.optional("selinux"),
        shell=frame.optional("shell"),
        no_logins=frame.optional("no_logins"),
        sudo_version=frame.optional("sudo_version"),
        homes_kept=frame.number("homes_kept") if frame.optional("homes_kept") else 0,
        free_kb=dict(_free(value) for value in frame.many("free_kb")),
        users=tuple(read_present(value) for value in frame.many("account")),
        user_count=frame.number("accounts"),
    )


def parse_host_keys(lines: Sequence[str]) -> tuple[HostKey, ...]:
    """Read ``type base64`` lines; raises FramingError for none, too many, or one that is not such a key."""
    if not 1 <= len(lines) <= MOST_HOST_KEYS:
        raise FramingError(f"The server named {len(lines)} host keys; I need 1 to {MOST_HOST_KEYS}.")
    return tuple(_host_key(line) for line in lines)


def _authorities(lines: Sequence[str]) -> tuple[str, ...]:
    known = all(re.fullmatch(r"SHA256:[0-9A-Za-z+/]{43}", line) for line in lines)
    if not known or not 1 <= len(lines) <= MOST_AUTHORITIES:
        raise FramingError("The server does not say which of Passport's keys it trusts.")
    return tuple(lines)


def _host_key(line: str) -> HostKey:
    kind, _, text = line.partition(" ")
    try:
        blob = base64.b64decode(text, validate=True)
        named = _ssh_string(blob)
    except (binascii.Error, struct.error, ValueError):
        named = b""
    if kind not in HOST_KEY_TYPES or named != kind.encode() or base64.b64encode(blob).decode() != text:
        raise FramingError("The server's host key is not a key of a type that I know.")
    return HostKey(kind=kind, blob=text)


def _ssh_string(blob: bytes) -> bytes:
    (length,) = struct.unpack_from(">I", blob)
    if not 0 < length <= len(blob) - 8:
        raise ValueError("a key has a type and then more")
    return blob[4 : 4 + int(length)]


def _free(value: str) -> tuple[str, int]:
    folder, _, kilobytes = value.partition(" ")
    return folder, _number(kilobytes)


def read_present(value: str) -> Present:
    """One line of the users that a server has; raises FramingError."""
    match value.split(" "):
        case [request_id, user_name, uid, not_after]:
            return Present(request_id=request_id, user_name=user_name, uid=_number(uid), not_after=_instant(not_after))
    raise FramingError("The server's list of users cannot be read.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """An answer's lines, read one by one; whatever is not as it should be raises FramingError."""

    lines: tuple[tuple[str, str], ...]
    refused: Refused | None = None

    def many(self, key: str) -> tuple[str, ...]:
        return tuple(value for name, value in self.lines if name == key)

    def one(self, key: str) -> str:
        return self._single(key, lambda value: value)

    def optional(self, key: str) -> str:
        return self.one(key) if self.many(key) else ""

    def number(self, key: str) -> int:
        return self._single(key, _number)

    def port(self, key: str) -> int:
        number = self.number(key)
        if not 1 <= number <= 65535:
            raise FramingError("The server's answer has something else where a port belongs.")
        return number

    def instant(self, key: str) -> datetime:
        return self._single(key, _instant)

    def choice(self, key: str, *allowed: str) -> str:
        value = self.one(key)
        if value not in allowed:
            raise FramingError(f"The server's answer has an unknown {key}.")
        return value

    def must_be(self, key: str, value: str) -> None:
        if self.one(key) != value:
            raise FramingError(f"The server's answer is about another {key}.")

    def _single(self, key: str, read: Callable[[str], T]) -> T:
        values = self.many(key)
        if len(values) != 1:
            raise FramingError(f"The server's answer has {len(values)} lines of {key} instead of one.")
        return read(values[0])


def _number(text: str) -> int:
    if re.fullmatch("[0-9]{1,18}", text) is None:
        raise FramingError("The server's answer has something else where a number belongs.")
    return int(text)


def _instant(text: str) -> datetime:
    try:
        return datetime.fromtimestamp(_number(text), tz=UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise FramingError("The server's answer has an impossible time.") from error


def read_frame(output: str, action: str) -> Frame:
    """Split an answer into its lines; whatever is not exactly a frame raises FramingError."""
    if len(output) > MOST_CHARACTERS:
        raise FramingError("The server's answer is too long to be mine.")
    first, _, rest = output.replace("\r\n", "\n").partition("\n")
    if first != f"passport:1:{action}":
        raise FramingError("The server's answer does not begin as it should.")
    lines: list[tuple[str, str]] = []
    while rest:
        line, _, rest = rest.partition("\n")
        if line.startswith("passport:end:"):
            return _ended(line, rest, tuple(lines))
        match = _LINE.fullmatch(line)
        if match is None:
            raise FramingError("The server's answer has a line that is not mine, or was cut.")
        lines.append((match[1], match[2]))
    raise FramingError("The server's answer was cut: its end is missing.")


def _ended(line: str, rest: str, lines: tuple[tuple[str, str], ...]) -> Frame:
    if _AFTER.fullmatch(rest) is None:
        raise FramingError("The server's answer goes on after its end.")
    if line == "passport:end:ok":
        return Frame(lines=lines)
    failed = _FAILED.fullmatch(line)
    if failed is None or failed[1] not in set(RefusalCode):
        raise FramingError("The server's answer does not end as it should.")
    frame = Frame(lines=lines)
    left = tuple(part for value in frame.many("left") for part in value.split(","))
    return Frame(
        lines=lines,
        refused=Refused(code=RefusalCode(failed[1]), detail=" ".join(frame.many("detail")), left=left),
    )
