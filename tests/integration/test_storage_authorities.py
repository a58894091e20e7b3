"""The certificate authority's keys in the database: one of each role, whoever is quicker."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from access.audit import Kind
from access.authorities import Authority, AuthorityRole
from access.errors import NotFoundError
from bot.authority import AuthorityKeys, establish
from bot.ca_files import KeyFiles
from bot.settings import Settings, SettingsError
from provisioning.ssh_ca import SshCertificateAuthority
from storage.unit_of_work import SqlStore
from tests.authorities import an_authority
from tests.stores import SEALER, run_together
from tests.values import FakeClock

A, B, C = (an_authority(SshCertificateAuthority.generate()) for _ in range(3))
NEXT, RETIRED = AuthorityRole.NEXT, AuthorityRole.RETIRED


def add(store: SqlStore, authority: Authority) -> bool:
    with store.unit_of_work() as uow:
        added = uow.authorities.add(authority)
        uow.commit()
    return added


def on_record(store: SqlStore) -> list[Authority]:
    with store.unit_of_work(read_only=True) as uow:
        return list(uow.authorities.all())


def test_a_role_is_given_once_and_any_number_of_keys_are_retired(store: SqlStore) -> None:
    assert add(store, A)
    assert not add(store, B)
    assert not add(store, A)
    assert add(store, replace(B, role=NEXT))
    assert not add(store, replace(C, role=NEXT))
    with store.unit_of_work() as uow:
        uow.authorities.save(replace(A, role=RETIRED, generation=2))
        uow.authorities.save(replace(B, role=RETIRED, generation=2))
        uow.authorities.save(replace(B, role=AuthorityRole.CURRENT, generation=3))
        assert {found.role for found in uow.authorities.all(lock=True)} == {RETIRED, AuthorityRole.CURRENT}
        with pytest.raises(NotFoundError):
            uow.authorities.save(C)
        uow.commit()
    assert {found.fingerprint: found for found in on_record(store)} == {
        A.fingerprint: replace(A, role=RETIRED, generation=2),
        B.fingerprint: replace(B, generation=3),
    }


@pytest.mark.postgres
def test_of_two_replicas_at_the_same_moment_one_gives_the_role(postgres_store: SqlStore) -> None:
    assert sorted(run_together(*[lambda key=key: add(postgres_store, key) for key in (A, B, C)])) == [
        False,
        False,
        True,
    ]  # type: ignore[misc]


def keys_in(folder: Path) -> AuthorityKeys:
    return AuthorityKeys(Settings.model_construct(ca_key_file=folder / "ca.sealed"), SEALER)


def test_the_first_start_makes_a_key_and_later_ones_find_it(store: SqlStore, tmp_path: Path) -> None:
    for _ in range(2):
        establish(store, keys_in(tmp_path), clock=FakeClock())
    (found,) = on_record(store)
    assert keys_in(tmp_path).find(found).public_key == found.public_key
    assert (tmp_path / "ca.sealed").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".ca", "ca"))] == ["ca.sealed"]
    with store.unit_of_work() as uow:
        assert [(event.event.kind, event.event.details["key"]) for event in uow.audit.all()] == [
            (Kind.AUTHORITY_MADE, found.fingerprint)
        ]


@pytest.mark.postgres
def test_replicas_that_start_for_the_first_time_at_once_agree(
    postgres_url: str, open_store: Callable[[str], SqlStore], tmp_path: Path
) -> None:
    stores = [open_store(postgres_url) for _ in range(4)]
    run_together(*[lambda each=each: establish(each, keys_in(tmp_path), clock=FakeClock()) for each in stores])  # type: ignore[misc]
    (found,) = on_record(stores[0])
    assert KeyFiles(tmp_path / "ca.sealed", SEALER).first().fingerprint == found.fingerprint


def test_a_replica_without_the_key_file_does_not_start(sqlite_store: SqlStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    establish(sqlite_store, keys_in(tmp_path / "one"), clock=FakeClock())
    with pytest.raises(SettingsError, match=r"is not on this machine. An admin copies .*ca.sealed"):
        establish(sqlite_store, keys_in(tmp_path / "two"), clock=FakeClock())


def test_a_sealed_file_is_never_put_in_anothers_place(tmp_path: Path) -> None:
    path = tmp_path / "ca.sealed"
    SEALER.seal_file(path, b"first", purpose="ssh-ca", replace=False)
    with pytest.raises(FileExistsError):
        SEALER.seal_file(path, b"second", purpose="ssh-ca", replace=False)
    assert SEALER.open_file(path, purpose="ssh-ca") == b"first"
    assert list(tmp_path.iterdir()) == [path]
