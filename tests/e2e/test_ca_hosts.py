"""The certificate authority's keys on real servers of every kind: who gets in with which key while they change."""

import subprocess
from collections.abc import Iterator

import pytest

from provisioning.framing import Created
from sandbox.hosts import HostFleet, HostWish
from tests.e2e.scripts_lab import Keys, Lab, make_keys, on_every_host

pytestmark = pytest.mark.hosts

WISHES = (
    HostWish(name="systemd", init="systemd"),
    HostWish(name="no-pam", init="cron", use_pam=False),
    HostWish(name="no-include", init="systemd", include=False),
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Keys, Keys]:
    """Two authorities that certify the same person."""
    old, new = (make_keys(tmp_path_factory.mktemp(name)) for name in ("old", "new"))
    for name in ("person", "person.pub"):
        (new.folder / "alone" / name).write_bytes((old.folder / "alone" / name).read_bytes())
    return old, new


@pytest.fixture(scope="module")
def labs(both: tuple[Keys, Keys]) -> Iterator[dict[str, Lab]]:
    with HostFleet() as fleet:
        yield {host.name: Lab(host=host, keys=both[0]) for host in fleet.boot_all(WISHES)}


def fingerprint(keys: Keys) -> str:
    said = subprocess.run(
        ["ssh-keygen", "-l", "-f", keys.folder / "ca.pub"], capture_output=True, text=True, check=True
    )
    return said.stdout.split()[1]


@on_every_host
def test_who_was_there_before_and_who_comes_during_a_rotation_both_keep_working(
    lab: Lab, both: tuple[Keys, Keys]
) -> None:
    old, new = both
    pair = f"{old.authority},{new.authority}"

    def gets_in(created: Created, keys: Keys) -> bool:
        code = lab.login(created, "true", certificate=keys.certify(created.user_name)).returncode
        assert code in {0, 255}
        return code == 0

    first = lab.created("AR-AAAA", CaPublicKey=old.authority)
    assert first.authorities == (fingerprint(old),)
    assert gets_in(first, old)
    assert not gets_in(first, new)

    second = lab.created("AR-BBBB", CaPublicKey=pair, CaGeneration="2")
    assert second.authorities == (fingerprint(old), fingerprint(new))
    for created in (first, second):
        assert gets_in(created, old)
        assert gets_in(created, new)

    # A command from before the rotation that arrives now takes nothing away, and says what is trusted.
    late = lab.created("AR-CCCC", CaPublicKey=old.authority, CaGeneration="1")
    assert late.authorities == second.authorities
    assert gets_in(late, new)

    lab.removed("AR-AAAA")
    assert gets_in(second, new)

    third = lab.created("AR-DDDD", CaPublicKey=new.authority, CaGeneration="3")
    assert third.authorities == (fingerprint(new),)
    for created in (second, third):
        assert gets_in(created, new)
        assert not gets_in(created, old)

    # Nor does one bring the old key back.
    again = lab.created("AR-EEEE", CaPublicKey=pair, CaGeneration="2")
    assert again.authorities == (fingerprint(new),)
    assert not gets_in(again, old)

    for request_id in ("AR-BBBB", "AR-CCCC", "AR-DDDD", "AR-EEEE"):
        lab.removed(request_id)
    assert lab.sh("cat /etc/ssh/passport/ca.pub 2>/dev/null || echo gone") == "gone\n"
    # With the last user everything is forgotten, so that another Passport, or a restored one, can begin anew.
    fresh = lab.created("AR-FFFF", CaPublicKey=old.authority, CaGeneration="1")
    assert gets_in(fresh, old)
    lab.removed("AR-FFFF")


@on_every_host
def test_a_server_with_keys_from_before_generations_takes_the_new_ones(lab: Lab, both: tuple[Keys, Keys]) -> None:
    old, new = both
    lab.created("AR-GGGG", CaPublicKey=old.authority)
    lab.sh("sed -i '/^#/d' /etc/ssh/passport/ca.pub")
    assert lab.created("AR-HHHH", CaPublicKey=new.authority, CaGeneration="1").authorities == (fingerprint(new),)
    for request_id in ("AR-GGGG", "AR-HHHH"):
        lab.removed(request_id)
