"""The sandbox's AWS: moto's EC2 and STS and a strict Systems Manager, behind one address on loopback."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import boto3
from moto.iam.models import iam_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from sandbox.aws.agents import Agents
from sandbox.aws.authorization import World
from sandbox.aws.commands import Command
from sandbox.aws.faults import Faults
from sandbox.aws.front import Call, Front
from sandbox.aws.gate import Gate
from sandbox.aws.nodes import DEFAULT_AGENT, Answers, Nodes, RunsCommands, Server, answer_nothing
from sandbox.aws.roles import Roles
from sandbox.aws.sessions import Session, Sessions
from sandbox.aws.systems_manager import SystemsManager
from sandbox.laptop.install import install
from sandbox.windows import WindowsHost

HOME_ACCOUNT = "111111111111"
HOME_REGION = "eu-west-1"
IMAGES = {"Linux": "ami-04681a1dbd79675a5", "Windows": "ami-12c6146b"}  # of those that moto knows; EC2 tells by them


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """Credentials of this AWS."""

    id: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class AwsDouble:
    """A context manager; moto keeps its state per process, so one of these at a time in a process.

    `now` is Systems Manager's clock, in seconds since 1970; credentials run out by the real one.
    Passport's own credentials may do what the policies under ``deploy/`` let them, on all `servers` or those that
    are `tagged`.
    """

    def __init__(
        self,
        *,
        account: str = HOME_ACCOUNT,
        region: str = HOME_REGION,
        now: Callable[[], float] = time.time,
        servers: Literal["all", "tagged"] = "all",
    ) -> None:
        self._which_servers = servers
        self.account = account
        self.region = region
        self.faults = Faults(now)
        self._nodes = Nodes()
        self._clients: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> Self:
        """Start everything."""
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._moto.start()
        self._sessions = Sessions(self.faults)
        self._agents = Agents(self.faults)
        self._ssm = SystemsManager(nodes=self._nodes, agents=self._agents, sessions=self._sessions, faults=self.faults)
        self._roles = Roles()
        world = World(nodes=self._nodes, sessions=self._sessions)
        self.gate = Gate(self.account, world, servers=self._which_servers)
        self._front = Front(
            ssm=self._ssm,
            gate=self.gate,
            faults=self.faults,
            roles=self._roles,
            moto=self._moto.get_host_and_port(),
        )
        self._front.start()
        self._keys = {name: self._make_key(name) for name in ("passport", "admin", "person")}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything and forget it."""
        self._front.stop()
        self._sessions.close()
        self._agents.stop()
        for client in self._clients.values():
            client.close()
        self._moto.stop()
        moto_api_backend.reset()

    @property
    def url(self) -> str:
        """The one address of all services."""
        return self._front.url

    @property
    def commands(self) -> list[Command]:
        """Every command that was sent, the oldest first."""
        return self._ssm.commands

    @property
    def calls(self) -> list[Call]:
        """Every call, the oldest first."""
        return self._front.calls

    @property
    def refused_channels(self) -> list[str]:
        """Why data channels were not opened, the oldest first."""
        return self._sessions.channels.refusals

    @property
    def sessions(self) -> list[Session]:
        """Every session, the oldest first."""
        return list(self._sessions.all.values())

    def environment(self, user: Literal["passport", "admin", "person"] = "passport") -> dict[str, str]:
        """The environment of a process that uses this AWS with Passport's own credentials, or another's."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self._keys[user].id,
            "AWS_SECRET_ACCESS_KEY": self._keys[user].secret,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def add_server(
        self,
        name: str,
        *,
        host: RunsCommands | WindowsHost | None = None,
        account: str | None = None,
        region: str | None = None,
        tags: Mapping[str, str] | None = None,
        platform: str = "Linux",
        agent_version: str = DEFAULT_AGENT,
        online: bool = True,
        registered: bool = True,
        roles: frozenset[str] | None = None,
        answers: Answers = answer_nothing,
    ) -> Server:
        """Run an instance with a Name tag and register its agent; without a host, `answers` answers."""
        account, region = account or self.account, region or self.region
        pairs = [{"Key": key, "Value": value} for key, value in {"Name": name, **(tags or {})}.items()]
        ran = self._ec2(account, region).run_instances(
            ImageId=IMAGES.get(platform, IMAGES["Linux"]),
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": pairs}],
        )
        server = Server(
            instance_id=ran["Instances"][0]["InstanceId"],
            name=name,
            account=account,
            region=region,
            platform=platform,
            agent_version=agent_version,
            host=host,
            answers=answers,
            online=online,
            registered=registered,
            roles=roles,
            last_ping=self.faults.now(),
        )
        self._nodes.add(server)
        return server

    def terminate(self, server: Server) -> None:
        """Terminate the instance: its id is not valid any more."""
        self._ec2(server.account, server.region).terminate_instances(InstanceIds=[server.instance_id])
        self._sessions.end_all(server)

    def stop(self, server: Server) -> None:
        """Stop the instance: its agent is not connected."""
        self._ec2(server.account, server.region).stop_instances(InstanceIds=[server.instance_id])
        self._sessions.end_all(server)

    def start(self, server: Server) -> None:
        """Start a stopped instance."""
        self._ec2(server.account, server.region).start_instances(InstanceIds=[server.instance_id])

    def set_online(self, server: Server, online: bool) -> None:  # noqa: FBT001 - reads well: set_online(server, False)
        """Connect or disconnect its agent."""
        server.online = online
        if not online:
            self._sessions.end_all(server)

    def end_sessions(self, server: Server) -> None:
        """End a server's sessions, as an admin does in the console."""
        self._sessions.end_all(server)

    def hang_up(self, server: Server) -> None:
        """Close the WebSockets of its sessions, which go on: AWS does so about once an hour."""
        for session in self.sessions:
            if session.server is server:
                session.agent.hang_up()

    def retag(self, server: Server, tags: Mapping[str, str]) -> None:
        """Set tags of the instance; the others stay."""
        pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._ec2(server.account, server.region).create_tags(Resources=[server.instance_id], Tags=pairs)

    def pass_start_deadline(self, command: Command | None = None) -> None:
        """Let the start deadline (TimeoutSeconds) of one command, or of all, be over now."""
        for each in [command] if command else self.commands:
            each.deadline = 0.0
            each.tick()

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until the agents have done whatever they can at this time of the clock; raise TimeoutError."""
        self._agents.settle(seconds)

    def trust_source_identity(self, account: str) -> None:
        """Let the roles of this account be assumed with a SourceIdentity: their trust policy allows it by itself."""
        self._roles.trust(account)

    def new_keys(self) -> None:
        """Give Passport another key of its own, as an instance profile does; environment() has it."""
        self._keys["passport"] = self._make_key("passport")

    def install_cli(self, folder: Path) -> Path:
        """Write `aws`, which knows `ssm start-session`, and `session-manager-plugin` into a folder for a PATH."""
        return install(folder)

    def keys(self, account: str | None = None) -> Keys:
        """An admin's keys, who may do anything, or those of a role in another account."""
        if account in {None, self.account}:
            return self._keys["admin"]
        sts = _client("sts", self._moto_url, self.region, self._keys["admin"])
        try:
            role = f"arn:aws:iam::{account}:role/sandbox"
            answer = sts.assume_role(RoleArn=role, RoleSessionName="sandbox")["Credentials"]
        finally:
            sts.close()
        return Keys(id=answer["AccessKeyId"], secret=answer["SecretAccessKey"], token=answer["SessionToken"])

    @property
    def _moto_url(self) -> str:
        host, port = self._moto.get_host_and_port()
        return f"http://{host}:{port}"

    def _ec2(self, account: str, region: str) -> Any:
        if (account, region) not in self._clients:
            self._clients[account, region] = _client("ec2", self._moto_url, region, self.keys(account))
        return self._clients[account, region]

    def _make_key(self, name: str) -> Keys:
        backend = iam_backends[self.account]["aws"]
        if name not in {user.name for user in backend.users.values()}:
            backend.create_user("us-east-1", name)
        key = backend.create_access_key(name)
        return Keys(id=str(key.access_key_id), secret=str(key.secret_access_key))


def _client(service: Literal["ec2", "sts"], url: str, region: str, keys: Keys) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=keys.id,
        aws_secret_access_key=keys.secret,
        aws_session_token=keys.token,
    )
