"""Passport's own Systems Manager documents: built from the scripts, checked, published.

Passport's role may run these three and nothing else. Whatever reaches a server is a typed parameter, checked against
its one pattern three times: here, by AWS, and by the script, whichever way the agent hands it over.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypedDict

from botocore.exceptions import ClientError

from access.errors import InvalidInputError, UnavailableError
from provisioning import powershell
from provisioning.aws_errors import DENIED, denied
from provisioning.parameters import ATTEMPT, CREATE_ONLY, REQUEST_ID, USER_NAME, WINDOWS_CREATE_ONLY, Parameter

SCRIPTS = Path(__file__).with_name("scripts")
PREFIX = "Passport-"
# "Data elements and parameters", AWS Systems Manager User Guide: a document is at most 64 KB.
MOST_BYTES = 64 * 1024

SHARED = ("common", "sshd", "timer", "metadata", "kept", "removal")
SWEEPER = ("warn", "sweep")  # what only the sweeper has
_PLUGINS = {"Linux": "aws:runShellScript", "Windows": "aws:runPowerShellScript"}


class Problem(StrEnum):
    """What can be wrong with a published document."""

    MISSING = "missing"
    DIFFERS = "differs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One document that is not as this version of Passport needs it."""

    document: str
    problem: Problem

    @property
    def sentence(self) -> str:
        """What is wrong and what mends it."""
        what = "is not there" if self.problem is Problem.MISSING else "is not this version's"
        return f"The document {self.document} {what}: run passport documents publish."


@dataclass(frozen=True, kw_only=True)
class Document:
    """One Command document of schema 2.2."""

    name: str
    description: str
    action: str  # the word after ``passport:1:`` in its answer, and the script that gives it
    parameters: tuple[Parameter, ...]
    modules: tuple[str, ...]  # what that script stands on, in this order
    timeout_seconds: int
    carries_sweeper: bool = False
    platform: str = "Linux"  # or Windows: what Systems Manager calls it

    @cached_property
    def script(self) -> str:
        """The whole program as the server runs it, with the text fallback for older agents in its first lines."""
        if self.platform == "Windows":
            modules = (*self.modules, self.action)
            return powershell.program(self.parameters, modules, carries_sweeper=self.carries_sweeper)
        start = "#!/bin/sh\n" + _take_parameters(self.parameters)
        shared = "".join(_module(name) for name in self.modules)
        if self.carries_sweeper:
            shared = _carry_sweeper(shared)
        return start + shared + _module(self.action)

    @cached_property
    def content(self) -> str:
        """The document as JSON; raises ValueError if it is over AWS's limit."""
        text = json.dumps(
            {
                "schemaVersion": "2.2",
                "description": self.description,
                "parameters": {parameter.name: _declaration(parameter) for parameter in self.parameters},
                "mainSteps": [
                    {
                        "action": _PLUGINS[self.platform],
                        "name": self.action,
                        "precondition": {"StringEquals": ["platformType", self.platform]},
                        "inputs": {
                            "timeoutSeconds": str(self.timeout_seconds),
                            "runCommand": self.script.splitlines(),
                        },
                    }
                ],
            },
            ensure_ascii=True,
            separators=(",", ":"),
        )
        if len(text) > MOST_BYTES:
            raise ValueError(f"{self.name} has {len(text)} bytes; Systems Manager takes {MOST_BYTES}")
        return text

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    def values(self, given: Mapping[str, str]) -> dict[str, list[str]]:
        """The Parameters of a SendCommand, checked; raises InvalidInputError with the parameter's name."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                raise InvalidInputError(f"{self.name} has no parameter {name}.", field=name)
        complete = {name: given.get(name, known[name].default) for name in known}
        for name, value in complete.items():
            if value is None or re.fullmatch(known[name].pattern, value) is None or value.endswith("\n"):
                raise InvalidInputError(f"{self.name}: {name} is missing or malformed.", field=name)
        return {name: [value] for name, value in complete.items() if value is not None}


def documents(prefix: str = PREFIX) -> tuple[Document, ...]:
    """Create, remove and probe, in this order, for Linux and for Windows."""
    return (*linux_documents(prefix), *windows_documents(prefix))


def linux_documents(prefix: str = PREFIX) -> tuple[Document, Document, Document]:
    """Create, remove and probe, in shell."""
    return create_document(prefix), remove_document(prefix), probe_document(prefix)


def windows_documents(prefix: str = PREFIX) -> tuple[Document, Document, Document]:
    """Create, remove and probe, in PowerShell."""
    create = Document(
        name=f"{prefix}CreateWindowsUser",
        description="Makes a short-lived Windows user whose removal is planned on the server itself.",
        action="create",
        parameters=(REQUEST_ID, ATTEMPT, USER_NAME, *WINDOWS_CREATE_ONLY),
        modules=("common", "removal", "password"),
        timeout_seconds=300,
        carries_sweeper=True,
        platform="Windows",
    )
    remove = Document(
        name=f"{prefix}RemoveWindowsUser",
        description="Ends a short-lived Windows user's access, removes the user, and verifies it.",
        action="remove",
        parameters=(REQUEST_ID, ATTEMPT, USER_NAME),
        modules=("common", "removal"),
        timeout_seconds=900,
        platform="Windows",
    )
    probe = Document(
        name=f"{prefix}ProbeWindows",
        description="Says whether the Windows server can take a short-lived user, and which it has.",
        action="probe",
        parameters=(),
        modules=("common",),
        timeout_seconds=60,
        platform="Windows",
    )
    return create, remove, probe


def create_document(prefix: str = PREFIX) -> Document:
    """The document that makes a short-lived user."""
    return Document(
        name=f"{prefix}CreateUser",
        description="Makes a short-lived user whose removal is planned on the server itself.",
        action="create",
        parameters=(REQUEST_ID, ATTEMPT, USER_NAME, *CREATE_ONLY),
        modules=SHARED,
        timeout_seconds=300,
        carries_sweeper=True,
    )


def remove_document(prefix: str = PREFIX) -> Document:
    """The document that removes a short-lived user and proves it."""
    return Document(
        name=f"{prefix}RemoveUser",
        description="Ends a short-lived user's access, removes the user, and verifies it.",
        action="remove",
        parameters=(REQUEST_ID, ATTEMPT, USER_NAME),
        modules=SHARED,
        timeout_seconds=900,
    )


def probe_document(prefix: str = PREFIX) -> Document:
    """The document that only looks."""
    return Document(
        name=f"{prefix}Probe",
        description="Says whether the server can take a short-lived user, and which it has.",
        action="probe",
        parameters=(),
        modules=("common", "sshd", "timer", "metadata"),
        timeout_seconds=60,
    )


def template() -> str:
    """The documents as a CloudFormation template, with the prefix of their names as its parameter."""
    resources = {
        document.name: {
            "Type": "AWS::SSM::Document",
            "Properties": {
                "Name": {"Fn::Sub": "${DocumentPrefix}" + document.name},
                "DocumentType": "Command",
                "DocumentFormat": "JSON",
                "UpdateMethod": "NewVersion",  # which is the default one from then on
                "Content": json.loads(document.content),
            },
        }
        for document in documents(prefix="")
    }
    written = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The documents that Passport runs on servers, for every account and region with any. "
        "Written by passport documents template.",
        "Parameters": {
            "DocumentPrefix": {
                "Type": "String",
                "Description": "The document_prefix of Passport's settings.",
                "Default": PREFIX,
                "AllowedPattern": "^[A-Za-z0-9_.-]{3,60}$",
            }
        },
        "Resources": resources,
    }
    return json.dumps(written, indent=1, ensure_ascii=True)


def sweeper_program() -> str:
    """What create leaves on the server for its timer to run."""
    return "#!/bin/sh\n" + "".join(_module(name) for name in (*SHARED, *SWEEPER))


class _Declaration(TypedDict, total=False):
    type: str
    description: str
    allowedPattern: str
    interpolationType: str
    default: str


def _declaration(parameter: Parameter) -> _Declaration:
    declared = _Declaration(
        type="String",
        description=parameter.says,
        allowedPattern=parameter.pattern,
        interpolationType="ENV_VAR",
    )
    if parameter.default is not None:
        declared["default"] = parameter.default
    return declared


def _take_parameters(parameters: Sequence[Parameter]) -> str:
    """Shell lines that take each value from the environment, or from the text where an older agent put it.

    Such an agent puts the value between the quotes; AWS has matched it against the pattern by then, and no pattern
    admits a quote.
    """
    lines = []
    for parameter in parameters:
        name = f"SSM_{parameter.name}"
        lines.append(f"""if [ -z "${{{name}+x}}" ]; then {name}='{{{{ {parameter.name} }}}}'; fi""")
        lines.append(f"{parameter.variable}=${name}")
    checks = [f"    check_parameter {p.name} \"${p.variable}\" '{p.pattern}'" for p in parameters]
    return "\n".join([*lines, "check_parameters() {", *(checks or ["    :"]), "}"]) + "\n"


def _carry_sweeper(shared: str) -> str:
    """The shared functions once, for two readers: this program, and the sweeper that it writes to the disk.

    Twice would be over AWS's limit; a here-document would need a disk that is not full, before anything can say so.
    """
    return (
        f"SHARED={_quoted(shared)}\nSWEEP={_quoted(''.join(map(_module, SWEEPER)))}\n"
        'sweeper_program() { printf \'#!/bin/sh\\n%s%s\' "$SHARED" "$SWEEP"; }\n'
        'eval "$SHARED"\n'
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_COMMENT_LINE = re.compile(r"^[ \t]*#.*\n", re.MULTILINE)


def _module(name: str) -> str:
    """A script without its comments; raises ValueError if Systems Manager would read something in it.

    With them the create document would be over AWS's limit. No line of a script's own texts begins with #.
    """
    text = (SCRIPTS / f"{name}.sh").read_text(encoding="ascii")
    if "{{" in text:
        raise ValueError(f"{name}.sh holds two braces in a row, which Systems Manager expands")
    return _COMMENT_LINE.sub("", text)


class DocumentsClient(Protocol):
    """What is used of boto3's Systems Manager client."""

    def get_document(self, *, Name: str, DocumentVersion: str = ...) -> Mapping[str, object]: ...  # noqa: N803

    def create_document(
        self,
        *,
        Name: str,  # noqa: N803
        Content: str,  # noqa: N803
        DocumentType: str,  # noqa: N803
        DocumentFormat: str,  # noqa: N803
    ) -> Mapping[str, object]: ...

    def update_document(
        self,
        *,
        Name: str,  # noqa: N803
        Content: str,  # noqa: N803
        DocumentVersion: str,  # noqa: N803
        DocumentFormat: str,  # noqa: N803
    ) -> Mapping[str, object]: ...

    def update_document_default_version(
        self,
        *,
        Name: str,  # noqa: N803
        DocumentVersion: str,  # noqa: N803
    ) -> Mapping[str, object]: ...


def check(client: DocumentsClient, prefix: str = PREFIX) -> list[Finding]:
    """Compare what AWS would run with what this version needs; raises UnavailableError."""
    findings = []
    for document in documents(prefix):
        published = _published(client, document.name)
        if published is None:
            findings.append(Finding(document=document.name, problem=Problem.MISSING))
        elif not _same(published[0], document.content):
            findings.append(Finding(document=document.name, problem=Problem.DIFFERS))
    return findings


def publish(client: DocumentsClient, prefix: str = PREFIX) -> list[str]:
    """Create or update what differs, and name it; a second run changes nothing. Raises UnavailableError."""
    changed = [finding.document for finding in check(client, prefix)]
    for document in documents(prefix):
        if document.name in changed:
            try:
                _publish(client, document)
            except ClientError as error:
                raise _unavailable(document.name, error) from error
    return changed


def _publish(client: DocumentsClient, document: Document) -> None:
    try:
        client.create_document(
            Name=document.name, Content=document.content, DocumentType="Command", DocumentFormat="JSON"
        )
    except ClientError as error:
        if _code(error) != "DocumentAlreadyExists":
            raise
        client.update_document_default_version(Name=document.name, DocumentVersion=_new_version(client, document))


def _new_version(client: DocumentsClient, document: Document) -> str:
    """Make the newest version this content, and give its number."""
    try:
        answer = client.update_document(
            Name=document.name, Content=document.content, DocumentVersion="$LATEST", DocumentFormat="JSON"
        )
    except ClientError as error:
        if _code(error) != "DuplicateDocumentContent":
            raise
        return _version_with(client, document)
    described = answer["DocumentDescription"]
    if not isinstance(described, Mapping):
        raise UnavailableError(f"AWS answered oddly to the update of {document.name}.")
    return str(described["DocumentVersion"])


def _version_with(client: DocumentsClient, document: Document) -> str:
    """The number of the version that has this content already, newest first."""
    latest = _published(client, document.name, "$LATEST")
    for number in range(int(latest[1]) if latest else 0, 0, -1):
        version = _published(client, document.name, str(number))
        if version is not None and _same(version[0], document.content):
            return version[1]
    raise UnavailableError(f"AWS has {document.name} already, it says, but in no version.")


def _published(client: DocumentsClient, name: str, version: str | None = None) -> tuple[str, str] | None:
    """Content and number of one version of a document, or of its default; None if there is none."""
    try:
        answer = client.get_document(Name=name, **({"DocumentVersion": version} if version else {}))
    except ClientError as error:
        if _code(error) in {"InvalidDocument", "InvalidDocumentVersion"}:
            return None
        raise _unavailable(name, error) from error
    return str(answer["Content"]), str(answer["DocumentVersion"])


def _same(published: str, content: str) -> bool:
    try:
        return bool(json.loads(published) == json.loads(content))
    except ValueError:
        return False


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _unavailable(name: str, error: ClientError) -> UnavailableError:
    if _code(error) in DENIED:
        operation = str(error.operation_name)
        return UnavailableError(denied(f"{operation} on {name}", operation))
    return UnavailableError(f"Systems Manager refuses the document {name}: {_code(error)}.")
