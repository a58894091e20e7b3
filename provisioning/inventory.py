"""Which servers exist: read from AWS in the background, searched in memory."""

import logging
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from access.errors import UnavailableError
from access.model import Server
from access.ports import Clock
from provisioning.aws import AwsAccount, Sessions
from provisioning.aws_errors import AwsError
from provisioning.instances import Agent, Instance, read_agents, read_instances
from provisioning.server_index import Listed, ServerIndex, best, in_order, listed
from provisioning.windows_roles import read_domain_controllers

OLDEST_AGENT = (2, 3, 672, 0)  # the first with port forwarding ("Start a session", Systems Manager user guide)
MOST_AT_ONCE = 4  # regions that are read at the same time: one that hangs keeps the others waiting for a quarter

NONE_LISTED = "The servers have not been listed yet. Try again in a moment."
_NOT_ALL_LISTED = "Not all servers have been listed yet. Try again in a minute."

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
        self._places = [(account.name, region) for account in accounts for region in account.regions]
        self._clock = clock
        self._refreshing = threading.Lock()
        self._regions: Mapping[tuple[str, str], ServerIndex] = {}
        self._controllers: dict[tuple[str, str], frozenset[str]] = {}
        self.refreshed_at: datetime | None = None  # the last time that a refresh had no problem

    def refresh(self) -> Refreshed:
        """Read every account and region again, a few at once; never raises for a region that does not answer."""
        problems: dict[tuple[str, str], str] = {}
        with self._refreshing, ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="inventory") as pool:
            reading = {pool.submit(self._index, *place): place for place in self._places}
            for future in as_completed(reading):
                place = reading[future]
                try:
                    # At once: another region may hang.
                    self._regions = {**self._regions, place: future.result()}
                except AwsError as error:
                    _log.warning("inventory of %s %s: %s", *place, error.sentence)
                    problems[place] = error.sentence
                except Exception:  # noqa: BLE001 - what one region says must not hide the servers of the others
                    _log.exception("inventory of %s %s", *place)
                    problems[place] = f"What AWS says of {place[0]} {place[1]} cannot be read."
            if not problems:
                self.refreshed_at = self._clock()
        told = dict.fromkeys(problems[place] for place in self._places if place in problems)
        return Refreshed(servers=sum(map(len, self._regions.values())), problems=tuple(told))

    def age(self) -> timedelta | None:
        """How long ago everything was read well; None: never."""
        return self._clock() - self.refreshed_at if self.refreshed_at else None

    @property
    def has_listed(self) -> bool:
        """Whether any region was ever read: one that does not answer must not keep the others closed."""
        return bool(self._regions)

    def find(self, words: str) -> Sequence[Server]:
        """Servers by exact name, by instance id, or by ``tag:key=value``; from memory.

        Raises UnavailableError where there is none, but some region was never read.
        """
        regions = self._regions  # a refresh puts another in its place
        found = [one.server for one in in_order([_find(index, words.strip()) for index in regions.values()])]
        if not found and not regions.keys() >= set(self._places):
            raise UnavailableError(_NOT_ALL_LISTED if regions else NONE_LISTED)
        return found

    def search(self, text: str, limit: int) -> Sequence[Server]:
        """Servers whose name, id, addresses or tags contain the text, best first, of those listed; from memory."""
        return best(self._regions.values(), text.strip(), limit)

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
            current.update({one.server.key: one.server for one in found if not one.gone})
        return current

    def _index(self, account: str, region: str) -> ServerIndex:
        return ServerIndex(self._read_region(account, region))

    def _read_region(self, account: str, region: str, ids: Sequence[str] | None = None) -> Iterator[Listed]:
        on_ec2 = None if ids is None else [id_ for id_ in ids if id_.startswith("i-")]
        instances = read_instances(self._sessions, account, region, on_ec2)
        agents = read_agents(self._sessions, account, region, ids)
        controllers = frozenset[str]()
        if any(agent.platform == "windows" for agent in agents.values()):
            controllers = self._domain_controllers(account, region, again=ids is None)
        hybrid = [id_ for id_ in agents if id_.startswith("mi-")]
        every = (
            _list(account, region, id_, instances.get(id_), agents.get(id_), is_controller=id_ in controllers)
            for id_ in (*instances, *hybrid)
        )
        return map(_only_tagged, every) if self._sessions.accounts[account].only_tagged else every

    def _domain_controllers(self, account: str, region: str, *, again: bool) -> frozenset[str]:
        """The region's domain controllers, as far as that is known: the script on the server has the last word."""
        if again:
            try:
                self._controllers[account, region] = read_domain_controllers(self._sessions, account, region)
            except AwsError as error:
                _log.warning("domain controllers of %s %s: %s", account, region, error.sentence)
        return self._controllers.get((account, region), frozenset())


def _find(index: ServerIndex, words: str) -> Sequence[Listed]:
    if words.startswith("tag:"):
        key, _, value = words.removeprefix("tag:").partition("=")
        return index.of_tag(key, value)
    # An id is never taken for a name: whoever may tag servers could have given it to another.
    if _INSTANCE_ID.fullmatch(words.lower()):
        return index.of_id(words.lower())
    return index.of_name(words.casefold())


def _list(
    account: str,
    region: str,
    instance_id: str,
    instance: Instance | None,
    agent: Agent | None,
    *,
    is_controller: bool = False,
) -> Listed:
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
        agent_version=agent.version if agent else "",
        problem=_problem(name, instance, agent, is_controller=is_controller),
    )
    addresses = instance.addresses if instance else (agent.address,) if agent and agent.address else ()
    return listed(server, addresses, gone=bool(instance and instance.is_gone))


def _problem(name: str, instance: Instance | None, agent: Agent | None, *, is_controller: bool) -> str:
    """Why the server cannot be asked for and what would mend it; "" when it can."""
    if instance and instance.is_gone:
        return f"{name} is terminated."
    if instance and instance.state != "running":
        return f"{name} is {instance.state}. Start it, then ask again."
    if agent is None:
        return _unknown(name, instance)
    if is_controller:
        return (
            f"{name} is a domain controller: every user on it is a user of the whole domain, so I make none there. "
            "Ask for another server, or go by the domain's own ways."
        )
    return _agent_problem(name, agent)


def _only_tagged(one: Listed) -> Listed:
    """One that the policy of passport-account.yaml leaves out is refused here, before anybody approves it.

    The tags of hybrid nodes are not read: of them AWS has the last word.
    """
    server = one.server
    if server.problem or not server.instance_id.startswith("i-") or server.tags.get("passport") == "enabled":
        return one
    problem = (
        f"{server.name} is not Passport's to open: it lacks the tag passport = enabled. "
        "Its owner sets it, then ask again."
    )
    return replace(one, server=replace(server, problem=problem))


def _unknown(name: str, instance: Instance | None) -> str:
    if instance and not instance.has_profile:
        return (
            f"{name} is not known to Systems Manager: it has no instance profile. "
            "Attach one with AmazonSSMManagedInstanceCore, then ask again."
        )
    return (
        f"{name} is not known to Systems Manager. It needs a running SSM agent, "
        "and AmazonSSMManagedInstanceCore in its instance profile."
    )


def _agent_problem(name: str, agent: Agent) -> str:
    if agent.platform not in {"linux", "windows"}:
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
