"""Run Command's records: a command, its invocations and how their states look from the outside."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.aws.documents import Content

# "Output" of the pages ListCommandInvocations (CommandPlugin) and GetCommandInvocation.
LISTED_OUTPUT = 2_500
KEPT_OUTPUT = 24_000
KEPT_ERRORS = 8_000
FINAL = {"Success", "Failed", "TimedOut", "Cancelled"}
# Details of a state, page "Understanding command statuses"; the others are their own detail.
STATUS_OF = {
    "DeliveryTimedOut": "TimedOut",
    "ExecutionTimedOut": "TimedOut",
    "Undeliverable": "Failed",
    "Terminated": "Failed",
    "InvalidPlatform": "Failed",
}


@dataclass(kw_only=True, slots=True, eq=False)
class Invocation:
    """One server's part of a command."""

    instance_id: str
    name: str
    plugin: str
    details: str = "Pending"
    code: int = -1
    output: str = ""
    errors: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    now: Callable[[], float] = time.time
    cancel: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def status(self) -> str:
        """The short state: Pending, InProgress, Success, Failed, TimedOut, Cancelled."""
        return STATUS_OF.get(self.details, self.details)

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self.status in FINAL

    def start(self) -> bool:
        """Begin to run; False if the command has ended before."""
        with self.lock:
            if self.is_final:
                return False
            self.details, self.started_at = "InProgress", self.started_at or self.now()
            return True

    def end(self, details: str, *, code: int = -1, output: str = "", errors: str = "") -> None:
        """Take the final state; the first one counts."""
        with self.lock:
            if self.is_final:
                return
            self.output, self.errors = output[:KEPT_OUTPUT], errors[:KEPT_ERRORS]
            self.code, self.ended_at = code, self.now()
            self.details = details


@dataclass(kw_only=True, slots=True, eq=False)
class Command:
    """What one SendCommand made."""

    account: str
    region: str
    caller: str
    document: str
    document_version: str
    content: Content
    parameters: Mapping[str, Sequence[str]]
    values: Mapping[str, Any]
    comment: str
    targets: Sequence[Mapping[str, Any]]
    timeout: int
    instance_ids: Sequence[str]
    invocations: dict[str, Invocation]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    now: Callable[[], float] = time.time
    requested_at: float = 0.0
    deadline: float = 0.0

    def __post_init__(self) -> None:
        self.requested_at = self.now()
        self.deadline = self.requested_at + self.timeout

    @property
    def status(self) -> str:
        """The whole command's state, from its parts."""
        states = [invocation.status for invocation in self.invocations.values()]
        if not states or all(state == "Success" for state in states):
            return "Success" if states else "Pending"
        if all(state == "Pending" for state in states):
            return "Pending"
        if any(state not in FINAL for state in states):
            return "InProgress"
        return next(state for state in ("Failed", "TimedOut", "Cancelled") if state in states)

    def tick(self) -> None:
        """Let the start deadline pass for what has not started."""
        if self.now() >= self.deadline:
            for invocation in self.invocations.values():
                if invocation.details in {"Pending", "Delayed"}:
                    invocation.end("DeliveryTimedOut")

    def described(self) -> dict[str, Any]:
        """The Command shape."""
        ended = [invocation for invocation in self.invocations.values() if invocation.is_final]
        broken = [invocation for invocation in ended if invocation.status in {"Failed", "TimedOut"}]
        return {
            "CommandId": self.id,
            "DocumentName": self.document,
            "DocumentVersion": self.document_version,
            "Comment": self.comment,
            "ExpiresAfter": self.deadline,
            "Parameters": {name: list(values) for name, values in self.parameters.items()},
            "InstanceIds": list(self.instance_ids),
            "Targets": list(self.targets),
            "RequestedDateTime": self.requested_at,
            "Status": self.status,
            "StatusDetails": self.status,
            "OutputS3Region": self.region,
            "MaxConcurrency": "50",
            "MaxErrors": "0",
            "TargetCount": len(self.invocations),
            "CompletedCount": len(ended),
            "ErrorCount": len([each for each in broken if each.details != "DeliveryTimedOut"]),
            "DeliveryTimedOutCount": len([each for each in broken if each.details == "DeliveryTimedOut"]),
            "ServiceRole": "",
            "TimeoutSeconds": self.timeout,
        }

    def listed(self, invocation: Invocation, *, details: bool) -> dict[str, Any]:
        """The CommandInvocation shape, with its plugins when details are asked for."""
        return {
            "CommandId": self.id,
            "InstanceId": invocation.instance_id,
            "InstanceName": invocation.name,
            "Comment": self.comment,
            "DocumentName": self.document,
            "DocumentVersion": self.document_version,
            "RequestedDateTime": self.requested_at,
            "Status": invocation.status,
            "StatusDetails": invocation.details,
            "StandardOutputUrl": "",
            "StandardErrorUrl": "",
            "CommandPlugins": [self._plugin(invocation)] if details else [],
            "ServiceRole": "",
        }

    def _plugin(self, invocation: Invocation) -> dict[str, Any]:
        output = invocation.output
        if invocation.errors:
            output += "\n----------ERROR-------\n" + invocation.errors
        if len(output) > LISTED_OUTPUT:
            mark = "\n---Output truncated---"
            output = output[: LISTED_OUTPUT - len(mark)] + mark
        plugin: dict[str, Any] = {
            "Name": invocation.plugin,
            "Status": invocation.status,
            "StatusDetails": invocation.details,
            "ResponseCode": invocation.code,
            "Output": output,
            "StandardOutputUrl": "",
            "StandardErrorUrl": "",
            "OutputS3Region": self.region,
        }
        if invocation.started_at is not None:
            plugin["ResponseStartDateTime"] = invocation.started_at
        if invocation.ended_at is not None:
            plugin["ResponseFinishDateTime"] = invocation.ended_at
        return plugin

    def one(self, invocation: Invocation) -> dict[str, Any]:
        """The answer of GetCommandInvocation."""
        answer = {
            "CommandId": self.id,
            "InstanceId": invocation.instance_id,
            "Comment": self.comment,
            "DocumentName": self.document,
            "DocumentVersion": self.document_version,
            "PluginName": invocation.plugin,
            "ResponseCode": invocation.code,
            "ExecutionStartDateTime": _iso(invocation.started_at),
            "ExecutionEndDateTime": _iso(invocation.ended_at),
            "Status": invocation.status,
            "StatusDetails": invocation.details,
            "StandardOutputContent": invocation.output,
            "StandardOutputUrl": "",
            "StandardErrorContent": invocation.errors,
            "StandardErrorUrl": "",
            "CloudWatchOutputConfig": {"CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": False},
        }
        if invocation.started_at is not None and invocation.ended_at is not None:
            answer["ExecutionElapsedTime"] = f"PT{invocation.ended_at - invocation.started_at:.3f}S"
        return answer


def _iso(at: float | None) -> str:
    return "" if at is None else time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z"
