"""With Passport dead: the timer on the server ends access by itself, after a reboot and a clock that jumps, too."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import pytest

from provisioning.framing import Created
from provisioning.refusals import Refused
from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host

pytestmark = pytest.mark.hosts

# Longer than the sweeper that create itself starts for ends within a minute: the timer has to do it.
BY_TIMER = 67
PATIENCE = 150
DAY = 86400
# The hosts have no clock of their own, so the scripts get a `date` that adds something; uptime stays true.
DATE = r"""#!/bin/sh
[ "$*" != +%s ] || exec echo $(($(/usr/bin/date +%s) + $(cat /var/clock)))
exec /usr/bin/date "$@"
"""
# What would run at the next start, or be overdue by then.
WAITING = r"""
echo '@reboot sh -c "touch /var/tmp/late-cron; exec sleep 4000"' | crontab -
echo 'touch /var/tmp/late-at' | at now + 1 minute 2>/dev/null
"""
INITS: tuple[Literal["systemd", "cron"], ...] = ("systemd", "cron")
FATES = ("left-alone", "rebooted", "clock-back", "clock-forward", "off")


@dataclass(frozen=True, kw_only=True, slots=True)
class Abandoned:
    """A host with a user whom nobody will remove but the host."""

    lab: Lab
    created: Created
    settings: str  # sshd's, as they were before


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def fleet() -> Iterator[HostFleet]:
    with HostFleet() as fleet:
        yield fleet


@pytest.fixture(scope="module", autouse=True)
def abandoned(fleet: HostFleet, keys: Keys) -> list[Abandoned]:
    """All that needs a minute begins first, so that the other tests pass the time."""
    hosts = fleet.boot_all([HostWish(name=f"{init}-{fate}", init=init) for init in INITS for fate in FATES])
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(abandon, [Lab(host=host, keys=keys) for host in hosts]))


@pytest.fixture(scope="module")
def labs(fleet: HostFleet, keys: Keys) -> dict[str, Lab]:
    hosts = fleet.boot_all([HostWish(name=f"short-{init}", init=init) for init in INITS])
    return {host.name: Lab(host=host, keys=keys) for host in hosts}


def abandon(lab: Lab) -> Abandoned:
    """Make a user with a process, and let something happen to the host."""
    fate = lab.host.name.partition("-")[2]
    settings = lab.sshd_settings()
    set_clock(lab, 0)
    created = lab.created("AR-TIME", seconds=3600 if fate == "clock-forward" else BY_TIMER, sudo="all")
    if fate == "rebooted":
        lab.host.reboot()
    assert lab.login(created, "setsid sleep 4000 >/dev/null 2>&1 </dev/null &").returncode == 0
    assert "sleep 4000" in str(lab.leftovers(created))
    set_clock(lab, {"clock-back": -DAY, "clock-forward": DAY}.get(fate, 0))
    if fate == "off":
        assert lab.login(created, WAITING).returncode == 0
        lab.host.power_off()
    return Abandoned(lab=lab, created=created, settings=settings)


def set_clock(lab: Lab, seconds: int) -> None:
    """Let the scripts' clock be ahead by so many seconds."""
    lab.host.run("sh", "-c", "cat >/usr/sbin/date && chmod 755 /usr/sbin/date", input=DATE.encode())
    lab.sh(f"echo {seconds} >/var/clock")


def wait_until_clean(lab: Lab, created: Created) -> list[str]:
    """Wait until nothing is left of the user and of the timer; gives what still is when patience ends.

    A host that is off comes back only after the end, and a minute after its user was made.
    """
    if not lab.host.is_on:
        time.sleep(max(0, created.not_after.timestamp() + 1 - time.time()))
        lab.host.power_on()
    patience_ends = time.monotonic() + PATIENCE
    while time.monotonic() < patience_ends:
        left = lab.leftovers(created)
        if not left and lab.host.run("test", "-e", "/var/lib/passport/sweep.sh").returncode == 1:
            return []
        time.sleep(1)
    return left or ["the timer is still there"]


@on_every_host
def test_a_short_end_does_not_wait_for_the_minute_and_one_bad_record_stops_nobody(lab: Lab) -> None:
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
    lab.sh("rm /var/lib/passport/requests/AR-0BAD")


@on_every_host
def test_a_wrong_clock_shows_in_the_answer_and_one_after_the_end_makes_nobody(lab: Lab) -> None:
    set_clock(lab, -1800)
    behind = lab.created("AR-BHND")
    assert 1790 < time.time() - behind.server_time.timestamp() < 1860
    set_clock(lab, 7200)
    ahead = lab.create("AR-AHED")
    assert isinstance(ahead, Refused)
    assert ahead.code == "after_end"
    set_clock(lab, 0)
    lab.removed("AR-BHND")
    assert lab.leftovers(behind) == []


def test_the_timer_ends_access_alone_across_a_reboot_and_when_the_clock_jumps(abandoned: list[Abandoned]) -> None:
    with ThreadPoolExecutor(len(abandoned)) as pool:
        left = list(pool.map(lambda each: wait_until_clean(each.lab, each.created), abandoned))
    assert dict(zip([each.lab.host.name for each in abandoned], left, strict=True)) == {
        f"{init}-{fate}": [] for init in INITS for fate in FATES
    }
    for each in abandoned:
        lab = each.lab
        assert lab.host.run("pgrep", "-f", "sleep 4000").returncode == 1
        if lab.host.init == "systemd":  # elsewhere cron starts its own at the same moment as Passport's
            assert lab.sh("ls /var/tmp | grep late || :") == ""
        assert lab.login(each.created, "true").returncode == 255
        assert lab.sshd_settings() == each.settings
        assert lab.sh("ls -d /etc/systemd/system/passport* /etc/cron.d/passport 2>/dev/null || :") == ""
        assert isinstance(lab.create("AR-TIME"), Refused), "the timer leaves a tombstone, too"
