"""The end comes from the server's own disk: no remove command is given in any of these tests."""

import time
from collections.abc import Iterator

import pytest

from provisioning.framing import Created
from provisioning.refusals import Refused
from sandbox.hosts import HostFleet
from tests.e2e.scripts_lab import Keys, Lab, make_keys

pytestmark = pytest.mark.hosts

# Longer than the sweeper that create itself starts for ends within a minute: the timer has to do it.
BY_TIMER = 67
PATIENCE = 100


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def fleet() -> Iterator[HostFleet]:
    with HostFleet() as fleet:
        yield fleet


def wait_until_clean(lab: Lab, created: Created) -> list[str]:
    """Wait until nothing is left of the user and of the timer; gives what still is when patience ends."""
    patience_ends = time.monotonic() + PATIENCE
    while time.monotonic() < patience_ends:
        left = lab.leftovers(created)
        if not left and lab.host.run("test", "-e", "/var/lib/passport/sweep.sh").returncode == 1:
            return []
        time.sleep(1)
    return left or ["the timer is still there"]


def test_the_timer_ends_access_alone_and_across_a_reboot(fleet: HostFleet, keys: Keys) -> None:
    hosts = {
        "systemd": fleet.boot("timer-systemd", init="systemd"),
        "cron": fleet.boot("timer-cron", init="cron"),
        "systemd-reboot": fleet.boot("timer-systemd-reboot", init="systemd"),
        "cron-reboot": fleet.boot("timer-cron-reboot", init="cron"),
    }
    labs = {kind: Lab(host=host, keys=keys) for kind, host in hosts.items()}
    before = {kind: lab.sshd_settings() for kind, lab in labs.items()}
    created = {kind: lab.created("AR-TIME", seconds=BY_TIMER, sudo="all") for kind, lab in labs.items()}
    for kind in ("systemd-reboot", "cron-reboot"):
        hosts[kind].reboot()
    for kind, lab in labs.items():
        assert lab.login(created[kind], "setsid sleep 4000 >/dev/null 2>&1 </dev/null &").returncode == 0
        assert "sleep 4000" in str(lab.leftovers(created[kind]))

    for kind, lab in labs.items():
        assert wait_until_clean(lab, created[kind]) == [], kind
        assert lab.host.run("pgrep", "-f", "sleep 4000").returncode == 1
        assert lab.login(created[kind], "true").returncode == 255
        assert lab.sshd_settings() == before[kind]
        assert lab.sh("ls -d /etc/systemd/system/passport* /etc/cron.d/passport 2>/dev/null || :") == ""
        late = lab.create("AR-TIME")
        assert isinstance(late, Refused), "the timer leaves a tombstone, too"


@pytest.mark.parametrize("init", ["systemd", "cron"])
def test_a_short_end_does_not_wait_for_the_minute_and_one_bad_record_stops_nobody(
    fleet: HostFleet, keys: Keys, init: str
) -> None:
    host = fleet.boot("short-systemd", init="systemd") if init == "systemd" else fleet.boot("short-cron", init="cron")
    lab = Lab(host=host, keys=keys)
    first = lab.created("AR-LONG")
    lab.sh("printf 'user=root\\nuid=0\\nhome=/root\\ndead_uid=1\\nnot_after=1\\n' >/var/lib/passport/requests/AR-0BAD")
    short = lab.created("AR-SHRT", seconds=3)
    patience_ends = time.monotonic() + PATIENCE
    while lab.leftovers(short) and time.monotonic() < patience_ends:
        time.sleep(0.5)
    assert lab.leftovers(short) == []
    assert lab.sh("id -u root") == "0\n"
    assert lab.login(first, "id -un").stdout == "pp-long\n"
    lab.removed("AR-LONG")
    assert lab.leftovers(first) == []
