"""What is read at each scrape: the database, the inventory; and the server that Prometheus asks."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from access.errors import PassportError
from access.model import RequestState
from access.ports import Clock
from access.reconcile import LEASE
from handlers.patience import READER
from storage.repositories.figures import Figures
from storage.unit_of_work import SqlStore


class MetricsServer:
    """Serves the figures on an address of their own, away from what the internet reaches."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        self.port = int(self._server.server_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Asked(Collector):
    """One figure, asked for at each scrape; left out while it is None."""

    def __init__(self, name: str, says: str, ask: Callable[[], float | None]) -> None:
        self._name = name
        self._says = says
        self._ask = ask

    def collect(self) -> Iterator[GaugeMetricFamily]:
        value = self._ask()
        if value is not None:
            yield _gauge(self._name, self._says, value)


class Stored(Collector):
    """The database's figures; while it does not answer, only that it does not."""

    def __init__(self, store: SqlStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        now = self._clock()
        try:
            with self._store.unit_of_work(read_only=True) as uow:
                found = uow.figures.read(now, reader=READER)
        except PassportError:
            yield _gauge("passport_database_up", "Whether the database answers", 0)
            return
        yield _gauge("passport_database_up", "Whether the database answers", 1)
        yield from _families(found, now)


def _families(found: Figures, now: datetime) -> Iterator[GaugeMetricFamily]:
    def age(since: datetime | None) -> float:
        return max(0.0, (now - since).total_seconds()) if since else 0.0

    lease = found.oldest_lease_until and found.oldest_lease_until - LEASE
    requests = GaugeMetricFamily("passport_requests", "Requests by state", labels=["state"])
    for state in RequestState:
        requests.add_metric([state.value], found.requests.get(state.value, 0))
    yield requests
    yield _gauge("passport_overdue_requests", "Requests still open after their end", found.overdue)
    yield _gauge("passport_overdue_seconds", "How late the latest of them is", age(found.overdue_since))
    yield _gauge("passport_leases", "Requests being worked on", found.leases)
    yield _gauge("passport_lease_age_seconds", "Since the oldest of these was taken", age(lease))
    yield _gauge("passport_audit_events", "Events in the audit log", found.events)
    yield _gauge("passport_feed_lag_events", "Events not yet in the audit channel", found.unread_events)
    yield _gauge("passport_feed_lag_seconds", "How old the first of these is", age(found.unread_since))
    yield _gauge("passport_unshown_requests", "Requests of which Slack is behind", found.unshown_requests)
    yield _gauge("passport_waiting_messages", "Direct messages not yet sent", found.waiting_messages)


def _gauge(name: str, says: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, says, value=value)
