"""Commands beside `passport serve` on SQLite: they read what it writes, and take nothing away from it."""

import sqlite3
import subprocess
import sys
from pathlib import Path

from storage.migrations import check, migrate
from storage.unit_of_work import SqlStore
from tests.stores import SEALER

_READ = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM audit_events').close()"


def test_a_reader_that_leaves_does_not_delete_the_log_of_the_one_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "passport.db"
    migrate(f"sqlite:///{path}")
    store = SqlStore(f"sqlite:///{path}", sealing=SEALER)
    store.ping()
    check(f"sqlite:///{path}")  # as `passport serve` does at its start, with a connection of its own
    log = path.with_name("passport.db-wal")
    before = log.stat().st_ino

    subprocess.run([sys.executable, "-c", _READ, str(path)], check=True)

    assert log.exists(), "the reader took itself for the last one"
    assert log.stat().st_ino == before
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
