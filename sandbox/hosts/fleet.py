"""Real servers on one machine: a fleet boots hosts in namespaces and leaves nothing behind, not even after kill -9."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from sandbox.hosts.base import HostsError, ensure_base, require_root
from sandbox.hosts.host import Host
from sandbox.hosts.namespaces import Namespaces, pid_of

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class HostWish:
    """What a host shall be; `env` is the environment of the commands that its agent runs."""

    name: str
    init: Literal["systemd", "cron"] = "systemd"
    use_pam: bool = True
    include: bool = True
    allow_groups: str | None = None
    sshd_config_extra: str = ""
    disk: str = "256m"
    env: Mapping[str, str] = field(default_factory=dict)

    def sshd_config(self) -> str:
        """The host's sshd_config, as a distribution and then its administrator would write it."""
        lines = [
            *(["Include /etc/ssh/sshd_config.d/*.conf"] if self.include else []),
            *("Port 22", "HostKey /etc/ssh/ssh_host_ed25519_key", "HostKey /etc/ssh/ssh_host_ecdsa_key"),
            *(f"UsePAM {'yes' if self.use_pam else 'no'}", "KbdInteractiveAuthentication no", "PrintMotd no"),
            *("PasswordAuthentication no", "LogLevel VERBOSE", "Subsystem sftp internal-sftp"),
            *([f"AllowGroups {self.allow_groups}"] if self.allow_groups else []),
        ]
        return "\n".join(lines) + "\n" + self.sshd_config_extra


class HostFleet:
    """A context manager around one outer namespace with any number of hosts."""

    def __init__(self, base: str | Path = PROJECT / "build/hosts-base") -> None:
        self._folder = Path(base)
        self._asking = threading.Lock()
        self._numbers = itertools.count(1)
        self._boots = itertools.count(1)
        self._outer: subprocess.Popen[bytes] | None = None
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        """Make the outer namespace; raise HostsError when this machine does not allow it."""
        require_root()
        layer = ensure_base(self._folder)
        self._log = tempfile.TemporaryFile()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [str(theirs.fileno()), str(os.getpid()), str(layer), str(PROJECT)]
        self._outer = subprocess.Popen(
            [sys.executable, "-S", "-m", "sandbox.hosts.outer", *words],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        theirs.close()
        try:
            answer, self._first = self._answer()
            self._ground = answer["ground"]
            self.outside = Namespaces(self.outside_pid(), ("net",))
            self._answer()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every host at once."""
        self.close()

    def close(self) -> None:
        """End every host at once and wait until nothing of them is left."""
        self._control.close()
        if self._outer is not None:
            self._outer.wait(timeout=30)
            self._outer = None
        for host in self.hosts.values():
            host.forget()
        if hasattr(self, "_first"):
            os.close(self._first)
            del self._first
        if hasattr(self, "outside"):
            self.outside.close()
        self._log.close()

    def boot(
        self,
        name: str,
        *,
        init: Literal["systemd", "cron"] = "systemd",
        use_pam: bool = True,
        include: bool = True,
        allow_groups: str | None = None,
        sshd_config_extra: str = "",
        disk: str = "256m",
        env: Mapping[str, str] | None = None,
    ) -> Host:
        """Boot a host and wait until its sshd answers; raise HostsError when it does not."""
        wish = HostWish(
            name=name,
            init=init,
            use_pam=use_pam,
            include=include,
            allow_groups=allow_groups,
            sshd_config_extra=sshd_config_extra,
            disk=disk,
            env=env or {},
        )
        return self.boot_all([wish])[0]

    def boot_all(self, wishes: Sequence[HostWish]) -> list[Host]:
        """Boot several hosts side by side."""
        hosts = [self._add(wish) for wish in wishes]
        with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
            list(pool.map(Host.power_on, hosts))
        return hosts

    def discard(self, host: Host) -> None:
        """Switch a host off and forget it with its disk."""
        host.power_off()
        with self._asking:
            self._control.send(json.dumps({"discard": host.name}).encode())
            self._answer()
        del self.hosts[host.name]

    def outside_pid(self) -> int:
        """A process in the network next to the hosts: the fleet's "outside"."""
        return pid_of(self._first)

    def start(self, wish: HostWish, address: str) -> tuple[int, str]:
        """Start a host's init; answer its pidfd and its cgroup's path. Used by Host."""
        number = next(self._boots)
        message = {
            "name": wish.name,
            "init": wish.init,
            "disk": wish.disk,
            "address": address,
            "sshd_config": wish.sshd_config(),
            "boot_number": number,
            "boot_name": f"{wish.name}.{number}",
        }
        with self._asking:
            self._control.send(json.dumps(message).encode())
            answer, pidfd = self._answer()
        return pidfd, answer["cgroup"]

    def ground(self, path: str) -> Path:
        """A path of the outer namespace, from its ground or absolute, as this process can open it."""
        return Path(f"/proc/{self.outside_pid()}/root") / str(Path(self._ground, path)).lstrip("/")

    def _add(self, wish: HostWish) -> Host:
        if wish.name in self.hosts:
            raise HostsError(f"{wish.name} is already there")
        host = Host(fleet=self, wish=wish, address=f"10.77.0.{next(self._numbers) + 10}")
        self.hosts[wish.name] = host
        return host

    def _answer(self) -> tuple[dict[str, str], int]:
        self._control.settimeout(60)
        message, pidfds, _, _ = socket.recv_fds(self._control, 1 << 16, 1)
        if not message:
            raise HostsError(f"The sandbox's servers cannot start here: {self._said()}")
        answer: dict[str, str] = json.loads(message)
        if "error" in answer:
            raise HostsError(f"{answer['error']}: {self._said()}")
        return answer, pidfds[0] if pidfds else -1

    def _said(self) -> str:
        deadline = time.monotonic() + 2
        while not (size := os.fstat(self._log.fileno()).st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace").strip()[-1500:]
