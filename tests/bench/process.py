"""``passport serve`` as a process: how soon it is ready again among very many requests, and how much memory it has,
as it has started and once it has worked.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from sandbox.company import Company
from sandbox.serving import Serving
from tests.bench.crowd import ACTIVE, gather
from tests.bench.figures import Figure, at_most, told
from tests.bench.ground import ENGINES, Engine, Ground
from tests.bench.load import Load
from tests.bench.premises import company, passport, resident_bytes
from tests.bench.slash import REQUEST, job

STARTS = 5
ASKED = 3000  # requests, or some more, before memory is looked at again
IDLE = 6.0  # seconds: longer than the reconciler sleeps at most


def run(ground: Ground) -> Iterator[Figure]:
    """Each engine, empty and crowded."""
    with company(ground) as running:
        for engine in ENGINES:
            yield from _of(ground, running, engine)


def _of(ground: Ground, running: Company, engine: Engine) -> Iterator[Figure]:
    empty, _ = passport(ground, running, engine)
    crowded, url = passport(ground, running, engine)
    gather(url)
    starts = []
    for _ in range(ground.much(STARTS)):
        with _started(crowded) as took:
            starts.append(took)
    yield at_most(f"restart to ready among 110,000 requests, {engine}", median(starts), "s", 3)
    with _started(crowded):
        among = _idle_bytes(crowded)
    with _started(empty):
        idle = _idle_bytes(empty)
        asked = _ask(running, empty.port, ground.much(ASKED))
        used = _idle_bytes(empty)
    yield at_most(f"memory when idle, {engine}", idle / 1e6, "MB", 200)
    yield told(f"memory when idle again, after {asked} requests, {engine}", used / 1e6, "MB")
    yield at_most(f"memory per active request, {engine}", max(0, among - idle) / ACTIVE / 1e3, "KB", 1)


@contextmanager
def _started(serving: Serving) -> Iterator[float]:
    """Seconds until it was ready; killed afterwards."""
    begun = time.perf_counter()
    serving.start()
    try:
        yield time.perf_counter() - begun
    finally:
        serving.kill()


def _idle_bytes(serving: Serving) -> int:
    """Of a process that has had nothing to do for a while."""
    time.sleep(IDLE)
    return resident_bytes(serving.pid)


def _ask(running: Company, port: int, least: int) -> int:
    """Second by second, until there are so many requests; how many there are."""
    asked = 0
    with Load() as load:
        while asked < least:
            asked += len(load.run(job(running, port, REQUEST, expect="Asked ")).ms)
    return asked
