"""A real PostgreSQL, started once per test session; every test that asks gets a database of its own."""

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from storage.migrations import migrate

_PR_SET_PDEATHSIG = 1
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "fsync": "off",  # what a power cut leaves is not tested
    "log_min_messages": "fatal",
}


class PostgresServer:
    """A private server on loopback, with a password of its own; it dies with the tests."""

    def __init__(self, **settings: str) -> None:
        self._settings = {**_SETTINGS, **settings}
        self._binaries = _binaries()
        user = _unprivileged_user()
        self._uid = user and user.pw_uid
        self._gid = user and user.pw_gid
        self._groups: list[int] | None = [] if user else None
        self._folder = Path(tempfile.mkdtemp(prefix="passport-postgres-"))
        self._password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.port = _free_port()
        self._make_cluster()

    def start(self) -> None:
        """Start and wait until it answers."""
        settings = {**self._settings, "port": str(self.port), "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._folder / "cluster", *options],
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509
                user=self._uid,
                group=self._gid,
                extra_groups=self._groups,
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Cut every connection and stop."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=30)
            self._process = None

    def remove(self) -> None:
        """Stop and leave nothing."""
        self.stop()
        shutil.rmtree(self._folder)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """A plain connection, in autocommit mode."""
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    def create_database(self, *, template: str = "template1") -> str:
        """A new database; answers its name."""
        self._databases += 1
        name = f"test_{self._databases}"
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
        return name

    def drop_database(self, name: str) -> None:
        """Remove the database, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())

    def cut_connections(self, database: str) -> int:
        """Terminate every connection to the database; says how many there were."""
        with self.connect() as connection:
            cut = connection.execute(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = %s", [database]
            ).fetchone()
        assert cut is not None
        assert isinstance(cut[0], int)
        return cut[0]

    def wait_for_waiters(self, url: str, *, waiters: int = 1) -> None:
        """Return once so many connections to the database wait for another's lock."""
        with self.connect(url.rpartition("/")[2]) as connection:
            for _ in range(1000):
                waiting = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                ).fetchone()
                if waiting == (waiters,):
                    return
                time.sleep(0.01)
        raise AssertionError(f"no {waiters} connections wait for a lock")

    def _make_cluster(self) -> None:
        password = self._folder / "password"
        password.write_text(self._password)
        if self._uid is not None and self._gid is not None:
            for path in (self._folder, password):
                os.chown(path, self._uid, self._gid)
        options = ["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password}"]
        subprocess.run(
            [self._binaries / "initdb", "-D", self._folder / "cluster", "--no-sync", *options],
            check=True,
            capture_output=True,
            cwd=self._folder,
            user=self._uid,
            group=self._gid,
            extra_groups=self._groups,
        )

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        for _ in range(600):
            if self._process.poll() is not None:
                raise RuntimeError("PostgreSQL ended at once:\n" + (self._folder / "log").read_text()[-2000:])
            try:
                self.connect().close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError("PostgreSQL does not answer:\n" + (self._folder / "log").read_text()[-2000:])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's server."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the newest schema, to be copied."""
    name = postgres_server.create_database()
    migrate(postgres_server.url(name))
    return name


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database without tables."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated database."""
    name = postgres_server.create_database(template=postgres_template)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


def _binaries() -> Path:
    found = [Path(path).parent for path in (shutil.which("initdb"), shutil.which("postgres")) if path]
    if shutil.which("pg_config"):
        told = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
        found.append(Path(told.stdout.strip()))
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    found += sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
    for folder in found:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError("There is no PostgreSQL server on this machine: install the package `postgresql`.")


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Whom to be instead of root, as whom PostgreSQL refuses to run."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody.")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
