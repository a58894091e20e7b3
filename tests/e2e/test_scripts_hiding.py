"""People who try to outlive their end on real servers: nothing of it is left, and nobody else loses anything."""

from collections.abc import Iterator

import pytest

from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host

pytestmark = pytest.mark.hosts

# What somebody without root can do: each line leaves something behind on a server that only deletes the account.
WITHOUT_ROOT = r"""
cd
setsid sleep 4001 >/dev/null 2>&1 </dev/null &
(trap '' TERM HUP; setsid sh -c 'trap "" TERM HUP; while :; do setsid sleep 4002 & sleep 1; done' >/dev/null 2>&1 &)
setsid unshare --map-root-user --mount sh -c 'mount -t tmpfs tmpfs /mnt && exec sleep 4003' >/dev/null 2>&1 </dev/null &
sh -c 'sleep 4004 & exec kill -STOP $!' >/dev/null 2>&1
echo '* * * * * touch /var/tmp/cron-was-here' | crontab -
echo 'touch /var/tmp/at-was-here' | at -q b now + 1 hour 2>/dev/null
echo memory >/dev/shm/pp-memory
mkdir /var/tmp/pp-folder /tmp/pp-folder && echo x >/var/tmp/pp-folder/file && chmod 777 /var/tmp/pp-folder
echo secret >secret && ln secret /srv/drop/hard-link
cp /bin/dash /srv/drop/shell && chmod 6755 /srv/drop/shell
ln -s /etc/shadow /srv/drop/link
ipcmk -M 4096 >/dev/null; ipcmk -S 1 >/dev/null; ipcmk -Q >/dev/null
(exec -a renamed sleep 4006) >/dev/null 2>&1 </dev/null &
true
"""

# A FUSE mount of the user's that never answers, as fusermount would make it; its file system runs as the user.
SILENT_MOUNT = """
mkdir /srv/drop/view && exec 5<>/dev/fuse
mount -i -t fuse -o fd=5,rootmode=40000,user_id={uid},group_id={uid} silent /srv/drop/view
setpriv --reuid {uid} --clear-groups setsid sleep 4008 >/dev/null 2>&1 </dev/null &
"""

WITH_ROOT = r"""
cd
sudo -n setsid sleep 4011 >/dev/null 2>&1 </dev/null &
sudo -n sh -c 'setsid sleep 4012 >/dev/null 2>&1 </dev/null &'
mkdir etc && sudo -n mount --bind /etc etc
mkdir more && sudo -n mount -t tmpfs tmpfs more
touch pinned && sudo -n chattr +i pinned
sudo -n sh -c 'touch /srv/drop/pinned; chown pp-root: /srv/drop/pinned; chattr +i /srv/drop/pinned'
sudo -n sh -c 'touch /srv/drop/group; chgrp pp-root /srv/drop/group'
sleep 0.5
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
    return {host.name: populated(Lab(host=host, keys=keys)) for host in fleet.boot_all(wishes)}


def populated(lab: Lab) -> Lab:
    """A host with a bystander, who has a process and some files."""
    lab.sh("mkdir -m 1777 /srv/drop")
    # useradd gives subordinate ids to users of this range, which is what Passport's users shall not have.
    lab.sh("sed -i 's/^UID_MAX.*/UID_MAX 600000/' /etc/login.defs")
    lab.sh("useradd -m bystander; setpriv --reuid bystander --clear-groups setsid sleep 4100 >/dev/null 2>&1 &")
    lab.sh("for name in /srv/drop /var/tmp /dev/shm; do install -o bystander /dev/null $name/bystander; done")
    return lab


def bystanders_things(lab: Lab) -> str:
    return lab.sh(
        "pgrep -u bystander -a; ls -ln --time-style=+ /srv/drop/bystander /var/tmp/bystander /dev/shm/bystander"
    )


@on_every_host
def test_who_has_no_root_leaves_nothing(lab: Lab) -> None:
    before = bystanders_things(lab)
    created = lab.created("AR-HIDE")
    assert "pp-hide" not in lab.sh("cat /etc/subuid /etc/subgid")
    done = lab.login(created, WITHOUT_ROOT)
    assert done.returncode == 0, done.stderr
    lab.sh(SILENT_MOUNT.format(uid=created.uid))
    if lab.host.init == "systemd":
        lab.sh("loginctl enable-linger pp-hide")
        assert lab.login(created, "systemd-run --user --unit=stay sleep 4007").returncode == 0
    seen = "\n".join(lab.leftovers(created))
    for trace in (
        "4001",
        "4002",
        "4003",
        "4004",
        "renamed",
        "/dev/shm/pp-memory",
        "hard-link",
        "ipc: shm",
        "/srv/drop/view",
    ):
        assert trace in seen
    assert "spool/cron/crontabs/pp-hide" in seen
    assert "atjobs/b" in seen

    removed = lab.removed("AR-HIDE")

    assert lab.leftovers(created) == []
    assert removed.processes > 5
    assert removed.mounts >= 1
    assert removed.jobs >= 2
    assert removed.files >= 5
    assert given_away(lab, "/srv/drop/shell") == "524287 524287 755"
    assert given_away(lab, "/srv/drop/hard-link").startswith("524287 524287 ")
    assert given_away(lab, "/srv/drop/link").startswith("524287 524287 ")
    assert lab.sh("stat -c '%U %a' /etc/shadow") == "root 640\n"
    assert lab.sh("ls -d /var/tmp/pp* /tmp/pp* /dev/shm/pp* 2>/dev/null || :") == ""
    assert bystanders_things(lab) == before


@on_every_host
def test_who_had_root_leaves_nothing_of_this_kind_either(lab: Lab) -> None:
    before = bystanders_things(lab)
    created = lab.created("AR-ROOT", sudo="all")
    done = lab.login(created, WITH_ROOT)
    assert done.returncode == 0, done.stderr
    assert lab.sh("pgrep -fc 'sleep 401[12]'").strip() in {"2", "3", "4"}  # sudo itself may stay beside its command

    removed = lab.removed("AR-ROOT")

    assert removed.had_sudo
    assert lab.leftovers(created) == []
    assert lab.host.run("pgrep", "-f", "sleep 401[12]").returncode == 1
    assert lab.sh("test -s /etc/passwd && test -s /etc/ssh/sshd_config && echo there") == "there\n"
    assert given_away(lab, "/srv/drop/pinned").startswith("524287 524287 ")
    assert given_away(lab, "/srv/drop/group").startswith("0 524287 ")
    assert bystanders_things(lab) == before


@on_every_host
def test_the_next_user_inherits_nothing(lab: Lab) -> None:
    first = lab.created("AR-NXTA")
    lab.login(first, "echo mine >/srv/drop/inherited")
    lab.removed("AR-NXTA")
    second = lab.created("AR-NXTB")
    assert second.uid != first.uid
    assert lab.login(second, "find / -xdev -user pp-nxtb ! -path '/home/pp-nxtb*' 2>/dev/null; :").stdout == ""
    lab.removed("AR-NXTB")


@on_every_host
def test_a_home_turned_into_a_link_is_only_a_link(lab: Lab) -> None:
    created = lab.created("AR-LINK", sudo="all")
    lab.sh("mkdir -p /srv/precious; touch /srv/precious/file; chown -R bystander /srv/precious")
    lab.sh("rm -rf /home/pp-link; ln -s /srv/precious /home/pp-link")
    lab.removed("AR-LINK")
    assert lab.leftovers(created) == []
    assert lab.sh("stat -c %U /srv/precious/file") == "bystander\n"


def given_away(lab: Lab, path: str) -> str:
    """Owner, group and mode of what was left."""
    return lab.sh(f"stat -c '%u %g %a' {path}").strip()
