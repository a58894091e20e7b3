"""A database that fails as databases do: servers of one's own, disks that fill up, a wire that is cut."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from storage.migrations import migrate
from tests.postgres import PostgresServer

Moment = Literal["before", "after"]


@contextmanager
def own_postgres(folder: Path | None = None, **settings: str) -> Iterator[tuple[PostgresServer, str]]:
    """A server that a test may stop and break, and the URL of its migrated database."""
    former = tempfile.tempdir
    tempfile.tempdir = str(folder) if folder else None
    try:
        server = PostgresServer(**settings)
    finally:
        tempfile.tempdir = former
    try:
        server.start()
        url = server.url(server.create_database())
        migrate(url)
        yield server, url
    finally:
        server.remove()


def crash(server: PostgresServer) -> None:
    """End it as the kernel would: no checkpoint, every connection cut; the next start recovers from its log."""
    assert server._process is not None
    server._process.send_signal(signal.SIGQUIT)
    server._process.wait(timeout=30)
    server._process = None


class Disk:
    """A small disk of its own, mounted for one test; needs root."""

    def __init__(self, folder: Path, *, megabytes: int) -> None:
        self.folder = folder
        self._megabytes = megabytes
        self._ballast = folder / "ballast"

    def __enter__(self) -> Self:
        self.folder.mkdir()
        size = f"size={self._megabytes}m,mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "passport-test", self.folder], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def fill(self, *, but: int = 0) -> None:
        """Leave so many bytes, and not one more."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 20, 4096, 1):
                while _wrote(ballast.fileno(), size):
                    pass
            ballast.truncate(ballast.tell() - but)

    def clear(self) -> None:
        """Have room again."""
        self._ballast.unlink()


def _wrote(file: int, size: int) -> bool:
    try:
        return os.write(file, bytes(size)) == size
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017 - not what is tested
        return False


class Wire:
    """Carries PostgreSQL's protocol; told to, it breaks once, at a commit.

    ``before``: the commit never reaches the server. ``after``: it does, and the answer is lost.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.url = url.replace(f":{parts.port}/", f":{self._port}/")
        self._cut: Moment | None = None
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def cut_next_commit(self, moment: Moment) -> None:
        """Break at the next commit of any connection."""
        self._cut = moment

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    if self._cut and b"COMMIT\0" in data:
                        self._break(data, client, server)
                        break
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)
            back.join()

    def _break(self, data: bytes, client: socket.socket, server: socket.socket) -> None:
        moment, self._cut = self._cut, None
        self.cuts += 1
        client.shutdown(socket.SHUT_RDWR)
        if moment == "after":
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)  # it reads what came, carries that out, and finds nobody to tell


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
