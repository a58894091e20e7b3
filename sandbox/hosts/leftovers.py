"""What is left of a user on a host, found from the outside.

Nothing here asks a program of the host: its tables, processes and disk are read by the outer machine's kernel, so
that somebody who had root there cannot hide anything by replacing a program.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Where the product remembers its tombstones, a server writes its logs, and AWS's agent keeps the scripts it ran.
EXPECTED = ("/var/lib/passport", "/var/log", "/run/log", "/run/utmp", "/var/lib/amazon/ssm")
TABLES = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
# userdel keeps the table as it was before as a backup: the account in it is dead.
BACKUPS = tuple(f"/etc/{table}-" for table in TABLES)
CONFIGURATION = ("/etc", "/var/spool", "/var/lib", "/usr/local", "/usr/lib", "/root", "/run", "/home", "/opt", "/srv")
PSEUDO = {
    *("proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs", "tracefs", "bpf"),
    *("pstore", "configfs", "fusectl", "binfmt_misc", "nsfs", "efivarfs", "hugetlbfs"),
}
ACL = "system.posix_acl_access"
ACL_USER = 0x02
LARGEST_READ = 1 << 20


class Watched(Protocol):
    """What is needed of a host."""

    @property
    def is_on(self) -> bool: ...
    @property
    def pid(self) -> int: ...
    @property
    def root(self) -> Path: ...
    @property
    def disk(self) -> Path: ...
    def namespace_text(self, namespace: str, path: str) -> str: ...
    def firewall(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Sought:
    """Whom and what to look for."""

    user: str
    uid: int
    token: str
    ignore: tuple[str, ...]

    def ignores(self, path: str) -> bool:
        """Whether a path is the product's own memory or a log."""
        return any(path == own or path.startswith(own + "/") for own in (*self.ignore, *BACKUPS))

    def named_in(self, text: str) -> bool:
        """Whether the user's name or the token is in a text."""
        return any(word and word in text for word in (self.user, self.token))


def find_leftovers(host: Watched, *, user: str, uid: int, token: str, ignore: Sequence[str]) -> list[str]:
    """A line for everything that is left, sorted and without repetition; empty when the host is clean."""
    sought = Sought(user=user, uid=uid, token=token, ignore=tuple(ignore))
    found = {*_table_rows(host, sought), *_written_files(host, sought)}
    if host.is_on:
        found |= {*_processes(host, sought), *_mounts(host, sought), *_files_on_mounts(host, sought)}
        found |= {*_shared_memory(host, sought), *_firewall_rules(host, sought)}
    return sorted(found)


def _table_rows(host: Watched, sought: Sought) -> Iterator[str]:
    """Accounts, groups, passwords and subordinate ids."""
    for table in TABLES:
        with contextlib.suppress(FileNotFoundError):
            for row in (host.root / "etc" / table).read_text().splitlines():
                fields = re.split("[:,]", row)
                if sought.user in fields or str(sought.uid) in fields[1:4] or sought.named_in(row):
                    yield f"{table}: {row}"


def _processes(host: Watched, sought: Sought) -> Iterator[str]:
    """Processes by UID, by login UID (which sudo keeps), by cgroup, and by what their command line says."""
    pids = _pids_inside(host.pid)
    at_the_door = _at_the_door(pids)
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            folder = Path(f"/proc/{pid}")
            status = dict(
                line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line
            )
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            label = f"{status['Name']} ({command})"
            if str(sought.uid) in status["Uid"].split():
                yield f"process: {label} runs as {sought.uid}"
            if (folder / "loginuid").read_text().strip() == str(sought.uid):
                yield f"process: {label} was started by login {sought.uid}"
            if f"user-{sought.uid}.slice" in (folder / "cgroup").read_text():
                yield f"process: {label} is in the cgroup of {sought.uid}"
            if sought.named_in(command) and pid not in at_the_door:
                yield f"process: {label} names it"


def _at_the_door(pids: set[int]) -> set[int]:
    """sshd's two processes for each caller who only says to be somebody: it gives them two minutes to prove it.

    Not of the user, whom a tunnel that nobody closed outlives here: "[net]", and the "[priv]" that has started it.
    """
    found = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if (Path(f"/proc/{pid}/cmdline").read_bytes()).rstrip(b"\0 ").endswith(b" [net]"):
                found |= {pid, int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])}
    return found


def _pids_inside(init: int) -> set[int]:
    """The init, its descendants, and whatever entered its PID namespace."""
    namespace = str(Path(f"/proc/{init}/ns/pid").readlink())
    parents: dict[int, int] = {}
    inside = {init}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if str((entry / "ns/pid").readlink()) == namespace:
                    inside.add(int(entry.name))
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in inside} - inside
        inside |= more
        grown = bool(more)
    return inside


def _written_files(host: Watched, sought: Sought) -> Iterator[str]:
    """Everything on the disk that carries the name or the token, in its path or its text, or belongs to the UID."""
    yield from _search(host.disk, host.disk, sought)


def _files_on_mounts(host: Watched, sought: Sought) -> Iterator[str]:
    """The same on every other mount that can hold a file."""
    for mount in _mount_table(host.pid):
        if mount.kind not in PSEUDO and mount.point != "/" and not mount.kind.startswith("fuse"):
            yield from _search(Path(f"/proc/{host.pid}/root{mount.point}"), host.root, sought)


def _search(top: Path, root: Path, sought: Sought) -> Iterator[str]:
    with contextlib.suppress(OSError):
        device = top.lstat().st_dev
        for folder, folders, files in os.walk(top):
            shown = "/" + os.path.relpath(folder, root).removeprefix(".").lstrip("/")
            if sought.ignores(shown):
                folders.clear()
                continue
            for name in (*folders, *files):
                with contextlib.suppress(OSError):
                    yield from _look(Path(folder, name), f"{shown.rstrip('/')}/{name}", device, sought)
            folders[:] = [name for name in folders if _is_on(device, f"{folder}/{name}")]


def _is_on(device: int, path: str) -> bool:
    try:
        return os.lstat(path).st_dev == device
    except OSError:
        return False


def _look(file: Path, shown: str, device: int, sought: Sought) -> Iterator[str]:
    status = file.lstat()
    if sought.ignores(shown) or status.st_dev != device or (status.st_rdev == 0 and _is_whiteout(status)):
        return
    if sought.uid in (status.st_uid, status.st_gid):
        yield f"file: {shown} belongs to {sought.uid}"
    if sought.named_in(file.name):
        yield f"file: {shown} is named after it"
    if file.is_symlink():
        if sought.named_in(str(file.readlink())):
            yield f"file: {shown} points to it"
        return
    if sought.uid in _acl_users(file):
        yield f"file: {shown} admits {sought.uid} by its ACL"
    if shown.startswith(CONFIGURATION) and file.is_file() and status.st_size <= LARGEST_READ:
        text = file.read_bytes().decode(errors="replace")
        if shown not in {f"/etc/{table}" for table in TABLES} and sought.named_in(text):
            yield f"file: {shown} mentions it"


def _is_whiteout(status: os.stat_result) -> bool:
    return (status.st_mode & 0o170000) == 0o020000


def _acl_users(file: Path) -> set[int]:
    try:
        acl = os.getxattr(file, ACL)
    except OSError:
        return set()
    entries = [struct.unpack_from("<HHI", acl, offset) for offset in range(4, len(acl), 8)]
    return {entry[2] for entry in entries if entry[0] == ACL_USER}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mount:
    point: str
    kind: str
    line: str


def _mount_table(pid: int) -> list[_Mount]:
    mounts = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        point = before.split()[4].encode().decode("unicode_escape")
        mounts.append(_Mount(point=point, kind=after.split()[0], line=line))
    return mounts


def _mounts(host: Watched, sought: Sought) -> Iterator[str]:
    """Mounts of the user, in the host's own mount namespace and in those of its processes."""
    seen: set[str] = set()
    for pid in _pids_inside(host.pid):
        with contextlib.suppress(OSError):
            namespace = str(Path(f"/proc/{pid}/ns/mnt").readlink())
            if namespace in seen:
                continue
            seen.add(namespace)
            for mount in _mount_table(pid):
                by_id = re.search(rf"\b(?:user_id|uid)={sought.uid}\b", mount.line) or mount.point.startswith(
                    f"/run/user/{sought.uid}"
                )
                if by_id or sought.named_in(mount.line):
                    yield f"mount: {mount.point} ({mount.kind})"


def _shared_memory(host: Watched, sought: Sought) -> Iterator[str]:
    """System V shared memory, semaphores and queues outlive the process that made them."""
    for kind in ("shm", "sem", "msg"):
        rows = [row.split() for row in host.namespace_text("ipc", f"/proc/sysvipc/{kind}").splitlines()]
        for row in rows[1:]:
            owners = {row[rows[0].index(column)] for column in ("uid", "cuid")}
            if str(sought.uid) in owners:
                yield f"ipc: {kind} {row[1]} of {sought.uid}"


def _firewall_rules(host: Watched, sought: Sought) -> Iterator[str]:
    for line in host.firewall().splitlines():
        if sought.named_in(line) or re.search(rf"(?:uid-owner|skuid) {sought.uid}\b", line):
            yield f"firewall: {line.strip()}"
