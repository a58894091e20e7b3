"""Every request is held against botocore's own model of the service: names, types, patterns, sizes and enums."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape

from sandbox.aws.errors import AwsError

PYTHON_TYPES = {
    "string": str,
    "integer": int,
    "long": int,
    "boolean": bool,
    "list": list,
    "map": dict,
    "structure": dict,
}


# The models are written for Java: Unicode's classes are spelled otherwise in Python, and a little wider here.
JAVA_CLASSES = (
    (r"\p{L}", r"\w"),
    (r"\p{N}", r"\d"),
    (r"\p{Z}", r"\s"),
    (r"\p{P}", "!-/:-@"),
    (r"\p{M}", ""),
    (r"\w-\/", r"\w\-\/"),
)


@cache
def ssm_model() -> ServiceModel:
    """The service model of Systems Manager."""
    return ServiceModel(Loader().load_service_model("ssm", "service-2"), "ssm")


def check_request(operation: str, request: dict[str, Any]) -> None:
    """Raise AwsError (ValidationException, or UnknownOperationException) unless the model allows the request."""
    model = ssm_model()
    if operation not in model.operation_names:
        raise AwsError("UnknownOperationException", f"unknown operation {operation}")
    shape = model.operation_model(operation).input_shape
    wrongs = _wrongs(shape, request, "") if shape is not None else []
    if wrongs:
        count = "1 validation error" if len(wrongs) == 1 else f"{len(wrongs)} validation errors"
        raise AwsError("ValidationException", f"{count} detected: " + "; ".join(wrongs))


def _wrongs(shape: Shape, value: Any, path: str) -> list[str]:
    expected = PYTHON_TYPES.get(shape.type_name)
    if expected and (not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool)):
        return [f"Value at '{path}' is not a {shape.type_name}"]
    found = _size_wrongs(shape, value, path)
    if isinstance(shape, StructureShape):
        return found + _structure_wrongs(shape, value, path)
    if isinstance(shape, ListShape):
        for index, member in enumerate(value, start=1):
            found += _wrongs(shape.member, member, f"{path}.{index}.member")
    elif isinstance(shape, MapShape):
        for key, member in value.items():
            found += _wrongs(shape.key, key, f"{path}.key") + _wrongs(shape.value, member, f"{path}.{key}")
    elif isinstance(shape, StringShape):
        found += _string_wrongs(shape, value, path)
    return found


def _structure_wrongs(shape: StructureShape, value: dict[str, Any], path: str) -> list[str]:
    found = [
        f"Value null at '{_below(path, name)}' failed to satisfy constraint: Member must not be null"
        for name in shape.required_members
        if value.get(name) is None
    ]
    for name, member in value.items():
        if name not in shape.members:
            found.append(f"Unknown parameter '{_below(path, name)}'")
        elif member is not None:
            found += _wrongs(shape.members[name], member, _below(path, name))
    return found


def _size_wrongs(shape: Shape, value: Any, path: str) -> list[str]:
    limits = shape.metadata
    if shape.type_name in {"integer", "long"}:
        size, noun = value, "value"
    elif shape.type_name in {"string", "list", "map"}:
        size, noun = len(value), "length"
    else:
        return []
    found = []
    if "min" in limits and size < limits["min"]:
        found.append(f"greater than or equal to {limits['min']}")
    if "max" in limits and size > limits["max"]:
        found.append(f"less than or equal to {limits['max']}")
    return [f"Value at '{path}' failed to satisfy constraint: Member must have {noun} {wrong}" for wrong in found]


def _string_wrongs(shape: StringShape, value: str, path: str) -> list[str]:
    found = []
    if shape.enum and value not in shape.enum:
        allowed = ", ".join(shape.enum)
        found.append(
            f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy enum value set: [{allowed}]"
        )
    pattern = shape.metadata.get("pattern")
    if pattern and not re.fullmatch(_python_pattern(pattern), value):
        found.append(
            f"Value '{value}' at '{path}' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {pattern}"
        )
    return found


def _python_pattern(pattern: str) -> str:
    for java, python in JAVA_CLASSES:
        pattern = pattern.replace(java, python)
    return pattern


def _below(path: str, name: str) -> str:
    name = name[:1].lower() + name[1:]
    return f"{path}.{name}" if path else name
