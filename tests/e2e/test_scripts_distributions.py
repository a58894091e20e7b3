"""What other distributions do differently, on real hosts dressed like them; and shells that /bin/sh may be."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from provisioning.refusals import RefusalCode, Refused
from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host
from tests.e2e.test_scripts_metadata import without

pytestmark = pytest.mark.hosts

# Of Red Hat's sshd: its drop-in, the first Include of the settings.
REDHAT = (
    "printf '%s\\n' 'X11Forwarding yes' 'GSSAPIAuthentication yes' 'PrintMotd no' 'AllowUsers root' >50-redhat.conf"
)
USERADD = """
printf '%s\\n' GROUP=100 HOME=/home INACTIVE=30 EXPIRE= SHELL=/bin/bash SKEL=/etc/skel CREATE_MAIL_SPOOL=yes \
    >/etc/default/useradd
sed -i -e '/^USERGROUPS_ENAB/d' -e '/^PASS_MAX_DAYS/d' /etc/login.defs
printf '%s\\n' 'CREATE_HOME yes' 'USERGROUPS_ENAB no' 'HOME_MODE 0755' 'PASS_MAX_DAYS 90' 'PASS_MIN_DAYS 1' >>/etc/login.defs
"""
SELINUX = """
printf '#!/bin/sh\\nprintf "%%s\\\\n" "$*" >>/var/log/relabelled\\n' >/usr/sbin/restorecon
printf '#!/bin/sh\\necho Enforcing\\n' >/usr/sbin/getenforce
chmod 755 /usr/sbin/restorecon /usr/sbin/getenforce
"""
# SUSE's settings of sshd are the vendor's, in /usr, until somebody makes others.
VENDORED = """
set -e
mkdir -p /usr/etc/ssh /etc/systemd/system/ssh.service.d && mv /etc/ssh/sshd_config /usr/etc/ssh/sshd_config
printf '%s\\n' '[Service]' 'ExecStartPre=' 'ExecReload=' 'ExecReload=/bin/kill -HUP $MAINPID' \
    'ExecStart=' 'ExecStart=/usr/sbin/sshd -D -f /usr/etc/ssh/sshd_config' \
    >/etc/systemd/system/ssh.service.d/vendored.conf
systemctl daemon-reload && systemctl restart ssh.service
printf '%s\\n' 'Defaults targetpw' 'ALL ALL=(ALL) ALL' '@includedir /etc/sudoers.d' >/etc/sudoers
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A distribution: the host, how it is dressed, what it lacks, and what the scripts shall find there."""

    wish: HostWish
    dress: str
    lacks: str = ""
    system: str = ""
    sh: str = "/usr/bin/bash"
    firewall: str = "nft"
    sshd: str = "drop_in"
    selinux: str = ""


def system(name: str, version: str) -> str:
    return f'printf \'ID="{name}"\\nVERSION_ID="{version}"\\n\' >/etc/os-release\n'


BASH = "ln -sf bash /bin/sh\n"
KINDS = {
    "amazon-2": Kind(
        wish=HostWish(name="amazon-2", init="systemd", include=False),
        dress=system("amzn", "2") + BASH + USERADD + "rm -r /etc/ssh/sshd_config.d",
        lacks="nft nologin",
        system="amzn 2",
        firewall="iptables",
        sshd="block",
    ),
    "amazon-2023": Kind(
        wish=HostWish(name="amazon-2023", init="systemd"),
        dress=system("amzn", "2023") + BASH + USERADD + "systemctl disable --now cron.service 2>/dev/null",
        lacks="nft iptables ip6tables",
        system="amzn 2023",
        firewall="ip",
    ),
    "rhel-9": Kind(
        wish=HostWish(name="rhel-9", init="cron"),
        dress=system("rhel", "9.5")
        + BASH
        + USERADD
        + SELINUX
        + f"cd /etc/ssh/sshd_config.d && {REDHAT}\n"
        + "pkill -x cron; cp /usr/sbin/cron /usr/sbin/crond; rm -f /run/crond.pid; setsid crond -f >/dev/null 2>&1 &",
        lacks="flock",
        system="rhel 9.5",
        selinux="enforcing",
    ),
    "rhel-7": Kind(
        wish=HostWish(name="rhel-7", init="systemd", include=False, allow_groups="root"),
        dress=system("rhel", "7.9") + BASH + USERADD + SELINUX + "rm -r /etc/ssh/sshd_config.d",
        lacks="nft",
        system="rhel 7.9",
        firewall="iptables",
        sshd="block",
        selinux="enforcing",
    ),
    "suse-15": Kind(
        wish=HostWish(name="suse-15", init="systemd"),
        dress=system("sles", "15.6") + BASH + USERADD + VENDORED,
        system="sles 15.6",
    ),
    "busybox": Kind(wish=HostWish(name="busybox", init="cron"), dress="ln -sf busybox /bin/sh", sh="/usr/bin/busybox"),
    "mksh": Kind(wish=HostWish(name="mksh", init="cron"), dress="ln -sf mksh /bin/sh", sh="/usr/bin/mksh"),
    "yash": Kind(wish=HostWish(name="yash", init="systemd"), dress="ln -sf yash /bin/sh", sh="/usr/bin/yash"),
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def fleet() -> Iterator[HostFleet]:
    with HostFleet() as fleet:
        yield fleet


@pytest.fixture(scope="module")
def labs(fleet: HostFleet, keys: Keys) -> dict[str, Lab]:
    labs = {host.name: Lab(host=host, keys=keys) for host in fleet.boot_all([kind.wish for kind in KINDS.values()])}
    for name, lab in labs.items():
        lab.sh(KINDS[name].dress)
        without(lab, KINDS[name].lacks)
    return labs


def settings_of_sshd(lab: Lab) -> str:
    return lab.sh(
        "cat /etc/ssh/sshd_config /usr/etc/ssh/sshd_config /etc/ssh/sshd_config.d/* 2>/dev/null; ls -R /etc/ssh /usr/etc 2>&1"
    )


@on_every_host
def test_a_user_comes_and_goes_on_every_distribution(lab: Lab) -> None:
    kind = KINDS[lab.host.name]
    before = settings_of_sshd(lab)
    assert "passport" not in before

    created = lab.created("AR-AAAA", sudo="/usr/bin/id -u", KeepHome="1")
    assert (created.sshd, created.firewall) == (kind.sshd, kind.firewall)
    assert created.timer == lab.host.init
    again = lab.created("AR-AAAA", sudo="/usr/bin/id -u", KeepHome="1")
    assert (again.uid, again.existing) == (created.uid, True)

    said = lab.login(created, "id -un; id -gn; sudo -n id -u; stat -c %a ~; sudo -n true || echo refused")
    assert said.stdout.split() == ["pp-aaaa", "pp-aaaa", "0", "700", "refused"], said.stderr
    assert "Permission denied" in lab.login_with_bare_key(created).stderr
    lab.login(
        created, "setsid sleep 4000 >/dev/null 2>&1 </dev/null & echo work >notes; (crontab -l; echo '#') | crontab -"
    )

    probed = lab.probe()
    assert kind.system in probed.system
    assert (probed.shell, probed.firewalls[0], probed.selinux) == (kind.sh, kind.firewall, kind.selinux)
    assert (probed.timer, probed.sshd) == (lab.host.init, "running")
    assert probed.include is (kind.sshd == "drop_in")

    removed = lab.removed("AR-AAAA")
    assert (removed.verified, removed.firewall, removed.had_commands) == (True, "removed", True)
    assert removed.processes >= 1
    assert lab.login(created, "true").returncode == 255
    assert lab.leftovers(created) == []
    assert settings_of_sshd(lab) == before
    assert lab.sh("cat /var/lib/passport/kept/AR-AAAA.1/home/notes") == "work\n"
    lab.sh("echo 1 >/var/lib/passport/kept/AR-AAAA.1/until; sh /var/lib/passport/sweep.sh")
    assert lab.sh("ls -d /etc/systemd/system/passport* /etc/cron.d/passport /var/lib/passport/sweep.sh || :") == ""


@on_every_host
def test_the_sweeper_ends_access_on_every_distribution(lab: Lab) -> None:
    before = settings_of_sshd(lab)
    created = lab.created("AR-BBBB", sudo="all")
    lab.login(created, "setsid sleep 4000 >/dev/null 2>&1 </dev/null &")
    lab.sh("sed -i 's/^not_after=.*/not_after=1000000000/' /var/lib/passport/requests/AR-BBBB")
    lab.sh("sh /var/lib/passport/sweep.sh")
    assert lab.leftovers(created) == []
    assert settings_of_sshd(lab) == before
    assert isinstance(lab.create("AR-BBBB"), Refused)


def test_what_selinux_confines_is_labelled_where_it_stands(labs: dict[str, Lab]) -> None:
    for name, settings in (("rhel-9", "/etc/ssh/sshd_config.d/00-passport.conf"), ("rhel-7", "/etc/ssh/sshd_config")):
        lab = labs[name]
        lab.sh("rm -f /var/log/relabelled")
        lab.created("AR-CCCC", sudo="all", KeepHome="1")
        labelled = lab.sh("cat /var/log/relabelled").splitlines()
        timer = "/etc/cron.d/passport" if lab.host.init == "cron" else "/etc/systemd/system/passport-sweep.timer"
        for path in (
            *("/etc/ssh/passport/ca.pub", "/etc/ssh/passport/principals/pp-cccc", settings, timer),
            *("/etc/sudoers.d/passport-pp-cccc", "-R /home/pp-cccc", "/var/lib/passport/sweep.sh"),
            "/etc/ssh/passport /etc/ssh/passport/principals",
        ):
            assert path in labelled
        lab.removed("AR-CCCC")
        assert "-R /var/lib/passport/kept/AR-CCCC.1" in lab.sh("cat /var/log/relabelled")


@pytest.mark.parametrize("folder", ["/home", "/var/lib"])
def test_a_root_that_can_only_be_read_is_reported(labs: dict[str, Lab], folder: str) -> None:
    lab = labs["suse-15"]
    lab.sh(f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}")
    try:
        refused = lab.create("AR-DDDD")
        assert isinstance(refused, Refused)
        assert (refused.code, refused.detail) == (RefusalCode.READ_ONLY, folder)
        assert lab.probe().read_only == (folder,)
    finally:
        lab.sh(f"umount -l {folder}")


def test_vendor_settings_that_cannot_be_written_are_reported_as_that(labs: dict[str, Lab]) -> None:
    """An image whose /usr is read-only, and whose settings include nothing: there is no place for the block."""
    lab = labs["suse-15"]
    lab.sh("cp -p /usr/etc/ssh/sshd_config /root/kept; sed -i s/^Include/#Include/ /usr/etc/ssh/sshd_config")
    lab.sh("mount --bind /usr/etc /usr/etc && mount -o remount,ro,bind /usr/etc")
    refused = lab.create("AR-EEEE")
    assert isinstance(refused, Refused)
    assert (refused.code, refused.detail) == (RefusalCode.READ_ONLY, "/usr/etc/ssh/sshd_config")
    assert lab.sh("getent passwd pp-eeee || echo gone") == "gone\n"
    lab.sh("umount -l /usr/etc; mv /root/kept /usr/etc/ssh/sshd_config")


@on_every_host
def test_an_account_that_cannot_be_deleted_lets_nobody_in(lab: Lab) -> None:
    created = lab.created("AR-FFFF")
    lab.sh("mv /usr/sbin/userdel /usr/sbin/userdel.real; printf '#!/bin/sh\\nexit 1\\n' >/usr/sbin/userdel")
    lab.sh("chmod 755 /usr/sbin/userdel")
    refused = lab.remove("AR-FFFF")
    assert isinstance(refused, Refused)
    assert refused.left == ("account",)
    shell = lab.sh("getent passwd pp-ffff").strip().rpartition(":")[2]
    assert shell == ("/usr/bin/false" if lab.host.name == "amazon-2" else "/usr/sbin/nologin")
    assert lab.sh("getent shadow pp-ffff").split(":")[1].startswith("!")
    assert lab.login(created, "true").returncode == 255
    lab.sh("mv /usr/sbin/userdel.real /usr/sbin/userdel")
    lab.removed("AR-FFFF")
    assert lab.leftovers(created) == []
