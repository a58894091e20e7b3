"""One process a name: a second is refused, a dead one's is free at once, and a cut connection costs nobody theirs."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from storage.errors import StoreBusyError
from storage.unit_of_work import SqlStore
from tests.postgres import PostgresServer

pytestmark = pytest.mark.postgres
TAKE = """
import sys
from storage.unit_of_work import SqlStore
from tests.stores import SEALER
SqlStore(sys.argv[1], sealing=SEALER).take_name("alpha")
print("taken", flush=True)
sys.stdin.read()
"""


def test_a_name_is_of_one_process_and_free_as_soon_as_that_is_dead(
    postgres_url: str, open_store: Callable[[str], SqlStore]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TAKE, postgres_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        with pytest.raises(StoreBusyError, match=r"is called alpha, .* its own name in the setting instance"):
            open_store(postgres_url).take_name("alpha")
        open_store(postgres_url).take_name("beta")
        process.kill()
        open_store(postgres_url).take_name("alpha")


def test_a_store_that_is_closed_lets_go_of_its_name(postgres_url: str, open_store: Callable[[str], SqlStore]) -> None:
    first = open_store(postgres_url)
    first.take_name("alpha")
    first.close()
    open_store(postgres_url).take_name("alpha")


def test_a_name_is_taken_again_after_the_connection_was_cut(
    postgres_server: PostgresServer, postgres_url: str, open_store: Callable[[str], SqlStore]
) -> None:
    first, second = open_store(postgres_url), open_store(postgres_url)
    first.take_name("alpha")
    first.keep_name()
    postgres_server.cut_connections(postgres_url.rpartition("/")[2])
    first.keep_name()
    with pytest.raises(StoreBusyError):
        second.take_name("alpha")
    postgres_server.cut_connections(postgres_url.rpartition("/")[2])
    second.take_name("alpha")  # a misfortune: it was faster
    with pytest.raises(StoreBusyError):
        first.keep_name()
    second.close()
    first.keep_name()


def test_on_sqlite_there_is_one_process_anyway(sqlite_store: SqlStore) -> None:
    sqlite_store.take_name("alpha")
    sqlite_store.keep_name()
