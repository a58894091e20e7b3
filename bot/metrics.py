"""Figures for Prometheus: what this process does is counted as it happens; ``bot.scraping`` has the rest.

No label names a person, a server or a request: the figures are as public as the port they are served on.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from access.model import AccessRequest, Grant, RequestState
from access.ports import Account, Clock, Route
from access.steps import Done, Failed, Step, Waiting
from bot.proxies import WSGI
from bot.scraping import Asked, Stored
from handlers.members import Refusals
from storage.unit_of_work import SqlStore

P = ParamSpec("P")
T = TypeVar("T")

_CALLS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ACKS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5)  # Slack waits for 3 s
_TURNS = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60)
_WAITS = (1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_PAGES = ("slack", "link", "saml", "workstation", "healthz", "readyz")


class Metrics:
    """One process's figures, in a registry of their own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        sides = ("side", "name", "act")
        self._calls = Histogram(
            "passport_step_seconds", "One call of a route or an account", sides, buckets=_CALLS, registry=registry
        )
        self._steps = Counter("passport_steps", "Steps answered, a grant each", (*sides, "step"), registry=registry)
        self._retries = Counter("passport_retries", "Steps that failed and are tried again", sides, registry=registry)
        self._opened = Histogram(
            "passport_opening_seconds", "From approval to the first open server", buckets=_WAITS, registry=registry
        )
        self._late = Histogram(
            "passport_end_lateness_seconds",
            "From expires_at to the recorded end, removal proved; early ends are left out",
            buckets=_WAITS,
            registry=registry,
        )
        self._ended = Counter("passport_ended_requests", "Requests ended here", ("cause",), registry=registry)
        self._turns = Histogram(
            "passport_turn_seconds", "One turn of a loop or timer", ("loop",), buckets=_TURNS, registry=registry
        )
        self._failures = Counter("passport_turn_failures", "Turns that broke off", ("loop",), registry=registry)
        self._answers = Histogram(
            "passport_http_seconds", "One HTTP answer; for slack, the ack", ("page", "status"),
            buckets=_ACKS, registry=registry,
        )  # fmt: skip
        self._refused = Counter(
            "passport_deliveries_refused", "Deliveries turned away before a listener", ("reason",), registry=registry
        )
        self._servers = Gauge("passport_inventory_servers", "Servers known", registry=registry)

    def measure(self, loop: str, act: Callable[P, T]) -> Callable[P, T]:
        """The same act, with its turns timed and its failures counted."""

        def measured(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._turns.labels(loop).time(), self._failures.labels(loop).count_exceptions():
                return act(*args, **kwargs)

        return measured

    def measure_route(self, name: str, route: Route) -> Route:
        """The same route, with its calls timed and its steps counted."""
        return _Measured(route, lambda act: self._watch("route", name, act))

    def measure_account(self, name: str, account: Account) -> Account:
        """The same for an account."""
        return _MeasuredAccount(account, lambda act: self._watch("account", name, act))

    def measure_http(self, app: WSGI) -> WSGI:
        """The same pages, each answer timed; what Slack's endpoint turns away is counted."""

        def measured(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            page = _page(str(environ.get("PATH_INFO", "")))
            began, said = time.perf_counter(), ["none"]

            def start(status: str, *more: Any) -> Any:
                said[0] = status[:3]
                return start_response(status, *more)

            try:
                return app(environ, start)
            finally:
                self._answers.labels(page, said[0]).observe(time.perf_counter() - began)
                if page == "slack" and said[0].startswith("4"):
                    self._refused.labels(f"http {said[0]}").inc()

        return measured

    def moved(self, before: AccessRequest, after: AccessRequest) -> None:
        """Take note of a request that the reconciler has brought further."""
        if after.state is before.state:
            return
        if after.state is RequestState.ACTIVE and after.decided_at:
            self._opened.observe((self._clock() - after.decided_at).total_seconds())
        if after.state is RequestState.ENDED and after.ended_at:
            self._ended.labels(str(after.cause)).inc()
            if after.expires_at and after.ended_at >= after.expires_at:
                self._late.observe((after.ended_at - after.expires_at).total_seconds())

    def refused(self, reason: str) -> None:
        """A delivery was turned away."""
        self._refused.labels(reason).inc()

    def servers(self, count: int) -> None:
        """So many servers were listed."""
        self._servers.set(count)

    def watch_inventory(self, age: Callable[[], timedelta | None]) -> None:
        """Ask at each scrape how old the list of servers is."""

        def seconds() -> float | None:
            found = age()
            return None if found is None else found.total_seconds()

        name, says = "passport_inventory_age_seconds", "Since all servers were listed well"
        self.registry.register(Asked(name, says, seconds))

    def watch_sockets(self, connected: Callable[[], int]) -> None:
        """Ask at each scrape how many connections of Socket Mode are up."""
        self.registry.register(Asked("passport_socket_connections", "Socket Mode connections", connected))

    def watch_store(self, store: SqlStore) -> None:
        """Read the database's own figures at each scrape."""
        self.registry.register(Stored(store, self._clock))

    @contextmanager
    def _watch(self, side: str, name: str, act: str) -> Iterator["Answered"]:
        def answered(steps: Mapping[str, Step]) -> None:
            for step in steps.values():
                self._steps.labels(side, name, act, _word(step)).inc()
                if _is_retried(step):
                    self._retries.labels(side, name, act).inc()

        with self._calls.labels(side, name, act).time():
            yield answered


Answered = Callable[[Mapping[str, Step]], None]
Watch = Callable[[str], AbstractContextManager[Answered]]


class _Measured:
    """A route or an account under observation."""

    def __init__(self, adapter: Route | Account, watch: Watch) -> None:
        self._adapter = adapter
        self._watch = watch

    def provision(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:
        with self._watch("provision") as answered:
            steps = self._adapter.provision(request, grants)
            answered(steps)
        return steps

    def remove(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:
        with self._watch("remove") as answered:
            steps = self._adapter.remove(request, grants)
            answered(steps)
        return steps


class _MeasuredAccount(_Measured):
    """Intending is no call of it: nothing is asked of anybody."""

    def __init__(self, account: Account, watch: Watch) -> None:
        super().__init__(account, watch)
        self.intend = account.intend


class CountedRefusals(Refusals):
    """Strangers turned away, also counted for the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    def count(self, reason: str) -> None:
        self._metrics.refused(reason)
        super().count(reason)


def _page(path: str) -> str:
    first = path.strip("/").partition("/")[0]
    return first if first in _PAGES else "other"


def _is_retried(step: Step) -> bool:
    return (isinstance(step, Failed) and step.retryable) or (isinstance(step, Waiting) and step.is_retry)


def _word(step: Step) -> str:
    match step:
        case Done():
            return "done"
        case Failed():
            return "failed"
        case _:
            return "waiting"
