"""Fleets: 10,000 servers in memory, 500 opened at once, and 1,000 grants that end in one second."""

import gc
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import datetime, timedelta
from math import ceil

import pytest

from access.model import AccessRequest, Grant, GrantState, RequestState
from access.steps import Done, Step, Waiting
from bot import wiring
from provisioning.inventory import AwsInventory
from tests.bench.figures import Figure, at_most, percentile, told
from tests.bench.ground import ENGINES, Engine, Ground
from tests.bench.office import Office, settle_in
from tests.fleet import FleetPages
from tests.integration.aws_desk import FAR, HOME, OTHER, REGION, AwsDesk, answer, aws_desk
from tests.values import a_request, a_server
from tests.world import ScriptedSide

LISTED = 10_000
SEARCHES = 300
WANTED = ("payments-api-09", "10.1.3", "nothing like it", "", "cc-0039", "2001:db8::1:1f", "EDGE", "i-00000000")
SHARES = {(HOME, REGION): 0.402, (HOME, FAR): 0.352, (OTHER, REGION): 0.246}  # of the servers
OPENED = 500
SLOWEST = 8.0  # seconds until the last agent has its command; the others are spread before it
LOOKS = 44  # at a command, for as long: 50 ms apart at first, then a twelfth of the command's age
ENDS = 1000
TOGETHER = 50  # grants of each request that ends


def run(ground: Ground) -> Iterator[Figure]:
    """The inventory, then the opening, then the end."""
    yield from _inventory(ground)
    for engine in ENGINES:
        yield from _opening(ground, engine)
    for engine in ENGINES:
        yield from _ending(ground, engine)


def _inventory(ground: Ground) -> Iterator[Figure]:
    sessions = FleetPages(ground.much(LISTED))
    inventory = AwsInventory(sessions, tuple(sessions.accounts.values()), clock=wiring.now)
    gc.collect()
    tracemalloc.start()
    inventory.refresh()
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    yield at_most("memory for each server in the inventory", kept / sessions.count / 1024, "KB", 3)
    took = []
    for number in range(SEARCHES):
        begun = time.perf_counter()
        inventory.search(WANTED[number % len(WANTED)], 20)
        took.append((time.perf_counter() - begun) * 1000)
    yield at_most(f"search among {sessions.count} servers, p99", percentile(took, 99), "ms", 20)


def _opening(ground: Ground, engine: Engine) -> Iterator[Figure]:
    """Passport is a process of its own; the agents and AWS are in this one."""
    url = ground.database(engine)
    settle_in(url)
    with pytest.MonkeyPatch.context() as patch, aws_desk(patch) as desk:
        fewest = _servers(desk, ground.much(OPENED))
        command = [sys.executable, "-m", "tests.bench.fleet_replica", url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as passport:
            assert passport.stdout
            assert passport.stdout.readline() == "ready\n"
            desk.double.calls.clear()
            said, _ = passport.communicate("go\n")
        took = json.loads(said)
        count = ground.much(OPENED)
        yield at_most(f"{count} servers opened, {engine}: SendCommand", len(desk.calls("SendCommand")), "calls", fewest)
        looks = len(desk.calls("ListCommandInvocations"))
        yield at_most(f"{count} servers opened, {engine}: looks at them", looks, "calls", fewest * LOOKS)
        own = took["took"] - took["described"]
        yield at_most(f"click to all open, {engine}, against the slowest agent", own / SLOWEST, "x", 1.2)
        yield told(f"… after the double had described them, {engine}", took["described"], "s")
        yield told(f"{count} servers opened, {engine}: Passport's CPU", took["cpu"], "s")


def _servers(desk: AwsDesk, count: int) -> int:
    """Servers in two accounts and three regions, each with a delay of its own; the fewest commands they can take."""
    sizes = {place: round(count * share) for place, share in SHARES.items()}
    made = [
        desk.double.add_server(f"web-{number}", account=account, region=region, tags={"env": "prod"}, answers=answer)
        for (account, region), size in sizes.items()
        for number in range(size)
    ]
    for number, server in enumerate(made, start=1):
        desk.double.faults.deliver_late(server, SLOWEST * number / len(made))
    return sum(ceil(size / 50) for size in sizes.values())


def _ending(ground: Ground, engine: Engine) -> Iterator[Figure]:
    """Each server answers the second time it is asked, as real ones do; the clock stops when all is on record."""
    url, count = ground.database(engine), ground.much(ENDS)
    settle_in(url)
    left, everything = set[str](), threading.Event()

    def remove(_: AccessRequest, grant: Grant) -> Step:
        sent = grant.account.handle.get("command_id")
        return Done() if sent else Waiting(handle={"command_id": "c-1"}, retry_in=timedelta(milliseconds=50))

    def noticed(request: AccessRequest) -> None:
        if request.state is RequestState.ENDED:
            left.discard(request.id)
            if not left:
                everything.set()

    office = Office(url, owner="bench", noticed=noticed, account=ScriptedSide(on_remove=remove))
    end = wiring.now() + timedelta(seconds=3)
    left.update(_plan(office, count, end))
    office.turns.loop.start()
    time.sleep(max(0.0, (end - wiring.now()).total_seconds()))
    cpu = time.process_time()
    assert everything.wait(120)
    took, cpu = (wiring.now() - end).total_seconds(), time.process_time() - cpu
    office.close()
    yield at_most(f"bookkeeping of {count} grants that end together, {engine}", took / count * 1000, "ms each", 5)
    yield told(f"… of that CPU, {engine}", cpu / count * 1000, "ms each")


def _plan(office: Office, count: int, end: datetime) -> list[str]:
    """Active requests of so many grants each, all of which end at once."""
    ids = [f"AR-E{number:03}" for number in range(ceil(count / TOGETHER))]
    with office.store.unit_of_work() as uow:
        for place, request_id in enumerate(ids):
            size = min(TOGETHER, count - place * TOGETHER)
            servers = tuple(a_server(f"web-{place}-{number}") for number in range(size))
            uow.requests.add(
                a_request(id=request_id, servers=servers, state=RequestState.ACTIVE, expires_at=end, due_at=end)
            )
            for number, server in enumerate(servers, start=1):
                grant_id = f"{request_id}.{number}"
                uow.grants.add(Grant(id=grant_id, request_id=request_id, server=server, state=GrantState.ACTIVE))
        uow.commit()
    return ids
