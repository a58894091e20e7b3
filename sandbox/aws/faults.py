"""What AWS does on a bad day, on request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.aws.errors import AwsError
from sandbox.aws.nodes import Server

# Calls a second, page "AWS Systems Manager endpoints and quotas".
QUOTAS = {"StartSession": 3, "TerminateSession": 6, "DescribeSessions": 6}


@dataclass(kw_only=True, slots=True)
class _Trouble:
    error: AwsError | None
    left: int | None
    until: float | None

    def strikes(self, now: float) -> bool:
        if self.until is not None:
            return now < self.until
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


class Faults:
    """The troubles of the whole service, by operation, and of single servers, by instance id."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now  # what time this AWS has
        self._lock = threading.Lock()
        self._before: dict[str, list[_Trouble]] = {}
        self._after: dict[str, list[_Trouble]] = {}
        self._recent: dict[tuple[str, str, str], list[float]] = {}
        self._stalled: set[str] = set()
        self._lost: set[str] = set()
        self._late: dict[tuple[str, str], float] = {}
        self._twice: set[str] = set()
        self._silent: dict[str, int] = {}
        self._lossy: dict[str, int] = {}
        self._disordered: set[str] = set()
        self._seen_keys: dict[str, set[str]] = {}
        self._expired_keys: set[str] = set()
        self.output_limit: int | None = None
        self.list_lag = 0.0
        self.quotas = dict(QUOTAS)

    def throttle(self, operation: str, *, times: int | None = None, seconds: float | None = None) -> None:
        """Answer ThrottlingException, or what the service calls it: a number of times, for a while, or until clear()."""
        self._add(self._before, operation, AwsError("ThrottlingException", "Rate exceeded"), times, seconds)

    def fail(self, operation: str, status: int = 500, *, times: int | None = None, code: str | None = None) -> None:
        """Answer an error: InternalServerError for 5xx and AccessDeniedException for 4xx unless told otherwise."""
        code = code or ("InternalServerError" if status >= 500 else "AccessDeniedException")
        self._add(self._before, operation, AwsError(code, "by order of the sandbox", status=status), times, None)

    def take_then_timeout(self, operation: str, *, times: int | None = 1) -> None:
        """Do what the call asks and lose the answer."""
        self._add(self._after, operation, None, times, None)

    def stall(self, server: object) -> None:
        """The agent takes commands and never finishes one."""
        self._stalled.add(str(server))

    def unstall(self, server: object) -> None:
        """The agent goes on with what it has taken."""
        self._stalled.discard(str(server))

    def lose(self, server: object) -> None:
        """The agent is gone: no commands, no sessions, ConnectionLost."""
        self._lost.add(str(server))

    def deliver_late(self, server: object, seconds: float, *, document: str = "") -> None:
        """Commands, or those of one document, reach the agent later."""
        self._late[str(server), document] = seconds

    def deliver_twice(self, server: object) -> None:
        """Every command runs twice, one run after the other; the first answer counts."""
        self._twice.add(str(server))

    def lose_answers(self, server: object, *, times: int = 1) -> None:
        """The agent runs the script and dies before it reports."""
        self._silent[str(server)] = times

    def lose_stream_messages(self, server: object, *, times: int) -> None:
        """The next messages of a session's client never reach the agent."""
        self._lossy[str(server)] = times

    def disorder_stream(self, server: object) -> None:
        """What the agent sends in sessions changes places two by two, and half of it arrives twice."""
        self._disordered.add(str(server))

    def truncate_output(self, characters: int | None) -> None:
        """Keep only so much of every output."""
        self.output_limit = characters

    def list_commands_lag(self, seconds: float) -> None:
        """ListCommands and ListCommandInvocations know nothing of younger commands."""
        self.list_lag = seconds

    def expire_credentials(self, account: str) -> None:
        """Every key that has signed a call to this account has run out, before the time that it was given."""
        with self._lock:
            self._expired_keys |= self._seen_keys.get(account, set())

    def heal(self, server: object) -> None:
        """End every trouble of one server."""
        name = str(server)
        for group in (self._stalled, self._lost, self._twice, self._disordered):
            group.discard(name)
        self._silent.pop(name, None)
        self._lossy.pop(name, None)
        for key in [key for key in self._late if key[0] == name]:
            del self._late[key]

    def clear(self) -> None:
        """End every trouble."""
        with self._lock:
            self._before.clear()
            self._after.clear()
        for group in (self._stalled, self._lost, self._twice, self._disordered):
            group.clear()
        self._late.clear()
        self._silent.clear()
        self._lossy.clear()
        self.output_limit = None
        self.list_lag = 0.0

    def before(self, operation: str, account: str, region: str) -> None:
        """Raise AwsError if this call shall fail or comes too fast."""
        with self._lock:
            for trouble in self._before.get(operation, []):
                if trouble.strikes(self.now()) and trouble.error is not None:
                    raise trouble.error
            quota = self.quotas.get(operation)
            if quota is not None:
                self._spend(quota, (operation, account, region))

    def has_expired(self, key: str, account: str) -> bool:
        """Whether this key has run out; it is remembered as one of the account's."""
        with self._lock:
            self._seen_keys.setdefault(account, set()).add(key)
            return key in self._expired_keys

    def loses_answer(self, operation: str) -> bool:
        """Whether this call's answer is lost."""
        with self._lock:
            return any(trouble.strikes(self.now()) for trouble in self._after.get(operation, []))

    def stalls(self, server: str) -> bool:
        """Whether this agent never finishes."""
        return server in self._stalled

    def has_lost(self, server: str) -> bool:
        """Whether this agent is gone."""
        return server in self._lost

    def connects(self, server: Server) -> bool:
        """Whether a server's agent can be reached."""
        return server.answers_pings and not self.has_lost(server.instance_id)

    def delay_of(self, server: str, document: str) -> float:
        """Seconds before a command of this document reaches this agent."""
        return self._late.get((server, document), self._late.get((server, ""), 0.0))

    def runs_twice(self, server: str) -> bool:
        """Whether this agent gets every command twice."""
        return server in self._twice

    def silences(self, server: str) -> bool:
        """Whether this answer of the agent is lost."""
        with self._lock:
            left = self._silent.get(server, 0)
            self._silent[server] = max(0, left - 1)
            return left > 0

    def loses_stream_message(self, server: str) -> bool:
        """Whether this message of a session's client is lost."""
        with self._lock:
            left = self._lossy.get(server, 0)
            self._lossy[server] = max(0, left - 1)
            return left > 0

    def disorders_stream(self, server: str) -> bool:
        """Whether this agent's sessions come in disorder."""
        return server in self._disordered

    def _add(
        self,
        table: dict[str, list[_Trouble]],
        operation: str,
        error: AwsError | None,
        times: int | None,
        seconds: float | None,
    ) -> None:
        until = None if seconds is None else self.now() + seconds
        with self._lock:
            table.setdefault(operation, []).append(_Trouble(error=error, left=times, until=until))

    def _spend(self, quota: int, key: tuple[str, str, str]) -> None:
        now = self.now()
        recent = [at for at in self._recent.get(key, []) if now - at < 1.0]
        if len(recent) >= quota:
            raise AwsError("ThrottlingException", "Rate exceeded")
        self._recent[key] = [*recent, now]
