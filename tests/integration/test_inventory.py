"""The inventory against EC2 and Systems Manager of two accounts."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from access.errors import UnavailableError
from access.policy import changed_tags
from provisioning.aws import Service, Sessions
from provisioning.inventory import AwsInventory
from sandbox.aws import Server
from tests.integration.aws_desk import ACCOUNTS, FAR, OTHER, AwsDesk, asked, aws_desk
from tests.values import NOW, a_policy


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsDesk]:
    with aws_desk(monkeypatch) as made:
        yield made


def inventory(desk: AwsDesk) -> AwsInventory:
    made = AwsInventory(desk.sessions, ACCOUNTS, clock=desk.clock)
    made.refresh()
    return made


def test_servers_of_all_accounts_and_regions_are_found_by_name_id_and_tag(desk: AwsDesk) -> None:
    web = desk.double.add_server("web-1", tags={"env": "prod"})
    far = desk.double.add_server("db-1", region=FAR, tags={"env": "prod"})
    other = desk.double.add_server("web-1", account=OTHER, tags={"env": "test"})
    found = inventory(desk)

    assert {server.key for server in found.find("WEB-1")} == {
        f"home/eu-west-1/{web.instance_id}",
        f"other/eu-west-1/{other.instance_id}",
    }
    (db,) = found.find(far.instance_id)
    assert (db.account, db.region, db.name, db.tags) == ("home", FAR, "db-1", {"Name": "db-1", "env": "prod"})
    assert (db.platform, db.online, db.problem) == ("linux", True, "")
    assert [server.name for server in found.find("tag:env=prod")] == ["db-1", "web-1"]
    assert found.find("tag:env=PROD") == found.find("web") == found.find("i-00000000000000bad") == []


def test_a_search_puts_the_best_first_and_keeps_its_limit(desk: AwsDesk) -> None:
    for name in ("db-web", "web-10", "web-1", "cache"):
        desk.double.add_server(name, tags={"team": "web"} if name == "cache" else {})
    found = inventory(desk)
    assert [server.name for server in found.search("web-1", 10)] == ["web-1", "web-10"]
    assert [server.name for server in found.search("WEB", 10)] == ["web-1", "web-10", "db-web", "cache"]
    assert [server.name for server in found.search("web", 2)] == ["web-1", "web-10"]
    assert len(found.search("", 3)) == 3


def test_a_server_is_found_by_its_address(desk: AwsDesk) -> None:
    desk.double.add_server("web-1")
    found = inventory(desk)
    described = desk.sessions.call("home", "eu-west-1", "ec2", "describe_instances")
    address = described["Reservations"][0]["Instances"][0]["PrivateIpAddress"]
    assert [server.name for server in found.search(address, 5)] == ["web-1"]


def test_what_cannot_be_asked_for_says_why_and_what_would_mend_it(desk: AwsDesk) -> None:
    stopped = desk.double.add_server("stopped")
    gone = desk.double.add_server("gone")
    desk.double.add_server("bare", registered=False)
    desk.double.add_server("silent", online=False)
    desk.double.add_server("old", agent_version="2.3.671.9")
    desk.double.add_server("edge", agent_version="2.3.672.0")
    desk.double.add_server("win", platform="Windows")
    desk.double.stop(stopped)
    desk.double.terminate(gone)
    found = inventory(desk)

    def problem(words: str) -> str:
        (server,) = found.find(words)
        return server.problem

    assert problem("stopped") == "stopped is stopped. Start it, then ask again."
    assert problem("bare").startswith("bare is not known to Systems Manager. It needs the SSM agent, and an instance")
    assert re.fullmatch(
        r"silent does not answer: its SSM agent was last seen at \d{4}-\d\d-\d\d \d\d:\d\d UTC\. .*", problem("silent")
    )
    assert problem("old").startswith("old's SSM agent 2.3.671.9 is too old; I need 2.3.672.0 or later.")
    assert problem("edge") == ""
    assert problem("win") == "win runs Windows, which I cannot open yet."
    assert problem(gone.instance_id) == "gone is terminated."
    assert found.find("gone") == []
    assert found.search("gone", 5) == []


def test_a_name_that_looks_like_an_id_is_not_taken_for_that_server(desk: AwsDesk) -> None:
    real = desk.double.add_server("web-1")
    desk.double.add_server(real.instance_id)
    assert [server.name for server in inventory(desk).find(real.instance_id)] == ["web-1"]


def test_names_and_tags_of_people_are_kept_as_they_are(desk: AwsDesk) -> None:
    wild = "<!channel> `$(id)` \u202e'\""
    desk.double.add_server(wild, tags={"note": "a=b=c"})
    found = inventory(desk)
    assert found.find(wild)[0].tags["Name"] == wild
    assert len(found.find("tag:note=a=b=c")) == 1


def test_a_server_without_a_name_goes_by_its_id(desk: AwsDesk) -> None:
    server = desk.double.add_server("   ")
    assert inventory(desk).find(server.instance_id)[0].name == server.instance_id


class WithHybrid(Sessions):
    """The sandbox has no servers outside of EC2: one more agent, as Systems Manager describes it."""

    def pages(
        self, account: str, region: str, service: Service, operation: str, parameters: Mapping[str, Any], /, **how: Any
    ) -> Iterator[dict[str, Any]]:
        yield from super().pages(account, region, service, operation, parameters, **how)
        ids = [value for rule in parameters.get("Filters", []) for value in rule["Values"]]
        if (account, operation) == ("other", "describe_instance_information") and (
            not ids or HYBRID["InstanceId"] in ids
        ):
            yield {"InstanceInformationList": [HYBRID]}


HYBRID = {
    "InstanceId": "mi-0123456789abcdef0",
    "PingStatus": "Online",
    "LastPingDateTime": NOW,
    "AgentVersion": "3.3.3050.0",
    "PlatformType": "Linux",
    "ResourceType": "ManagedInstance",
    "Name": "branch-office",
    "IPAddress": "192.168.7.9",
}


def test_a_server_outside_of_ec2_is_listed_and_read_again(desk: AwsDesk) -> None:
    made = AwsInventory(WithHybrid(ACCOUNTS), ACCOUNTS, clock=desk.clock)
    made.refresh()
    (hybrid,) = made.find("branch-office")
    assert (hybrid.key, hybrid.problem) == ("other/eu-west-1/mi-0123456789abcdef0", "")
    assert list(made.search("192.168.7", 5)) == [hybrid]
    assert made.read_again([hybrid]) == {hybrid.key: hybrid}


def test_a_region_that_fails_keeps_its_former_servers_and_is_reported(desk: AwsDesk) -> None:
    desk.double.add_server("web-1")
    found = inventory(desk)
    desk.clock.forward(minutes=5)
    assert found.age() == timedelta(minutes=5)

    desk.double.add_server("web-2")
    desk.double.faults.fail("DescribeInstanceInformation", 400)
    went = found.refresh()
    assert any("does not let Passport's role call DescribeInstanceInformation in home" in it for it in went.problems)
    assert [server.name for server in found.search("web", 5)] == ["web-1"]
    assert found.age() == timedelta(minutes=5)

    desk.double.faults.clear()
    assert found.refresh().problems == ()
    assert [server.name for server in found.search("web", 5)] == ["web-1", "web-2"]
    assert found.age() == timedelta()


def test_calls_grow_with_pages_and_not_with_servers(desk: AwsDesk) -> None:
    found = inventory(desk)
    desk.double.calls.clear()
    found.refresh()
    empty = len(desk.double.calls)
    desk.servers(110)
    desk.double.calls.clear()
    assert found.refresh().servers == 110
    assert len(desk.double.calls) == empty + 2  # two more pages of fifty agents


def test_nothing_is_asked_of_aws_for_a_find_or_a_search(desk: AwsDesk) -> None:
    desk.double.add_server("web-1")
    found = inventory(desk)
    desk.double.calls.clear()
    found.find("web-1")
    found.search("web", 5)
    assert desk.double.calls == []


def test_reading_again_sees_a_changed_tag_that_memory_does_not_know(desk: AwsDesk) -> None:
    server: Server = desk.double.add_server("web-1", tags={"env": "prod"})
    found = inventory(desk)
    (pinned,) = found.find("web-1")
    desk.double.retag(server, {"env": "test"})

    current = found.read_again([pinned])[pinned.key]
    assert current.tags["env"] == "test"
    assert changed_tags(a_policy(), pinned, current) == "The tag env of web-1 changed from prod to test."
    assert found.find("web-1")[0].tags["env"] == "prod"


def test_reading_again_leaves_out_what_is_gone_and_asks_by_id(desk: AwsDesk) -> None:
    servers = [*desk.servers(3), desk.double.add_server("far", region=FAR), desk.double.add_server("x", account=OTHER)]
    desk.double.terminate(servers[0])
    desk.double.stop(servers[1])
    found = AwsInventory(desk.sessions, ACCOUNTS, clock=desk.clock)
    current = found.read_again([asked(server) for server in servers])
    assert [server.name for server in current.values()] == ["web-1", "web-2", "far", "x"]
    assert current[asked(servers[1]).key].problem == "web-1 is stopped. Start it, then ask again."
    asked_for = desk.calls("DescribeInstanceInformation")[0]["Filters"]
    assert asked_for == [{"Key": "InstanceIds", "Values": sorted(server.instance_id for server in servers[:3])}]


def test_reading_again_without_an_answer_is_unavailable(desk: AwsDesk) -> None:
    (server,) = desk.servers(1)
    desk.double.faults.fail("DescribeInstanceInformation", 400)
    with pytest.raises(UnavailableError, match="An admin must allow it"):
        inventory(desk).read_again([asked(server)])
