"""Homes that are kept: whole, harmless, root's alone, and gone when the days are over, though nobody is left."""

import time
from collections.abc import Iterator

import pytest

from provisioning.framing import Created, Removed
from provisioning.refusals import RefusalCode, Refused
from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host

pytestmark = pytest.mark.hosts

DAY = 86400
KEPT = "/var/lib/passport/kept"
# What somebody with root leaves in a home, to be armed when an administrator looks at it later.
TRAPS = r"""
cd
echo work >notes; mkdir -m 777 sub; echo more >sub/file; ln -s /etc/shadow link; mkfifo pipe
cp /bin/dash shell; chmod 6755 shell; cp /bin/dash /srv/drop/other; ln /srv/drop/other second-name; chmod 4755 second-name
sudo -n cp /bin/dash root-shell; sudo -n chmod 6755 root-shell
mkdir etc; sudo -n mount --bind /etc etc
touch pinned; sudo -n chattr +i pinned
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
        HostWish(name="own-disk", init="cron"),
    ]
    labs = {host.name: Lab(host=host, keys=keys) for host in fleet.boot_all(wishes)}
    for lab in labs.values():
        lab.sh("mkdir -m 1777 /srv/drop")
    # Where /home is a disk of its own, the home has to be copied.
    labs["own-disk"].sh("mount -t tmpfs -o size=64m,mode=755 home /home")
    return labs


def sweep(lab: Lab) -> None:
    lab.sh("sh /var/lib/passport/sweep.sh")


def everything_kept(lab: Lab, where: str = "") -> str:
    return lab.sh(f"cd {KEPT}{where} && find . -printf '%p %U:%G %m\\n' | sort")


def timer(lab: Lab) -> str:
    return lab.sh(
        "ls -d /etc/cron.d/passport /etc/systemd/system/passport* /var/lib/passport/sweep.sh 2>/dev/null || :"
    )


@on_every_host
def test_a_kept_home_is_whole_and_roots_alone_and_goes_in_time(lab: Lab) -> None:
    settings = lab.sshd_settings()
    created = lab.created("AR-AAAA", sudo="all", KeepHome="7")
    done = lab.login(created, TRAPS)
    assert done.returncode == 0, done.stderr

    removed = lab.removed("AR-AAAA")

    assert lab.leftovers(created) == []
    assert removed.kept_until is not None
    assert abs(removed.kept_until.timestamp() - time.time() - 7 * DAY) < 300
    assert lab.sh(f"stat -c '%U %a' {KEPT} {KEPT}/* {KEPT}/*/home") == "root 700\n" * 3
    files = dict(line.split(" ", 1) for line in everything_kept(lab, "/AR-AAAA.1/home").splitlines())
    assert files["./notes"] == "0:0 600" or files["./notes"].startswith("0:0 6")
    assert files["./shell"] == "0:0 755"
    assert files["./root-shell"] == "0:0 755"
    assert files["./link"].startswith("0:0 ")
    assert files["./pinned"].startswith("0:0 ")
    assert set(files) >= {"./pipe", "./sub/file"}
    assert "./etc/passwd" not in files
    assert {owner.split()[0] for owner in files.values()} <= {"0:0", "524287:524287"}
    assert lab.sh(f"find / -xdev -perm /6000 -path '{KEPT}*'") == ""
    assert lab.sh("stat -c '%u %a' /srv/drop/other") == "524287 755\n", "a second name is not made root's"
    assert lab.sh("stat -c '%U %a' /etc/shadow; test -s /etc/passwd && echo there") == "root 640\nthere\n"
    assert lab.sh(f"cat {KEPT}/AR-AAAA.1/home/notes") == "work\n"

    # Only the timer stays for it; a repeated removal says the same.
    assert lab.sshd_settings() == settings
    assert "sweep.sh" in timer(lab)
    again = lab.remove("AR-AAAA")
    assert isinstance(again, Removed)
    assert (again.result, again.kept_until) == ("absent", removed.kept_until)
    assert lab.probe().homes_kept == 1
    sweep(lab)
    assert lab.probe().homes_kept == 1

    lab.sh(f"echo 1 >{KEPT}/AR-AAAA.1/until")
    lab.sh(f"chattr +i {KEPT}/AR-AAAA.1/home/notes")
    sweep(lab)
    assert lab.sh(f"ls -d {KEPT} 2>/dev/null || :") == ""
    assert timer(lab) == ""
    assert lab.leftovers(created) == []


@on_every_host
def test_the_next_command_purges_as_well_and_the_timer_waits_for_the_last_home(lab: Lab) -> None:
    first, second = lab.created("AR-BBBB", KeepHome="1"), lab.created("AR-CCCC", KeepHome="90")
    lab.removed("AR-BBBB")
    lab.removed("AR-CCCC")
    lab.sh(f"echo 1 >{KEPT}/AR-BBBB.1/until")
    third = lab.created("AR-DDDD")
    assert lab.sh(f"ls {KEPT}") == "AR-CCCC.1\n"
    assert lab.removed("AR-DDDD").kept_until is None
    assert "sweep.sh" in timer(lab)
    lab.sh(f"rm {KEPT}/AR-CCCC.1/until")  # a home that nobody knows the end of is kept no longer
    sweep(lab)
    assert timer(lab) == ""
    assert lab.leftovers(first) + lab.leftovers(second) + lab.leftovers(third) == []


@on_every_host
def test_a_user_whom_the_timer_ends_has_a_kept_home_too(lab: Lab) -> None:
    created = lab.created("AR-EEEE", KeepHome="3")
    lab.login(created, "echo work >notes")
    lab.sh("sed -i 's/^not_after=.*/not_after=1000000000/' /var/lib/passport/requests/AR-EEEE")
    sweep(lab)
    assert lab.leftovers(created) == []
    removed = lab.remove("AR-EEEE")
    assert isinstance(removed, Removed)
    assert removed.kept_until is not None
    assert lab.sh(f"cat {KEPT}/AR-EEEE.1/home/notes") == "work\n"
    lab.sh(f"echo 1 >{KEPT}/AR-EEEE.1/until")
    sweep(lab)
    assert timer(lab) == ""


@on_every_host
def test_a_move_that_was_interrupted_is_taken_up_again(lab: Lab) -> None:
    created = lab.created("AR-FFFF", KeepHome="3")
    lab.login(created, "echo work >notes")
    # Killed while it copied, and in another try after it had moved but before anything was root's.
    lab.sh(f"mkdir -p -m 700 {KEPT}/AR-FFFF.1/part; echo torso >{KEPT}/AR-FFFF.1/part/notes")
    lab.removed("AR-FFFF")
    assert lab.sh(f"cat {KEPT}/AR-FFFF.1/home/notes; ls {KEPT}/AR-FFFF.1") == "work\nhome\nuntil\n"

    moved = lab.created("AR-GGGG", KeepHome="3")
    lab.login(moved, "cp /bin/dash shell; chmod 4755 shell")
    lab.sh(f"mkdir -m 700 {KEPT}/AR-GGGG.1; mv /home/pp-gggg {KEPT}/AR-GGGG.1/home; mkdir /home/pp-gggg")
    lab.sh(f"echo 4000000000 >{KEPT}/AR-GGGG.1/until; chown pp-gggg /home/pp-gggg")
    lab.removed("AR-GGGG")
    assert lab.sh(f"stat -c '%u %a' {KEPT}/AR-GGGG.1/home/shell") == "0 755\n"
    assert lab.leftovers(created) + lab.leftovers(moved) == []
    lab.sh(f"echo 1 >{KEPT}/AR-GGGG.1/until; echo 1 >{KEPT}/AR-FFFF.1/until")
    sweep(lab)


@on_every_host
def test_a_create_that_fails_keeps_nothing(lab: Lab) -> None:
    lab.sh("cp -p /etc/sudoers /root/kept; sed -i '/sudoers.d/d' /etc/sudoers")
    refused = lab.create("AR-HHHH", sudo="all", KeepHome="3")
    assert isinstance(refused, Refused)
    assert lab.sh(f"ls -d {KEPT} 2>/dev/null || :") == ""
    lab.sh("mv /root/kept /etc/sudoers")


def test_a_disk_too_full_for_the_copy_ends_the_access_and_keeps_the_home_until_there_is_room(
    labs: dict[str, Lab],
) -> None:
    lab = labs["own-disk"]
    created = lab.created("AR-JJJJ", KeepHome="3")
    lab.login(created, "head -c 3000000 /dev/urandom >big; setsid sleep 4000 >/dev/null 2>&1 </dev/null &")
    with lab.host.fill_disk():
        refused = lab.remove("AR-JJJJ")
    assert isinstance(refused, Refused)
    assert refused.retryable
    assert refused.code in {RefusalCode.LEFT_BEHIND, RefusalCode.DISK_FULL}
    assert not [line for line in lab.leftovers(created) if line.startswith("process")]
    assert lab.login(created, "true").returncode == 255
    removed = lab.removed("AR-JJJJ")
    assert removed.kept_until is not None
    assert lab.sh(f"stat -c %s {KEPT}/AR-JJJJ.1/home/big") == "3000000\n"
    assert lab.leftovers(created) == []


def test_nothing_is_kept_unless_asked_for(labs: dict[str, Lab]) -> None:
    created: Created = labs["cron"].created("AR-KKKK")
    assert labs["cron"].removed("AR-KKKK").kept_until is None
    assert labs["cron"].sh(f"ls -d {KEPT} 2>/dev/null || :") == ""
    assert labs["cron"].leftovers(created) == []
