"""Systems Manager, strictly: the operations that Passport and the `aws` command use, with AWS's own refusals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sandbox.aws.agents import Agents, version_of
from sandbox.aws.built_in import built_in_documents
from sandbox.aws.callers import Caller
from sandbox.aws.commands import Command, Invocation
from sandbox.aws.documents import (
    MOST_VERSIONS,
    RESERVED,
    Content,
    Document,
    check_parameters,
    parse_content,
)
from sandbox.aws.errors import AwsError
from sandbox.aws.faults import Faults
from sandbox.aws.nodes import Nodes, Server
from sandbox.aws.sessions import Session, Sessions
from sandbox.aws.shapes import check_request

Request = dict[str, Any]
Answer = dict[str, Any]
MOST_TARGETS = 50
LATEST_AGENT = "3.3.3050.0"


class SystemsManager:
    """One service for all accounts and regions; every operation is a method named like it."""

    def __init__(self, *, nodes: Nodes, agents: Agents, sessions: Sessions, faults: Faults) -> None:
        self._nodes = nodes
        self._agents = agents
        self._sessions = sessions
        self._faults = faults
        self._documents: dict[tuple[str, str, str], Document] = {}
        self._built_in = built_in_documents()
        self.commands: list[Command] = []
        self._operations: dict[str, Callable[[Caller, Request], Answer]] = {
            "CreateDocument": self._create_document,
            "UpdateDocument": self._update_document,
            "UpdateDocumentDefaultVersion": self._update_default,
            "DescribeDocument": self._describe_document,
            "GetDocument": self._get_document,
            "ListDocuments": self._list_documents,
            "DeleteDocument": self._delete_document,
            "AddTagsToResource": self._add_tags,
            "ListTagsForResource": self._list_tags,
            "SendCommand": self._send_command,
            "ListCommands": self._list_commands,
            "ListCommandInvocations": self._list_invocations,
            "GetCommandInvocation": self._get_invocation,
            "CancelCommand": self._cancel_command,
            "DescribeInstanceInformation": self._describe_instances,
            "StartSession": self._start_session,
            "ResumeSession": self._resume_session,
            "TerminateSession": self._terminate_session,
            "DescribeSessions": self._describe_sessions,
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

    # Documents

    def _create_document(self, caller: Caller, request: Request) -> Answer:
        name, kind = request["Name"], request.get("DocumentType", "Command")
        if name.lower().startswith(RESERVED):
            raise AwsError("ValidationException", f"The document name {name} begins with a reserved prefix.")
        if (caller.account, caller.region, name) in self._documents:
            raise AwsError("DocumentAlreadyExists", f"Document with same name {name} already exists")
        content = self._content(request, kind)
        document = Document(name=name, owner=caller.account, kind=kind, target_type=request.get("TargetType", ""))
        document.versions["1"] = content
        document.version_names["1"] = request.get("VersionName", "")
        document.tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        self._documents[caller.account, caller.region, name] = document
        return {"DocumentDescription": self._described(document, "1")}

    def _update_document(self, caller: Caller, request: Request) -> Answer:
        document = self._own_document(caller, request["Name"])
        # "$LATEST" is the only version that can be updated, page UpdateDocument.
        if document.version(request.get("DocumentVersion", "$LATEST")) != document.latest:
            raise AwsError("InvalidDocumentVersion", "Only the latest version can be updated.")
        content = self._content(request, document.kind)
        if any(content.hash == known.hash for known in document.versions.values()):
            raise AwsError(
                "DuplicateDocumentContent", "The content of the association document matches another document."
            )
        name = request.get("VersionName", "")
        if name and name in document.version_names.values():
            raise AwsError("DuplicateDocumentVersionName", "The version name has already been used in this document.")
        if len(document.versions) >= MOST_VERSIONS:
            raise AwsError("DocumentVersionLimitExceeded", "The document has too many versions.")
        document.latest = str(int(document.latest) + 1)
        document.versions[document.latest] = content
        document.version_names[document.latest] = name
        return {"DocumentDescription": self._described(document, document.latest)}

    def _update_default(self, caller: Caller, request: Request) -> Answer:
        document = self._own_document(caller, request["Name"])
        document.default = document.version(request["DocumentVersion"])
        return {"Description": {"Name": document.name, "DefaultVersion": document.default}}

    def _describe_document(self, caller: Caller, request: Request) -> Answer:
        document = self._document(caller, request["Name"])
        return {"Document": self._described(document, document.version(request.get("DocumentVersion")))}

    def _get_document(self, caller: Caller, request: Request) -> Answer:
        document = self._document(caller, request["Name"])
        version = document.version(request.get("DocumentVersion"))
        return {
            "Name": document.name,
            "CreatedDate": document.created_at,
            "VersionName": document.version_names.get(version, ""),
            "DocumentVersion": version,
            "Status": "Active",
            "Content": document.versions[version].text,
            "DocumentType": document.kind,
            "DocumentFormat": "JSON",
        }

    def _list_documents(self, caller: Caller, request: Request) -> Answer:
        found = [*self._built_in.values(), *self._of(caller)]
        for rule in request.get("Filters", []):
            found = [document for document in found if _document_passes(document, rule["Key"], rule.get("Values", []))]
        named = [
            {
                "Name": document.name,
                "Owner": document.owner,
                "CreatedDate": document.created_at,
                "PlatformTypes": _platforms(document.versions[document.default]),
                "DocumentVersion": document.default,
                "DocumentType": document.kind,
                "SchemaVersion": "2.2",
                "DocumentFormat": "JSON",
                "Tags": _pairs(document.tags),
            }
            for document in sorted(found, key=lambda each: each.name)
        ]
        return _page("DocumentIdentifiers", named, request, 50)

    def _delete_document(self, caller: Caller, request: Request) -> Answer:
        document = self._own_document(caller, request["Name"])
        if "DocumentVersion" in request:
            version = document.version(request["DocumentVersion"])
            if version == document.default:
                raise AwsError("InvalidDocumentOperation", "The default version can't be deleted on its own.")
            del document.versions[version]
        else:
            del self._documents[caller.account, caller.region, document.name]
        return {}

    def _add_tags(self, caller: Caller, request: Request) -> Answer:
        if request["ResourceType"] != "Document":
            raise AwsError("InvalidResourceType", "The sandbox tags documents only.")
        self._tagged(caller, request).tags |= {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        return {}

    def _list_tags(self, caller: Caller, request: Request) -> Answer:
        return {"TagList": _pairs(self._tagged(caller, request).tags)}

    def _tagged(self, caller: Caller, request: Request) -> Document:
        document = self._documents.get((caller.account, caller.region, request["ResourceId"]))
        if document is None:
            raise AwsError("InvalidResourceId", "The resource ID isn't valid.")
        return document

    # Run Command

    def _send_command(self, caller: Caller, request: Request) -> Answer:
        document = self._document(caller, request["DocumentName"])
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
                    instance_id=server.instance_id, name=server.name, plugin=content.steps[0].action
                )
                for server in servers
            },
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
        if not all(server.platform in _platforms(content) for server in found):
            raise AwsError("UnsupportedPlatformType", "The document doesn't support the platform of a managed node.")
        return found

    def _list_commands(self, caller: Caller, request: Request) -> Answer:
        found = self._visible(caller, request)
        if "InstanceId" in request:
            found = [command for command in found if request["InstanceId"] in command.invocations]
        for rule in request.get("Filters", []):
            found = [command for command in found if _command_passes(command, command.status, rule)]
        return _page("Commands", [command.described() for command in found], request, 50)

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
        return _page("CommandInvocations", listed, request, 50)

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
        return time.time() - command.requested_at < self._faults.list_lag

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
        return _page("InstanceInformationList", [self._server_row(server) for server in found], request, 50)

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
            server.last_ping = time.time()
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
        reachable = server.answers_pings and not self._faults.has_lost(server.instance_id)
        return "Online" if reachable else "ConnectionLost"

    # Session Manager

    def _start_session(self, caller: Caller, request: Request) -> Answer:
        document = self._document(caller, request.get("DocumentName", "SSM-SessionManagerRunShell"))
        if document.kind != "Session":
            raise AwsError("InvalidDocument", f"Document {document.name} is not a Session document.")
        values = check_parameters(document.versions[document.default], request.get("Parameters", {}))
        server = self._nodes.find(request["Target"], caller.account, caller.region)
        if server is None or self._ping(server) != "Online":
            raise AwsError("TargetNotConnected", f"{request['Target']} is not connected.")
        session = self._sessions.start(
            server=server,
            account=caller.account,
            region=caller.region,
            owner=caller.arn,
            document=document.name,
            port=int(values["portNumber"]),
            reason=request.get("Reason", ""),
        )
        return self._open(session)

    def _resume_session(self, caller: Caller, request: Request) -> Answer:
        session = self._session(caller, request["SessionId"])
        if session is None or session.ended_at:
            raise AwsError("DoesNotExistException", "The session does not exist.")
        return self._open(session)

    def _open(self, session: Session) -> Answer:
        return {
            "SessionId": session.id,
            "TokenValue": session.token,
            "StreamUrl": self._sessions.stream_url(session),
        }

    def _terminate_session(self, caller: Caller, request: Request) -> Answer:
        session = self._session(caller, request["SessionId"])
        if session is not None:
            self._sessions.end(session)
        return {"SessionId": request["SessionId"]}

    def _session(self, caller: Caller, session_id: str) -> Session | None:
        session = self._sessions.all.get(session_id)
        if session is None or (session.account, session.region) != (caller.account, caller.region):
            return None
        return session

    def _describe_sessions(self, caller: Caller, request: Request) -> Answer:
        ended = request["State"] == "History"
        found = [
            session.described()
            for session in self._sessions.all.values()
            if (session.account, session.region) == (caller.account, caller.region) and bool(session.ended_at) == ended
        ]
        columns = {"Target": "Target", "Owner": "Owner", "Status": "Status", "SessionId": "SessionId"}
        for rule in request.get("Filters", []):
            if rule["key"] not in columns:
                raise AwsError("InvalidFilterKey", f"The sandbox does not filter by {rule['key']}.")
            found = [row for row in found if row[columns[rule["key"]]] == rule["value"]]
        return _page("Sessions", found, request, 200)

    # Shared

    def _content(self, request: Request, kind: str) -> Content:
        if request.get("DocumentFormat", "JSON") != "JSON":
            raise AwsError("InvalidDocumentContent", "The sandbox reads JSON documents only.")
        return parse_content(request["Content"], kind)

    def _of(self, caller: Caller) -> list[Document]:
        mine = (caller.account, caller.region)
        return [document for key, document in self._documents.items() if key[:2] == mine]

    def _own_document(self, caller: Caller, name: str) -> Document:
        document = self._documents.get((caller.account, caller.region, name))
        if document is None:
            raise AwsError("InvalidDocument", f"Document with name {name} does not exist.")
        return document

    def _document(self, caller: Caller, name: str) -> Document:
        return self._built_in.get(name) or self._own_document(caller, name)

    def _described(self, document: Document, version: str) -> Answer:
        content = document.versions[version]
        return {
            "Hash": content.hash,
            "HashType": "Sha256",
            "Name": document.name,
            "VersionName": document.version_names.get(version, ""),
            "Owner": document.owner,
            "CreatedDate": document.created_at,
            "Status": "Active",
            "DocumentVersion": version,
            "Description": content.description,
            "Parameters": [_parameter(name, rules) for name, rules in content.parameters.items()],
            "PlatformTypes": _platforms(content),
            "DocumentType": document.kind,
            "SchemaVersion": "2.2",
            "LatestVersion": document.latest,
            "DefaultVersion": document.default,
            "DocumentFormat": "JSON",
            "TargetType": document.target_type,
            "Tags": _pairs(document.tags),
        }


def _parameter(name: str, rules: Any) -> Answer:
    row = {"Name": name, "Type": "StringList" if rules["type"] == "StringList" else "String"}
    row["Description"] = rules.get("description", "")
    if "default" in rules:
        row["DefaultValue"] = str(rules["default"])
    return row


def _platforms(content: Content) -> list[str]:
    scripts = {"aws:runShellScript": ["Linux", "MacOS"], "aws:runPowerShellScript": ["Windows"]}
    named = [[step.platform] if step.platform else scripts[step.action] for step in content.steps]
    return sorted({platform for platforms in named for platform in platforms}) or ["Linux", "MacOS", "Windows"]


def _pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _document_passes(document: Document, key: str, values: Sequence[str]) -> bool:
    if key == "Name":
        return any(document.name.startswith(value) for value in values)
    if key == "Owner":
        owners = {"Self": document.owner != "Amazon", "Amazon": document.owner == "Amazon", "All": True}
        return any(owners.get(value, False) for value in values)
    if key == "DocumentType":
        return document.kind in values
    if key.startswith("tag:"):
        return document.tags.get(key[4:]) in values
    raise AwsError("InvalidFilterKey", f"The filter key {key} isn't valid.")


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


def _page(name: str, rows: list[Answer], request: Request, most: int) -> Answer:
    """A page of a list, and the token of the next one."""
    begin = request.get("NextToken", "0") or "0"
    if not begin.isdigit():
        raise AwsError("InvalidNextToken", "The specified token isn't valid.")
    end = int(begin) + int(request.get("MaxResults", most))
    answer: Answer = {name: rows[int(begin) : end]}
    if end < len(rows):
        answer["NextToken"] = str(end)
    return answer
