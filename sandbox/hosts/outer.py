"""The ground the hosts stand on: one mount, network and PID namespace which dies with the process that asked for it.

Run as a program of its own: `python -m sandbox.hosts.outer SOCKET_FD PARENT_PID BASE_TAR PROJECT`.
The first process watches its parent; the second is PID 1 of the namespace and boots hosts on request.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from sandbox.hosts.cover import LIVES_BY_SYSTEMD, Cover

SCRIPTS = Path(__file__).resolve().parent / "scripts"
# A folder that every machine has, covered in this mount namespace only.
GROUND = next(Path(way) for way in ("/mnt", "/media", "/srv") if not str(SCRIPTS).startswith(way + "/"))
CGROUPS = GROUND / "cgroup"
NETWORK = "10.77.0"

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Watch over the namespace until the parent is gone or has closed its socket."""
    control, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    watched = os.pidfd_open(parent)
    unshare(CLONE_NEWNS | CLONE_NEWIPC)
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "-o", "mode=755", "passport-hosts", str(GROUND))
    show_cgroups()
    fleet_cgroup = claim_cgroup()
    unshare(CLONE_NEWPID | CLONE_NEWNET)
    ready, told = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(told)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.read(ready, 1)
        serve(control, Path(sys.argv[3]), Path(sys.argv[4]), fleet_cgroup)
        os._exit(0)
    os.close(ready)
    socket.send_fds(control, [json.dumps({"ground": str(GROUND)}).encode()], [os.pidfd_open(first)])
    os.close(told)
    control.close()
    wait_for_either(watched, os.pidfd_open(first))
    with contextlib.suppress(ProcessLookupError):
        os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    drop_cgroup(fleet_cgroup)
    return 0


def serve(control: socket.socket, base_tar: Path, project: Path, fleet_cgroup: Path) -> None:
    """Boot a host for every message, and answer with a pidfd of its PID 1."""
    mount("-t", "proc", "proc", "/proc")
    unset_login_uid()
    lay_ground(base_tar, project)
    control.send(b'{"ready": true}')
    while True:
        reap()
        if not select.select([control], [], [], 1.0)[0]:
            continue
        message = control.recv(1 << 20)
        if not message:
            return
        wish = json.loads(message)
        try:
            if "discard" in wish:
                discard(wish["discard"], fleet_cgroup)
                control.send(b"{}")
                continue
            pid = boot(wish, fleet_cgroup)
        except (OSError, subprocess.CalledProcessError) as error:
            control.send(json.dumps({"error": str(error)}).encode())
            continue
        pidfd = os.pidfd_open(pid)
        socket.send_fds(control, [json.dumps({"cgroup": str(fleet_cgroup / wish["boot_name"])}).encode()], [pidfd])
        os.close(pidfd)


def lay_ground(base_tar: Path, project: Path) -> None:
    """Unpack the base layer, write the layer that hides the outer machine, and lay the network."""
    base, cover = GROUND / "base", GROUND / "cover"
    base.mkdir()
    cover.mkdir()
    unpack = ["tar", "--xattrs", "--xattrs-include=trusted.overlay.*", "-xpf", str(base_tar), "-C", str(base)]
    subprocess.run(unpack, check=True)
    Cover(cover, base).write(project)
    tools = GROUND / "tools"
    mount_overlay(tools, lower=f"{cover}:{base}:/", upper=GROUND / "tools-upper", size="64m")
    for words in ("addr add 127.0.0.1/8 dev lo", "link set lo up", "link add lan type bridge"):
        ip(*words.split(), check=words.startswith("link"))
    ip("addr", "add", f"{NETWORK}.1/24", "dev", "lan")
    ip("link", "set", "lan", "up")


def boot(wish: dict[str, str | int], fleet_cgroup: Path) -> int:
    """Start a host in namespaces of its own and answer the PID of its init."""
    home = GROUND / "hosts" / str(wish["name"])
    root = home / "root"
    if not root.exists():
        mount_overlay(root, lower=f"{GROUND}/cover:{GROUND}/base:/", upper=home / "disk", size=str(wish["disk"]))
        dress(root, wish)
    cgroup = fleet_cgroup / str(wish["boot_name"])
    cgroup.mkdir(parents=True)
    pid, go = start_init(root, home, wish, cgroup)
    port = f"p{wish['boot_number']}"
    ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    ip("link", "set", port, "master", "lan", "up")
    os.write(go, b"g")
    os.close(go)
    return pid


def discard(name: str, fleet_cgroup: Path) -> None:
    """Forget a host that is off, with its disk."""
    home = GROUND / "hosts" / name
    reap()
    for mounted in (home / "root", home / "disk"):
        if mounted.exists():
            subprocess.run(["umount", "--lazy", str(mounted)], check=True)
    shutil.rmtree(home, ignore_errors=True)
    for old in fleet_cgroup.glob(f"{name}.*"):
        drop_cgroup(old)


def start_init(root: Path, home: Path, wish: dict[str, str | int], cgroup: Path) -> tuple[int, int]:
    """Fork twice, as a PID namespace is for children only; the init waits for a byte on the second answer."""
    pid_in, pid_out = os.pipe()
    go_in, go_out = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            (cgroup / "cgroup.procs").write_text("0")
            unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP | CLONE_NEWPID)
            init = os.fork()
            if init:
                os.write(pid_out, str(init).encode())
                os._exit(0)
            os.close(go_out)
            become_init(root, home, wish, go_in)
        except BaseException as error:
            print(f"{wish['name']}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os.close(pid_out)
    os.close(go_in)
    os.waitpid(child, 0)
    told = os.read(pid_in, 32)
    os.close(pid_in)
    if not told:
        os.close(go_out)
        raise OSError(f"{wish['name']} did not start")
    return int(told), go_out


def become_init(root: Path, home: Path, wish: dict[str, str | int], go: int) -> None:
    if not os.read(go, 1):
        return
    os.setsid()
    log = os.open(home / "boot.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    words = [str(root), str(wish["name"]), str(wish["init"]), str(wish["address"])]
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container": "passport"}
    os.execve("/bin/sh", ["sh", str(SCRIPTS / "boot-host.sh"), *words], environment)  # noqa: S606 - PID 1 it becomes


def dress(root: Path, wish: dict[str, str | int]) -> None:
    """Write what is a host's own before its first boot."""
    (root / "etc/hostname").write_text(f"{wish['name']}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{wish['address']} {wish['name']}\n")
    (root / "etc/machine-id").write_text(os.urandom(16).hex() + "\n")
    (root / "etc/ssh/sshd_config.d").mkdir(parents=True)
    (root / "etc/ssh/sshd_config").write_text(str(wish["sshd_config"]))
    for script in ("init.sh", "init-cron.sh"):
        shutil.copy(SCRIPTS / script, root / "sbin" / f"sandbox-{script}")
    if wish["init"] == "cron":
        for program in LIVES_BY_SYSTEMD:
            (root / "usr/bin" / program).unlink(missing_ok=True)


def mount_overlay(root: Path, *, lower: str, upper: Path, size: str) -> None:
    """Lay a writable layer of a fixed size over the lower ones."""
    root.mkdir(parents=True)
    upper.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", f"size={size},mode=755", "disk", str(upper))
    (upper / "upper").mkdir()
    (upper / "work").mkdir()
    options = f"lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work"
    mount("-t", "overlay", "-o", options, "overlay", str(root))


def mount(*words: str) -> None:
    """Call mount(8)."""
    subprocess.run(["mount", *words], check=True)


def ip(*words: str, check: bool = True) -> None:
    """Call ip(8) of the base layer: a developer's machine may have none."""

    errors = None if check else subprocess.DEVNULL
    subprocess.run(["chroot", str(GROUND / "tools"), "ip", *words], check=check, stderr=errors)


def unshare(flags: int) -> None:
    """Leave namespaces behind; raise OSError when the kernel refuses."""
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def unset_login_uid() -> None:
    """Forget who logged in to the outer machine: on a host a login uid means a login there."""
    with contextlib.suppress(OSError):
        Path("/proc/self/loginuid").write_text("4294967295")


def wait_for_either(*pidfds: int) -> None:
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    poll.poll()


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def show_cgroups() -> None:
    """Show the machine's cgroup2 tree at a place of our own."""
    CGROUPS.mkdir()
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # Mounted anew, it would lose its options (nsdelegate, …) for the whole machine.
    for fields in mounts:
        if "cgroup2" in fields[fields.index("-") :][:2] and fields[3] == "/" and "rw" in fields[5].split(","):
            mount("--bind", fields[4], str(CGROUPS))
            return
    mount("-t", "cgroup2", "cgroup2", str(CGROUPS))


def claim_cgroup() -> Path:
    """Make this fleet's cgroup, and remove the empty ones of fleets that were killed."""
    top = CGROUPS / "passport-hosts"
    top.mkdir(exist_ok=True)
    for old in top.iterdir():
        if old.is_dir() and not Path(f"/proc/{old.name}").exists():
            drop_cgroup(old)
    mine = top / str(os.getpid())
    drop_cgroup(mine)
    mine.mkdir()
    return mine


def drop_cgroup(path: Path) -> None:
    """Remove a tree of empty cgroups; one that is still in use stays."""
    for folder, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


if __name__ == "__main__":
    sys.exit(main())
