"""The reconciler among very many requests: a look when nothing is due, and 1,000 ends in one second."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

from access.model import AccessRequest, Grant
from bot import wiring
from tests.bench import ends_over_http
from tests.bench.crowd import gather, gather_ends
from tests.bench.figures import Figure, at_most, percentile, told
from tests.bench.ground import ENGINES, Ground
from tests.bench.office import Office, Rounds, settle_in
from tests.values import a_server

ENDS = 1000
PASSES = 500
FIRST_LOOK = timedelta(milliseconds=50)  # at a command, as Run Command has it
_SOON = timedelta(seconds=2)


def run(ground: Ground) -> Iterator[Figure]:
    """Each engine with its own crowd."""
    for engine in ENGINES:
        url = ground.database(engine)
        settle_in(url)
        gather(url)
        yield at_most(f"pass with nothing due, {engine}, p99", percentile(_passes(url), 99), "ms", 5)
        count = ground.much(ENDS)
        late, rate = _lateness(url, count)
        yield at_most(f"lateness of {count} ends in a second, {engine}, p99", percentile(late, 99), "s", 1)
        yield told(f"… removals, sent to a function of the same process, {engine}", rate, "1/s")
        yield from ends_over_http.lateness(ground, engine, count)
    yield from ends_over_http.bare(ground)


def _passes(url: str) -> list[float]:
    office = Office(url, owner="bench", noticed=lambda _: None)
    took = []
    for _ in range(PASSES):
        begun = time.perf_counter()
        office.turns.turn()
        took.append((time.perf_counter() - begun) * 1000)
    office.close()
    return took


def _lateness(url: str, count: int) -> tuple[list[float], float]:
    """Seconds from each end until its removal is sent; and how many were a second."""
    late: dict[str, float] = {}
    everyone = threading.Event()

    def sent(request: AccessRequest, grant: Grant) -> None:
        assert request.expires_at
        late.setdefault(grant.id, (wiring.now() - request.expires_at).total_seconds())
        if len(late) == count:
            everyone.set()

    office = Office(url, owner="bench", noticed=lambda _: None, account=Rounds(sent, look_after=FIRST_LOOK))
    begins = wiring.now() + _SOON
    gather_ends(office.store, [a_server()], count, begins=begins)
    office.turns.loop.start()
    assert everyone.wait(120)
    took = (wiring.now() - begins).total_seconds()
    office.close()
    return list(late.values()), count / took
