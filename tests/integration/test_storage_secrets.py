"""Secrets in the database: sealed to their row."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from storage.errors import SealError
from storage.sealing import Sealer
from storage.unit_of_work import SqlStore


def test_a_secret_comes_back_and_is_nowhere_readable(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.secrets.put("ca", b"first")
        work.secrets.put("ca", b"the key")
        work.commit()

    with store.unit_of_work(read_only=True) as work:
        kept = work._connection.execute(text("SELECT value FROM sealed_secrets")).scalars().all()
        assert len(kept) == 1
        assert kept[0].startswith("v1:test:")
        assert "the key" not in kept[0]
        assert work.secrets.get("ca") == b"the key"
        assert work.secrets.get("none") is None


def test_a_secret_copied_to_another_row_does_not_open(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.secrets.put("ca", b"the key")
        work._connection.execute(text("INSERT INTO sealed_secrets SELECT 'other', value FROM sealed_secrets"))
        assert work.secrets.get("ca") == b"the key"
        with pytest.raises(SealError, match=r"sealed_secrets.value of other does not open"):
            work.secrets.get("other")


def test_rotation_seals_every_secret_anew(database_url: str, open_store: Callable[[str], SqlStore]) -> None:
    old = open_store(database_url)
    with old.unit_of_work() as work:
        work.secrets.put("ca", b"the key")
        work.secrets.put("token", b"the token")
        work.commit()
    old.close()

    for keys, changed in (([("new", bytes(32)), ("test", bytes(range(32)))], 2), ([("new", bytes(32))], 0)):
        store = SqlStore(database_url, sealing=Sealer(keys))
        with store.unit_of_work() as work:
            assert work.secrets.reseal() == changed
            assert (work.secrets.get("ca"), work.secrets.get("token")) == (b"the key", b"the token")
            work.commit()
        store.close()
