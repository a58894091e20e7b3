"""Terminals are warned before the end: all of the person's, nobody else's, once each; a blocked one delays nobody."""

import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host

pytestmark = pytest.mark.hosts

PATIENCE = 60
LOGIND = "file: /run/systemd/users/200000 mentions it"  # for some seconds, where a session was open to the last
# Terminals that nobody reads, with all of their room used up, so that a write would wait for ever; and one stopped.
BLOCKED = """
import os, pty, sys, termios, time, fcntl
for number in range(40):
    if os.fork() == 0:
        os.setsid()
        master, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        os.fchmod(terminal, 0o600)
        if number % 2:
            termios.tcflow(terminal, termios.TCOOFF)
        os.set_blocking(terminal, False)
        try:
            while True:
                os.write(terminal, b"x" * 512)
        except BlockingIOError:
            pass
        time.sleep(4000)
time.sleep(1)
print("blocked", flush=True)
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def fleet() -> Iterator[HostFleet]:
    with HostFleet() as fleet:
        yield fleet


@pytest.fixture(scope="module")
def labs(fleet: HostFleet, keys: Keys) -> dict[str, Lab]:
    wishes = [
        HostWish(name="systemd", init="systemd"),
        HostWish(name="cron", init="cron"),
        HostWish(name="no-pam", init="cron", use_pam=False),
    ]
    return {host.name: Lab(host=host, keys=keys) for host in fleet.boot_all(wishes)}


def sweep(lab: Lab) -> None:
    """Run the sweeper as the timer does, beside the timer's own; it must come back, whatever terminals do."""
    done = lab.host.run("setsid", "sh", "/var/lib/passport/sweep.sh", timeout=PATIENCE)
    assert done.returncode in {0, 1}


def shown(terminal: subprocess.Popen[bytes], *, until: str, seconds: float = PATIENCE) -> str:
    """What a terminal shows until it has shown something, or patience ends."""
    assert terminal.stdout is not None
    said, patience_ends = "", time.monotonic() + seconds
    while until not in said and time.monotonic() < patience_ends:
        if select.select([terminal.stdout], [], [], 0.1)[0]:
            said += os.read(terminal.stdout.fileno(), 4096).decode()
    return said


@on_every_host
def test_every_terminal_of_the_person_is_told_twice_in_words(lab: Lab) -> None:
    created = lab.created("AR-AAAA", seconds=3600, sudo="all")
    lab.sh("setsid script -fqc 'echo here; exec sleep 4000' /root/somebody-elses >/dev/null 2>&1 </dev/null &")
    through_sudo = "sudo -n script -fqc 'exec sleep 4000' /root/through-sudo >/dev/null 2>&1"
    with (
        lab.terminal(created, "mesg n; echo ready; exec sleep 4000") as plain,
        lab.terminal(created, f"echo ready; {through_sudo}") as rooted,
    ):
        assert "ready" in shown(plain, until="ready")
        assert "ready" in shown(rooted, until="ready")
        lab.sh(
            "for n in $(seq 50); do pgrep -f 'sleep 4000' | wc -l | grep -q '[3-9]' && exit 0; sleep 0.1; done; exit 1"
        )
        sweep(lab)  # an hour before: nothing

        ten = lab.created("AR-AAAA", seconds=590, sudo="all")
        sweep(lab)
        sweep(lab)
        clock = f"{datetime.fromtimestamp(ten.not_after.timestamp(), UTC):%H:%M}"
        words = f"Access ends {clock} UTC, in 10 minutes. Your processes will be stopped. Longer: ask again with"
        lab.sh(f"for n in $(seq 50); do grep -aq '{words}' /root/through-sudo && exit 0; sleep 0.1; done; exit 1")

        lab.created("AR-AAAA", seconds=130, sudo="all")
        sweep(lab)
        sweep(lab)
        said = shown(plain, until="in 2 minutes. Your processes will be stopped. Longer: ask again with")
        assert words in said
        assert len(re.findall("Access ends", said)) == 2
        assert "/passport request in Slack." in said + shown(plain, until="Slack.", seconds=2)
        assert "in 2 minutes" in shown(rooted, until="in 2 minutes")
        recorded = lab.sh("cat /root/through-sudo")
        assert len(re.findall("Access ends", recorded)) == 2
        assert "Access ends" not in lab.sh("grep -a here /root/somebody-elses; cat /root/somebody-elses")
        lab.removed("AR-AAAA")
    patience_ends = time.monotonic() + PATIENCE
    while lab.leftovers(created) == [LOGIND] and time.monotonic() < patience_ends:
        time.sleep(0.5)
    assert lab.leftovers(created) == []
    assert lab.sh("ls -d /var/lib/passport/warned 2>/dev/null || :") == ""
    lab.sh("pkill -f '[s]leep 4000' || :; rm -f /root/through-sudo /root/somebody-elses")


@on_every_host
def test_blocked_terminals_hold_nobody_up(lab: Lab) -> None:
    hostile, due = lab.created("AR-BBBB", seconds=590), lab.created("AR-CCCC")
    lab.host.run("sh", "-c", "cat >/srv/blocked.py", input=BLOCKED.encode())
    assert lab.login(hostile, "python3 /srv/blocked.py >out 2>&1 </dev/null; cat out").stdout == "blocked\n"
    lab.sh("sed -i 's/^not_after=.*/not_after=1000000000/' /var/lib/passport/requests/AR-CCCC")
    lab.sh("rm -f /var/lib/passport/warned/*")
    with lab.terminal(hostile, "echo ready; exec sleep 4000") as terminal:
        assert "ready" in shown(terminal, until="ready")
        lab.sh("rm -f /var/lib/passport/warned/*")
        sweep(lab)
        assert "Access ends" in shown(terminal, until="Access ends")
    assert lab.leftovers(due) == []
    for _ in range(100):  # whatever was writing is given up
        if lab.host.run("pgrep", "-f", "passport/sweep.sh").returncode == 1:
            break
        time.sleep(0.1)
    assert lab.host.run("pgrep", "-f", "passport/sweep.sh").returncode == 1
    lab.removed("AR-BBBB")
    assert lab.leftovers(hostile) == []


@on_every_host
def test_a_terminal_of_the_users_own_making_is_not_somebody_elses_with_the_same_number(lab: Lab) -> None:
    created = lab.created("AR-DDDD", seconds=590)
    # In a namespace of its own the user's first terminal is number 0, as root's first is on the host.
    lab.sh("setsid script -fqc 'exec sleep 4100' /root/roots >/dev/null 2>&1 </dev/null &")
    own = (
        "unshare --map-root-user --mount sh -c 'mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts && "
        'mount --bind /dev/pts/ptmx /dev/ptmx && exec script -fqc "exec sleep 4101" /dev/null\''
    )
    lab.login(created, f"{own} >/dev/null 2>&1 </dev/null & sleep 1")
    lab.sh("rm -f /var/lib/passport/warned/*")
    sweep(lab)
    assert "Access ends" not in lab.sh("cat /root/roots")
    lab.removed("AR-DDDD")
    assert lab.leftovers(created) == []
    lab.sh("pkill -f '[s]leep 4100' || :")
