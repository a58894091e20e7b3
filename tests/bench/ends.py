"""The reconciler among very many requests: a look when nothing is due, and 1,000 ends in one second."""

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

from access.model import AccessRequest, Grant, GrantState, RequestState
from access.steps import Done, Step
from bot import wiring
from tests.bench.crowd import gather
from tests.bench.figures import Figure, at_most, percentile, told
from tests.bench.ground import ENGINES, Ground
from tests.bench.office import Office, settle_in
from tests.values import a_request, a_server
from tests.world import ScriptedSide

ENDS = 1000
PASSES = 500
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
        yield told(f"removals that the double took, {engine}", rate, "1/s")


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
    """Seconds from each end to the removal's reaching the double; and how many of them it took a second."""
    late: dict[str, float] = {}
    everyone = threading.Event()

    def remove(request: AccessRequest, grant: Grant) -> Step:
        assert request.expires_at
        late.setdefault(grant.id, (wiring.now() - request.expires_at).total_seconds())
        if len(late) == count:
            everyone.set()
        return Done()

    office = Office(url, owner="bench", noticed=lambda _: None, account=ScriptedSide(on_remove=remove))
    first = _plan(office, count)
    office.turns.loop.start()
    assert everyone.wait(120)
    took = (wiring.now() - first).total_seconds()
    office.close()
    return list(late.values()), count / took


def _plan(office: Office, count: int) -> datetime:
    """Active requests whose ends are spread over one second that begins soon; says when."""
    begins = wiring.now() + _SOON
    with office.store.unit_of_work() as uow:
        for number in range(count):
            request_id = f"AR-END{number}"
            end = begins + timedelta(seconds=number / count)
            request = a_request(id=request_id, state=RequestState.ACTIVE, expires_at=end, due_at=end)
            uow.requests.add(request)
            uow.grants.add(
                Grant(id=f"{request_id}.1", request_id=request_id, server=a_server(), state=GrantState.ACTIVE)
            )
        uow.commit()
    return begins
