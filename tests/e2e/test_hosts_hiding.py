"""More ways to outlive one's end without root, and a fork bomb; and what the next user finds of it: nothing."""

from collections.abc import Iterator

import pytest

from provisioning.framing import Removed
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

# What somebody who comes next can see as theirs.
INHERITED = r"""
find / -xdev \( -user "$(id -un)" -o -group "$(id -gn)" \) ! -path "$HOME*" ! -path '/proc/*' 2>/dev/null
crontab -l 2>/dev/null; atq; ipcs | awk -v me="$(id -un)" '$3 == me'
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
            lab.sh("mkdir -m 1777 /srv/drop; useradd -m bystander")
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
    assert removed.processes >= 30
    assert lab.leftovers(created) == []
    assert lab.host.run("pgrep", "-f", "/srv/drop/bomb").returncode == 1
