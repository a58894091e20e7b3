"""The inventory against EC2 and Systems Manager of two accounts."""

import gc
import re
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from access.errors import UnavailableError
from access.policy import changed_tags, decide_submission
from provisioning.aws import AwsAccount, Service, Sessions
from provisioning.inventory import AwsInventory
from sandbox.aws import Server
from sandbox.aws.faults import Faults
from tests.fleet import FleetPages
from tests.integration.aws_desk import ACCOUNTS, FAR, OTHER, REGION, AwsDesk, asked, aws_desk
from tests.values import NOW, a_person, a_policy

PLACES = [(account.name, region) for account in ACCOUNTS for region in account.regions]


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


def test_what_is_not_found_before_everything_was_listed_is_not_said_to_be_missing(desk: AwsDesk) -> None:
    desk.double.add_server("web-1")
    found = AwsInventory(desk.sessions, ACCOUNTS, clock=desk.clock)
    assert found.search("web", 5) == []
    with pytest.raises(UnavailableError, match=r"^The servers have not been listed yet"):
        found.find("web-1")
    desk.double.faults.fail("DescribeInstanceInformation", 403, times=len(PLACES) - 1)
    found.refresh()
    for words in ("wbe-1", "i-00000000000000bad", "tag:env=prod"):
        with pytest.raises(UnavailableError, match=r"^Not all servers have been listed yet"):
            found.find(words)
    found.refresh()
    assert (len(found.find("web-1")), found.find("wbe-1")) == (1, [])
    desk.double.faults.fail("DescribeInstanceInformation")
    assert found.refresh().problems
    assert found.find("wbe-1") == []  # all were listed once


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
    desk.double.add_server("old-win", platform="Windows", agent_version="2.3.671.9")
    desk.double.stop(stopped)
    desk.double.terminate(gone)
    found = inventory(desk)

    def problem(words: str) -> str:
        (server,) = found.find(words)
        return server.problem

    assert problem("stopped") == "stopped is stopped. Start it, then ask again."
    assert problem("bare") == (
        "bare is not known to Systems Manager: it has no instance profile. "
        "Attach one with AmazonSSMManagedInstanceCore, then ask again."
    )
    assert re.fullmatch(
        r"silent does not answer: its SSM agent was last seen at \d{4}-\d\d-\d\d \d\d:\d\d UTC\. .*", problem("silent")
    )
    assert problem("old").startswith("old's SSM agent 2.3.671.9 is too old; I need 2.3.672.0 or later.")
    assert problem("edge") == ""
    assert problem("old-win").startswith("old-win's SSM agent 2.3.671.9 is too old; I need 2.3.672.0 or later.")
    assert problem("win") == ""
    assert found.find("win")[0].is_windows
    assert problem(gone.instance_id) == "gone is terminated."
    assert found.find("gone") == []
    assert found.search("gone", 5) == []


def test_a_server_with_a_profile_whose_agent_never_reported_needs_the_agent(desk: AwsDesk) -> None:
    found = AwsInventory(WithProfiles(ACCOUNTS), ACCOUNTS, clock=desk.clock)
    desk.double.add_server("bare", registered=False)
    found.refresh()
    assert found.find("bare")[0].problem == (
        "bare is not known to Systems Manager. It needs a running SSM agent, "
        "and AmazonSSMManagedInstanceCore in its instance profile."
    )


class WithProfiles(Sessions):
    """As if every instance had an instance profile."""

    def pages(
        self, account: str, region: str, service: Service, operation: str, parameters: Mapping[str, Any], /, **how: Any
    ) -> Iterator[dict[str, Any]]:
        for page in super().pages(account, region, service, operation, parameters, **how):
            for reservation in page.get("Reservations", []):
                for instance in reservation["Instances"]:
                    instance["IamInstanceProfile"] = {"Arn": "arn:aws:iam::111111111111:instance-profile/web"}
            yield page


DIRECTORY = frozenset({"AD-Domain-Services", "DNS"})


def test_domain_controllers_are_refused_with_what_to_do(desk: AwsDesk) -> None:
    desk.double.add_server("dc-1", platform="Windows", roles=DIRECTORY)
    desk.double.add_server("win-1", platform="Windows", roles=frozenset({"Web-Server"}))
    desk.double.add_server("win-2", platform="Windows")  # where nothing is gathered nothing is known
    desk.double.add_server("web-1")
    found = inventory(desk)
    (controller,) = found.find("dc-1")
    assert controller.problem == (
        "dc-1 is a domain controller: every user on it is a user of the whole domain, so I make none there. "
        "Ask for another server, or go by the domain's own ways."
    )
    decision = decide_submission(a_policy(), a_person(), [controller], timedelta(hours=1))
    assert (decision.allowed, decision.reason) == (False, controller.problem)
    assert not any("domain controller" in found.find(name)[0].problem for name in ("win-1", "win-2", "web-1"))


def test_who_is_a_domain_controller_is_asked_by_page_and_only_where_windows_runs(desk: AwsDesk) -> None:
    for number in range(51):
        desk.double.add_server(f"win-{number}", platform="Windows", roles=frozenset())
    desk.double.add_server("far", region=FAR)
    inventory(desk)
    assert [(call.region, call.operation) for call in desk.double.calls if call.operation == "GetInventory"] == [
        ("eu-west-1", "GetInventory")
    ] * 2


def test_when_the_roles_cannot_be_read_what_was_known_of_them_stays(desk: AwsDesk) -> None:
    desk.double.add_server("dc-1", platform="Windows", roles=DIRECTORY)
    found = inventory(desk)
    desk.double.faults.fail("GetInventory", 400)
    assert found.refresh().problems == ()
    assert "is a domain controller" in found.find("dc-1")[0].problem


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


@pytest.mark.parametrize(
    ("fail", "sentence"),
    [
        (
            lambda faults: faults.fail("DescribeInstanceInformation", 400),
            "AWS does not let Passport's role call DescribeInstanceInformation in home",
        ),
        (lambda faults: faults.throttle("DescribeInstances"), "AWS asks me to go slower in home eu-west-1."),
        (
            lambda faults: faults.fail("DescribeInstances"),
            "AWS has trouble of its own in home eu-west-1 (InternalError).",
        ),
    ],
)
def test_a_region_that_fails_keeps_its_former_servers_and_is_reported(
    desk: AwsDesk, fail: Callable[[Faults], None], sentence: str
) -> None:
    desk.double.add_server("web-1")
    found = inventory(desk)
    desk.clock.forward(minutes=5)
    assert found.age() == timedelta(minutes=5)

    desk.double.add_server("web-2")
    fail(desk.double.faults)
    went = found.refresh()
    assert any(sentence in it for it in went.problems)
    assert [server.name for server in found.search("web", 5)] == ["web-1"]
    assert found.age() == timedelta(minutes=5)

    desk.double.faults.clear()
    assert found.refresh().problems == ()
    assert [server.name for server in found.search("web", 5)] == ["web-1", "web-2"]
    assert found.age() == timedelta()


def test_a_region_that_hangs_does_not_delay_the_others(desk: AwsDesk) -> None:
    """One thread waits for the dead region; what the others list is found before it answers."""
    desk.double.add_server("web-1")
    desk.double.add_server("far", region=FAR)
    desk.double.add_server("x", account=OTHER)
    sessions = Hanging(ACCOUNTS)
    made = AwsInventory(sessions, ACCOUNTS, clock=desk.clock)
    refreshing = threading.Thread(target=made.refresh)
    refreshing.start()
    try:
        assert sessions.hangs.wait(20)
        until = time.monotonic() + 20
        while not (made.search("far", 1) and made.search("x", 1)):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert made.search("web-1", 1) == []
        assert refreshing.is_alive()
    finally:
        sessions.goes_on.set()
        refreshing.join()
    assert len(made.find("web-1")) == 1


class Hanging(Sessions):
    """The first region says nothing until it is told to go on."""

    def __init__(self, accounts: Sequence[AwsAccount]) -> None:
        super().__init__(accounts)
        self.hangs, self.goes_on = threading.Event(), threading.Event()

    def pages(
        self, account: str, region: str, service: Service, operation: str, parameters: Mapping[str, Any], /, **how: Any
    ) -> Iterator[dict[str, Any]]:
        if (account, region) == ("home", "eu-west-1"):
            self.hangs.set()
            assert self.goes_on.wait(60)
        yield from super().pages(account, region, service, operation, parameters, **how)


def test_the_best_of_all_regions_come_first_and_one_name_in_several_is_told_apart(desk: AwsDesk) -> None:
    desk.double.add_server("web-2")
    desk.double.add_server("web-1", region=FAR)
    desk.double.add_server("web-3", account=OTHER)
    desk.double.add_server("web", account=OTHER)
    found = inventory(desk)
    assert [server.name for server in found.search("web", 3)] == ["web", "web-1", "web-2"]
    desk.double.add_server("web", region=FAR)
    found.refresh()
    assert [(server.account, server.region) for server in found.find("web")] == [("home", FAR), ("other", REGION)]


def test_every_address_of_every_interface_is_searched(desk: AwsDesk) -> None:
    sessions = FleetPages(300)
    found = AwsInventory(sessions, tuple(sessions.accounts.values()), clock=desk.clock)
    found.refresh()
    for address in ("10.0.1.43", "10.1.1.43", "2001:db8::0:12b", "2001:db8::1:12b", "198.51.1.43"):
        assert [server.name for server in found.search(address, 5)] == ["edge-api-00299.prod.example.com"], address


def test_an_agents_version_is_known(desk: AwsDesk) -> None:
    desk.double.add_server("web-1", agent_version="3.1.1374.0")
    assert inventory(desk).find("web-1")[0].agent_version == "3.1.1374.0"


def test_a_server_of_ten_thousand_takes_less_than_3_kb_and_a_search_looks_at_memory_only(desk: AwsDesk) -> None:
    sessions = FleetPages(10_000)
    made = AwsInventory(sessions, tuple(sessions.accounts.values()), clock=desk.clock)
    gc.collect()
    tracemalloc.start()
    try:
        made.refresh()
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / 10_000 < 3_000
    assert Counter(sessions.asked) == {"describe_instances": 10, "describe_instance_information": 200}
    assert len(made.search("payments", 100)) == 100
    assert len(made.find("tag:team=edge")) == 2_000


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
