"""The scripts on real servers of every kind: a user is made, logs in, is removed, and nothing is left."""

from collections.abc import Iterator

import pytest

from provisioning.framing import Created
from provisioning.refusals import RefusalCode, Refused
from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host

pytestmark = pytest.mark.hosts

WISHES = (
    HostWish(name="systemd", init="systemd"),
    HostWish(name="cron", init="cron"),
    HostWish(name="no-pam", init="cron", use_pam=False),
    HostWish(name="groups", init="cron", allow_groups="root", sshd_config_extra="AllowUsers root\n"),
    HostWish(name="no-include", init="systemd", include=False),
    HostWish(name="bash", init="cron"),
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def fleet() -> Iterator[HostFleet]:
    with HostFleet() as fleet:
        yield fleet


@pytest.fixture(scope="module")
def labs(fleet: HostFleet, keys: Keys) -> dict[str, Lab]:
    hosts = {host.name: host for host in fleet.boot_all(WISHES)}
    # What /bin/sh is on most of the others than Debian and Ubuntu.
    hosts["bash"].run("ln", "-sf", "bash", "/bin/sh")
    return {kind: Lab(host=host, keys=keys) for kind, host in hosts.items()}


@on_every_host
def test_a_user_comes_and_goes(lab: Lab) -> None:
    before = lab.sshd_settings()
    assert before.count("passport") == 0

    created = lab.created("AR-AAAA", sudo="all")
    assert str(created.host_keys[0]) in lab.host.host_key_lines()
    assert created.sshd == ("block" if lab.host.name == "no-include" else "drop_in")
    assert created.timer == ("systemd" if lab.host.init == "systemd" else "cron")

    login = lab.login(created, "id -un; id -u; sudo -n id -u; stat -c %a ~")
    assert login.stdout.split() == ["pp-aaaa", str(created.uid), "0", "700"], login.stderr

    again = lab.created("AR-AAAA", sudo="all")
    assert (again.uid, again.existing) == (created.uid, True)
    assert lab.login(created, "true").returncode == 0

    removed = lab.removed("AR-AAAA")
    assert (removed.result, removed.uid, removed.had_sudo, removed.verified) == ("removed", created.uid, True, True)
    assert lab.login(created, "true").returncode == 255
    assert lab.leftovers(created) == []
    assert lab.sshd_settings() == before
    assert lab.sh("ls -d /etc/systemd/system/passport* /etc/cron.d/passport /var/lib/passport/sweep.sh || :") == ""


@on_every_host
def test_only_the_certificate_opens_the_door(lab: Lab) -> None:
    created = lab.created("AR-BBBB")
    person = (lab.keys.folder / "alone/person.pub").read_text().strip()
    lab.sh(f"mkdir /home/pp-bbbb/.ssh; echo '{person}' >/home/pp-bbbb/.ssh/authorized_keys")
    lab.sh("chown -R pp-bbbb: /home/pp-bbbb/.ssh; chmod -R go= /home/pp-bbbb/.ssh")

    assert "Permission denied" in lab.login_with_bare_key(created).stderr
    somebody_elses = lab.keys.certify("pp-zzzz")
    assert "Permission denied" in lab.login(created, "true", certificate=somebody_elses).stderr
    assert lab.login(created, "sudo -n true").returncode == 1  # in, but not root

    lab.removed("AR-BBBB")
    assert lab.leftovers(created) == []


def test_forwarding_is_closed_unless_asked_for(labs: dict[str, Lab]) -> None:
    lab = labs["systemd"]
    closed, opened = lab.created("AR-CCCC"), lab.created("AR-DDDD", Forwarding="yes")

    def through(created: Created) -> str:
        """Reach a port of the server; the certificate always permits it, so that it is sshd that decides."""
        certificate = lab.keys.certify(created.user_name, ["permit-port-forwarding"])
        return lab.login(created, "", options=["-W", "127.0.0.1:22"], certificate=certificate).stdout

    assert "SSH-2.0" not in through(closed)
    assert "SSH-2.0" in through(opened)

    lab.created("AR-DDDD", Forwarding="no")
    assert "SSH-2.0" not in through(opened)
    lab.removed("AR-CCCC")
    lab.removed("AR-DDDD")
    assert lab.leftovers(closed) + lab.leftovers(opened) == []
    assert "passport-fwd" not in lab.sh("getent group")


def test_a_second_create_moves_the_end(labs: dict[str, Lab]) -> None:
    lab = labs["cron"]
    first = lab.created("AR-EEEE", seconds=3600)
    later = lab.created("AR-EEEE", seconds=3600 + 3 * 86400)
    assert (later.uid, later.existing) == (first.uid, True)
    assert (later.not_after - first.not_after).days == 3
    marker = lab.sh("cat /var/lib/passport/requests/AR-EEEE")
    assert f"not_after={int(later.not_after.timestamp())}" in marker
    day = int(lab.sh("getent shadow pp-eeee").split(":")[7])
    assert day == int(later.not_after.timestamp()) // 86400 + 1
    lab.removed("AR-EEEE")


def test_two_users_share_the_settings_and_leave_one_by_one(labs: dict[str, Lab]) -> None:
    lab = labs["cron"]
    one, other = lab.created("AR-FFFF"), lab.created("AR-GGGG")
    assert other.uid == one.uid + 1
    settings = lab.sshd_settings()
    lab.removed("AR-FFFF")
    assert lab.sshd_settings() == settings.replace("pp-ffff\n", "")
    assert lab.login(other, "id -un").stdout == "pp-gggg\n"
    lab.removed("AR-GGGG")
    assert lab.leftovers(one) + lab.leftovers(other) == []


def test_a_user_id_is_never_given_twice(labs: dict[str, Lab]) -> None:
    lab = labs["cron"]
    first = lab.created("AR-HHHH")
    lab.removed("AR-HHHH")
    lab.sh(f"echo somebody:{first.uid + 2}:1000 >>/etc/subuid")
    second = lab.created("AR-JJJJ")
    lab.removed("AR-JJJJ")
    third = lab.created("AR-KKKK")
    lab.removed("AR-KKKK")
    assert (second.uid, third.uid) == (first.uid + 1, first.uid + 1002)
    lab.sh("sed -i /^somebody:/d /etc/subuid")
    narrow = lab.create("AR-LLLL", UidFirst="200000", UidLast=str(third.uid + 1))
    assert isinstance(narrow, Refused)
    assert narrow.code is RefusalCode.UID_EXHAUSTED


def test_the_probe_tells_what_is_there(labs: dict[str, Lab]) -> None:
    lab = labs["groups"]
    created = lab.created("AR-MMMM")
    probed = lab.probe()
    assert (probed.timer, probed.sshd, probed.include, probed.use_pam) == ("cron", "running", True, True)
    assert probed.sshd_version.startswith("OpenSSH_")
    assert [(user.request_id, user.uid) for user in probed.users] == [("AR-MMMM", created.uid)]
    assert probed.users[0].not_after == created.not_after
    lab.removed("AR-MMMM")
    assert lab.probe().users == ()
