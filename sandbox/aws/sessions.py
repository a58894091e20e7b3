"""Session Manager's sessions: from StartSession until the host hangs up, someone ends them, or nobody speaks."""

from __future__ import annotations

import base64
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from sandbox.aws.agent_end import AgentEnd
from sandbox.aws.channel_server import ChannelServer, RefusedError
from sandbox.aws.faults import Faults
from sandbox.aws.nodes import Server
from sandbox.data_channel.streams import RESEND_EVERY

# The token "is valid only long enough to ensure the connection is successful", page StartSession.
TOKEN_SECONDS = 60.0
IDLE_SECONDS = 20 * 60.0  # "Specify an idle session timeout value": 20 minutes unless configured
IDLE = "Your session timed out due to inactivity."


@dataclass(kw_only=True, slots=True, eq=False)
class Session:
    """A session from StartSession until its end; `faults.now` is the clock."""

    id: str
    server: Server
    account: str
    region: str
    owner: str
    document: str
    reason: str
    started_at: float
    faults: Faults = field(repr=False)
    agent: AgentEnd = field(init=False, repr=False)
    token: str = field(repr=False, default="")
    token_ends: float = field(repr=False, default=0.0)
    ended_at: float | None = None

    def new_token(self) -> str:
        """A token for one connection; the one before is worth nothing any more."""
        self.token = secrets.token_urlsafe(48)
        self.token_ends = self.faults.now() + TOKEN_SECONDS
        return self.token

    def admit(self, token: str) -> AgentEnd:
        """The agent's end for whoever brings the token, once; raise RefusedError."""
        if not self.token or not secrets.compare_digest(token.encode(), self.token.encode()):
            raise RefusedError("the token is wrong, or was used before")
        if self.faults.now() > self.token_ends:
            raise RefusedError("the token is too old")
        self.token = ""
        return self.agent

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
    """All sessions, and the server of their data channels."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._lock = threading.Lock()
        self.all: dict[str, Session] = {}
        self.channels = ChannelServer(self._find_open)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="sessions", daemon=True)
        self._thread.start()

    def start(
        self,
        *,
        server: Server,
        account: str,
        region: str,
        owner: str,
        document: str,
        properties: Mapping[str, str],
        reason: str,
    ) -> Session:
        """Begin a session of type Port; `properties` are the document's, with its parameters put in."""
        name = owner.rpartition("/")[2]
        session = Session(
            id=f"{name}-{secrets.token_hex(9)[:17]}",
            server=server,
            account=account,
            region=region,
            owner=owner,
            document=document,
            reason=reason,
            started_at=self._faults.now(),
            faults=self._faults,
        )
        session.agent = AgentEnd(
            session_id=session.id,
            server=server,
            properties=properties,
            faults=self._faults,
            on_end=lambda output: self.end(session, output),
        )
        with self._lock:
            self.all[session.id] = session
        return session

    def stream_url(self, session: Session) -> str:
        """Where a client opens the session's data channel; cell numbers of AWS hold `+`, `/` and `=`, too."""
        cell = quote(base64.b64encode(secrets.token_bytes(24)).decode(), safe="+/")
        address = f"ws://127.0.0.1:{self.channels.port}/v1/data-channel/{session.id}"
        return f"{address}?role=publish_subscribe&cell-number={cell}"

    def end(self, session: Session, output: str = "") -> None:
        """End a session; its client is told `output`."""
        with self._lock:
            session.ended_at = session.ended_at or self._faults.now()
        session.agent.close(output)

    def end_all(self, server: Server | None = None) -> None:
        """End the sessions of a server, or all."""
        for session in list(self.all.values()):
            if server is None or session.server is server:
                self.end(session)

    def end_idle(self) -> None:
        """End what nobody has used for 20 minutes."""
        for session in self._open():
            if self._faults.now() - session.agent.active_at > IDLE_SECONDS:
                self.end(session, IDLE)

    def close(self) -> None:
        """End everything and listen no more."""
        self._closing.set()
        self._thread.join(timeout=5)
        self.end_all()
        self.channels.close()

    def _open(self) -> list[Session]:
        with self._lock:
            return [session for session in self.all.values() if session.ended_at is None]

    def _find_open(self, session_id: str) -> Session | None:
        session = self.all.get(session_id)
        return None if session is None or session.ended_at else session

    def _tick(self) -> None:
        while not self._closing.wait(RESEND_EVERY):
            for session in self._open():
                session.agent.tick()
            self.end_idle()
