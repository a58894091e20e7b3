"""The policies of CloudFormation templates: as much of the language as those under ``deploy/`` use, and no more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

DEPLOY = Path(__file__).parents[2] / "deploy"
_NOTHING = object()
_PLACE = re.compile(r"\$\{([^}]*)\}")
_SHORT = {
    "Ref": "Ref",
    "Sub": "Fn::Sub",
    "If": "Fn::If",
    "GetAtt": "Fn::GetAtt",
    "Equals": "Fn::Equals",
    "Not": "Fn::Not",
    "Or": "Fn::Or",
}


class TemplateError(ValueError):
    """The template has something that is not known here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """What a template makes with some parameters."""

    account: str
    resources: Mapping[str, Mapping[str, Any]] = field(repr=False)  # their Properties, by logical id

    def statements(self, policy: str) -> list[Mapping[str, Any]]:
        """The statements of an AWS::IAM::ManagedPolicy."""
        return _statements(self.resources[policy]["PolicyDocument"])

    def trust(self, role: str) -> list[Mapping[str, Any]]:
        """Who may become an AWS::IAM::Role."""
        return _statements(self.resources[role]["AssumeRolePolicyDocument"])


def role_id(name: str) -> str:
    """What the sandbox takes for the unique id of a role."""
    return f"AROA{name.upper()}"


def deploy(name: str, account: str, parameters: Mapping[str, str | list[str]]) -> Stack:
    """The stack of a template under ``deploy/``; raise TemplateError for what is not known here."""
    template = load(DEPLOY / name)
    values = {key: declared["Default"] for key, declared in template["Parameters"].items() if "Default" in declared}
    if unknown := parameters.keys() - template["Parameters"].keys():
        raise TemplateError(f"{name} has no parameters {sorted(unknown)}")
    values |= parameters
    if missing := template["Parameters"].keys() - values.keys():
        raise TemplateError(f"{name} needs the parameters {sorted(missing)}")
    values |= {
        "AWS::AccountId": account,
        "AWS::Region": "eu-west-1",
        "AWS::Partition": "aws",
        "AWS::URLSuffix": "amazonaws.com",
    }
    reader = _Reader(template=template, values=values)
    made = {
        logical: each["Properties"]
        for logical, each in template["Resources"].items()
        if "Condition" not in each or reader.holds(each["Condition"])
    }
    return Stack(account=account, resources={logical: reader.read(properties) for logical, properties in made.items()})


def load(path: Path) -> dict[str, Any]:
    """A template with its intrinsic functions in their long form."""
    loaded: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    return loaded


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    pass


def _short(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if tag not in _SHORT:
        raise TemplateError(f"!{tag} is not known here")
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {_SHORT[tag]: value.split(".", 1) if tag == "GetAtt" else value}
    return {_SHORT[tag]: loader.construct_sequence(node, deep=True)}


_Loader.add_multi_constructor("!", _short)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader:
    template: Mapping[str, Any]
    values: Mapping[str, Any]

    def holds(self, condition: str) -> bool:
        return self._condition(self.template["Conditions"][condition])

    def _condition(self, written: Mapping[str, Any]) -> bool:
        match written:
            case {"Fn::Equals": [left, right]}:
                return bool(self.read(left) == self.read(right))
            case {"Fn::Not": [inner]}:
                return not self._condition(inner)
            case {"Fn::Or": [*several]}:
                return any(self._condition(each) for each in several)
        raise TemplateError(f"the condition {written} is not known here")

    def read(self, written: Any) -> Any:
        if isinstance(written, list):
            return [found for each in written if (found := self.read(each)) is not _NOTHING]
        if not isinstance(written, dict):
            return written
        [key, *others] = written or [""]
        if not others and (key == "Ref" or key.startswith("Fn::")):
            return self._intrinsic(key, written[key])
        return {name: found for name, each in written.items() if (found := self.read(each)) is not _NOTHING}

    def _intrinsic(self, name: str, given: Any) -> Any:
        match name, given:
            case "Ref", "AWS::NoValue":
                return _NOTHING
            case "Ref", str():
                return self._named(given)
            case "Fn::GetAtt", [logical, "RoleId"]:
                return role_id(str(self.read(self.template["Resources"][logical]["Properties"]["RoleName"])))
            case "Fn::GetAtt", [logical, "Arn"]:
                return f"arn:aws:iam::{self.values['AWS::AccountId']}:role/{self._named(logical)}"
            case "Fn::If", [condition, then, otherwise]:
                return self.read(then if self.holds(condition) else otherwise)
            case "Fn::Sub", str():
                return _PLACE.sub(self._place, given)
        raise TemplateError(f"{name} of {given} is not known here")

    def _place(self, place: re.Match[str]) -> str:
        logical, _, attribute = place[1].partition(".")
        return str(self._intrinsic("Fn::GetAtt", [logical, attribute]) if attribute else self._named(logical))

    def _named(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        if name in self.template["Resources"]:
            return str(self.read(self.template["Resources"][name]["Properties"].get("RoleName", name)))
        raise TemplateError(f"{name} is neither a parameter nor a resource")


def _statements(document: Any) -> list[Mapping[str, Any]]:
    if not isinstance(document, dict) or document.keys() != {"Version", "Statement"}:
        raise TemplateError("a policy has a Version and a Statement here")
    if document["Version"] != "2012-10-17":
        raise TemplateError("a policy is of 2012-10-17, or variables would be plain text")
    return list(document["Statement"])
