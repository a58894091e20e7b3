"""The servers for whoever never signed in: nothing is listed, and only what they can name is there."""

from collections.abc import Mapping, Sequence

from access.errors import UnavailableError
from access.model import Server
from access.ports import Inventory


class NamedOnly:
    """``access.ports.Inventory`` without its lists: exact names and ids, no tags, no beginnings of names."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def find(self, words: str) -> Sequence[Server]:
        """By exact name or instance id; raises UnavailableError."""
        return [] if words.strip().startswith("tag:") else self._inventory.find(words)

    def search(self, text: str, limit: int) -> Sequence[Server]:
        """As ``find``, as far as servers are listed."""
        try:
            return self.find(text)[:limit]
        except UnavailableError:
            return []

    def read_again(self, servers: Sequence[Server]) -> Mapping[str, Server]:
        """The servers as they are now; raises UnavailableError."""
        return self._inventory.read_again(servers)
