"""The layer that turns the outer machine's disk into a fresh server's."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

# Of the outer machine a host sees its programs only: nothing personal, nothing that would run by itself.
KEPT = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "usr", "var"}
EMPTIED = (
    *("boot", "dev", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp"),
    *("etc/cron.d", "etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly"),
    *("etc/ssh", "etc/sudoers.d", "etc/systemd/system", "etc/systemd/user", "etc/update-motd.d", "etc/tmpfiles.d"),
    *("usr/local", "usr/src", "usr/include", "usr/share/doc", "usr/share/man"),
    *("var/log", "var/mail", "var/tmp", "var/backups", "var/spool/cron/crontabs", "var/spool/cron/atjobs"),
    *("var/spool/cron/atspool", "var/lib/systemd/linger", "var/lib/systemd/timers", "var/lib/docker"),
    *("var/lib/containerd", "var/lib/postgresql", "var/lib/mysql", "var/lib/snapd", "var/lib/flatpak"),
    *("var/lib/libvirt", "var/lib/lxc", "var/lib/kubelet", "var/lib/apt", "var/lib/dpkg/info", "var/www"),
)
# Of programs and their data, folders with more entries than this belong to no server, but for these.
BULKY = 300
KEPT_BULKY = ("*-linux-gnu", "perl*", "python3.*", "systemd", "zoneinfo")
# They look for disks and for units of other kinds at every boot and every daemon-reload, and find none here.
GENERATORS = ("system-generators", "user-generators", "user-environment-generators")
UNITS_WANTED = ("ssh.service", "cron.service", "atd.service", "amazon-ssm-agent.service")
UNITS_MASKED = (
    *("systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket"),
    *("systemd-udev-trigger.service", "systemd-udev-settle.service", "systemd-modules-load.service"),
    *("systemd-sysctl.service", "systemd-timesyncd.service", "systemd-networkd.service", "systemd-resolved.service"),
    *("systemd-remount-fs.service", "systemd-random-seed.service", "systemd-binfmt.service"),
    *("systemd-machine-id-commit.service", "systemd-firstboot.service", "systemd-pcrphase.service"),
    *("systemd-ask-password-wall.path", "systemd-ask-password-console.path", "systemd-pcrphase-sysinit.service"),
    *("systemd-networkd-wait-online.service", "systemd-hwdb-update.service", "systemd-journal-flush.service"),
    *(
        "systemd-pstore.service",
        "systemd-repart.service",
        "systemd-sysusers.service",
        "systemd-boot-random-seed.service",
    ),
    *("getty.target", "console-getty.service", "sys-kernel-config.mount", "sys-kernel-debug.mount"),
    *("sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "dev-mqueue.mount"),
    *("proc-sys-fs-binfmt_misc.automount", "kmod-static-nodes.service", "apt-daily.timer", "apt-daily-upgrade.timer"),
    *("ssh.socket", "tmp.mount", "polkit.service", "snapd.service", "rsyslog.service", "e2scrub_reap.service"),
)
AGENT_UNIT = """[Unit]
Description=The place in which the sandbox runs what Systems Manager sends
[Service]
ExecStart=/bin/sleep infinity
KillMode=process
Delegate=yes
"""
SSH_LAST = "[Unit]\nAfter=systemd-logind.service systemd-user-sessions.service cron.service atd.service\n"
NAME_SERVICES = "passwd: files systemd\ngroup: files systemd\nshadow: files\nhosts: files\n"
LIVES_BY_SYSTEMD = ("systemctl", "loginctl", "systemd-run", "journalctl", "busctl", "systemd-analyze")


class Cover:
    """The layer above the base layer: it empties what is the outer machine's own and sets up systemd's units."""

    def __init__(self, top: Path, base: Path) -> None:
        self.top = top
        self.base = base

    def write(self, project: Path) -> None:
        """Write everything."""
        for entry in Path("/").iterdir():
            if entry.name not in KEPT and entry.name not in EMPTIED:
                os.mknod(self.top / entry.name, 0o600 | 0o020000, 0)
        for path in (*EMPTIED, *self.bulky("usr/lib"), *self.bulky("usr/share")):
            self.empty(path)
        self.empty(str(project).lstrip("/"))
        self.accounts()
        for path, text in (("etc/fstab", ""), ("etc/motd", ""), ("etc/ld.so.preload", ""), ("etc/machine-id", "")):
            self.put(path, text)
        self.put("etc/nsswitch.conf", NAME_SERVICES)
        self.put("etc/sudoers.d/README", "# drop-ins\n", mode=0o440)
        self.put("var/spool/cron/atjobs/.SEQ", "00000\n", mode=0o600)
        jobs = (self.top / "var/spool/cron/atjobs").stat()
        os.chown(self.top / "var/spool/cron/atjobs/.SEQ", jobs.st_uid, jobs.st_gid)
        self.units()
        os.mknod(self.top / "etc/localtime", 0o600 | 0o020000, 0)

    @staticmethod
    def bulky(path: str) -> Iterator[str]:
        """The folders directly below that would only make every search of a host's disk slow."""
        for folder in Path("/", path).iterdir():
            kept = any(fnmatch(folder.name, pattern) for pattern in KEPT_BULKY)
            if folder.is_dir() and not folder.is_symlink() and not kept:
                entries = (entry for _, folders, files in os.walk(folder) for entry in (*folders, *files))
                if next(itertools.islice(entries, BULKY, None), None) is not None:
                    yield f"{path}/{folder.name}"

    def empty(self, path: str) -> None:
        """Make a folder opaque, with the owner and mode that it has below."""
        below = self.below(path)
        if not path or Path(path).parts[0] not in {*KEPT, *EMPTIED} or not below:
            return
        self.parents(path)
        target = self.top / path
        if target.exists() or target.is_symlink() or below.is_symlink():
            return
        target.mkdir()
        self.like(target, below)
        os.setxattr(target, "trusted.overlay.opaque", b"y")

    def put(self, path: str, text: str, *, mode: int | None = None) -> None:
        """Write a file, with the owner and mode that it has below."""
        self.parents(path)
        target = self.top / path
        target.write_text(text)
        below = self.below(path)
        if below:
            self.like(target, below)
        if mode is not None:
            target.chmod(mode)

    def parents(self, path: str) -> None:
        for parent in reversed(Path(path).parents[:-1]):
            target = self.top / parent
            if not target.exists():
                target.mkdir()
                below = self.below(str(parent))
                if below:
                    self.like(target, below)

    def below(self, path: str) -> Path | None:
        found = [root / path for root in (self.base, Path("/")) if (root / path).exists()]
        return found[0] if found else None

    @staticmethod
    def like(target: Path, below: Path) -> None:
        status = below.stat()
        os.chown(target, status.st_uid, status.st_gid)
        target.chmod(status.st_mode & 0o7777)

    def accounts(self) -> None:
        """Keep the system's own accounts; the people of the outer machine have none on a host."""
        names: dict[str, set[str]] = {}
        for table in ("passwd", "group"):
            rows = [line.split(":") for line in self.text(f"etc/{table}").splitlines() if line.count(":") >= 2]
            kept = [row for row in rows if row[2].isdigit() and (int(row[2]) < 1000 or int(row[2]) == 65534)]
            names[table] = {row[0] for row in kept}
            if table == "group":
                kept = [[*row[:3], ""] for row in kept]
            self.put(f"etc/{table}", "".join(":".join(row) + "\n" for row in kept))
        for table, owners in (("shadow", names["passwd"]), ("gshadow", names["group"])):
            rows = [line.split(":") for line in self.text(f"etc/{table}").splitlines()]
            lines = [":".join([row[0], "*", *row[2:]]) + "\n" for row in rows if row[0] in owners]
            self.put(f"etc/{table}", "".join(lines))
        for table in ("subuid", "subgid"):
            self.put(f"etc/{table}", "", mode=0o644)

    def text(self, path: str) -> str:
        below = self.below(path)
        return below.read_text() if below else ""

    def units(self) -> None:
        """Start sshd, cron, atd and the agent, and nothing that belongs to real hardware."""
        folder = self.top / "etc/systemd/system"
        for wants, units in (("multi-user.target.wants", UNITS_WANTED),):
            (folder / wants).mkdir(parents=True)
            for unit in units:
                (folder / wants / unit).symlink_to(f"/lib/systemd/system/{unit}")
        for unit in UNITS_MASKED:
            (folder / unit).symlink_to("/dev/null")
        for kind in GENERATORS:
            mask = self.top / "etc/systemd" / kind
            mask.mkdir()
            places = (root / "usr/lib/systemd" / kind for root in (self.base, Path("/")))
            for name in {generator.name for place in places for generator in place.glob("*")}:
                (mask / name).symlink_to("/dev/null")
        (folder / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
        (folder / "sshd.service").symlink_to("/lib/systemd/system/ssh.service")
        self.put("etc/systemd/system/amazon-ssm-agent.service", AGENT_UNIT)
        self.put("etc/systemd/system/ssh.service.d/last.conf", SSH_LAST)
        agent = folder / "multi-user.target.wants/amazon-ssm-agent.service"
        agent.unlink()
        agent.symlink_to("/etc/systemd/system/amazon-ssm-agent.service")
