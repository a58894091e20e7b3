"""The base layer: what a server has and a developer's machine may lack, installed once into a file of its own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

PACKAGES = (
    *("openssh-server", "openssh-client", "cron", "at", "sudo", "systemd", "libpam-systemd", "dbus", "passwd"),
    *("iproute2", "iptables", "nftables", "curl", "fuse3", "procps", "acl", "util-linux", "findutils"),
)
# A layer built over other versions of these would mix two releases' files.
TIED_TO = ("libc6", "libpam0g", "libssl3", "libssl3t64", "libsystemd0", "systemd", "openssh-client")
SCRIPTS = Path(__file__).resolve().parent / "scripts"


class HostsError(Exception):
    """The sandbox cannot start or run its servers; the message says why."""


def ensure_base(folder: Path) -> Path:
    """The base layer's tar file in a folder, built when it is missing; raise HostsError when that fails."""
    require_root()
    folder.mkdir(parents=True, exist_ok=True)
    layer = folder.resolve() / f"{_key()}.tar"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layer.exists():
            _build(layer)
    return layer


def require_root() -> None:
    """Raise HostsError unless this process may make namespaces."""
    if os.geteuid() != 0:
        raise HostsError("The sandbox's servers are real namespaces: this needs root (sudo).")


def _build(layer: Path) -> None:
    print("Installing OpenSSH, cron and systemd for the sandbox's servers (once, about a minute) …", file=sys.stderr)
    script = ["sh", str(SCRIPTS / "build-base.sh"), str(layer), *PACKAGES]
    built = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *script], capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise HostsError(f"The sandbox's servers could not be installed: {built.stderr.strip()[-1500:]}")


def _key() -> str:
    """What the layer depends on: the release, the machine's own versions, the packages and the script."""
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *TIED_TO]
    versions = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    parts = (Path("/etc/os-release").read_text(), versions, *PACKAGES, (SCRIPTS / "build-base.sh").read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
