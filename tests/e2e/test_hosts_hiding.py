"""More ways to outlive one's end without root, and a fork bomb; and what the next user finds of it: nothing."""

import struct
from collections.abc import Iterator

import pytest

from provisioning.framing import Removed
from provisioning.refusals import Refused
from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host

pytestmark = pytest.mark.hosts

WITHOUT_ROOT = r"""
cd
(nohup sh -c '(sleep 5001 &)' >/dev/null 2>&1 &)
mkdir gone && cd gone && { setsid sleep 5002 >/dev/null 2>&1 </dev/null & } && rmdir ../gone && cd ..
setsid unshare --user --map-root-user --pid --fork sleep 5003 >/dev/null 2>&1 </dev/null &
mkdir bound
setsid unshare -Ur --mount sh -c 'mount --bind /srv/drop bound; exec sleep 5004' >/dev/null 2>&1 </dev/null &
setsid perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) and bind(S, pack_sockaddr_un("\0pp-abstract")) and
    listen(S, 1) and sleep 5005' >/dev/null 2>&1 </dev/null &
touch /dev/mqueue/pp-queue
touch /srv/drop/acl && setfacl -m u:bystander:rw /srv/drop/acl
mkdir -m 700 /srv/drop/nest && echo secret >/srv/drop/nest/secret && touch '/srv/drop/nest/a name
of two lines' "/var/tmp/-rf *"
mkfifo /srv/drop/fifo
mkdir -p .config/systemd/user/default.target.wants && printf '[Service]\nExecStart=/bin/sleep 5006\n[Install]\nWantedBy=default.target\n' >.config/systemd/user/stay.service
exec 9<>/srv/drop/open
setsid sleep 5007 >/dev/null 2>&1 </dev/null &
sleep 0.5
rm -f /srv/drop/open
true
"""
BY_SYSTEMD = (
    "systemd-run --user --unit=later --on-active=1h touch /var/tmp/later; systemctl --user enable --now stay.service"
)

# Each process has two children and dies: a hundred at a time, never the same ones for longer than a second.
BOMB = r"""
printf '#!/bin/sh\nsleep 1\nsetsid "$0" & setsid "$0" &\n' >/srv/drop/bomb && chmod 755 /srv/drop/bomb
ulimit -u 100
setsid /srv/drop/bomb >/dev/null 2>&1 </dev/null &
"""

# Programs that a person could bring along; root puts them into /srv/bin.
PROGRAMS = {
    # Forks and dies for ever; an open socket shows that one of them lives.
    "comet.pl": r"""
use Socket; use POSIX ();
$^F = 255; $SIG{$_} = 'IGNORE' for qw(TERM HUP INT QUIT); POSIX::setsid();
socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un("\0pp-comet$ARGV[0]")); listen(S, 1);
exec '/srv/bin/comet';
while (1) { my $child = fork(); POSIX::_exit(0) if $child; }
""",
    # Shared memory that its maker says to be of the user who comes next (IPC_SET is 1, IPC_STAT is 2).
    "gift.pl": r"""
my $id = shmget(7777, 4096, 0666 | 01000); my $about = "\0" x 256; shmctl($id, 2, $about) or die "stat: $!";
substr($about, 4, 8) = pack("LL", $ARGV[0], $ARGV[0]); shmctl($id, 1, $about) or die "set: $!";
""",
    # As libfuse does: fusermount3 opens /dev/fuse, mounts as its caller, and hands the descriptor over.
    "fuse.pl": r"""
use Socket; use POSIX (); use Fcntl;
my $point = $ARGV[0]; $point =~ s/\\n/\n/; mkdir $point;
socketpair(A, B, AF_UNIX, SOCK_STREAM, 0); fcntl(B, F_SETFD, 0);
my $child = fork(); if (!$child) { $ENV{_FUSE_COMMFD} = fileno(B); exec("fusermount3", "-o", "fsname=x", "--", $point); }
waitpid($child, 0); die "fusermount3: $?" if $?;
open(STDIN, "</dev/null"); open(STDOUT, ">/dev/null"); open(STDERR, ">/dev/null");
exit if fork(); POSIX::setsid(); sleep 9000;
""",
}
# The same loop as a program of x86-64, where a process lives for a fifth of a millisecond: nanosleep (35), fork (57),
# and whoever is not the child exits (60). Elsewhere Perl goes on with its own.
COMET = bytes.fromhex(
    "b823000000 488d3d18000000 31f6 0f05 b839000000 0f05 85c0 7ee5 b83c000000 31ff 0f05 0000000000000000 400d030000000000"
)


def executable(code: bytes) -> bytes:
    """The smallest ELF file that runs the code (elf(5)): its header, and one segment of the whole file."""
    head, segment, base = 64, 56, 0x400000
    size = head + segment + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", identity, 2, 62, 1, base + head + segment, head, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + code


# Mount points whose names a shell would take for patterns: all that a link to / leads to; and one that ends in a newline.
CUNNING_MOUNTS = r"""
set -e
mkdir -p "$HOME/p/*/*" && ln -s / "$HOME/p/a"
perl /srv/bin/fuse.pl "$HOME/p/*/*"
perl /srv/bin/fuse.pl '/srv/drop/view\n'
perl /srv/bin/gift.pl $(($(id -u) + 1))
mkdir /srv/drop/team && chgrp passport-fwd /srv/drop/team && chmod 2770 /srv/drop/team && echo team >/srv/drop/team/secret
"""

# What somebody who comes next can see as theirs.
INHERITED = r"""
find / -xdev \( -user "$(id -un)" -o -group "$(id -gn)" \) ! -path "$HOME*" ! -path '/proc/*' 2>/dev/null
crontab -l 2>/dev/null; atq; ipcs | awk -v me="$(id -un)" '$3 == me'
cat /srv/drop/team/secret 2>/dev/null
ls -A "$HOME" | while read -r name; do [ -e "/etc/skel/$name" ] || case $name in .cache) ;; *) echo "$name" ;; esac; done
cat /srv/drop/nest/secret 2>/dev/null; rm -rf /srv/drop/nest /srv/drop/acl 2>/dev/null
ps -o args= -u "$(id -un)" | grep -v -e '^ps ' -e sshd -e 'sh -c' -e systemd -e sd-pam -e bash -e grep
true
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def labs(keys: Keys) -> Iterator[dict[str, Lab]]:
    wishes = [HostWish(name="systemd", init="systemd"), HostWish(name="cron", init="cron")]
    with HostFleet() as fleet:
        labs = {host.name: Lab(host=host, keys=keys) for host in fleet.boot_all(wishes)}
        for lab in labs.values():
            lab.sh("mkdir -m 1777 /srv/drop; mkdir /srv/bin; useradd -m bystander")
            for name, program in {**PROGRAMS, "comet": executable(COMET)}.items():
                content = program if isinstance(program, bytes) else program.encode()
                lab.host.run("sh", "-c", f"cat >/srv/bin/{name} && chmod 755 /srv/bin/{name}", input=content)
        yield labs


@on_every_host
def test_who_has_no_root_leaves_nothing_and_the_next_user_inherits_nothing(lab: Lab) -> None:
    lab.created("AR-STAY")  # somebody else, so that sshd's settings and the timer stay
    created = lab.created("AR-MORE")
    done = lab.login(created, WITHOUT_ROOT)
    assert done.returncode == 0, done.stderr
    if lab.host.init == "systemd":
        done = lab.login(created, BY_SYSTEMD)
        assert done.returncode == 0, done.stderr
    seen = "\n".join(lab.leftovers(created))
    for number in range(5001, 5008):
        assert f"sleep {number}" in seen or (number in {5005, 5006}), seen
    assert "@pp-abstract" in lab.sh("cat /proc/net/unix")
    assert "/dev/mqueue/pp-queue" in lab.sh("ls -d /dev/mqueue/*")

    removed = lab.removed("AR-MORE")

    assert lab.leftovers(created) == []
    assert removed.processes >= 6
    if lab.host.init == "systemd":
        assert str(created.uid) not in lab.sh("systemctl list-units --all --plain --no-legend")
    assert "pp-abstract" not in lab.sh("cat /proc/net/unix")
    assert lab.sh("ls -A /dev/mqueue; ls -A /var/tmp | grep -v ^systemd-private || :") == ""
    assert lab.sh(r"stat -c '%u %g' /srv/drop/acl /srv/drop/nest/secret /srv/drop/fifo") == "524287 524287\n" * 3

    following = lab.created("AR-NEXT")
    assert following.uid > created.uid
    assert lab.login(following, INHERITED).stdout == ""
    assert lab.sh("cat /srv/drop/nest/secret") == "secret\n"
    for request_id in ("AR-NEXT", "AR-STAY"):
        lab.removed(request_id)
    assert lab.leftovers(following) == []


@on_every_host
def test_a_fork_bomb_is_put_out(lab: Lab) -> None:
    created = lab.created("AR-BOMB")
    lab.login(created, BOMB)
    lab.sh("for n in $(seq 100); do [ $(pgrep -cu pp-bomb) -lt 30 ] || exit 0; sleep 0.3; done; exit 1")
    removed = lab.remove("AR-BOMB")
    assert isinstance(removed, Removed), removed
    assert removed.processes >= 10
    assert lab.leftovers(created) == []
    assert lab.host.run("pgrep", "-f", "/srv/drop/bomb").returncode == 1


@on_every_host
def test_cunning_mounts_and_gifts_reach_nobody_else(lab: Lab) -> None:
    created = lab.created("AR-CUNN", Forwarding="yes")
    mounts = "cut -d ' ' -f 5 /proc/self/mountinfo | sort"
    before = lab.sh(mounts)
    done = lab.login(created, CUNNING_MOUNTS)
    assert done.returncode == 0, done.stderr
    assert lab.sh("grep -c ' fuse ' /proc/self/mountinfo") == "2\n"
    assert f" {created.uid + 1} " in lab.sh("cat /proc/sysvipc/shm")

    removed = lab.removed("AR-CUNN")

    assert removed.mounts == 2
    assert lab.leftovers(created) == []
    assert lab.sh(mounts) == before
    following = lab.created("AR-CUNO", Forwarding="yes")
    assert following.uid == created.uid + 1
    assert lab.login(following, INHERITED).stdout == ""
    lab.removed("AR-CUNO")


@on_every_host
def test_what_forks_faster_than_anybody_looks_is_put_out(lab: Lab) -> None:
    created = lab.created("AR-FAST")
    comets = "ulimit -u 2000; for n in 1 2 3; do perl /srv/bin/comet.pl $n >/dev/null 2>&1 </dev/null & done; sleep 1"
    assert lab.login(created, comets).returncode == 0
    assert lab.sh("grep -c pp-comet /proc/net/unix") == "3\n"
    lab.removed("AR-FAST")
    assert "pp-comet" not in lab.sh("cat /proc/net/unix")
    assert lab.leftovers(created) == []


@on_every_host
def test_who_restarts_cron_or_sshd_leaves_them_to_the_server(lab: Lab) -> None:
    stays = lab.created("AR-KEEP")
    created = lab.created("AR-SVCS", sudo="all")
    again = "pkill -ox cron; pkill -ox sshd; sleep 0.5; /usr/sbin/cron; /usr/sbin/sshd"
    if lab.host.init == "systemd":
        again = "systemctl restart cron ssh"
    again += "; setsid sleep 5020 & :"
    assert lab.login(created, f"sudo -n sh -c '{again}' >/dev/null 2>&1 </dev/null; sleep 0.5").returncode in {0, 255}
    lab.removed("AR-SVCS")
    assert lab.host.run("pgrep", "-f", "sleep 5020").returncode == 1
    lab.sh("pgrep -x cron && pgrep -x sshd")
    assert lab.login(stays, "id -un").stdout == "pp-keep\n"
    lab.removed("AR-KEEP")


@on_every_host
def test_who_cannot_see_proves_nothing(lab: Lab) -> None:
    created = lab.created("AR-BLND")
    blind = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
    answer = lab.remove("AR-BLND", inside=blind)
    assert isinstance(answer, Refused)
    assert {"processes", "mounts"} <= set(answer.left)
    lab.removed("AR-BLND")
    assert lab.leftovers(created) == []
