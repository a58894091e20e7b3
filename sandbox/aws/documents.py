"""Systems Manager documents: their content, their versions, and what their parameters allow."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.aws.errors import AwsError

# "Document content" quota, page "AWS Systems Manager endpoints and quotas".
LARGEST_DOCUMENT = 64 * 1024
MOST_VERSIONS = 1000
RESERVED = ("aws-", "aws_", "amazon", "amzn")
PLUGINS = {"aws:runShellScript": "Linux", "aws:runPowerShellScript": "Windows"}
SESSION_TYPES = {"Standard_Stream", "InteractiveCommands", "NonInteractiveCommands", "Port"}
PARAMETER_TYPES = {"String", "StringList", "Boolean", "Integer", "MapList", "StringMap"}
PARAMETER_KEYS = {
    *("type", "description", "default", "allowedValues", "allowedPattern", "displayType", "interpolationType"),
    *("minItems", "maxItems", "minChars", "maxChars"),
}
PARAMETER_NAME = re.compile(r"[A-Za-z0-9_]{1,80}")
PLACE = re.compile(r"\{\{ ?([A-Za-z0-9_]+) ?\}\}")
DEFAULT_TIMEOUT = 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One script of a document."""

    action: str
    name: str
    platform: str | None
    commands: tuple[str, ...]
    timeout: str
    working_directory: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """A document's content that Systems Manager would accept."""

    kind: str
    text: str
    description: str
    parameters: Mapping[str, Mapping[str, Any]]
    steps: tuple[Step, ...]
    session_type: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """SHA-256 of the text, as DescribeDocument reports it."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(kw_only=True, slots=True)
class Document:
    """A document with all its versions."""

    name: str
    owner: str
    kind: str
    target_type: str = ""
    versions: dict[str, Content] = field(default_factory=dict)
    version_names: dict[str, str] = field(default_factory=dict)
    default: str = "1"
    latest: str = "1"
    created_at: float = field(default_factory=time.time)
    tags: dict[str, str] = field(default_factory=dict)

    def version(self, wanted: str | None) -> str:
        """A version's number for `$DEFAULT`, `$LATEST`, a number or nothing; raise AwsError when there is none."""
        number = {None: self.default, "$DEFAULT": self.default, "$LATEST": self.latest}.get(wanted, wanted)
        if number not in self.versions:
            raise AwsError("InvalidDocumentVersion", f"The document version {wanted} isn't valid or doesn't exist.")
        return str(number)


def parse_content(text: str, kind: str) -> Content:
    """Check a document's text as Systems Manager does; raise AwsError (InvalidDocumentContent, …)."""
    if len(text.encode()) > LARGEST_DOCUMENT:
        raise AwsError("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB.")
    content = _parsed(text)
    if kind == "Session":
        return _session_content(text, content)
    if content.get("schemaVersion") != "2.2":
        raise AwsError("InvalidDocumentSchemaVersion", "The sandbox knows schema version 2.2 only.")
    unknown = content.keys() - {"schemaVersion", "description", "parameters", "mainSteps", "outputs"}
    if unknown:
        raise _invalid(f"unknown property {min(unknown)}")
    parameters = content.get("parameters", {})
    for name, rules in parameters.items():
        _check_definition(name, rules)
    steps = tuple(_step(step) for step in content.get("mainSteps") or [])
    if not steps:
        raise _invalid("mainSteps is missing")
    if len({step.name for step in steps}) != len(steps):
        raise _invalid("step names must be unique")
    used = {name for step in steps for text in (*step.commands, step.timeout) for name in PLACE.findall(text)}
    if used - parameters.keys():
        raise _invalid(f"parameter {min(used - parameters.keys())} is used and not defined")
    description = str(content.get("description", ""))
    return Content(kind=kind, text=text, description=description, parameters=parameters, steps=steps)


def _session_content(text: str, content: Mapping[str, Any]) -> Content:
    """Page "Session document schema"."""
    if content.get("schemaVersion") != "1.0" or content.get("sessionType") not in SESSION_TYPES:
        raise _invalid("a Session document has schemaVersion 1.0 and a sessionType")
    parameters, properties = content.get("parameters", {}), content.get("properties", {})
    for name, rules in parameters.items():
        _check_definition(name, rules)
    used = {name for value in properties.values() for name in PLACE.findall(str(value))}
    if used - parameters.keys():
        raise _invalid(f"parameter {min(used - parameters.keys())} is used and not defined")
    if content["sessionType"] == "Port" and "portNumber" not in properties:
        raise _invalid("a session of type Port has the property portNumber")
    return Content(
        kind="Session",
        text=text,
        description=str(content.get("description", "")),
        parameters=parameters,
        steps=(),
        session_type=content["sessionType"],
        properties=properties,
    )


def filled_properties(content: Content, values: Mapping[str, Any]) -> dict[str, str]:
    """A Session document's properties with its parameters' values put in."""
    return {
        name: PLACE.sub(lambda found: str(values[found[1]]), str(text)) for name, text in content.properties.items()
    }


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _invalid(f"JSON not well-formed: {error}") from None
    if not isinstance(content, dict):
        raise _invalid("the document is not an object")
    return content


def _check_definition(name: str, rules: object) -> None:
    if not PARAMETER_NAME.fullmatch(name) or not isinstance(rules, dict):
        raise _invalid(f"parameter {name} is not valid")
    if rules.keys() - PARAMETER_KEYS:
        raise _invalid(f"parameter {name}: unknown property {min(rules.keys() - PARAMETER_KEYS)}")
    if rules.get("type") not in PARAMETER_TYPES:
        raise _invalid(f"parameter {name}: type {rules.get('type')} is not supported")
    if "interpolationType" in rules and (rules["interpolationType"] != "ENV_VAR" or rules["type"] != "String"):
        raise _invalid(f"parameter {name}: interpolationType is ENV_VAR, on a String")
    try:
        re.compile(rules.get("allowedPattern", ""))
    except re.error:
        raise _invalid(f"parameter {name}: allowedPattern is not a regular expression") from None
    if "default" in rules:
        wrong = _value_wrong(rules, rules["default"])
        if wrong:
            raise _invalid(f"parameter {name}: its default {wrong}")


def _step(step: object) -> Step:
    if not isinstance(step, dict) or step.keys() - {
        "action",
        "name",
        "inputs",
        "precondition",
        "onFailure",
        "isCritical",
    }:
        raise _invalid("a step has unknown properties")
    action, inputs = step.get("action"), step.get("inputs")
    if action not in PLUGINS or not isinstance(inputs, dict):
        raise _invalid(f"plugin {action} is not known to the sandbox")
    commands = inputs.get("runCommand")
    commands = [commands] if isinstance(commands, str) else commands
    if not isinstance(commands, list) or not all(isinstance(line, str) for line in commands):
        raise _invalid("runCommand is a list of strings")
    if inputs.keys() - {"runCommand", "timeoutSeconds", "workingDirectory", "id"}:
        raise _invalid("unknown input of a script step")
    if not isinstance(step.get("name"), str) or not re.fullmatch(r"[a-zA-Z0-9_]{3,128}", step["name"]):
        raise _invalid("a step's name has 3 to 128 of a-z, A-Z, 0-9 and _")
    return Step(
        action=action,
        name=step["name"],
        platform=_platform(step.get("precondition")),
        commands=tuple(commands),
        timeout=str(inputs.get("timeoutSeconds", DEFAULT_TIMEOUT)),
        working_directory=str(inputs.get("workingDirectory", "")),
    )


def _platform(precondition: object) -> str | None:
    if precondition is None:
        return None
    match precondition:
        case {"StringEquals": ["platformType", str(platform)]} | {"StringEquals": [str(platform), "platformType"]}:
            return platform
    raise _invalid("a precondition compares platformType")


def check_parameters(content: Content, given: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The parameters' values with defaults filled in; raise AwsError (InvalidParameters) as SendCommand does."""
    for name in given:
        if name not in content.parameters:
            raise AwsError("InvalidParameters", f"Parameter {name} is not defined in the document.")
    values: dict[str, Any] = {}
    for name, rules in content.parameters.items():
        if name not in given:
            if "default" not in rules:
                raise AwsError("InvalidParameters", f"Parameter {name} is required and has no value.")
            values[name] = rules["default"]
            continue
        value = _typed(name, rules, given[name])
        wrong = _value_wrong(rules, value)
        if wrong:
            raise AwsError("InvalidParameters", f"Parameter {name} {wrong}.")
        values[name] = value
    return values


def _typed(name: str, rules: Mapping[str, Any], given: Sequence[str]) -> Any:
    if rules["type"] == "StringList":
        return list(given)
    if len(given) != 1:
        raise AwsError("InvalidParameters", f"Parameter {name} takes exactly one value.")
    text = given[0]
    if rules["type"] == "Boolean" and text in {"true", "false"}:
        return text == "true"
    if rules["type"] == "Integer" and re.fullmatch(r"-?[0-9]+", text):
        return int(text)
    if rules["type"] in {"Boolean", "Integer"}:
        raise AwsError("InvalidParameters", f"Parameter {name} is not a valid {rules['type']}.")
    return text


def _value_wrong(rules: Mapping[str, Any], value: Any) -> str | None:
    expected = {"String": str, "StringList": list, "Boolean": bool, "Integer": int}.get(rules["type"], object)
    if not isinstance(value, expected):
        return f"is not a {rules['type']}"
    if "allowedValues" in rules and value not in rules["allowedValues"]:
        return f"is not one of the allowed values {rules['allowedValues']}"
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str):
            continue
        # `$` must not forgive a trailing newline, as Python's would.
        if "allowedPattern" in rules and not re.fullmatch(rules["allowedPattern"], text):
            return f"does not match the allowed pattern {rules['allowedPattern']}"
        if not rules.get("minChars", 0) <= len(text) <= rules.get("maxChars", LARGEST_DOCUMENT):
            return "is too short or too long"
    return None


def _invalid(reason: str) -> AwsError:
    return AwsError("InvalidDocumentContent", f"The document content is not valid: {reason}.")
