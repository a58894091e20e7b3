"""What PowerShell's values are here: Python's own, and .NET's objects with just the members that are known."""

from __future__ import annotations

import re
from typing import Any

VOID = object()  # what a method without a result gives: nothing at all, which is not $null


class UnknownError(Exception):
    """The script asks for something that this Windows does not know; no catch of the script's takes it."""


class PowerShellError(Exception):
    """An exception that a script may catch, with its .NET types, the most special first."""

    def __init__(self, message: str, *kinds: str) -> None:
        super().__init__(message)
        self.kinds = tuple(kind.lower() for kind in kinds)


class Char(str):
    """One [char], which is no [string]."""

    __slots__ = ()


class Net:
    """A .NET object: ``get_x`` and ``set_x`` are properties, ``call_x`` methods; what is not there is unknown."""

    def get(self, name: str) -> Any:
        """A property."""
        return self._found(f"get_{name.lower()}", name)()

    def set(self, name: str, value: Any) -> None:
        """Change a property."""
        self._found(f"set_{name.lower()}", name)(value)

    def call(self, name: str, arguments: list[Any]) -> Any:
        """A method."""
        return self._found(f"call_{name.lower()}", name)(*arguments)

    def _found(self, member: str, name: str) -> Any:
        found = getattr(self, member, None)
        if found is None:
            raise UnknownError(f"{type(self).__name__} has no {name}")
        return found


class Row(Net):
    """An object with properties only, as cmdlets give them."""

    def __init__(self, **properties: Any) -> None:
        self.properties = {name.lower(): value for name, value in properties.items()}

    def get(self, name: str) -> Any:
        """A property; one that is not there is unknown, and not $null as in PowerShell without strict mode."""
        if name.lower() not in self.properties:
            raise UnknownError(f"no property {name} among {', '.join(self.properties)}")
        return self.properties[name.lower()]

    def set(self, name: str, value: Any) -> None:
        """Change one that is there."""
        self.get(name)
        self.properties[name.lower()] = value


def text(value: Any) -> str:
    """[string]."""
    if value is None:
        return ""
    if isinstance(value, list | bytearray | bytes):
        return " ".join(map(text, value))
    if isinstance(value, Net):
        raise UnknownError(f"{type(value).__name__} as a string")
    return str(value)


def number(value: Any) -> int:
    """[long]."""
    if value is None or value == "":
        return 0
    if isinstance(value, Char):
        return ord(value)
    try:
        return int(value)
    except (TypeError, ValueError):
        raise PowerShellError(
            f'Cannot convert value "{value}" to type "System.Int64".', "InvalidCastException"
        ) from None


def truth(value: Any) -> bool:
    """What an if thinks of a value."""
    if isinstance(value, list):
        return truth(value[0]) if len(value) == 1 else bool(value)
    return isinstance(value, Net | bytearray) or value not in {None, 0, ""}


def octets(value: Any) -> bytearray:
    """[byte[]]; a function's bytes come as single numbers."""
    return value if isinstance(value, bytearray) else bytearray(value)


def equal(left: Any, right: Any, *, case: bool) -> bool:
    """-eq: the right side becomes what the left one is."""
    if isinstance(left, list):
        raise UnknownError("a list at the left of a comparison, which filters it")
    if isinstance(left, str):
        mine, theirs = str(left), text(right)
        return mine == theirs if case else mine.casefold() == theirs.casefold()
    if isinstance(left, bool):
        return left == truth(right)
    if isinstance(left, int) and right is not None:
        return left == number(right)
    return left is None and right is None


def matches(value: Any, pattern: str, *, case: bool) -> re.Match[str] | None:
    """-match."""
    return re.search(pattern, text(value), 0 if case else re.IGNORECASE)
