"""The wall before the instance metadata service, on servers with each kind of firewall and with none."""

from collections.abc import Iterator

import pytest

from provisioning.framing import Created, Removed
from provisioning.refusals import RefusalCode, Refused
from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host

pytestmark = pytest.mark.hosts

ADDRESSES = ("169.254.169.254", "[fd00:ec2::254]")
# The way to the service, which is no address of the server's own: another host of the network answers there.
WAY = """
ip route replace 169.254.169.254/32 dev eth0
ip -6 addr replace fd00:ec2::{number}/64 dev eth0 nodad
"""
# What a distribution may lack, by host: nft is best, then iptables; ip is everywhere.
LACKS = {"nft": "", "iptables": "nft", "ip": "nft iptables iptables-restore", "cron-ip": "nft iptables"}


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
        HostWish(name="nft", init="systemd"),
        HostWish(name="iptables", init="cron"),
        HostWish(name="ip", init="systemd"),
        HostWish(name="cron-ip", init="cron"),
        HostWish(name="service", init="cron"),
    ]
    labs = {host.name: Lab(host=host, keys=keys) for host in fleet.boot_all(wishes)}
    service = labs.pop("service")
    service.sh("ip addr add 169.254.169.254/32 dev eth0; ip -6 addr add fd00:ec2::254/64 dev eth0 nodad")
    service.sh("cd /srv && setsid python3 -m http.server 80 --bind :: >/dev/null 2>&1 </dev/null &")
    for lab in labs.values():
        without(lab, LACKS[lab.host.name])
        lab.sh("useradd -m bystander")
        lay_way(lab)
        wait_for_service(lab)
    return labs


def without(lab: Lab, programs: str) -> None:
    """Take programs away, wherever the distribution has put them."""
    for program in programs.split():
        lab.sh(f"rm -f /usr/sbin/{program} /usr/bin/{program}; ! command -v {program}")


def lay_way(lab: Lab) -> None:
    lab.sh(WAY.format(number=lab.host.address.rpartition(".")[2]))


def wait_for_service(lab: Lab) -> None:
    lab.sh(
        "for n in $(seq 100); do curl -gsm 2 -o /dev/null 'http://[fd00:ec2::254]/' && exit 0; sleep 0.1; done; exit 1"
    )


def asked(address: str) -> str:
    return f"curl -gsm 8 -o /dev/null -w '%{{http_code}} ' 'http://{address}/'; "


ASK = "".join(map(asked, ADDRESSES))


def as_somebody(lab: Lab, name: str) -> str:
    return lab.host.run("setpriv", "--reuid", name, "--clear-groups", "sh", "-c", ASK).stdout.decode()


def as_user(lab: Lab, created: Created) -> str:
    done = lab.login(created, f"id -u; {ASK}")
    assert done.stdout.startswith(f"{created.uid}\n"), done.stderr
    return done.stdout.partition("\n")[2]


def traces(lab: Lab) -> str:
    """Everything of the wall that a server could still have."""
    said = lab.host.run(
        "sh",
        "-c",
        "nft list tables; iptables -S passport; ip6tables -S passport; iptables -S OUTPUT | grep passport;"
        "ip rule | grep -e uidrange; ip -6 rule | grep -e uidrange; ls /var/lib/passport/wall",
    )
    return "\n".join(line for line in said.stdout.decode().splitlines() if "table ip" not in line)


OPEN, CLOSED = "200 200 ", "000 000 "


@on_every_host
def test_a_user_is_kept_from_the_service_and_nobody_else_is(lab: Lab) -> None:
    assert traces(lab) == ""
    created = lab.created("AR-AAAA")
    assert created.firewall == lab.host.name.removeprefix("cron-")
    assert as_user(lab, created) == CLOSED
    assert as_somebody(lab, "bystander") == OPEN
    assert as_somebody(lab, "root") == OPEN

    removed = lab.removed("AR-AAAA")
    assert removed.firewall == "removed"
    assert traces(lab) == ""
    assert lab.leftovers(created) == []
    again = lab.removed("AR-AAAA")
    assert (again.result, again.firewall) == ("absent", "none")


@on_every_host
def test_policy_lets_one_through_and_the_wall_stays_for_the_other(lab: Lab) -> None:
    let_through = lab.created("AR-BBBB", Metadata="open")
    assert traces(lab) == "", "for nobody there is no wall"
    closed = lab.created("AR-CCCC")
    assert as_user(lab, let_through) == OPEN
    assert as_user(lab, closed) == CLOSED

    # What policy says of a request may be asked for again: the same user, closed now.
    lab.created("AR-BBBB", Metadata="closed")
    assert as_user(lab, let_through) == CLOSED
    lab.created("AR-BBBB", Metadata="open")
    assert as_user(lab, let_through) == OPEN

    assert lab.removed("AR-BBBB").firewall == "stays"
    assert lab.leftovers(let_through) == []
    assert as_user(lab, closed) == CLOSED
    assert lab.removed("AR-CCCC").firewall == "removed"
    assert traces(lab) == ""


def flushed(lab: Lab, created: Created) -> str:
    """What the user reaches after somebody has thrown all rules away."""
    lab.host.run(
        "sh", "-c", "nft flush ruleset; iptables -F; ip6tables -F; iptables -X; ip6tables -X; ip rule flush; "
        "ip rule add pref 32766 lookup main; ip -6 rule flush; ip -6 rule add pref 32766 lookup main"
    )  # fmt: skip
    lay_way(lab)
    wait_for_service(lab)
    return as_user(lab, created)


@on_every_host
def test_the_wall_comes_back_after_a_reboot_and_after_somebody_flushed_it(lab: Lab) -> None:
    created = lab.created("AR-DDDD")
    lab.host.reboot()
    lay_way(lab)
    assert settled(lab, created) == CLOSED

    assert any(flushed(lab, created) == OPEN for _ in range(3)), "the sweeper comes in between once a minute at most"
    lab.sh("sh /var/lib/passport/sweep.sh")
    assert as_user(lab, created) == CLOSED
    lab.removed("AR-DDDD")
    assert traces(lab) == ""


def settled(lab: Lab, created: Created) -> str:
    """What the user is answered right after the boot; where cron keeps the time, within its first seconds."""
    answer = as_user(lab, created)
    for _ in range(20 if lab.host.init == "cron" else 0):
        if answer == CLOSED:
            break
        answer = as_user(lab, created)
    return answer


@on_every_host
def test_root_by_sudo_reaches_it_which_is_why_the_proof_says_who_vouches(lab: Lab) -> None:
    created = lab.created("AR-EEEE", sudo="all")
    assert as_user(lab, created) == CLOSED
    assert lab.login(created, f'sudo -n sh -c "{ASK}"').stdout == OPEN
    assert lab.removed("AR-EEEE").had_sudo


def test_a_server_without_any_is_refused_unless_policy_says_otherwise(fleet: HostFleet, keys: Keys) -> None:
    lab = Lab(host=fleet.boot("bare", init="cron"), keys=keys)
    without(lab, "nft iptables ip")
    before = lab.sh("getent passwd; ls /etc/ssh /etc/cron.d /home")
    refused = lab.create("AR-FFFF")
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.NO_FIREWALL
    assert "metadata = true" in refused.sentence
    assert lab.sh("getent passwd; ls /etc/ssh /etc/cron.d /home") == before
    assert lab.probe().firewalls == ()
    opened = lab.created("AR-GGGG", Metadata="open")
    assert opened.firewall == "none"
    assert lab.removed("AR-GGGG").firewall == "none"
    assert lab.leftovers(opened) == []


def test_a_kernel_that_knows_none_of_it_takes_everything_back(fleet: HostFleet, keys: Keys) -> None:
    lab = Lab(host=fleet.boot("old-kernel", init="cron"), keys=keys)
    for program in ("nft", "iptables-restore", "ip"):
        without(lab, program)
        lab.sh(f"printf '#!/bin/sh\\nexit 2\\n' >/usr/sbin/{program}; chmod 755 /usr/sbin/{program}")
    before = lab.sh("getent passwd; ls /etc/ssh /etc/cron.d /home")
    refused = lab.create("AR-HHHH")
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.NO_FIREWALL
    assert lab.sh("getent passwd; ls /etc/ssh /etc/cron.d /home") == before


def test_a_wall_that_does_not_go_is_no_proof_and_is_tried_again(fleet: HostFleet, keys: Keys) -> None:
    lab = Lab(host=fleet.boot("stubborn", init="cron"), keys=keys)
    created = lab.created("AR-JJJJ")
    assert created.firewall == "nft"
    lab.sh("mv /usr/sbin/nft /usr/sbin/nft.real")
    stub = b'#!/bin/sh\n[ "$1" != delete ] || exit 1\nexec /usr/sbin/nft.real "$@"\n'
    lab.host.run("sh", "-c", "cat >/usr/sbin/nft; chmod 755 /usr/sbin/nft", input=stub)
    refused = lab.remove("AR-JJJJ")
    assert isinstance(refused, Refused)
    assert (refused.code, refused.left) == (RefusalCode.LEFT_BEHIND, ("firewall",))
    assert refused.retryable
    assert lab.sh("ls /var/lib/passport/sweep.sh").strip(), "the server itself goes on trying"
    lab.sh("mv /usr/sbin/nft.real /usr/sbin/nft")
    removed = lab.remove("AR-JJJJ")
    assert isinstance(removed, Removed)
    assert (removed.result, removed.firewall) == ("absent", "removed")
    assert lab.leftovers(created) == []
    assert lab.sh("ls -d /etc/cron.d/passport /var/lib/passport/sweep.sh 2>/dev/null || :") == ""
