"""Passport's side of the fleet bench, with its real adapters to AWS: ``python -m tests.bench.fleet_replica URL``.

Asks for everything with ``env=prod``, approves when a line comes on stdin, and prints how long it took until all was
open: seconds from the click, seconds of CPU, and how many of the first AWS took to say what the servers are now (moto
describes them one by one).
"""

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from access.model import AccessRequest, AccountName, RequestState, RouteName, Server, Submission, Verdict
from access.reconcile import Reconciler
from access.service.desk import Caller, Desk
from access.service.filing import Submitted
from access.service.reviewing import Reviewing
from access.service.submitting import Submitting
from bot import wiring
from bot.loops import ReconcilerTurns
from provisioning.accounts.short_lived_user import ShortLivedUser
from provisioning.aws import Sessions
from provisioning.inventory import AwsInventory
from provisioning.run_command import RunCommand
from storage.unit_of_work import SqlStore
from tests.authorities import a_trust
from tests.integration.aws_desk import ACCOUNTS, AUTHORITY
from tests.stores import SEALER
from tests.values import ANA, BEN, a_policy
from tests.world import ScriptedSide

PATIENCE = 120


class Timed(AwsInventory):
    """Knows how long it waited for AWS."""

    waited = 0.0

    def read_again(self, servers: Sequence[Server]) -> Mapping[str, Server]:
        """As it does, with the time noted."""
        begun = time.perf_counter()
        try:
            return super().read_again(servers)
        finally:
            self.waited += time.perf_counter() - begun


def main(url: str) -> None:
    """One request, from the click to all open."""
    sessions, store, opened = Sessions(ACCOUNTS), SqlStore(url, sealing=SEALER), threading.Event()
    inventory = Timed(sessions, ACCOUNTS, clock=wiring.now)
    inventory.refresh()
    desk = Desk(
        store=store,
        policy=a_policy(max_servers=500),
        inventory=inventory,
        clock=wiring.now,
        token=wiring.new_token,
        request_id=wiring.new_request_id,
    )

    def noticed(_: AccessRequest, request: AccessRequest) -> None:
        if request.state is RequestState.ACTIVE and request.due_at == request.expires_at:  # nothing moves any more
            opened.set()

    account = ShortLivedUser(
        RunCommand(sessions, clock=wiring.now), sessions, trust=lambda: a_trust(AUTHORITY), clock=wiring.now
    )
    reconciler = Reconciler(
        store,
        policy=desk.policy,
        inventory=inventory,
        routes={RouteName.SESSION_MANAGER: ScriptedSide()},
        accounts={AccountName.SHORT_LIVED_USER: account},
        clock=wiring.now,
        owner="fleet",
        observe=noticed,
    )
    turns = ReconcilerTurns(reconciler, clock=wiring.now)
    store.on_commit(turns.wake_if_due)
    turns.loop.start()
    asked = Submission(servers=("tag:env=prod",), reason="INC-1: a patch", duration=timedelta(hours=1))
    filed = Submitting(desk).submit(Caller(slack_user=ANA), asked)
    assert isinstance(filed, Submitted)
    print("ready", flush=True)
    sys.stdin.readline()
    begun, cpu = time.perf_counter(), time.process_time()
    Reviewing(desk).review(Caller(slack_user=BEN), filed.request.id, Verdict.APPROVE)
    assert opened.wait(PATIENCE)
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(json.dumps({"took": took, "cpu": cpu, "described": inventory.waited}), flush=True)
    turns.stop()
    store.close()


if __name__ == "__main__":
    main(sys.argv[1])
