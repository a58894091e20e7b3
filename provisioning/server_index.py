"""One reading of a region's servers, to be searched: never changed, only replaced, and lean."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice

from access.model import Server


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A server and what it is found by: name and everything else, casefolded."""

    server: Server
    gone: bool
    name: str
    others: str

    @property
    def order(self) -> tuple[str, str]:
        """By name, and among those of one name by what never changes."""
        return self.name, self.server.key


def listed(server: Server, addresses: Iterable[str] = (), *, gone: bool = False) -> Listed:
    """The server as it is searched for; text that folds to itself is kept once."""
    others = (server.instance_id, *addresses, *(f"{key}={value}" for key, value in server.tags.items()))
    name = server.name.casefold()
    return Listed(
        server=server,
        gone=gone,
        name=server.name if name == server.name else name,
        others="\n".join(others).casefold(),
    )


class ServerIndex:
    """The servers of one region."""

    def __init__(self, servers: Iterable[Listed]) -> None:
        everyone = sorted(servers, key=lambda one: one.order)
        # A terminated server is still found by its id, to be told so; its name may be another's by now.
        self._alive = [one for one in everyone if not one.gone]
        self._by_id = _grouped((one.server.instance_id, one) for one in everyone)
        self._by_name = _grouped((one.name, one) for one in self._alive)
        self._count = len(everyone)

    def __len__(self) -> int:
        return self._count

    def of_id(self, instance_id: str) -> Sequence[Listed]:
        """Gone ones as well."""
        return self._by_id.get(instance_id, ())

    def of_name(self, name: str) -> Sequence[Listed]:
        """By the casefolded name."""
        return self._by_name.get(name, ())

    def of_tag(self, key: str, value: str) -> list[Listed]:
        """Looked through one by one: an index of all tags would be larger than the servers."""
        return [one for one in self._alive if one.server.tags.get(key) == value]

    def ranked(self, wanted: str) -> tuple[list[Listed], ...]:
        """Those that hold the casefolded text: as name, at its beginning, within it, elsewhere; each by name."""
        ranks: tuple[list[Listed], ...] = ([], [], [], [])
        for one in self._alive:
            if wanted in one.name:
                ranks[0 if one.name == wanted else 1 if one.name.startswith(wanted) else 2].append(one)
            elif wanted in one.others:
                ranks[3].append(one)
        return ranks


def best(indexes: Iterable[ServerIndex], text: str, limit: int) -> list[Server]:
    """The best ``limit`` servers of all regions that the text is found in."""
    ranks = zip(*(index.ranked(text.casefold()) for index in indexes), strict=True)
    found: Iterator[Listed] = (one for rank in ranks for one in in_order(rank))
    return [one.server for one in islice(found, limit)]


def in_order(groups: Iterable[Sequence[Listed]]) -> Iterator[Listed]:
    """Several that are sorted, as one that is."""
    return merge(*groups, key=lambda one: one.order)


def _grouped(pairs: Iterable[tuple[str, Listed]]) -> Mapping[str, tuple[Listed, ...]]:
    found: dict[str, list[Listed]] = defaultdict(list)
    for key, one in pairs:
        found[key].append(one)
    return {key: tuple(together) for key, together in found.items()}
