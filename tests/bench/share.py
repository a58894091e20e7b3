"""Passport's own share of the wait from a click on Approve to the credentials."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from access.model import AccessRequest, RequestState
from access.service.desk import Caller
from tests.bench.figures import Figure, at_most, percentile
from tests.bench.ground import ENGINES, Ground
from tests.bench.office import Office, settle_in
from tests.values import ANA

IN_FLIGHT = 4
REQUESTS = 600
FIRST = 40  # that are not counted: connections are made, and PostgreSQL prepares what it is asked for the sixth time


def run(ground: Ground) -> Iterator[Figure]:
    """Slack is left out; AWS answers at once, in Run Command's three rounds."""
    for engine in ENGINES:
        waits = _waits(ground.database(engine), ground.much(REQUESTS))
        for percent in (50, 99):
            name = f"own share, approval to credentials, {engine}, {IN_FLIGHT} in flight, p{percent}"
            yield at_most(name, percentile(waits, percent), "ms", 100)


def _waits(url: str, count: int) -> list[float]:
    settle_in(url)
    active: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    def noticed(request: AccessRequest) -> None:
        if request.state is RequestState.ACTIVE:
            active[request.id].set()

    def wait(request_id: str) -> float:
        begun = time.perf_counter()
        office.approve(request_id)
        assert active[request_id].wait(30)
        office.showing.credentials(Caller(slack_user=ANA), request_id)
        return (time.perf_counter() - begun) * 1000

    office = Office(url, owner="bench", noticed=noticed)
    asked = [office.submit().id for _ in range(FIRST + count)]
    office.turns.loop.start()
    with ThreadPoolExecutor(IN_FLIGHT) as people:
        waits = list(people.map(wait, asked))
    office.close()
    return waits[FIRST:]
