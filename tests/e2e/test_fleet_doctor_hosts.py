"""``passport doctor --fleet`` on real hosts, which have what it looks for."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from access.model import Server as Asked
from bot.fleet_verdicts import Known, ServerFinding, judge
from provisioning.framing import Probed
from provisioning.probing import Probes
from provisioning.run_command import RunCommand
from sandbox.hosts import Host, HostFleet, HostWish
from tests.e2e.scripts_lab import Lab, make_keys, name_of
from tests.integration.aws_desk import AwsDesk, aws_desk

pytestmark = pytest.mark.hosts


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, Host]]:
    with HostFleet() as fleet:
        wishes = [HostWish(name="web-1", init="systemd"), HostWish(name="db-2", init="cron")]
        yield {host.name: host for host in fleet.boot_all(wishes)}


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsDesk]:
    with aws_desk(monkeypatch) as made:
        yield made


def now() -> datetime:
    return datetime.now(UTC)


def look(desk: AwsDesk, hosts: dict[str, Host]) -> dict[str, ServerFinding]:
    """What the doctor finds on each host, with an empty database."""
    asked = []
    for name, host in hosts.items():
        server = desk.double.add_server(name, host=host)
        asked.append(Asked(account="home", region=server.region, instance_id=server.instance_id, name=name))
    probes = Probes(RunCommand(desk.sessions, clock=now), clock=now, sleep=time.sleep)
    found = {}
    for heard in probes.ask(asked):
        users = heard.said.users if isinstance(heard.said, Probed) else ()
        found[heard.server.name] = judge(heard, [Known() for _ in users])
    return found


def test_sound_hosts_are_ready(desk: AwsDesk, hosts: dict[str, Host]) -> None:
    found = look(desk, hosts)
    assert {name: finding.problems for name, finding in found.items()} == {"web-1": (), "db-2": ()}


def test_what_is_wrong_on_a_host_is_said_of_it_alone(desk: AwsDesk, hosts: dict[str, Host], tmp_path: Path) -> None:
    lab = Lab(host=hosts["db-2"], keys=make_keys(tmp_path))
    lab.create("AR-D0C1")
    shell = hosts["db-2"].run
    shell("sh", "-c", "printf 'DenyUsers pp-*\\n' >/etc/ssh/sshd_config.d/00-deny.conf; touch /etc/nologin")
    try:
        found = look(desk, hosts)
        assert found["web-1"].is_ready
        left, *others = found["db-2"].problems
        assert left.startswith(f"LEFT OVER: the user {name_of('AR-D0C1')} of AR-D0C1")
        assert any("DenyUsers or DenyGroups pp-*" in sentence for sentence in others)
        assert "/etc/nologin keeps everybody out. Its owner has to remove it." in others
        shell("sh", "-c", "printf 'Nonsense yes\\n' >/etc/ssh/sshd_config.d/00-deny.conf; rm /etc/nologin")
        assert any("sshd -t names the line" in sentence for sentence in look(desk, hosts)["db-2"].problems)
    finally:
        shell("sh", "-c", "rm -f /etc/ssh/sshd_config.d/00-deny.conf /etc/nologin")
        lab.remove("AR-D0C1")
    assert look(desk, hosts)["db-2"].is_ready
