"""Who is on the hosts, seen from outside of them all the time: so that an end that comes late is not missed."""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from sandbox.hosts import Host
from sandbox.hosts.base import HostsError

EVERY = 0.25  # seconds
_PREFIX = "pp-"


@dataclass(slots=True)
class _Log:
    """What was seen of one host."""

    looked_at: float = 0.0  # 0.0 while it is off or frozen
    names: dict[int, str] = field(default_factory=dict)  # by UID; none is given twice
    seen: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))  # when, for how long


class Watch:
    """Looks at every host four times a second and remembers when it had which of Passport's users; a context manager.

    Somebody is there while they have an account or a process. Only time in which the host runs counts.
    """

    def __init__(self, hosts: Iterable[Host]) -> None:
        self._logs = {host: _Log() for host in hosts}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def seen(self) -> set[tuple[str, str]]:
        """Host and user of everybody who was there."""
        with self._lock:
            return {(host.name, user) for host, log in self._logs.items() for user in log.seen}

    def overtime(self, host_name: str, user: str, end: float) -> float:
        """Seconds after this time (of the Unix clock) in which the host ran and the user was still there."""
        with self._lock:
            looks = [
                look for host, log in self._logs.items() if host.name == host_name for look in log.seen.get(user, ())
            ]
        return sum(min(lasted, at - end) for at, lasted in looks if at > end)

    def _look_on(self) -> None:
        while not self._over.wait(EVERY):
            for host, log in self._logs.items():
                try:
                    users = _users(host, log.names) if _runs(host) else None
                except (HostsError, OSError, ValueError):  # it goes off as we look
                    users = None
                self._note(log, users)

    def _note(self, log: _Log, users: set[str] | None) -> None:
        now = time.time()
        with self._lock:
            for user in users or ():
                log.seen[user].append((now, now - log.looked_at if log.looked_at else 0.0))
            log.looked_at = 0.0 if users is None else now


def _runs(host: Host) -> bool:
    return host.is_on and not host.is_paused


def _users(host: Host, names: dict[int, str]) -> set[str]:
    """Passport's users who have an account or a process; their UIDs are added to ``names``."""
    rows = [row.split(":") for row in (host.root / "etc/passwd").read_text().splitlines() if row.startswith(_PREFIX)]
    names.update({int(row[2]): row[0] for row in rows})
    return {row[0] for row in rows} | {names[uid] for uid in _uids(host.pid) if uid in names}


def _uids(init: int) -> set[int]:
    """Whose processes run in the host with this init."""
    namespace = Path(f"/proc/{init}/ns/pid").readlink()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                uid = entry.stat().st_uid
                if uid and uid not in found and (entry / "ns/pid").readlink() == namespace:
                    found.add(uid)
    return found
