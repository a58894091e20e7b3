"""Slash commands over HTTP: how quickly they are answered, and how many, beside a bare Bolt app that only acks."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from statistics import median

from sandbox.company import Company
from sandbox.serving import free_port
from tests.bench.figures import Figure, at_least, at_most, paired, percentile, told
from tests.bench.ground import ENGINES, Ground
from tests.bench.load import Job, Load
from tests.bench.premises import SERVER, company, passport, stored_requests

CALLERS = 8
ROUNDS = 10
SLICE = 1.0  # seconds
REQUEST = f"request {SERVER} for 1h because INC-123: disk full"


@dataclass(kw_only=True, slots=True)
class Served:
    """What the slices of one kind of command measured, in order, and how many answers there were, unmeasured ones too."""

    rates: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    answered: int = 0


def run(ground: Ground) -> Iterator[Figure]:
    """A slice of each in turn, round after round, so that what slows the machine slows all; every request is stored."""
    urls = {}
    with ExitStack() as stack:
        running = stack.enter_context(company(ground))
        jobs = {"bare": job(running, stack.enter_context(_bare(running)), "help", expect="")}
        for engine in ENGINES:
            serving, urls[engine] = passport(ground, running, engine)
            serving.start()
            stack.callback(serving.stop)
            jobs[f"help, {engine}"] = job(running, serving.port, "help", expect="Ask for access")
            jobs[f"request, {engine}"] = job(running, serving.port, REQUEST, expect="Asked ")
        served = _take_turns(stack.enter_context(Load()), jobs, ground.much(ROUNDS))
        for engine, url in urls.items():
            answered, stored = served[f"request, {engine}"].answered, stored_requests(url)
            assert answered == stored, f"{answered} requests were answered, {stored} are stored ({engine})"
    yield told("bare Bolt app", median(served["bare"].rates), "1/s")
    for engine in ENGINES:
        asked, helped = served[f"request, {engine}"], served[f"help, {engine}"]
        yield at_most(f"/passport request, {engine}, {CALLERS} callers, p99", percentile(asked.ms, 99), "ms", 100)
        yield told(f"/passport request, {engine}, {CALLERS} callers, p50", median(asked.ms), "ms")
        yield told(f"/passport request, {engine}", median(asked.rates), "1/s")
        yield at_least(
            f"/passport request, {engine}, against bare", paired(asked.rates, served["bare"].rates), "x", 0.2
        )
        yield at_least(f"/passport help, {engine}, against bare", paired(helped.rates, served["bare"].rates), "x", 0.6)


def _take_turns(load: Load, jobs: dict[str, Job], rounds: int) -> dict[str, Served]:
    served: dict[str, Served] = defaultdict(Served)
    for name, each in jobs.items():
        served[name].answered = len(load.run(replace(each, seconds=0.3)).ms)  # the first calls are no measure
    for _ in range(rounds):
        for name, each in jobs.items():
            measured = load.run(each)
            served[name].rates.append(measured.rate)
            served[name].ms.extend(measured.ms)
            served[name].answered += len(measured.ms)
    return served


def job(running: Company, port: int, words: str, *, expect: str) -> Job:
    """So many callers for a second, who send Ana's command."""
    return Job(
        port=port,
        signing_secret=running.slack.signing_secret,
        text=words,
        expect=expect,
        seconds=SLICE,
        callers=CALLERS,
        user_id=running.people["ana"].slack.id,
        team_id=running.slack.workspace.team_id,
        response_url=f"{running.slack.url.removesuffix('api/')}commands/none",
    )


@contextmanager
def _bare(running: Company) -> Iterator[int]:
    """The bare app's port."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.bare", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
    try:
        assert process.stdin
        process.stdin.write(f"{running.slack.signing_secret}\n")
        process.stdin.flush()
        _wait_for(port)
        yield port
    finally:
        process.kill()
        process.communicate()


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the bare app does not answer")
