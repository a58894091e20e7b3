"""``passport serve`` as a process: how soon it is ready again among very many requests, and how much memory it has."""

import time
from collections.abc import Iterator
from statistics import median

from sandbox.company import Company
from sandbox.serving import Serving
from tests.bench.crowd import ACTIVE, gather
from tests.bench.figures import Figure, at_most
from tests.bench.ground import ENGINES, Engine, Ground
from tests.bench.premises import company, passport, resident_bytes

STARTS = 5
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
        starts.append(_start(crowded))
        crowded.kill()
    yield at_most(f"restart to ready among 110,000 requests, {engine}", median(starts), "s", 3)
    idle, among = _memory(empty), _memory(crowded)
    yield at_most(f"memory when idle, {engine}", idle / 1e6, "MB", 200)
    yield at_most(f"memory per active request, {engine}", max(0, among - idle) / ACTIVE / 1e3, "KB", 1)


def _start(serving: Serving) -> float:
    begun = time.perf_counter()
    serving.start()
    return time.perf_counter() - begun


def _memory(serving: Serving) -> int:
    """Of a process that has just started and has nothing to do."""
    serving.start()
    time.sleep(IDLE)
    found = resident_bytes(serving.pid)
    serving.kill()
    return found
