"""Managed nodes: the servers that Systems Manager knows, with what runs their scripts."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance

from sandbox.windows import WindowsHost

DEFAULT_AGENT = "3.3.3050.0"


class RunsCommands(Protocol):
    """A host of the sandbox, as much of it as an agent needs."""

    @property
    def is_on(self) -> bool: ...

    def run(
        self,
        *command: str,
        input: bytes = b"",  # noqa: A002 - the name that subprocess has
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[bytes]: ...

    def dial(self, port: int, timeout: float = 10.0) -> socket.socket: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Scripted:
    """What a server without a host answers."""

    output: str = ""
    errors: str = ""
    code: int = 0


# Gets the script and its environment, and answers.
Answers = Callable[[str, Mapping[str, str]], Scripted]


def answer_nothing(_script: str, _environment: Mapping[str, str]) -> Scripted:
    """The answer of a server that nobody wrote answers for."""
    return Scripted()


@dataclass(kw_only=True, slots=True, eq=False)
class Server:
    """A server in EC2 with an agent; made by AwsDouble.add_server."""

    instance_id: str
    name: str
    account: str
    region: str
    platform: str
    agent_version: str
    host: RunsCommands | WindowsHost | None
    answers: Answers = answer_nothing
    online: bool = True
    registered: bool = True
    roles: frozenset[str] | None = None  # installed on Windows, where an association gathers them
    last_ping: float = field(default_factory=time.time)
    instance: Instance = field(init=False, repr=False)
    working: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(5))

    def __post_init__(self) -> None:
        self.instance = ec2_backends[self.account][self.region].get_instance(self.instance_id)

    def __str__(self) -> str:
        return self.instance_id

    @property
    def state(self) -> str:
        """EC2's state of the instance: running, stopped, terminated, …"""
        return str(self.instance.state)

    @property
    def tags(self) -> dict[str, str]:
        """EC2's tags of the instance."""
        return {tag["key"]: tag["value"] for tag in self.instance.get_tags()}

    @property
    def answers_pings(self) -> bool:
        """Whether its agent is connected."""
        return self.online and self.state == "running" and (self.host is None or self.host.is_on)

    def has_room(self) -> bool:
        """Whether its agent could begin another command at once."""
        free = self.working.acquire(blocking=False)
        if free:
            self.working.release()
        return free


class Nodes:
    """All servers of all accounts."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}

    def add(self, server: Server) -> None:
        """Register an agent."""
        self._servers[server.instance_id] = server

    def find(self, instance_id: str, account: str, region: str) -> Server | None:
        """A registered server of an account and region that is not terminated."""
        server = self._servers.get(instance_id)
        if server is None or (server.account, server.region) != (account, region) or not server.registered:
            return None
        return None if server.state in {"terminated", "shutting-down"} else server

    def of(self, account: str, region: str) -> list[Server]:
        """Every server that find() would find, in the order of their ids."""
        return [found for key in sorted(self._servers) if (found := self.find(key, account, region))]

    def matching(self, account: str, region: str, targets: Sequence[Mapping[str, Iterable[str]]]) -> list[Server]:
        """The servers that every one of SendCommand's Targets names."""
        found = self.of(account, region)
        for target in targets:
            key, values = str(target["Key"]), set(target.get("Values", ()))
            if key.lower() == "instanceids":
                found = [server for server in found if server.instance_id in values]
            elif key.startswith("tag:"):
                found = [server for server in found if server.tags.get(key[4:]) in values]
            else:
                found = []
        return found
