"""Attacks on the scripts: on a disk that takes no tombstone, a removal must not call itself proven."""

from collections.abc import Iterator

import pytest

from provisioning.framing import Removed
from provisioning.refusals import RefusalCode, Refused
from sandbox.hosts import HostFleet
from tests.e2e.scripts_lab import Lab, make_keys

pytestmark = pytest.mark.hosts


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with HostFleet() as fleet:
        lab = Lab(host=fleet.boot("attacked", init="cron"), keys=make_keys(tmp_path_factory.mktemp("keys")))
        lab.created("AR-FRST")
        lab.removed("AR-FRST")
        yield lab


def test_a_remove_that_overtakes_its_create_on_a_full_disk_goes_on(lab: Lab) -> None:
    with lab.host.fill_disk():
        answer = lab.remove("AR-LATE")
        assert isinstance(answer, Refused), "it left no tombstone, so the create that comes late would be obeyed"
        assert (answer.code, answer.retryable) == (RefusalCode.DISK_FULL, True)
    assert isinstance(lab.remove("AR-LATE"), Removed)
    late = lab.create("AR-LATE")
    assert isinstance(late, Refused)
    assert late.code is RefusalCode.TOMBSTONE


def test_a_person_who_fills_the_disk_gets_no_second_life(lab: Lab) -> None:
    created = lab.created("AR-FULL")
    lab.login(created, "head -c 1000000 /dev/urandom > ~/some")
    with lab.host.fill_disk():
        answer = lab.remove("AR-FULL")
    if isinstance(answer, Refused):
        lab.removed("AR-FULL")
    again = lab.create("AR-FULL")
    assert isinstance(again, Refused), "the command came twice, and the second one was obeyed after the end"
    assert again.code is RefusalCode.TOMBSTONE
    assert lab.leftovers(created) == []
