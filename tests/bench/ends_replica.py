"""Passport's side of the ends over HTTP, with its real adapters: ``python -m tests.bench.ends_replica URL COUNT ID…``.

Prints when each request ends (seconds of the Unix clock), and works until a line comes on stdin.
"""

import json
import sys
from collections.abc import Sequence
from datetime import timedelta

from access.model import Server
from bot import wiring
from provisioning.accounts.short_lived_user import ShortLivedUser
from provisioning.aws import Sessions
from provisioning.run_command import RunCommand
from tests.authorities import a_trust
from tests.bench.crowd import gather_ends
from tests.bench.office import Office
from tests.integration.aws_desk import ACCOUNTS, AUTHORITY, REGION

_SOON = timedelta(seconds=4)


def main(url: str, count: int, ids: Sequence[str]) -> None:
    """Active requests on these servers, and their ends."""
    sessions = Sessions(ACCOUNTS)
    account = ShortLivedUser(
        RunCommand(sessions, clock=wiring.now), sessions, trust=lambda: a_trust(AUTHORITY), clock=wiring.now
    )
    office = Office(url, owner="bench", noticed=lambda _: None, account=account)
    servers = [
        Server(account=ACCOUNTS[0].name, region=REGION, instance_id=instance_id, name=f"web-{number}")
        for number, instance_id in enumerate(ids)
    ]
    ends = gather_ends(office.store, servers, count, begins=wiring.now() + _SOON)
    print(json.dumps({request_id: end.timestamp() for request_id, end in ends.items()}), flush=True)
    office.turns.loop.start()
    sys.stdin.readline()
    office.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
