"""What AWS asks IAM before it does a call: the action, each resource, and what it tells of them.

After "Actions, resources, and condition keys" of EC2, KMS, Systems Manager and STS, Service Authorization Reference.
A call that is not here is an error: nobody knows what it would need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.aws.callers import Caller
from sandbox.aws.documents import RESERVED
from sandbox.aws.iam import Ask, PolicyError
from sandbox.aws.nodes import Nodes
from sandbox.aws.sessions import Sessions
from sandbox.aws.templates import role_id

Request = Mapping[str, Any]

# "No permissions are required to perform this operation", GetCallerIdentity, STS API reference.
FREE = frozenset({"sts:GetCallerIdentity"})
# Those whose row in the reference names no resource type.
UNBOUND = frozenset(
    {
        "ec2:DescribeInstances",
        "ssm:DescribeInstanceInformation",
        "ssm:DescribeSessions",
        "ssm:GetInventory",
        "ssm:ListCommandInvocations",
        "ssm:ListCommands",
    }
)
ON_A_DOCUMENT = frozenset(
    {"ssm:CreateDocument", "ssm:GetDocument", "ssm:UpdateDocument", "ssm:UpdateDocumentDefaultVersion"}
)
TAGS = frozenset({"aws:ResourceTag/*", "ssm:resourceTag/*"})
DEFAULT_SESSION = "SSM-SessionManagerRunShell"  # what StartSession takes without a document
CHECK = "ssm:SessionDocumentAccessCheck"


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """What AWS looks up while it asks."""

    nodes: Nodes
    sessions: Sessions

    def asks(self, action: str, caller: Caller, request: Request) -> list[list[Ask]]:
        """The questions before a call: in one of these lists, every one must be answered with yes."""
        if action in FREE:
            return [[]]
        if action in UNBOUND:
            return [[Ask(action=action, resource="*")]]
        if action in ON_A_DOCUMENT:
            return [[Ask(action=action, resource=_document(caller, request["Name"]), keys=TAGS)]]
        single: dict[str, Callable[[str, Caller, Request], list[list[Ask]]]] = {
            "ssm:SendCommand": self._send_command,
            "ssm:StartSession": self._start_session,
            "ssm:TerminateSession": self._terminate_session,
            "sts:AssumeRole": _assume_role,
            "kms:Sign": _use_key,
            "kms:DescribeKey": _use_key,
            "kms:GetPublicKey": _use_key,
        }
        if action not in single:
            raise PolicyError(f"what {action} needs is not known")
        return single[action](action, caller, request)

    def _send_command(self, action: str, caller: Caller, request: Request) -> list[list[Ask]]:
        if "Targets" in request:
            raise PolicyError("what a SendCommand with Targets needs is not known")
        document = Ask(action=action, resource=_document(caller, request["DocumentName"]), keys=TAGS)
        return [[document, *(self._server(action, caller, each) for each in request.get("InstanceIds", []))]]

    def _start_session(self, action: str, caller: Caller, request: Request) -> list[list[Ask]]:
        name = request.get("DocumentName")
        document = Ask(action=action, resource=_document(caller, name or DEFAULT_SESSION), keys=TAGS | {CHECK})
        checked = [self._server(action, caller, request["Target"], {CHECK: "true"}), document]
        if name:
            return [checked]
        # Where the policy does not ask for the check, the default document is not looked at.
        return [[self._server(action, caller, request["Target"], {CHECK: "false"})], checked]

    def _terminate_session(self, action: str, caller: Caller, request: Request) -> list[list[Ask]]:
        session = self.sessions.all.get(request["SessionId"])
        tags = {"session-id": user_id(session.owner), "target-id": session.server.instance_id} if session else {}
        return [
            [
                Ask(
                    action=action,
                    resource=f"arn:aws:ssm:{caller.region}:{caller.account}:session/{request['SessionId']}",
                    context={f"ssm:resourceTag/aws:ssmmessages:{key}": value for key, value in tags.items()},
                    keys=TAGS,
                )
            ]
        ]

    def _server(self, action: str, caller: Caller, instance_id: str, context: Mapping[str, str] | None = None) -> Ask:
        found = self.nodes.find(instance_id, caller.account, caller.region)
        tags = found.tags if found else {}
        hybrid = instance_id.startswith("mi-")
        kind = "ssm:{}:{}:managed-instance" if hybrid else "ec2:{}:{}:instance"
        return Ask(
            action=action,
            resource=f"arn:aws:{kind.format(caller.region, caller.account)}/{instance_id}",
            context={
                f"{prefix}/{key}": value
                for prefix in ("aws:ResourceTag", "ssm:resourceTag")
                for key, value in tags.items()
            }
            | dict(context or {}),
            keys=TAGS | ({CHECK} if context else frozenset()),
        )


def user_id(arn: str) -> str:
    """``aws:userid`` of a caller; Passport's own user stands for a role on an instance."""
    kind, _, name = arn.rpartition(":")[2].partition("/")
    if kind == "assumed-role":
        role, _, session = name.partition("/")
        return f"{role_id(role)}:{session}"
    return f"{role_id('Passport')}:sandbox" if name == "passport" else f"AIDA{name.upper()}"


def _document(caller: Caller, name: str) -> str:
    if name.startswith("arn:"):
        return name
    owner = "" if name.lower().startswith(RESERVED) else caller.account
    return f"arn:aws:ssm:{caller.region}:{owner}:document/{name}"


def _assume_role(action: str, _: Caller, request: Request) -> list[list[Ask]]:
    keys = frozenset({"sts:ExternalId", "sts:RoleSessionName", "sts:SourceIdentity"})
    words = {"ExternalId": "sts:ExternalId", "RoleSessionName": "sts:RoleSessionName"}
    context = {key: request[word] for word, key in words.items() if word in request}
    names = [action]
    if "SourceIdentity" in request:
        context["sts:SourceIdentity"] = request["SourceIdentity"]
        names.append("sts:SetSourceIdentity")
    if any(word.startswith(("Tags.", "Policy", "TransitiveTagKeys")) for word in request):
        raise PolicyError("what an AssumeRole with tags or policies needs is not known")
    return [[Ask(action=name, resource=request["RoleArn"], context=context, keys=keys) for name in names]]


def _use_key(action: str, caller: Caller, request: Request) -> list[list[Ask]]:
    key = request["KeyId"]
    if not key.startswith("arn:"):
        key = f"arn:aws:kms:{caller.region}:{caller.account}:key/{key}"
    context = {"kms:SigningAlgorithm": request["SigningAlgorithm"]} if action == "kms:Sign" else {}
    if action == "kms:Sign":
        context["kms:MessageType"] = request.get("MessageType", "RAW")
    keys = frozenset({"kms:SigningAlgorithm", "kms:MessageType"}) if action == "kms:Sign" else frozenset()
    return [[Ask(action=action, resource=key, context=context, keys=keys)]]
