"""One host of the fleet: run commands in it, dial it, pull its plug, and look at it from the outside."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.hosts.base import HostsError
from sandbox.hosts.leftovers import EXPECTED, find_leftovers
from sandbox.hosts.namespaces import Namespaces, is_exiting, pid_of

if TYPE_CHECKING:
    from sandbox.hosts.fleet import HostFleet, HostWish

BOOT_SECONDS = 30.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Joins the agent's cgroup before it enters: what the agent runs belongs to the agent's service.
ENTER = 'mkdir -p "$0" && echo 0 > "$0/cgroup.procs" && echo 4294967295 > /proc/self/loginuid; exec nsenter "$@"'


class Host:
    """A server with its own kernel namespaces, disk and network; made by HostFleet."""

    def __init__(self, *, fleet: HostFleet, wish: HostWish, address: str) -> None:
        self._fleet = fleet
        self._wish = wish
        self._pidfd = -1
        self._cgroup = ""
        self._namespaces: Namespaces | None = None
        self.address = address

    def __repr__(self) -> str:
        return f"<Host {self.name} {'on' if self.is_on else 'off'}>"

    @property
    def name(self) -> str:
        """The host's name."""
        return self._wish.name

    @property
    def init(self) -> str:
        """`systemd` or `cron`."""
        return self._wish.init

    @property
    def is_on(self) -> bool:
        """Whether it has booted and its init lives."""
        return self._namespaces is not None and self._lives()

    @property
    def pid(self) -> int:
        """The PID of its init as the outer machine sees it; raise HostsError when it is off."""
        self._entered()
        return pid_of(self._pidfd)

    @property
    def root(self) -> Path:
        """Its root folder as the outer machine sees it: with all its mounts when it is on, its disk when it is off."""
        if self.is_on:
            return Path(f"/proc/{self.pid}/root")
        return self._fleet.ground(f"hosts/{self.name}/root")

    @property
    def disk(self) -> Path:
        """Everything that was ever written to its disk, and nothing else."""
        return self._fleet.ground(f"hosts/{self.name}/disk/upper")

    def run(
        self,
        *command: str,
        input: bytes = b"",  # noqa: A002 - the name that subprocess has
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command as root inside, as the host's agent would.

        Raises subprocess.TimeoutExpired, with the command and its children killed.
        """
        namespaces = self._entered()
        service = "system.slice/amazon-ssm-agent.service" if self.init == "systemd" else "agent"
        flags = [*namespaces.flags(), "--wdns=/", "--", *command]
        with subprocess.Popen(
            ["sh", "-c", ENTER, f"{self._cgroup_path()}/{service}", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=namespaces.fds(),
            env={"PATH": PATH, "LANG": "C.UTF-8", **self._wish.env},
            start_new_session=True,
        ) as running:
            try:
                output, errors = running.communicate(input, timeout)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, running.returncode, output, errors)

    def power_on(self) -> None:
        """Boot and wait until sshd answers; raise HostsError when it does not within 30 s."""
        if self.is_on:
            return
        self.forget()
        self._pidfd, self._cgroup = self._fleet.start(self._wish, self.address)
        network = Namespaces(pid_of(self._pidfd), ("net",))
        try:
            deadline = time.monotonic() + BOOT_SECONDS
            while not _greets(network):
                if time.monotonic() > deadline or not self._lives():
                    raise HostsError(f"{self.name} does not boot: {self.boot_log()}")
                time.sleep(0.02)
        finally:
            network.close()
        self._namespaces = Namespaces(pid_of(self._pidfd))

    def power_off(self) -> None:
        """Pull the plug: nothing on the host gets to say goodbye."""
        if self._lives():
            self.resume()
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            select.select([self._pidfd], [], [], 10.0)
        self.forget()

    def reboot(self) -> None:
        """Pull the plug and boot again: the disk stays, `/run` and `/tmp` do not."""
        self.power_off()
        self.power_on()

    def pause(self) -> None:
        """Freeze every process: the host is there and does not answer."""
        (self._cgroup_path() / "cgroup.freeze").write_text("1")

    def resume(self) -> None:
        """Thaw."""
        (self._cgroup_path() / "cgroup.freeze").write_text("0")

    @property
    def is_paused(self) -> bool:
        """Whether every process is frozen."""
        return (self._cgroup_path() / "cgroup.freeze").read_text().strip() == "1"

    def dial(self, port: int, timeout: float = 10.0) -> socket.socket:
        """Connect to 127.0.0.1 on the host from the host itself, as its agent does; raise OSError when refused."""
        return _connected(self._entered().socket(), ("127.0.0.1", port), timeout)

    def dial_from_outside(self, port: int, timeout: float = 10.0) -> socket.socket:
        """Connect to the host's own address from a neighbour in its network; raise OSError when refused."""
        return _connected(self._fleet.outside.socket(), (self.address, port), timeout)

    @contextlib.contextmanager
    def fill_disk(self) -> Iterator[None]:
        """Leave no free byte on the disk for the time of a with block."""
        filler = self._fleet.ground(f"hosts/{self.name}/disk/filler")
        try:
            with filler.open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            yield
        finally:
            filler.unlink(missing_ok=True)

    @contextlib.contextmanager
    def remount_etc_read_only(self) -> Iterator[None]:
        """Make /etc read-only for the time of a with block."""
        self._must("sh", "-c", "mount --bind /etc /etc && mount -o remount,ro,bind /etc")
        try:
            yield
        finally:
            self._must("umount", "-l", "/etc")

    def host_key_lines(self) -> list[str]:
        """The public host keys, `type base64` each."""
        files = sorted((self.root / "etc/ssh").glob("ssh_host_*_key.pub"))
        return [" ".join(file.read_text().split()[:2]) for file in files]

    def leftovers(self, user: str, uid: int, token: str, *, ignore: Sequence[str] = EXPECTED) -> list[str]:
        """Whatever is left of a user, a UID or a token, seen from the outside: a line each, empty when clean."""
        return find_leftovers(self, user=user, uid=uid, token=token, ignore=ignore)

    def namespace_text(self, namespace: str, path: str) -> str:
        """Read a file of the outer machine as it looks from one of the host's namespaces."""
        namespaces = self._entered()
        words = ["nsenter", *namespaces.flags(namespace), "cat", path]
        return subprocess.run(words, capture_output=True, text=True, check=True, pass_fds=namespaces.fds()).stdout

    def firewall(self) -> str:
        """The host's packet filter rules."""
        rules = self.run("sh", "-c", "iptables-save; ip6tables-save; nft list ruleset")
        return rules.stdout.decode(errors="replace")

    def boot_log(self) -> str:
        """What was printed while booting."""
        log = self._fleet.ground(f"hosts/{self.name}/boot.log")
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def forget(self) -> None:
        """Close what is held of a host that is off."""
        if self._namespaces is not None:
            self._namespaces.close()
            self._namespaces = None
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _entered(self) -> Namespaces:
        if self._namespaces is None or not self._lives():
            raise HostsError(f"{self.name} is off")
        return self._namespaces

    def _lives(self) -> bool:
        # A pidfd is readable once its process has ended, together with everything in its PID namespace.
        if self._pidfd < 0 or select.select([self._pidfd], [], [], 0)[0]:
            return False
        return not is_exiting(pid_of(self._pidfd))

    def _cgroup_path(self) -> Path:
        return self._fleet.ground(self._cgroup)

    def _must(self, *command: str) -> None:
        ran = self.run(*command)
        if ran.returncode != 0:
            raise HostsError(f"{self.name}: {ran.stderr.decode(errors='replace').strip()}")


def _greets(network: Namespaces) -> bool:
    with contextlib.suppress(OSError), _connected(network.socket(), ("127.0.0.1", 22), 2.0) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def _connected(connection: socket.socket, target: tuple[str, int], timeout: float) -> socket.socket:
    try:
        connection.settimeout(timeout)
        connection.connect(target)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection
