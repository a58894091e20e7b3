"""A region of many servers, as EC2's and Systems Manager's pages describe it; without any AWS."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from provisioning.aws import AwsAccount, Service, Sessions

ACCOUNT, REGION = "prod", "eu-west-1"
TEAMS = ("payments", "search", "identity", "billing", "edge")


class FleetPages(Sessions):
    """Answers the two listings of one region from arithmetic, page by page, as botocore parses them."""

    def __init__(self, count: int) -> None:
        accounts = [AwsAccount(name=ACCOUNT, id="111111111111", regions=(REGION,))]
        super().__init__(accounts)
        self.count = count
        self.asked: list[str] = []

    def pages(
        self,
        account: str,
        region: str,
        service: Service,
        operation: str,
        parameters: Mapping[str, object],
        /,
        *,
        page_size: int = 50,
        once: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """One page after the other."""
        for start in range(0, max(self.count, 1), page_size):
            numbers = range(start, min(start + page_size, self.count))
            self.asked.append(operation)
            if operation == "describe_instances":
                yield {"Reservations": [{"Instances": [_parsed(_instance(number))]} for number in numbers]}
            else:
                yield {"InstanceInformationList": [_parsed(_agent(number)) for number in numbers]}


def _parsed(described: dict[str, Any]) -> dict[str, Any]:
    """With strings of its own: a parser shares none between answers."""
    parsed: dict[str, Any] = json.loads(json.dumps(described, default=datetime.isoformat))
    if "LastPingDateTime" in parsed:
        parsed["LastPingDateTime"] = datetime.fromisoformat(parsed["LastPingDateTime"])
    return parsed


def _id(number: int) -> str:
    return f"i-{number * 2654435761 % 2**64:017x}"


def _address(number: int, network: int) -> str:
    return f"10.{network}.{number >> 8 & 255}.{number & 255}"


def _public(number: int, network: int) -> str:
    return f"198.{51 + network}.{number >> 8 & 255}.{number & 255}"


def _instance(number: int) -> dict[str, Any]:
    """What DescribeInstances says of an instance with two interfaces and the tags that a company gives."""
    team = TEAMS[number % len(TEAMS)]
    tags = {
        "Name": f"{team}-api-{number:05}.prod.example.com",
        "env": "prod",
        "team": team,
        "cost-center": f"cc-{number % 40:04}",
        "aws:autoscaling:groupName": f"{team}-api-{number % 7}",
        "patch-group": "linux-weekly",
    }
    return {
        "InstanceId": _id(number),
        "State": {"Code": 16, "Name": "running"},
        "PlatformDetails": "Linux/UNIX",
        "IamInstanceProfile": {"Arn": f"arn:aws:iam::111111111111:instance-profile/{team}", "Id": "AIPA"},
        "PrivateIpAddress": _address(number, 0),
        "NetworkInterfaces": [
            {
                "PrivateIpAddresses": [
                    {
                        "PrivateIpAddress": _address(number, network),
                        "Association": {"PublicIp": _public(number, network)},
                    }
                ],
                "Ipv6Addresses": [{"Ipv6Address": f"2001:db8::{network}:{number:x}"}],
            }
            for network in range(2)
        ],
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }


def _agent(number: int) -> dict[str, Any]:
    return {
        "InstanceId": _id(number),
        "PingStatus": "Online",
        "LastPingDateTime": datetime(2026, 11, 21, 3, 0, number % 60, tzinfo=UTC),
        "AgentVersion": "3.3.3050.0",
        "PlatformType": "Linux",
        "ResourceType": "EC2Instance",
        "IPAddress": _address(number, 0),
        "ComputerName": f"ip-10-0-{number >> 8 & 255}-{number & 255}.eu-west-1.compute.internal",
    }
