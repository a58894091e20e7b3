"""Systems Manager, strictly: the operations that Passport and the `aws` command use, with AWS's own refusals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sandbox.aws.agents import Agents, version_of
from sandbox.aws.callers import Caller
from sandbox.aws.commands import Command, Invocation
from sandbox.aws.document_calls import DocumentCalls, platforms
from sandbox.aws.documents import Content, check_parameters
from sandbox.aws.errors import AwsError
from sandbox.aws.faults import Faults
from sandbox.aws.nodes import Nodes, Server
from sandbox.aws.pages import page
from sandbox.aws.session_calls import SessionCalls
from sandbox.aws.sessions import Sessions
from sandbox.aws.shapes import check_request

Request = dict[str, Any]
Answer = dict[str, Any]
MOST_TARGETS = 50
# Page "Metadata collected by inventory".
ROLES = "AWS:WindowsRole"
WINDOWS_ROLES = ("AD-Domain-Services", "DNS", "FileAndStorage-Services", "Web-Server")
LATEST_AGENT = "3.3.3050.0"


class SystemsManager:
    """One service for all accounts and regions; documents and sessions are answered next door."""

    def __init__(self, *, nodes: Nodes, agents: Agents, sessions: Sessions, faults: Faults) -> None:
        self._nodes = nodes
        self._agents = agents
        self._faults = faults
        self._documents = DocumentCalls()
        self.commands: list[Command] = []
        session_calls = SessionCalls(documents=self._documents, nodes=nodes, sessions=sessions, faults=faults)
        self._operations: dict[str, Callable[[Caller, Request], Answer]] = {
            **self._documents.operations(),
            **session_calls.operations(),
            "SendCommand": self._send_command,
            "ListCommands": self._list_commands,
            "ListCommandInvocations": self._list_invocations,
            "GetCommandInvocation": self._get_invocation,
            "CancelCommand": self._cancel_command,
            "DescribeInstanceInformation": self._describe_instances,
            "GetInventory": self._get_inventory,
        }

    def answer(self, operation: str, caller: Caller, request: Request) -> Answer:
        """Answer one call; raise AwsError for a refusal."""
        if len(request.get("InstanceIds") or []) > MOST_TARGETS:
            raise AwsError("ThrottlingException", "Rate exceeded")
        check_request(operation, request)
        if operation not in self._operations:
            raise AwsError("UnknownOperationException", f"the sandbox has no {operation}")
        for command in self.commands:
            command.tick()
        return self._operations[operation](caller, request)

    # Run Command

    def _send_command(self, caller: Caller, request: Request) -> Answer:
        document = self._documents.find(caller, request["DocumentName"])
        if document.kind != "Command":
            raise AwsError("InvalidDocument", f"Document {document.name} is not a Command document.")
        version = document.version(request.get("DocumentVersion"))
        content = document.versions[version]
        if "DocumentHash" in request and request["DocumentHash"] != content.hash:
            raise AwsError("InvalidDocument", "The document's hash is not the one that was given.")
        values = check_parameters(content, request.get("Parameters", {}))
        servers = self._targets(caller, request, content)
        command = Command(
            account=caller.account,
            region=caller.region,
            caller=caller.arn,
            document=request["DocumentName"],
            document_version=request.get("DocumentVersion", "$DEFAULT"),
            content=content,
            parameters=request.get("Parameters", {}),
            values=values,
            comment=request.get("Comment", ""),
            targets=request.get("Targets", []),
            timeout=request.get("TimeoutSeconds", 3600),
            instance_ids=request.get("InstanceIds", []),
            invocations={
                server.instance_id: Invocation(
                    instance_id=server.instance_id,
                    name=server.name,
                    plugin=content.steps[0].action,
                    now=self._faults.now,
                )
                for server in servers
            },
            now=self._faults.now,
        )
        self.commands.append(command)
        answer = {"Command": command.described()}
        for server in servers:
            self._agents.deliver(command, server, command.invocations[server.instance_id])
        return answer

    def _targets(self, caller: Caller, request: Request, content: Content) -> list[Server]:
        ids, targets = request.get("InstanceIds", []), request.get("Targets", [])
        if bool(ids) == bool(targets):
            raise AwsError("InvalidParameters", "Give either InstanceIds or Targets.")
        if targets:
            return self._nodes.matching(caller.account, caller.region, targets)
        if len(set(ids)) != len(ids):
            raise AwsError("DuplicateInstanceId", "You can't specify a managed node ID in more than one association.")
        servers = [(each, self._nodes.find(each, caller.account, caller.region)) for each in ids]
        wrong = [each for each, server in servers if server is None]
        if wrong:
            named = ", ".join(wrong)
            raise AwsError(
                "InvalidInstanceId", f"Instances [[{named}]] not in a valid state for account {caller.account}"
            )
        found = [server for _, server in servers if server is not None]
        if not all(server.platform in platforms(content) for server in found):
            raise AwsError("UnsupportedPlatformType", "The document doesn't support the platform of a managed node.")
        return found

    def _list_commands(self, caller: Caller, request: Request) -> Answer:
        found = self._visible(caller, request)
        if "InstanceId" in request:
            found = [command for command in found if request["InstanceId"] in command.invocations]
        for rule in request.get("Filters", []):
            found = [command for command in found if _command_passes(command, command.status, rule)]
        return page("Commands", [command.described() for command in found], request, 50)

    def _list_invocations(self, caller: Caller, request: Request) -> Answer:
        pairs = [
            (command, invocation)
            for command in self._visible(caller, request)
            for invocation in command.invocations.values()
            if request.get("InstanceId", invocation.instance_id) == invocation.instance_id
        ]
        for rule in request.get("Filters", []):
            if rule["key"] == "ExecutionStage":
                raise AwsError("InvalidFilterKey", "ExecutionStage filters ListCommands only.")
            pairs = [pair for pair in pairs if _command_passes(pair[0], pair[1].status, rule)]
        details = bool(request.get("Details"))
        listed = [command.listed(invocation, details=details) for command, invocation in pairs]
        return page("CommandInvocations", listed, request, 50)

    def _get_invocation(self, caller: Caller, request: Request) -> Answer:
        command = self._command(caller, request["CommandId"], "InvalidCommandId")
        invocation = command.invocations.get(request["InstanceId"])
        if invocation is None or self._too_young(command):
            raise AwsError("InvocationDoesNotExist", "")
        if "PluginName" in request and request["PluginName"] not in {invocation.plugin, command.content.steps[0].name}:
            raise AwsError("InvalidPluginName", "The plugin name isn't valid.")
        return command.one(invocation)

    def _cancel_command(self, caller: Caller, request: Request) -> Answer:
        command = self._command(caller, request["CommandId"], "InvalidCommandId")
        for instance_id in request.get("InstanceIds") or list(command.invocations):
            if instance_id not in command.invocations:
                raise AwsError("InvalidInstanceId", f"{instance_id} is not a target of the command.")
            # A script that runs already runs on: "there is no guarantee", page CancelCommand.
            if command.invocations[instance_id].details in {"Pending", "Delayed"}:
                command.invocations[instance_id].end("Cancelled")
        return {}

    def _visible(self, caller: Caller, request: Request) -> list[Command]:
        """The account's commands in this region, the youngest first."""
        if "CommandId" in request:
            self._command(caller, request["CommandId"], "InvalidCommandId")
        found = [
            command
            for command in self.commands
            if (command.account, command.region) == (caller.account, caller.region)
            and command.id == request.get("CommandId", command.id)
            and not self._too_young(command)
        ]
        return found[::-1]

    def _too_young(self, command: Command) -> bool:
        return self._faults.now() - command.requested_at < self._faults.list_lag

    def _command(self, caller: Caller, command_id: str, refusal: str) -> Command:
        for command in self.commands:
            if command.id == command_id and (command.account, command.region) == (caller.account, caller.region):
                return command
        raise AwsError(refusal, "The specified command ID isn't valid.")

    # Inventory

    def _describe_instances(self, caller: Caller, request: Request) -> Answer:
        found = self._nodes.of(caller.account, caller.region)
        for rule in [*request.get("Filters", []), *request.get("InstanceInformationFilterList", [])]:
            key, values = rule.get("Key", rule.get("key")), rule.get("Values", rule.get("valueSet"))
            found = [server for server in found if self._server_passes(server, str(key), values or [])]
        return page("InstanceInformationList", [self._server_row(server) for server in found], request, 50)

    def _get_inventory(self, caller: Caller, request: Request) -> Answer:
        """The Windows roles alone, of the servers where they are gathered: each lists all, installed or not."""
        types = [attribute["TypeName"] for attribute in request.get("ResultAttributes", [])]
        if types != [ROLES]:
            raise AwsError("InvalidTypeNameException", "The sandbox has the Windows roles only.")
        found = [server for server in self._nodes.of(caller.account, caller.region) if server.roles is not None]
        for rule in request.get("Filters", []):
            if rule["Key"] != f"{ROLES}.Name" or rule.get("Type", "Equal") != "Equal":
                raise AwsError("InvalidFilter", f"The filter name {rule['Key']} is not valid.")
            found = [server for server in found if set(WINDOWS_ROLES) & set(rule["Values"])]
        return page("Entities", [_inventory_row(server) for server in found], request, 50)

    def _server_passes(self, server: Server, key: str, values: Sequence[str]) -> bool:
        if key.startswith("tag:"):
            return server.tags.get(key[4:]) in values
        columns = {
            "InstanceIds": server.instance_id,
            "AgentVersion": server.agent_version,
            "PingStatus": self._ping(server),
            "PlatformTypes": server.platform,
            "ResourceType": "EC2Instance",
        }
        if key == "tag-key":
            return bool(server.tags.keys() & set(values))
        if key not in columns:
            raise AwsError("InvalidFilterKey", f"The filter key {key} isn't valid.")
        return columns[key] in values

    def _server_row(self, server: Server) -> Answer:
        if self._ping(server) == "Online":
            server.last_ping = self._faults.now()
        return {
            "InstanceId": server.instance_id,
            "PingStatus": self._ping(server),
            "LastPingDateTime": server.last_ping,
            "AgentVersion": server.agent_version,
            "IsLatestVersion": version_of(server.agent_version) >= version_of(LATEST_AGENT),
            "PlatformType": server.platform,
            "PlatformName": "Debian GNU/Linux" if server.platform == "Linux" else "Microsoft Windows Server 2022",
            "PlatformVersion": "12" if server.platform == "Linux" else "10.0.20348",
            "ResourceType": "EC2Instance",
            "IPAddress": "10.0.0.10",
            "ComputerName": f"{server.name}.internal",
            "SourceType": "AWS::EC2::Instance",
            "SourceId": server.instance_id,
        }

    def _ping(self, server: Server) -> str:
        return "Online" if self._faults.connects(server) else "ConnectionLost"


def _inventory_row(server: Server) -> Answer:
    content = [
        {"Name": role, "Installed": str(role in (server.roles or ())), "FeatureType": "Role"} for role in WINDOWS_ROLES
    ]
    captured = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(server.last_ping))
    roles = {"TypeName": ROLES, "SchemaVersion": "1.0", "CaptureTime": captured, "Content": content}
    return {"Id": server.instance_id, "Data": {ROLES: roles}}


def _command_passes(command: Command, status: str, rule: dict[str, str]) -> bool:
    key, value = rule["key"], rule["value"]
    if key == "Status":
        return status == value
    if key == "DocumentName":
        return command.document == value
    if key in {"InvokedAfter", "InvokedBefore"}:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(command.requested_at))
        return at >= value if key == "InvokedAfter" else at < value
    return {"Executing": status in {"Pending", "InProgress"}}.get(value, status not in {"Pending", "InProgress"})
