"""One replica that plays whole cycles: ``python -m tests.bench.replica URL OWNER COUNT``, started by a line on stdin."""

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

from access.model import AccessRequest, RequestState
from tests.bench.office import Office

PEOPLE = 4  # who click at the same time
OPEN = (RequestState.PENDING, RequestState.APPROVED, RequestState.ACTIVE, RequestState.ENDING)


def main(url: str, owner: str, count: int) -> None:
    """Ask and approve ``count`` times, complete whatever this replica sees active, and end when all has ended."""
    clicks = ThreadPoolExecutor(PEOPLE)
    completed: list[Future[None]] = []

    def noticed(request: AccessRequest) -> None:
        if request.state is RequestState.ACTIVE:
            completed.append(clicks.submit(office.complete, request.id))

    office = Office(url, owner=owner, noticed=noticed)
    office.turns.loop.start()
    print("ready", flush=True)
    sys.stdin.readline()
    for asked in [clicks.submit(lambda: office.approve(office.submit().id)) for _ in range(count)]:
        asked.result()
    while _is_open(office):
        time.sleep(0.02)
    for done in completed:
        done.result()
    office.close()


def _is_open(office: Office) -> bool:
    with office.store.unit_of_work(read_only=True) as uow:
        return bool(uow.requests.find(states=OPEN, limit=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
