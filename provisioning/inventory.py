"""Which servers exist: read from AWS in the background, searched in memory."""

import logging
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from access.errors import UnavailableError
from access.model import Server
from access.ports import Clock
from provisioning.aws import AwsAccount, Sessions
from provisioning.aws_errors import AwsError
from provisioning.instances import Agent, Instance, read_agents, read_instances

OLDEST_AGENT = (2, 3, 672, 0)  # the first with port forwarding ("Start a session", Systems Manager user guide)

_INSTANCE_ID = re.compile(r"m?i-[0-9a-f]{8,17}")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refreshed:
    """How a refresh went; a region with a problem keeps its former servers."""

    servers: int
    problems: tuple[str, ...]


class AwsInventory:
    """The servers of all accounts and regions; ``access.ports.Inventory``."""

    def __init__(self, sessions: Sessions, accounts: Sequence[AwsAccount], *, clock: Clock) -> None:
        self._sessions = sessions
        self._accounts = tuple(accounts)
        self._clock = clock
        self._refreshing = threading.Lock()
        self._regions: dict[tuple[str, str], tuple[_Listed, ...]] = {}
        self._index = _Index(())
        self.refreshed_at: datetime | None = None  # the last time that a refresh had no problem

    def refresh(self) -> Refreshed:
        """Read every account and region again; never raises for a region that does not answer."""
        problems = []
        with self._refreshing:
            for account in self._accounts:
                for region in account.regions:
                    try:
                        self._regions[account.name, region] = self._read_region(account.name, region)
                    except AwsError as error:
                        _log.warning("inventory of %s %s: %s", account.name, region, error.sentence)
                        problems.append(error.sentence)
                    except Exception:  # noqa: BLE001 - what one region says must not hide the servers of the others
                        _log.exception("inventory of %s %s", account.name, region)
                        problems.append(f"What AWS says of {account.name} {region} cannot be read.")
                    else:  # at once: the next region may hang
                        self._index = _Index([listed for region in self._regions.values() for listed in region])
            if not problems:
                self.refreshed_at = self._clock()
        return Refreshed(servers=len(self._index), problems=tuple(dict.fromkeys(problems)))

    def age(self) -> timedelta | None:
        """How long ago everything was read well; None: never."""
        return self._clock() - self.refreshed_at if self.refreshed_at else None

    @property
    def has_listed(self) -> bool:
        """Whether any region was ever read: one that does not answer must not keep the others closed."""
        return bool(self._regions)

    def find(self, words: str) -> Sequence[Server]:
        """Servers by exact name, by instance id, or by ``tag:key=value``; from memory."""
        return self._index.find(words.strip())

    def search(self, text: str, limit: int) -> Sequence[Server]:
        """Servers whose name, id, addresses or tags contain the text, best first; from memory."""
        return self._index.search(text.strip(), limit)

    def read_again(self, servers: Sequence[Server]) -> Mapping[str, Server]:
        """The servers as they are now, by ``Server.key``, asked from AWS; gone ones are missing.

        Raises UnavailableError.
        """
        wanted: dict[tuple[str, str], list[str]] = defaultdict(list)
        for server in servers:
            wanted[server.account, server.region].append(server.instance_id)
        current: dict[str, Server] = {}
        for (account, region), ids in wanted.items():
            try:
                found = self._read_region(account, region, sorted(set(ids)))
            except AwsError as error:
                raise UnavailableError(error.sentence) from error
            current.update({listed.server.key: listed.server for listed in found if not listed.gone})
        return current

    def _read_region(self, account: str, region: str, ids: Sequence[str] | None = None) -> tuple["_Listed", ...]:
        if ids is None:
            instances = read_instances(self._sessions, account, region)
        else:
            instances = read_instances(self._sessions, account, region, [id_ for id_ in ids if id_.startswith("i-")])
        agents = read_agents(self._sessions, account, region, ids)
        hybrid = [id_ for id_ in agents if id_.startswith("mi-")]
        return tuple(_list(account, region, id_, instances.get(id_), agents.get(id_)) for id_ in (*instances, *hybrid))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Listed:
    server: Server
    gone: bool
    addresses: tuple[str, ...] = ()


def _list(account: str, region: str, instance_id: str, instance: Instance | None, agent: Agent | None) -> _Listed:
    tags = instance.tags if instance else {}
    name = tags.get("Name", "").strip() or (agent.name.strip() if agent and not instance else "") or instance_id
    windows = (agent.platform == "windows") if agent else bool(instance and instance.windows)
    server = Server(
        account=account,
        region=region,
        instance_id=instance_id,
        name=name,
        platform="windows" if windows else "linux",
        tags=tags,
        online=bool(agent and agent.online),
        problem=_problem(name, instance, agent, windows=windows),
    )
    addresses = instance.addresses if instance else (agent.address,) if agent and agent.address else ()
    return _Listed(server=server, gone=bool(instance and instance.is_gone), addresses=addresses)


def _problem(name: str, instance: Instance | None, agent: Agent | None, *, windows: bool) -> str:
    """Why the server cannot be asked for and what would mend it; "" when it can."""
    if instance and instance.is_gone:
        return f"{name} is terminated."
    if instance and instance.state != "running":
        return f"{name} is {instance.state}. Start it, then ask again."
    if agent is None:
        return (
            f"{name} is not known to Systems Manager. It needs the SSM agent, "
            "and an instance profile with AmazonSSMManagedInstanceCore."
        )
    if windows:
        return f"{name} runs Windows, which I cannot open yet."
    return _agent_problem(name, agent)


def _agent_problem(name: str, agent: Agent) -> str:
    if agent.platform != "linux":
        return f"{name} runs {agent.platform}, which I cannot open."
    if not agent.online:
        last = f"{agent.last_ping:%Y-%m-%d %H:%M} UTC" if agent.last_ping else "a time I do not know"
        return f"{name} does not answer: its SSM agent was last seen at {last}. Start the agent again, then ask again."
    if _version(agent.version) < OLDEST_AGENT:
        oldest = ".".join(map(str, OLDEST_AGENT))
        return f"{name}'s SSM agent {agent.version} is too old; I need {oldest} or later. Update it, then ask again."
    return ""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", text)[:4])


class _Index:
    """One reading of all servers; never changed, only replaced."""

    def __init__(self, listed: Iterable[_Listed]) -> None:
        self._by_name: dict[str, list[Server]] = defaultdict(list)
        self._by_id: dict[str, list[Server]] = defaultdict(list)
        self._by_tag: dict[tuple[str, str], list[Server]] = defaultdict(list)
        self._lines: list[tuple[str, str, Server]] = []  # name and everything else, casefolded
        count = 0
        for one in sorted(listed, key=lambda one: (one.server.name.casefold(), one.server.key)):
            self._by_id[one.server.instance_id].append(one.server)
            count += 1
            # A terminated server is still found by its id, to be told so; its name may be another's by now.
            if not one.gone:
                self._add(one)
        self._count = count

    def _add(self, one: _Listed) -> None:
        server = one.server
        self._by_name[server.name.casefold()].append(server)
        for tag in server.tags.items():
            self._by_tag[tag].append(server)
        others = (server.instance_id, *one.addresses, *(f"{key}={value}" for key, value in server.tags.items()))
        self._lines.append((server.name.casefold(), "\n".join(others).casefold(), server))

    def __len__(self) -> int:
        return self._count

    def find(self, words: str) -> list[Server]:
        if words.startswith("tag:"):
            key, _, value = words.removeprefix("tag:").partition("=")
            return list(self._by_tag.get((key, value), []))
        # An id is never taken for a name: whoever may tag servers could have given it to another.
        if _INSTANCE_ID.fullmatch(words.lower()):
            return list(self._by_id.get(words.lower(), []))
        return list(self._by_name.get(words.casefold(), []))

    def search(self, text: str, limit: int) -> list[Server]:
        wanted = text.casefold()
        ranked: tuple[list[Server], ...] = ([], [], [], [])
        for name, others, server in self._lines:
            if wanted in name:
                ranked[0 if name == wanted else 1 if name.startswith(wanted) else 2].append(server)
            elif wanted in others:
                ranked[3].append(server)
        return [server for rank in ranked for server in rank][:limit]
