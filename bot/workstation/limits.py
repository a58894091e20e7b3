"""Bounds for callers of whom nothing is known yet, and for how many may be answered at once."""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from access.errors import BusyError

BURST = 60  # calls of an address at once: an office behind one address, or one deploy to many servers
A_SECOND = 2.0
MOST_ADDRESSES = 10_000
BUSY = "I answer many workstations just now. I try again."
SLOWER = "Too many calls come from your address. I try again."


class AddressLimit:
    """Lets an address call so often; whoever proves who they are gets their calls back."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # calls left, and when that was so

    def take(self, address: str) -> None:
        """One call; raises BusyError."""
        key, now = _network(address), self._monotonic()
        with self._lock:
            left = self._now_left(key, now)
            if left < 1:
                raise BusyError(SLOWER, retry_in=timedelta(seconds=5))
            self._keep(key, left - 1, now)

    def give_back(self, address: str, calls: int) -> None:
        """They were a person's."""
        key, now = _network(address), self._monotonic()
        with self._lock:
            self._keep(key, min(BURST, self._now_left(key, now) + calls), now)

    def _now_left(self, key: str, now: float) -> float:
        left, at = self._left.get(key, (float(BURST), now))
        return min(BURST, left + (now - at) * A_SECOND)

    def _keep(self, key: str, left: float, now: float) -> None:
        self._left[key] = (left, now)
        self._left.move_to_end(key)
        if len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)


class Lane:
    """So many answers at once and no more: the web server's other threads are Slack's and the sign-in's."""

    def __init__(self, width: int) -> None:
        self._free = threading.Semaphore(width)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Take a place, for as long as the answer takes; raises BusyError when there is none, at once."""
        if not self._free.acquire(blocking=False):
            raise BusyError(BUSY, retry_in=timedelta(seconds=1))
        try:
            yield
        finally:
            self._free.release()


def _network(address: str) -> str:
    """The address, or of IPv6 the network that one household or office has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
