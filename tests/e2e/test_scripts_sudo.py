"""sudo for named commands on real servers: these work, everything else does not, and a bad one is refused whole."""

from collections.abc import Iterator

import pytest

from provisioning.refusals import RefusalCode, Refused
from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host
from tests.e2e.test_scripts_refusals import PHOTOGRAPH

pytestmark = pytest.mark.hosts

COMMANDS = "/usr/bin/id -u,/usr/bin/touch /root/by-sudo --date=2026-01-01T10:20:30,/usr/bin/whoami"


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
    labs = {host.name: Lab(host=host, keys=keys) for host in fleet.boot_all(wishes)}
    for lab in labs.values():
        lab.created("AR-FRST")
        lab.removed("AR-FRST")  # the folders of Passport's records are there from now on
    return labs


@on_every_host
def test_named_commands_work_exactly_as_written_and_no_others(lab: Lab) -> None:
    created = lab.created("AR-AAAA", sudo=COMMANDS)
    said = lab.login(created, "sudo -n id -u; sudo -n /usr/bin/id -u; sudo -n whoami")
    assert said.stdout.split() == ["0", "0", "root"], said.stderr
    assert lab.login(created, "sudo -n touch /root/by-sudo --date=2026-01-01T10:20:30").returncode == 0
    assert lab.sh("date -d @$(stat -c %Y /root/by-sudo) +%Y-%m-%d; rm /root/by-sudo") == "2026-01-01\n"
    for refused in (
        "id",
        "id -u -n",
        "id -un",
        "whoami --version",
        "touch /root/by-sudo",
        "touch /root/by-sudo --date=2026-01-01T10:20:30 /root/more",
        "sh -c id",
        "-s",
        "-i",
        "-u nobody id -u",
        "-e /etc/hosts",
        "LD_PRELOAD=/tmp/x.so id -u",
        "-E PATH=/tmp id -u",
    ):
        done = lab.login(created, f"sudo -n {refused}")
        assert done.returncode != 0, refused
        assert done.stdout == "", refused
    assert lab.sh("ls /root/by-sudo /root/more 2>/dev/null || :") == ""

    removed = lab.removed("AR-AAAA")
    assert (removed.had_sudo, removed.had_commands) == (False, True)
    assert lab.leftovers(created) == []
    assert lab.sh("ls /etc/sudoers.d") == "README\n"


def test_a_service_is_restarted_by_somebody_who_can_do_nothing_else(labs: dict[str, Lab]) -> None:
    lab = labs["systemd"]
    created = lab.created("AR-BBBB", sudo="/usr/bin/systemctl restart atd.service")
    before = lab.sh("systemctl show -p MainPID --value atd.service")
    assert lab.login(created, "sudo -n systemctl restart atd.service").returncode == 0
    assert lab.sh("systemctl show -p MainPID --value atd.service") not in {before, "0\n"}
    assert lab.login(created, "sudo -n systemctl restart cron.service").returncode == 1
    lab.removed("AR-BBBB")


@on_every_host
def test_what_was_given_once_is_in_the_proof_after_it_was_taken_back(lab: Lab) -> None:
    created = lab.created("AR-CCCC", sudo="all")
    lab.created("AR-CCCC", sudo="/usr/bin/id -u")
    assert lab.login(created, "sudo -n id -u").stdout == "0\n"
    assert lab.login(created, "sudo -n true").returncode == 1
    lab.created("AR-CCCC", sudo="none")
    assert lab.login(created, "sudo -n id -u").returncode == 1
    assert lab.removed("AR-CCCC").had_sudo

    lab.created("AR-DDDD", sudo="/usr/bin/id -u")
    lab.created("AR-DDDD")
    removed = lab.removed("AR-DDDD")
    assert (removed.had_sudo, removed.had_commands) == (False, True)


BAD = {
    "missing": ("/opt/app/not-there now", ":", "is not there"),
    "a folder": ("/opt/app/folder now", "mkdir -p /opt/app/folder", "is not there"),
    "not a program": ("/opt/app/text", "echo >/opt/app/text", "is not there"),
    "a shell by another name": ("/opt/app/tool", "ln -s /bin/bash /opt/app/tool", "is /usr/bin/bash"),
    "an editor behind alternatives": (
        "/opt/app/tool",
        "cp /bin/true /opt/app/vim.tiny; ln -s vim.tiny /opt/app/tool",
        "is /opt/app/vim.tiny",
    ),
    "writable": ("/opt/app/tool", "install -m 777 /bin/true /opt/app/tool", "not only of root"),
    "somebody else's": ("/opt/app/tool", "install -o nobody /bin/true /opt/app/tool", "not only of root"),
    "in somebody's folder": (
        "/opt/app/bin/tool",
        "mkdir /opt/app/bin; install /bin/true /opt/app/bin/tool; chown nobody /opt/app/bin",
        "/opt/app/bin is not only of root",
    ),
    "a link into somebody's folder": (
        "/opt/app/tool",
        "mkdir -m 777 /opt/app/bin; install /bin/true /opt/app/bin/tool; ln -s bin/tool /opt/app/tool",
        "/opt/app/bin is not only of root",
    ),
}


@pytest.mark.parametrize("bad", BAD)
@on_every_host
def test_a_command_that_is_not_safe_there_is_refused_and_nothing_is_left(lab: Lab, bad: str) -> None:
    command, make, why = BAD[bad]
    lab.sh(f"mkdir -p /opt/app; {make}")
    before = lab.sh(PHOTOGRAPH)
    answer = lab.create("AR-EEEE", sudo=f"/usr/bin/id -u,{command}")
    assert isinstance(answer, Refused), answer
    assert answer.code is RefusalCode.SUDO_COMMAND
    assert why in answer.detail
    assert lab.sh(PHOTOGRAPH) == before
    lab.sh("rm -rf /opt/app")


@pytest.mark.parametrize(
    "trouble",
    [
        "printf '#!/bin/sh\\nexit 1\\n' >/usr/sbin/visudo",  # it objects
        "sed -i '/sudoers.d/d' /etc/sudoers",  # the drop-in is not read
        "echo 'ALL ALL=(ALL) !/usr/bin/id' >/etc/sudoers.d/zz-last",  # a later rule takes it back
    ],
    ids=["visudo", "not-read", "overruled"],
)
@on_every_host
def test_a_drop_in_that_cannot_be_verified_fails_clearly(lab: Lab, trouble: str) -> None:
    lab.sh("cp -p /etc/sudoers /root/sudoers.kept; cp -p /usr/sbin/visudo /root/visudo.kept")
    lab.sh(trouble)
    before = lab.sh(PHOTOGRAPH)
    answer = lab.create("AR-FFFF", sudo="/usr/bin/id -u")
    assert isinstance(answer, Refused), answer
    assert answer.code is RefusalCode.SUDOERS
    assert lab.sh(PHOTOGRAPH) == before
    lab.sh("mv /root/sudoers.kept /etc/sudoers; mv /root/visudo.kept /usr/sbin/visudo; rm -f /etc/sudoers.d/zz-last")
