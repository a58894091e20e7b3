"""The sandbox's servers are real: real init, real sshd, real disks, and nothing remains of them."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.hosts import Doorway, Host, HostFleet, HostsError
from sandbox.hosts.namespaces import Namespaces

pytestmark = pytest.mark.hosts

PROJECT = Path(__file__).resolve().parents[2]
USER, UID, TOKEN = "pp-ana", 200001, "AR-7F3K"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a person's key `me`, a CA, and certificates for the user, one of them for the tunnel only."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("me", "ca"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    only_tunnel = ["-O", "source-address=127.0.0.1/32"]
    for name, options in (("anywhere", list[str]()), ("tunnel", only_tunnel)):
        (folder / f"{name}.pub").write_text((folder / "me.pub").read_text())
        sign = ["ssh-keygen", "-q", "-s", str(folder / "ca"), "-I", name, "-n", USER, *options]
        subprocess.run([*sign, str(folder / f"{name}.pub")], check=True)
    return folder


@pytest.fixture(scope="module")
def fleet() -> Iterator[HostFleet]:
    with HostFleet() as fleet:
        yield fleet


@pytest.fixture(params=["systemd", "cron"])
def host(fleet: HostFleet, keys: Path, request: pytest.FixtureRequest) -> Iterator[Host]:
    """A fresh host, once with systemd and once without, which trusts the CA."""
    host = fleet.boot(
        f"{request.param}-1",
        init=request.param,
        sshd_config_extra="TrustedUserCAKeys /etc/ssh/test_ca.pub\n",
    )
    must(host, "cat > /etc/ssh/test_ca.pub", (keys / "ca.pub").read_bytes())
    yield host
    fleet.discard(host)


@pytest.fixture
def systemd_host(fleet: HostFleet) -> Iterator[Host]:
    host = fleet.boot("systemd-2")
    yield host
    fleet.discard(host)


@pytest.fixture
def user(host: Host) -> str:
    must(host, f"useradd -m -s /bin/bash -u {UID} {USER} && usermod -p '*' {USER}")
    return USER


def must(host: Host, script: str, given: bytes = b"") -> str:
    ran = host.run("sh", "-c", script, input=given)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode()


def ssh(
    dial: Callable[[int], socket.socket], keys: Path, certificate: str, command: str
) -> subprocess.CompletedProcess[str]:
    """Log in with a certificate through some way to port 22."""
    with Doorway(dial) as door:
        options = {
            "IdentityFile": keys / "me",
            "CertificateFile": keys / f"{certificate}-cert.pub",
            "IdentitiesOnly": "yes",
            "Port": door.port,
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        words = [f"-o{name}={value}" for name, value in options.items()]
        line = ["ssh", "-F", "none", *words, f"{USER}@127.0.0.1", command]
        return subprocess.run(line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_the_init_is_a_real_one(host: Host) -> None:
    if host.init == "systemd":
        assert must(host, "systemctl is-system-running --wait") == "running\n"
    else:
        assert must(host, "cat /proc/1/comm") == "sh\n"
        assert host.run("sh", "-c", "command -v systemctl || ls /run/systemd/system").stdout == b""
    assert must(host, "pgrep -cx 'sshd|cron|atd'") == "3\n"


def test_the_outer_machine_is_hidden(host: Host) -> None:
    assert must(host, "ls -A /etc/cron.d /etc/cron.daily /home /srv /opt | grep -v : | grep -v '^$' || true") == ""
    assert host.run("test", "-e", str(PROJECT)).returncode == 1
    assert must(host, "awk -F: '$3 >= 1000 && $3 < 65534' /etc/passwd; cat /etc/subuid /etc/subgid") == ""
    assert must(host, "findmnt -no OPTIONS /proc/sys").startswith("ro,")
    assert len(must(host, "ls -d /proc/[0-9]*").splitlines()) < 20


def test_a_certificate_logs_in_from_the_hosts_own_agent(host: Host, user: str, keys: Path) -> None:
    entered = ssh(host.dial, keys, "tunnel", "id -u; echo $SSH_CONNECTION; cat /proc/self/loginuid")
    assert entered.returncode == 0, entered.stderr
    uid, connection, login_uid = entered.stdout.splitlines()
    assert (uid, login_uid) == (str(UID), str(UID))
    assert connection.startswith("127.0.0.1 ")
    assert connection.endswith(" 127.0.0.1 22")


def test_a_certificate_for_the_tunnel_is_refused_from_the_network(host: Host, user: str, keys: Path) -> None:
    assert ssh(host.dial_from_outside, keys, "anywhere", "echo $SSH_CONNECTION").stdout.startswith("10.77.0.1 ")
    refused = ssh(host.dial_from_outside, keys, "tunnel", "true")
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_sshd_reloads_what_was_dropped_in(host: Host, user: str, keys: Path) -> None:
    must(host, f"printf 'Match User {USER}\\n ForceCommand echo forced\\n' > /etc/ssh/sshd_config.d/planted.conf")
    must(host, "systemctl reload ssh" if host.init == "systemd" else "kill -HUP $(cat /run/sshd.pid)")
    answers = {ssh(host.dial, keys, "anywhere", "echo free").stdout for _ in range(3)}
    assert "forced\n" in answers


def test_a_reboot_keeps_the_disk_and_nothing_else(host: Host, user: str) -> None:
    must(
        host,
        "echo kept > /root/kept; echo lost > /tmp/lost; echo lost > /run/lost; setsid sleep 1000 > /dev/null 2>&1 &",
    )
    before = host.host_key_lines(), host.pid
    host.reboot()
    assert must(host, "cat /root/kept") == "kept\n"
    assert host.run("sh", "-c", "ls /tmp/lost /run/lost; pgrep -f '[s]leep 1000'").stdout == b""
    assert host.host_key_lines() == before[0]
    assert host.pid != before[1]


def test_a_host_that_is_off_answers_nothing_and_keeps_its_disk(host: Host, user: str) -> None:
    host.power_off()
    assert not host.is_on
    with pytest.raises(HostsError, match="is off"):
        host.run("true")
    with pytest.raises(HostsError, match="is off"):
        host.dial(22)
    assert any(line.startswith("passwd: pp-ana") for line in host.leftovers(USER, UID, TOKEN))
    host.power_on()
    assert f"{USER}:x:{UID}" in must(host, "cat /etc/passwd")


def test_a_paused_host_does_not_answer_until_it_is_resumed(host: Host) -> None:
    host.pause()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            host.run("true", timeout=0.3)
    finally:
        host.resume()
    assert host.run("true").returncode == 0


def test_a_full_disk_and_a_read_only_etc(host: Host) -> None:
    with host.fill_disk():
        assert b"No space left" in host.run("sh", "-c", "cat /bin/sh > /root/more").stderr
    with host.remount_etc_read_only():
        assert host.run("useradd", "nobody-else").returncode != 0
    must(host, "cat /bin/sh > /root/more && rm /root/more && useradd nobody-else && userdel nobody-else")


def test_a_timed_out_command_leaves_no_process(host: Host) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        host.run("sh", "-c", "sleep 4711 & sleep 4711", timeout=0.3)
    assert host.run("pgrep", "-f", "sleep 4711").returncode == 1


def test_a_job_of_at_runs(host: Host, user: str) -> None:
    must(host, "echo 'echo ran > /root/at-ran' | at -q a now 2>/dev/null")
    must(host, "until [ -s /root/at-ran ]; do sleep 0.1; done")


def test_a_timer_on_disk_survives_a_reboot(systemd_host: Host) -> None:
    must(
        systemd_host,
        "cd /etc/systemd/system && mkdir -p timers.target.wants &&"
        "printf '[Service]\\nExecStart=/bin/sh -c \"echo ran >> /root/timer-ran\"\\n' > planted.service &&"
        "printf '[Timer]\\nOnBootSec=0\\n' > planted.timer && ln -s ../planted.timer timers.target.wants/",
    )
    systemd_host.reboot()
    must(systemd_host, "until [ -s /root/timer-ran ]; do sleep 0.1; done")


def test_the_sshd_of_an_awkward_server() -> None:
    with HostFleet() as fleet:
        host = fleet.boot(
            "old-1", init="cron", use_pam=False, include=False, allow_groups="staff", env={"HELLO": "you"}
        )
        config = must(host, "sshd -T 2>/dev/null; cat /etc/ssh/sshd_config")
        assert "usepam no" in config
        assert "allowgroups staff" in config
        assert "Include" not in config
        assert must(host, "echo $HELLO") == "you\n"


def test_a_clean_host_has_no_leftovers(host: Host) -> None:
    assert host.leftovers(USER, UID, TOKEN) == []


PLANTED = {
    "passwd: pp-ana:": "true",
    "shadow: pp-ana:": "true",
    "group: staff:": f"usermod -aG staff {USER}",
    "subuid: pp-ana:": f"usermod --add-subuids 300000-300009 {USER}",
    "file: /home/pp-ana belongs to": "true",
    "process: sleep (sleep 999) runs as": f"setpriv --reuid {UID} --clear-groups setsid sleep 999 >/dev/null 2>&1 &",
    "process: sleep (sleep 998) was started by login": f"(echo {UID} > /proc/self/loginuid; exec sleep 998) >/dev/null 2>&1 &",
    "process: sh (sh -c sleep 997; : planted AR-7F3K": f"sh -c 'sleep 997; : planted {TOKEN}' >/dev/null 2>&1 &",
    "file: /tmp/somewhere belongs to": f"touch /tmp/somewhere; chown {UID} /tmp/somewhere",
    "file: /dev/shm/somewhere belongs to": f"touch /dev/shm/somewhere; chown {UID} /dev/shm/somewhere",
    "file: /srv/shared admits": f"touch /srv/shared; setfacl -m u:{UID}:rw /srv/shared",
    "file: /srv/AR-7F3K is named after it": f"touch /srv/{TOKEN}",
    "file: /srv/link points to it": f"ln -s /home/{USER} /srv/link",
    "file: /var/spool/cron/crontabs/pp-ana is named": f"echo '0 0 1 1 * true' | crontab -u {USER} -",
    "file: /var/spool/cron/atjobs/": f"echo true | setpriv --reuid {UID} --clear-groups at now + 1 hour 2>/dev/null",
    "file: /etc/sudoers.d/pp-ana is named": f"echo '{USER} ALL=(ALL) ALL' > /etc/sudoers.d/{USER}",
    "file: /etc/ssh/sshd_config.d/planted.conf mentions": f"echo '# {USER}' > /etc/ssh/sshd_config.d/planted.conf",
    "file: /etc/ssh/principals-x mentions": f"echo {TOKEN} > /etc/ssh/principals-x",
    "file: /etc/systemd/system/planted-AR-7F3K.timer is named": f"touch /etc/systemd/system/planted-{TOKEN}.timer",
    "mount: /mnt/planted (tmpfs)": f"mkdir -p /mnt/planted; mount -t tmpfs -o uid={UID} tmpfs /mnt/planted",
    "file: /mnt/planted/deep belongs": f"touch /mnt/planted/deep; chown {UID} /mnt/planted/deep",
    "ipc: shm": f"setpriv --reuid {UID} --clear-groups ipcmk -M 100",
    "firewall: -A OUTPUT": f"iptables -A OUTPUT -m owner --uid-owner {UID} -j ACCEPT",
}


def test_leftovers_of_every_kind_are_seen(host: Host, user: str) -> None:
    for script in PLANTED.values():
        must(host, script)
    found = host.leftovers(USER, UID, TOKEN)
    missed = [start for start in PLANTED if not any(line.startswith(start) for line in found)]
    assert missed == [], "\n".join(found)


def test_lingering_sessions_are_seen(systemd_host: Host) -> None:
    must(systemd_host, f"useradd -m -u {UID} {USER} && loginctl enable-linger {USER}")
    must(systemd_host, f"until [ -d /run/user/{UID}/systemd ]; do sleep 0.05; done")
    found = "\n".join(systemd_host.leftovers(USER, UID, TOKEN))
    assert "file: /var/lib/systemd/linger/pp-ana is named after it" in found
    assert f"mount: /run/user/{UID} (tmpfs)" in found
    assert f"is in the cgroup of {UID}" in found


def test_two_fleets_at_once_know_nothing_of_each_other(host: Host) -> None:
    with HostFleet() as other:
        twin = other.boot(host.name, init="cron")
        must(twin, "echo twin > /root/whose")
        assert host.run("test", "-e", "/root/whose").returncode == 1
        assert twin.host_key_lines() != host.host_key_lines()
    assert host.run("true").returncode == 0


def test_a_discarded_host_is_forgotten_with_its_disk(fleet: HostFleet) -> None:
    first = fleet.boot("again", init="cron")
    must(first, "echo kept > /root/kept")
    fleet.discard(first)
    second = fleet.boot("again", init="cron")
    assert second.run("test", "-e", "/root/kept").returncode == 1
    fleet.discard(second)


BOOT_AND_WAIT = """
    import sys, time
    from sandbox.hosts import HostFleet, HostWish
    fleet = HostFleet().__enter__()
    for host in fleet.boot_all([HostWish(name="a", init="cron"), HostWish(name="b", init="systemd")]):
        print(host.pid, flush=True)
    print(fleet.outside_pid(), flush=True)
    time.sleep(600)
"""


def test_kill_9_of_the_parent_leaves_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BOOT_AND_WAIT)], stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as parent:
        assert parent.stdout is not None
        started = [int(parent.stdout.readline()) for _ in range(3)]
        watched = [os.pidfd_open(pid) for pid in started]
        inside = {Path(f"/proc/{pid}/ns/pid").readlink() for pid in started}
        assert len(processes_in(inside)) > 8
        parent.kill()
        parent.wait()
    for pidfd in watched:
        # A pidfd becomes readable when its process is gone.
        assert select.select([pidfd], [], [], 30.0)[0]
        os.close(pidfd)
    while processes_in(inside):  # the last of them is still being buried
        time.sleep(0.01)


def test_closing_a_fleet_leaves_nothing() -> None:
    with HostFleet() as fleet:
        host = fleet.boot("a", init="systemd")
        host.run("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &")
        inside = {Path(f"/proc/{pid}/ns/pid").readlink() for pid in (host.pid, fleet.outside_pid())}
        assert processes_in(inside)
    assert processes_in(inside) == []


def processes_in(namespaces: set[Path]) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "ns/pid").readlink() in namespaces:
                    found.append((entry / "cmdline").read_text())
            except OSError:
                continue
    return found


def test_nothing_runs_inside_before_a_host_has_its_own_root(host: Host) -> None:
    with pytest.raises(OSError, match="no root of its own"):
        Namespaces(os.getpid())
    host.power_off()
    refusals, over = list[str](), threading.Event()

    def knock() -> None:
        while not over.is_set():
            try:
                host.run("touch", "/root/landed")
            except HostsError as error:
                refusals.append(str(error))

    knocking = threading.Thread(target=knock)
    knocking.start()
    host.power_on()
    over.set()
    knocking.join()
    assert refusals
    assert not Path("/root/landed").exists()


def test_without_root_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostsError, match=r"needs root \(sudo\)"), HostFleet():
        pass
