"""Which Windows servers are domain controllers, as Systems Manager's inventory has it.

Neither EC2 nor the agent's own report says it: the roles of a server are gathered by an association with
``AWS-GatherSoftwareInventory`` (page "Metadata collected by inventory", type ``AWS:WindowsRole``). Where none runs,
nothing is known here, and the script on the server refuses.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from provisioning.aws import Sessions

_TYPE = "AWS:WindowsRole"
_DIRECTORY = "AD-Domain-Services"
_ASKED: Mapping[str, object] = {
    "Filters": [{"Key": f"{_TYPE}.Name", "Values": [_DIRECTORY], "Type": "Equal"}],
    "ResultAttributes": [{"TypeName": _TYPE}],
}


def read_domain_controllers(sessions: Sessions, account: str, region: str) -> frozenset[str]:
    """The ids of the region's servers that have the role installed; raises AwsError."""
    return frozenset(
        str(entity["Id"])
        for page in sessions.pages(account, region, "ssm", "get_inventory", _ASKED)
        for entity in page.get("Entities", [])
        if any(_is_directory(role) for role in _roles(entity))
    )


def _roles(entity: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """A server lists every role there is, installed or not."""
    yield from entity.get("Data", {}).get(_TYPE, {}).get("Content", [])


def _is_directory(role: Mapping[str, str]) -> bool:
    return role.get("Name") == _DIRECTORY and str(role.get("Installed", "")).casefold() == "true"
