"""Attacks on availability: a region that hangs or talks nonsense hides no server of another one."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from provisioning.aws_errors import AwsError
from provisioning.instances import read_instances
from provisioning.inventory import AwsInventory
from tests.integration.aws_desk import ACCOUNTS, FAR, AwsDesk, aws_desk


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsDesk]:
    with aws_desk(monkeypatch) as made:
        yield made


@pytest.mark.parametrize("trouble", [AwsError("no answer", code="x", retryable=True), KeyError("State")])
def test_a_bad_region_hides_no_other(desk: AwsDesk, monkeypatch: pytest.MonkeyPatch, trouble: Exception) -> None:
    desk.double.add_server("web-1")
    found = AwsInventory(desk.sessions, ACCOUNTS, clock=desk.clock)
    seen_while_it_hangs: list[int] = []

    def bad(sessions: Any, account: str, region: str, *ids: Any) -> Any:
        if region == FAR:
            until = time.monotonic() + 20
            while not found.search("web-1", 1) and time.monotonic() < until:
                time.sleep(0.01)
            seen_while_it_hangs.append(len(found.search("web-1", 1)))
            raise trouble
        return read_instances(sessions, account, region, *ids)

    monkeypatch.setattr("provisioning.inventory.read_instances", bad)
    refreshed = found.refresh()
    assert seen_while_it_hangs == [1], "the servers of a region are there as soon as it has been read"
    assert (refreshed.servers, len(refreshed.problems)) == (1, 1)
    assert found.has_listed
    assert found.age() is None


def test_nothing_read_is_nothing_listed(desk: AwsDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(*_: Any) -> Any:
        raise AwsError("no answer", code="x", retryable=True)

    monkeypatch.setattr("provisioning.inventory.read_instances", bad)
    found = AwsInventory(desk.sessions, ACCOUNTS, clock=desk.clock)
    found.refresh()
    assert not found.has_listed
