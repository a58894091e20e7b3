"""What the scripts refuse on real servers, and that a refusal leaves the server as it was."""

from collections.abc import Iterator

import pytest

from provisioning.framing import Created, Removed
from provisioning.refusals import RefusalCode, Refused
from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host

pytestmark = pytest.mark.hosts

# Everything that a create may touch, with the contents; logs and clocks aside.
PHOTOGRAPH = """
getent passwd; getent group; cat /etc/shadow /etc/subuid /etc/subgid /etc/ssh/sshd_config
find /etc/ssh /etc/sudoers* /etc/cron.d /etc/systemd/system /home /var/lib/passport/requests -printf '%M %U %G %p %l\\n' | sort
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
    hosts = fleet.boot_all([HostWish(name="systemd", init="systemd"), HostWish(name="cron", init="cron")])
    labs = {host.name: Lab(host=host, keys=keys) for host in hosts}
    for lab in labs.values():
        lab.created("AR-FRST")
        lab.removed("AR-FRST")  # the folders of Passport's records are there from now on
    return labs


def refused(lab: Lab, code: RefusalCode, request_id: str, *, sudo: str = "none") -> Refused:
    """Create, and see that it is refused with this code and that nothing has changed."""
    before = lab.sh(PHOTOGRAPH)
    answer = lab.create(request_id, sudo=sudo)
    assert isinstance(answer, Refused), answer
    assert answer.code is code
    assert lab.sh(PHOTOGRAPH) == before
    return answer


@on_every_host
def test_after_the_end_nothing_is_made(lab: Lab) -> None:
    before = lab.sh(PHOTOGRAPH)
    answer = lab.create("AR-AAAA", seconds=-1)
    assert isinstance(answer, Refused)
    assert answer.code is RefusalCode.AFTER_END
    assert lab.sh(PHOTOGRAPH) == before


@on_every_host
def test_a_create_after_its_remove_is_refused_and_a_retry_is_not(lab: Lab) -> None:
    assert isinstance(lab.remove("AR-BBBB"), Removed)  # the remove overtakes
    refused(lab, RefusalCode.TOMBSTONE, "AR-BBBB")
    retry = lab.create("AR-BBBB", attempt="2")
    assert isinstance(retry, Created)

    late = lab.remove("AR-BBBB", attempt="1")
    assert isinstance(late, Removed)
    assert late.result == "superseded"
    assert lab.login(retry, "id -un").stdout == "pp-bbbb\n"
    assert isinstance(lab.remove("AR-BBBB", attempt="2"), Removed)
    assert lab.leftovers(retry) == []


@on_every_host
def test_somebody_elses_account_is_left_alone(lab: Lab) -> None:
    lab.sh("useradd -m pp-cccc")
    refused(lab, RefusalCode.FOREIGN_ACCOUNT, "AR-CCCC")
    before = lab.sh(PHOTOGRAPH)
    answer = lab.remove("AR-CCCC")
    assert isinstance(answer, Refused)
    assert answer.code is RefusalCode.FOREIGN_ACCOUNT
    assert lab.sh(PHOTOGRAPH) == before
    lab.sh("userdel -r pp-cccc 2>/dev/null")


@on_every_host
def test_an_account_that_took_the_place_is_left_alone(lab: Lab) -> None:
    lab.created("AR-DDDD")
    lab.sh("userdel pp-dddd; useradd -M -d /home/other pp-dddd")
    before = lab.sh("getent passwd pp-dddd")
    for answer in (lab.create("AR-DDDD"), lab.remove("AR-DDDD")):
        assert isinstance(answer, Refused)
        assert answer.code is RefusalCode.FOREIGN_ACCOUNT
    assert lab.sh("getent passwd pp-dddd") == before
    lab.sh("userdel pp-dddd")
    assert isinstance(lab.remove("AR-DDDD"), Removed)


@pytest.mark.parametrize("make", ["mkdir -m 755", "ln -s /etc", "touch"])
@on_every_host
def test_a_home_that_is_there_is_never_taken(lab: Lab, make: str) -> None:
    lab.sh(f"{make} /home/pp-eeee")
    refused(lab, RefusalCode.HOME_EXISTS, "AR-EEEE")
    lab.sh("rm -rf /home/pp-eeee")


@on_every_host
def test_a_mistake_in_sshds_settings_is_reported(lab: Lab) -> None:
    lab.sh("cp -p /etc/ssh/sshd_config /root/kept; echo NoSuchSetting yes >>/etc/ssh/sshd_config")
    answer = refused(lab, RefusalCode.SSHD_CONFIG, "AR-FFFF")
    assert "NoSuchSetting" in answer.detail
    lab.sh("mv /root/kept /etc/ssh/sshd_config")
    assert lab.probe().sshd == "running"


@pytest.mark.parametrize("line", ["DenyUsers root pp-*", "DenyGroups pp-*"])
@on_every_host
def test_a_denial_is_reported(lab: Lab, line: str) -> None:
    lab.sh(f"cp -p /etc/ssh/sshd_config /root/kept; echo '{line}' >>/etc/ssh/sshd_config")
    refused(lab, RefusalCode.DENY_USERS, "AR-GGGG")
    assert lab.probe().denies == "pp-*"
    lab.sh("mv /root/kept /etc/ssh/sshd_config")


@on_every_host
def test_settings_that_come_first_are_reported(lab: Lab) -> None:
    lab.sh("cp -p /etc/ssh/sshd_config /root/kept; sed -i s/^Include/#Include/ /etc/ssh/sshd_config")
    lab.sh("printf '%s\\n' 'Match User pp-*' 'AuthorizedKeysFile /etc/keys' >>/etc/ssh/sshd_config")
    answer = refused(lab, RefusalCode.SSHD_OVERRIDE, "AR-HHHH")
    assert "authorizedkeysfile" in answer.detail
    lab.sh("mv /root/kept /etc/ssh/sshd_config")


@on_every_host
def test_a_server_without_sshd_stays_without(lab: Lab) -> None:
    if lab.host.init == "systemd":
        lab.sh("systemctl stop ssh.service")
    else:
        lab.sh("kill $(cat /run/sshd.pid)")
    lab.sh("for n in 1 2 3 4 5 6 7 8 9; do pgrep -x sshd || break; sleep 0.3; done")
    refused(lab, RefusalCode.NO_SSHD, "AR-JJJJ")
    assert lab.probe().sshd == "stopped"
    assert lab.host.run("pgrep", "-x", "sshd").returncode == 1
    lab.host.reboot()


@on_every_host
def test_a_read_only_etc_is_reported(lab: Lab) -> None:
    with lab.host.remount_etc_read_only():
        refused(lab, RefusalCode.READ_ONLY, "AR-KKKK")
        assert lab.probe().read_only == ("/etc",)


@on_every_host
def test_a_full_disk_is_reported(lab: Lab) -> None:
    with lab.host.fill_disk():
        refused(lab, RefusalCode.DISK_FULL, "AR-LLLL")


@on_every_host
def test_a_user_can_be_ended_on_a_full_disk_and_removed_afterwards(lab: Lab) -> None:
    created = lab.created("AR-MMMM")
    lab.sh("setpriv --reuid pp-mmmm --clear-groups sleep 600 >/dev/null 2>&1 &")
    with lab.host.fill_disk():
        lab.remove("AR-MMMM")
        assert [line for line in lab.leftovers(created) if line.startswith("process")] == []
    assert isinstance(lab.remove("AR-MMMM"), Removed)
    assert lab.leftovers(created) == []


@on_every_host
def test_a_rule_that_sudo_does_not_read_takes_everything_back(lab: Lab) -> None:
    lab.sh("cp -p /etc/sudoers /root/kept; sed -i '/sudoers.d/d' /etc/sudoers")
    refused(lab, RefusalCode.SUDOERS, "AR-NNNN", sudo="all")
    lab.sh("mv /root/kept /etc/sudoers")


def test_without_a_timekeeper_nothing_is_made(fleet: HostFleet, keys: Keys) -> None:
    lab = Lab(host=fleet.boot("refusing-no-timer", init="cron"), keys=keys)
    lab.sh("pkill -x cron; while pgrep -x cron; do sleep 0.1; done")
    answer = lab.create("AR-PPPP")
    assert isinstance(answer, Refused)
    assert answer.code is RefusalCode.NO_TIMER


@on_every_host
def test_commands_at_the_same_time_wait_for_each_other(lab: Lab) -> None:
    lab.sh("mkdir -p /var/lib/passport; flock /var/lib/passport/lock sleep 2 >/dev/null 2>&1 &")
    first = lab.created("AR-QQQQ")
    assert lab.login(first, "true").returncode == 0
    lab.removed("AR-QQQQ")
