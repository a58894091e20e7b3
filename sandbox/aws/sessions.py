"""Session Manager: sessions, and the loopback relay that stands for their data channel."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from sandbox.aws.errors import AwsError
from sandbox.aws.nodes import Server
from sandbox.hosts.relay import join_sockets

OPENS_WITHIN = 60.0


@dataclass(kw_only=True, slots=True, eq=False)
class Session:
    """A session from StartSession until its end."""

    id: str
    server: Server
    account: str
    region: str
    owner: str
    document: str
    port: int
    reason: str
    token: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(48))
    started_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    sockets: list[socket.socket] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        """The Session shape."""
        answer: dict[str, Any] = {
            "SessionId": self.id,
            "Target": self.server.instance_id,
            "Status": "Terminated" if self.ended_at else "Connected",
            "StartDate": self.started_at,
            "DocumentName": self.document,
            "Owner": self.owner,
            "Reason": self.reason,
            "Details": "",
            "OutputUrl": {},
            "MaxSessionDuration": "",
            "AccessType": "Standard",
        }
        if self.ended_at:
            answer["EndDate"] = self.ended_at
        return answer


class Sessions:
    """All sessions, and the listener that carries their bytes.

    A stream begins with a line: the session id, a blank, the token. A wrong one is hung up on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.all: dict[str, Session] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def start(
        self, *, server: Server, account: str, region: str, owner: str, document: str, port: int, reason: str
    ) -> Session:
        """Begin a session."""
        name = owner.rpartition("/")[2]
        session = Session(
            id=f"{name}-{secrets.token_hex(9)[:17]}",
            server=server,
            account=account,
            region=region,
            owner=owner,
            document=document,
            port=port,
            reason=reason,
        )
        with self._lock:
            self.all[session.id] = session
        return session

    def stream_url(self, session: Session) -> str:
        """Where the session's bytes go: the sandbox's own kind of address, not a web socket."""
        return f"tcp://127.0.0.1:{self.port}/{session.id}"

    def end(self, session: Session) -> None:
        """End a session and its live connections."""
        with self._lock:
            session.ended_at = session.ended_at or time.time()
            sockets = list(session.sockets)
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def end_all(self, server: Server | None = None) -> None:
        """End the sessions of a server, or all."""
        for session in list(self.all.values()):
            if server is None or session.server is server:
                self.end(session)

    def close(self) -> None:
        """End everything and listen no more."""
        self.end_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._carry, args=(caller,), daemon=True).start()

    def _carry(self, caller: socket.socket) -> None:
        session = None
        try:
            session = self._admitted(caller)
            inside = session.server.host.dial(session.port) if session.server.host else None
        except Exception:
            inside = None
        if session is None or inside is None:
            caller.close()
            if session is not None:
                self.end(session)
            return
        with self._lock:
            session.sockets += [caller, inside]
            ended = session.ended_at is not None
        if ended:
            caller.shutdown(socket.SHUT_RDWR)
        join_sockets(caller, inside)
        self.end(session)

    def _admitted(self, caller: socket.socket) -> Session:
        caller.settimeout(OPENS_WITHIN)
        line = b""
        while not line.endswith(b"\n") and len(line) < 512:
            piece = caller.recv(1)
            if not piece:
                raise AwsError("InternalServerError", "hung up")
            line += piece
        name, _, token = line.decode().strip().partition(" ")
        session = self.all.get(name)
        if session is None or session.ended_at or not secrets.compare_digest(token, session.token):
            raise AwsError("AccessDeniedException", "this stream is not open")
        caller.settimeout(None)
        return session
