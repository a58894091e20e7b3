"""Whole cycles a second: request, approved, active, ended."""

import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from tests.bench.figures import Figure, at_least, told
from tests.bench.ground import Engine, Ground
from tests.bench.office import settle_in

CYCLES = 150
ROUNDS = 3
BARS: dict[Engine, float] = {"sqlite": 30, "postgres": 20}


def run(ground: Ground) -> Iterator[Figure]:
    """One replica on each engine, and two on PostgreSQL."""
    rounds = range(1 if ground.quick else ROUNDS)
    for engine, bar in BARS.items():
        rates = [rate(ground, engine, replicas=1) for _ in rounds]
        yield at_least(f"cycles, {engine}, 1 replica", median(rates), "1/s", bar)
    rates = [rate(ground, "postgres", replicas=2) for _ in rounds]
    yield told("cycles, postgres, 2 replicas", median(rates), "1/s")


def rate(ground: Ground, engine: Engine, *, replicas: int) -> float:
    """Cycles a second, all replicas together."""
    url, count = ground.database(engine), ground.much(CYCLES)
    settle_in(url)
    running = [_start(url, f"replica-{number}", count // replicas) for number in range(replicas)]
    for process in running:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    begun = time.monotonic()
    for process in running:
        process.communicate("go\n")  # waits for its end
    took = time.monotonic() - begun
    assert all(process.returncode == 0 for process in running)
    return count / took


def _start(url: str, owner: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.bench.replica", url, owner, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
