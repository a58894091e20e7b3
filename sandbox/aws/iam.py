"""IAM's evaluation of policies, as far as Passport's go; whatever is not known here is an error, never a yes.

After "Policy evaluation logic" and "IAM JSON policy elements" of the IAM User Guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["allowed", "denied", "not allowed"]

_ELEMENTS = {"Sid", "Effect", "Action", "Resource", "Condition", "Principal"}


class PolicyError(ValueError):
    """A policy, or a question to it, has something that is not known here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """May this be done to this? One call of AWS asks once for every resource that it touches."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()  # the condition keys that AWS knows for it; ``x/*`` for every tag
    principal: str = ""  # who asks to become a role, by ARN

    def __post_init__(self) -> None:
        for key in self.context:
            if not self.knows(key):
                raise PolicyError(f"AWS has no {key} when it is asked for {self.action}")

    def knows(self, key: str) -> bool:
        """Whether a condition on this key could ever hold."""
        return key in self.keys or f"{key.partition('/')[0]}/*" in self.keys


def decide(statements: Iterable[Mapping[str, Any]], ask: Ask) -> Verdict:
    """What the policies say: a Deny wins, and nothing said is no. Raises PolicyError."""
    verdict: Verdict = "not allowed"
    for statement in statements:
        if not _applies(statement, ask):
            continue
        match statement.get("Effect"):
            case "Deny":
                return "denied"
            case "Allow":
                verdict = "allowed"
            case other:
                raise PolicyError(f"the effect {other} is not known")
    return verdict


def actions(statements: Iterable[Mapping[str, Any]]) -> set[str]:
    """Every action that is allowed somewhere; raises PolicyError for one with a wildcard, which allows the unknown."""
    found = {action for each in statements if each["Effect"] == "Allow" for action in _listed(each["Action"])}
    if wild := {action for action in found if "*" in action or "?" in action}:
        raise PolicyError(f"{sorted(wild)} allow more than is known")
    return found


def _applies(statement: Mapping[str, Any], ask: Ask) -> bool:
    if unknown := statement.keys() - _ELEMENTS:
        raise PolicyError(f"the elements {sorted(unknown)} are not known")
    if not any(_matches(pattern, ask.action, any_case=True) for pattern in _listed(statement["Action"])):
        return False
    if "Principal" in statement and statement["Principal"] != {"AWS": ask.principal}:
        return False
    # The policy of who may become a role has no resource: it is the role's.
    if not any(_matches(pattern, ask.resource) for pattern in _listed(statement.get("Resource", ask.resource))):
        return False
    conditions = statement.get("Condition", {}).items()
    return all(_holds(operator, key, wanted, ask) for operator, keys in conditions for key, wanted in keys.items())


def _holds(operator: str, key: str, wanted: Any, ask: Ask) -> bool:
    if not ask.knows(key):
        raise PolicyError(f"AWS has no {key} when it is asked for {ask.action} on {ask.resource}")
    value = ask.context.get(key)
    match operator:
        case "StringEquals":
            return value in _listed(wanted)
        case "StringLike":
            return value is not None and any(_matches(pattern, value) for pattern in _listed(wanted))
        case "BoolIfExists":
            return value is None or value in _listed(wanted)
    raise PolicyError(f"the operator {operator} is not known")


def _matches(pattern: str, text: str, *, any_case: bool = False) -> bool:
    """``*`` is any text, ``?`` one character, everything else itself."""
    if "${" in pattern:
        raise PolicyError(f"the variable in {pattern} is not known")
    plain = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(plain, text, re.DOTALL | (re.IGNORECASE if any_case else 0)) is not None


def _listed(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in values):
        raise PolicyError(f"{value} is not text")
    return list(values)
