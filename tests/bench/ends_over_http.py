"""The same ends through the real Run Command, to an AWS in another process; and how much that AWS takes by itself.

No bar: the double's own rate bounds it, as moto answers a part of every call.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.bench.figures import Figure, percentile, told
from tests.bench.ground import Engine, Ground
from tests.bench.office import settle_in
from tests.bench.send_commands import CALLERS
from tests.integration.aws_desk import HOME, REGION, AwsDesk, answer, aws_desk

SERVERS = 50
PATIENCE = 240.0  # seconds
COMMANDS = 400


def lateness(ground: Ground, engine: Engine, count: int) -> Iterator[Figure]:
    """Passport is a process of its own; the agents and AWS are in this one."""
    url = ground.database(engine)
    settle_in(url)
    with pytest.MonkeyPatch.context() as patch, aws_desk(patch) as desk:
        command = [sys.executable, "-m", "tests.bench.ends_replica", url, str(count), *_servers(desk)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as passport:
            assert passport.stdout
            ends: dict[str, float] = json.loads(passport.stdout.readline())
            arrived = _arrived(desk, count)
            passport.communicate("enough\n")
    late = [arrived[request_id] - end for request_id, end in ends.items()]
    span = max(arrived.values()) - min(arrived.values())
    yield told(f"lateness of {count} ends in a second, over HTTP, {engine}, p99", percentile(late, 99), "s")
    yield told(f"… removals that AWS's double took, {engine}", count / span, "1/s")


def bare(ground: Ground) -> Iterator[Figure]:
    """The double's rate where nothing but boto3 calls it."""
    with pytest.MonkeyPatch.context() as patch, aws_desk(patch) as desk:
        command = [sys.executable, "-m", "tests.bench.send_commands", str(ground.much(COMMANDS)), *_servers(desk)]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    yield told(f"SendCommand alone that AWS's double takes, {CALLERS} callers", float(said), "1/s")


def _servers(desk: AwsDesk) -> list[str]:
    names = [f"web-{number}" for number in range(SERVERS)]
    made = [desk.double.add_server(name, account=HOME, region=REGION, answers=answer) for name in names]
    return [server.instance_id for server in made]


def _arrived(desk: AwsDesk, count: int) -> dict[str, float]:
    """When the first removal of each request came."""
    arrived: dict[str, float] = {}
    deadline = time.monotonic() + PATIENCE
    while len(arrived) < count:
        assert time.monotonic() < deadline, f"{len(arrived)} of {count} removals came"
        time.sleep(0.25)
        for command in list(desk.double.commands):
            arrived.setdefault(command.parameters["RequestId"][0], command.requested_at)
    return arrived
