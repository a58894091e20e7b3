"""Passwords of grants in the database: sealed to their place, readable once asked for, gone with the grant."""

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import text

from access.errors import UnavailableError
from access.model import Grant, GrantState
from storage.errors import SealError
from storage.grant_keys import GrantKeys
from storage.sealing import Sealer
from storage.unit_of_work import SqlStore
from tests.values import a_person, a_request, a_server
from tests.windows_lab import OAEP

PASSWORD = "Aa2#Aa2#Aa2#Aa2#Aa2#Aa2#Aa2#"
GRANTS = [
    Grant(id=f"AR-7F3K.{number}", request_id="AR-7F3K", server=a_server(f"win-{number}", platform="windows"))
    for number in (1, 2)
]
IDS = [grant.id for grant in GRANTS]


def sealed_for(modulus: str) -> str:
    key = rsa.RSAPublicNumbers(e=65537, n=int.from_bytes(base64.b64decode(modulus))).public_key()
    return base64.b64encode(key.encrypt(PASSWORD.encode(), OAEP)).decode()


def columns(store: SqlStore) -> dict[str, tuple[str | None, str | None]]:
    with store.unit_of_work(read_only=True) as work:
        rows = work._connection.execute(text("SELECT grant_id, private_key, password FROM grant_passwords"))
        return {row.grant_id: (row.private_key, row.password) for row in rows}


@pytest.fixture
def kept(store: SqlStore) -> SqlStore:
    with store.unit_of_work() as work:
        work.people.save(a_person())
        work.requests.add(a_request())
        for grant in GRANTS:
            work.grants.add(grant)
        work.commit()
    return store


def test_a_grant_has_one_key_whatever_happens(kept: SqlStore) -> None:
    keys = GrantKeys(kept)
    first = keys(IDS[:1])
    both = keys(IDS)
    assert both[IDS[0]] == first[IDS[0]]
    assert both[IDS[0]] != both[IDS[1]]
    assert GrantKeys(kept)(IDS) == both  # after a restart


def test_a_password_comes_back_and_is_nowhere_readable(kept: SqlStore) -> None:
    modulus = GrantKeys(kept)(IDS)[IDS[0]]
    ciphertext = sealed_for(modulus)
    with kept.unit_of_work() as work:
        work.passwords.keep(IDS[0], ciphertext)
        work.commit()
    private_key, password = columns(kept)[IDS[0]]
    assert private_key is not None and private_key.startswith("v1:test:")
    assert password is not None and password.startswith("v1:test:") and ciphertext[:20] not in password
    with kept.unit_of_work(read_only=True) as work:
        assert work.passwords.reveal(IDS[0]) == PASSWORD
        with pytest.raises(UnavailableError, match="no password"):
            work.passwords.reveal(IDS[1])


def test_the_last_answer_counts(kept: SqlStore) -> None:
    modulus = GrantKeys(kept)(IDS)[IDS[0]]
    with kept.unit_of_work() as work:
        work.passwords.keep(IDS[0], base64.b64encode(bytes(256)).decode())
        work.passwords.keep(IDS[0], sealed_for(modulus))
        assert work.passwords.reveal(IDS[0]) == PASSWORD


def test_what_does_not_open_is_said(kept: SqlStore) -> None:
    keys = GrantKeys(kept)(IDS)
    with kept.unit_of_work() as work:
        work.passwords.keep(IDS[0], sealed_for(keys[IDS[1]]))  # to another grant's key
        with pytest.raises(UnavailableError, match="does not open"):
            work.passwords.reveal(IDS[0])


@pytest.mark.parametrize("column", ["private_key", "password"])
def test_a_value_moved_to_another_row_does_not_open(kept: SqlStore, column: str) -> None:
    keys = GrantKeys(kept)(IDS)
    with kept.unit_of_work() as work:
        for grant_id in IDS:
            work.passwords.keep(grant_id, sealed_for(keys[grant_id]))
        other = f"SELECT {column} FROM grant_passwords WHERE grant_id = '{IDS[1]}'"  # noqa: S608 - a test's own names
        moved = f"UPDATE grant_passwords SET {column} = ({other}) WHERE grant_id = '{IDS[0]}'"  # noqa: S608
        work._connection.execute(text(moved))
        with pytest.raises(SealError, match="does not open"):
            work.passwords.reveal(IDS[0])


def test_destroyed_is_destroyed(kept: SqlStore) -> None:
    keys = GrantKeys(kept)
    modulus = keys(IDS)[IDS[0]]
    with kept.unit_of_work() as work:
        work.passwords.keep(IDS[0], sealed_for(modulus))
        work.passwords.destroy(IDS[0])
        work.commit()
    assert columns(kept)[IDS[0]] == (None, None)
    with kept.unit_of_work() as work:
        with pytest.raises(UnavailableError):
            work.passwords.reveal(IDS[0])
        with pytest.raises(UnavailableError):
            work.passwords.keep(IDS[0], sealed_for(modulus))
    with pytest.raises(UnavailableError, match="being closed"):
        keys(IDS[:1])  # and no key is ever made anew
    assert columns(kept)[IDS[0]] == (None, None)


@pytest.mark.parametrize("state", [GrantState.REMOVING, GrantState.REMOVED, GrantState.ACTIVE])
def test_only_a_grant_that_is_being_opened_gets_a_key(kept: SqlStore, state: GrantState) -> None:
    with kept.unit_of_work() as work:
        work.grants.save(replace(GRANTS[0], state=state))
        work.commit()
    with pytest.raises(UnavailableError):
        GrantKeys(kept)(IDS[:1])
    assert columns(kept) == {}


def test_the_key_is_sealed_before_anybody_hears_of_it(kept: SqlStore) -> None:
    heard = GrantKeys(kept)(IDS)
    assert all(private_key for private_key, _ in columns(kept).values())
    assert len(heard) == 2


def test_rotation_seals_every_password_anew(kept: SqlStore, database_url: str) -> None:
    modulus = GrantKeys(kept)(IDS[:1])[IDS[0]]
    with kept.unit_of_work() as work:
        work.passwords.keep(IDS[0], sealed_for(modulus))
        work.commit()
    kept.close()
    for keys, changed in (([("new", bytes(32)), ("test", bytes(range(32)))], 1), ([("new", bytes(32))], 0)):
        store = SqlStore(database_url, sealing=Sealer(keys))
        with store.unit_of_work() as work:
            assert work.sealed_passwords.reseal() == changed
            assert work.passwords.reveal(IDS[0]) == PASSWORD
            work.commit()
        store.close()
