"""What EC2 and Systems Manager say about servers, as values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from sys import intern
from typing import Any

from provisioning.aws import Sessions

# DescribeInstances takes 200 values a filter, DescribeInstanceInformation 100 (API references of both).
EC2_FILTER_VALUES = 200
SSM_FILTER_VALUES = 100
EC2_PAGE = 1000
GONE = frozenset({"terminated", "shutting-down"})
_TAG_VALUE = 256  # EC2's own limit; nobody else is trusted to keep it


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """An EC2 instance."""

    id: str
    state: str
    windows: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    has_profile: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether it never comes back."""
        return self.state in GONE


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """An SSM agent that has registered, on EC2 or elsewhere (``mi-…``)."""

    id: str
    online: bool
    last_ping: datetime | None
    version: str
    platform: str  # linux, windows, macos
    name: str = ""
    address: str = ""


def read_instances(
    sessions: Sessions, account: str, region: str, ids: Sequence[str] | None = None
) -> dict[str, Instance]:
    """EC2's instances of a region, all or these, by id; unknown ones are missing. Raises AwsError.

    By filter, because naming an unknown id fails the whole call.
    """
    found: dict[str, Instance] = {}
    for filters in _chunks("Filters", "Name", "instance-id", ids, EC2_FILTER_VALUES):
        for page in sessions.pages(account, region, "ec2", "describe_instances", filters, page_size=EC2_PAGE):
            for reservation in page.get("Reservations", []):
                for described in reservation.get("Instances", []):
                    found[described["InstanceId"]] = _instance(described)
    return found


def read_agents(sessions: Sessions, account: str, region: str, ids: Sequence[str] | None = None) -> dict[str, Agent]:
    """Systems Manager's nodes of a region, all or these, by id; unknown ones are missing. Raises AwsError."""
    found: dict[str, Agent] = {}
    for filters in _chunks("Filters", "Key", "InstanceIds", ids, SSM_FILTER_VALUES):
        for page in sessions.pages(account, region, "ssm", "describe_instance_information", filters):
            for described in page.get("InstanceInformationList", []):
                found[described["InstanceId"]] = _agent(described)
    return found


def _chunks(
    parameter: str, key: str, name: str, ids: Sequence[str] | None, size: int
) -> Iterator[dict[str, list[dict[str, object]]]]:
    if ids is None:
        yield {}
        return
    for start in range(0, len(ids), size):
        yield {parameter: [{key: name, "Values": list(ids[start : start + size])}]}


def _instance(described: Mapping[str, Any]) -> Instance:
    # Interned: a company's servers share nearly all of their tags.
    tags = {intern(str(tag["Key"])[:128]): intern(str(tag["Value"])[:_TAG_VALUE]) for tag in described.get("Tags", [])}
    return Instance(
        id=described["InstanceId"],
        state=described["State"]["Name"],
        windows=str(described.get("Platform", "")).lower() == "windows",
        tags=tags,
        addresses=tuple(dict.fromkeys(_addresses(described))),
        has_profile=bool(described.get("IamInstanceProfile")),
    )


def _addresses(described: Mapping[str, Any]) -> Iterator[str]:
    for interface in described.get("NetworkInterfaces", []):
        for private in interface.get("PrivateIpAddresses", []):
            yield private["PrivateIpAddress"]
            if public := private.get("Association", {}).get("PublicIp"):
                yield public
        for v6 in interface.get("Ipv6Addresses", []):
            yield v6["Ipv6Address"]
    for key in ("PrivateIpAddress", "PublicIpAddress"):
        if described.get(key):
            yield described[key]


def _agent(described: Mapping[str, Any]) -> Agent:
    last_ping = described.get("LastPingDateTime")
    return Agent(
        id=described["InstanceId"],
        online=described.get("PingStatus") == "Online",
        last_ping=last_ping.astimezone(UTC) if isinstance(last_ping, datetime) else None,
        version=intern(str(described.get("AgentVersion", ""))[:40]),
        platform=intern(str(described.get("PlatformType", "Linux")).lower()),
        name=str(described.get("Name") or described.get("ComputerName") or "")[:_TAG_VALUE],
        address=str(described.get("IPAddress", ""))[:45],
    )
