"""Starts Session Manager sessions, fairly and slowly, on threads of its own.

StartSession may be called three times a second (page "AWS Systems Manager endpoints and quotas"). Whoever waits for a
turn waits here, with a bound for each person and for the time, and never on a thread that Slack needs.
"""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as TookTooLongError
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from access.errors import BusyError, RefusedError, UnavailableError
from access.ports import Tunnel, TunnelOrder, TunnelUse
from provisioning.aws import Sessions
from provisioning.aws_errors import THROTTLED, AwsError
from provisioning.connection import instance_of, ssh_target
from provisioning.fair_queue import FairQueue
from provisioning.tunnel_sessions import TunnelSessions, reason_of

A_SECOND = 3
THREADS = 8
MOST_A_PERSON = 6  # at the same moment, on their way
PATIENCE = timedelta(seconds=15)
SLOWER = 0.5  # seconds of pause after AWS said so: replicas share its quota
RDP_PORT = "3389"

_log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True, eq=False)
class _Job:
    order: TunnelOrder
    until: float
    future: Future[Tunnel] = field(default_factory=Future)


class StartedTunnels:
    """``access.ports.Tunnels``."""

    def __init__(
        self,
        sessions: Sessions,
        book: TunnelSessions,
        *,
        threads: int = THREADS,
        patience: timedelta = PATIENCE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._book = book
        self._patience = patience.total_seconds()
        self._monotonic = monotonic
        self._queue = FairQueue[_Job](a_second=A_SECOND, monotonic=monotonic)
        self._people: Counter[str] = Counter()
        self._lock = threading.Lock()
        names = [f"tunnels-{number}" for number in range(threads)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Start nothing more; what is on its way is given a moment."""
        self._queue.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=1.0)

    def open(self, order: TunnelOrder) -> Tunnel:
        """Start the session, in turn; raises BusyError, UnavailableError or RefusedError."""
        self._enter(order.person_id)
        try:
            return self._in_turn(order)
        except AwsError as error:
            raise _for_people(error, order) from error
        finally:
            with self._lock:
                self._people[order.person_id] -= 1
                if not self._people[order.person_id]:
                    del self._people[order.person_id]

    def close(self, tunnel: Tunnel) -> None:
        """End a session whose response has not left; what cannot be ended now ends with its grant."""
        try:
            self._book.end(tunnel.account, tunnel.region, tunnel.session_id)
        except AwsError as error:
            _log.warning("%s could not be ended now: %s", tunnel.session_id, error.sentence)

    def _enter(self, person_id: str) -> None:
        with self._lock:
            if self._people[person_id] >= MOST_A_PERSON:
                sentence = f"{MOST_A_PERSON} tunnels of yours are being opened just now. I try again."
                raise BusyError(sentence, retry_in=timedelta(seconds=2))
            self._people[person_id] += 1

    def _in_turn(self, order: TunnelOrder) -> Tunnel:
        job = _Job(order=order, until=self._monotonic() + self._patience)
        server = order.grant.server
        self._queue.put((server.account, server.region), order.person_id, job)
        try:
            return job.future.result(self._patience)
        except TookTooLongError:
            if not job.future.cancel():  # it came at this very moment
                return job.future.result()
            sentence = f"Many tunnels are being opened in {server.account} {server.region} just now. I try again."
            raise BusyError(sentence, retry_in=timedelta(seconds=3)) from None

    def _work(self) -> None:
        while (job := self._queue.take()) is not None:
            if not job.future.cancelled():
                self._start(job)

    def _start(self, job: _Job) -> None:
        """One call; whoever waits gets its answer, and what nobody waits for any more is ended."""
        try:
            tunnel = self._called(job.order)
        except AwsError as error:
            server = job.order.grant.server
            if error.code in THROTTLED and self._monotonic() < job.until:
                place = (server.account, server.region)
                self._queue.put_back(place, job.order.person_id, job, pause=SLOWER)
            else:
                with suppress(InvalidStateError):
                    job.future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - whoever waits must be told, and the thread goes on
            with suppress(InvalidStateError):
                job.future.set_exception(error)
        else:
            try:
                job.future.set_result(tunnel)
            except InvalidStateError:
                self.close(tunnel)

    def _called(self, order: TunnelOrder) -> Tunnel:
        server = order.grant.server
        asked = _asked(order)
        answer = self._sessions.call(
            server.account,
            server.region,
            "ssm",
            "start_session",
            once=True,  # it has no client token: a repeat would be a second session
            person=order.person_email,
            Reason=reason_of(order.grant.id, home=self._book.home, person=order.person_email),
            **asked,
        )
        client = self._sessions.client(server.account, server.region, "ssm", once=True)
        return Tunnel(
            session_id=answer["SessionId"],
            account=server.account,
            region=server.region,
            endpoint=client.meta.endpoint_url,
            response=_line({name: answer[name] for name in ("SessionId", "StreamUrl", "TokenValue")}),
            parameters=_line(asked),
        )


def _asked(order: TunnelOrder) -> Mapping[str, object]:
    """Target, document and parameters, out of the grant alone; raises ValueError for a grant that cannot be right."""
    if order.use is TunnelUse.RDP:
        document, parameters = "AWS-StartPortForwardingSession", {"portNumber": [RDP_PORT], "localPortNumber": ["0"]}
    else:
        document, parameters = "AWS-StartSSHSession", {"portNumber": [ssh_target(order.grant).port]}
    return {"Target": instance_of(order.grant), "DocumentName": document, "Parameters": parameters}


def _line(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _for_people(error: AwsError, order: TunnelOrder) -> UnavailableError | RefusedError:
    name = order.grant.server.name
    _log.warning("%s: no tunnel: %s (%s)", order.grant.id, error.sentence, error.code)
    if error.code == "TargetNotConnected":
        return RefusedError(
            f"The agent of {name} is not connected to Systems Manager just now, so there is no way to it. "
            "Try again in a minute."
        )
    if error.retryable:
        return BusyError(f"No tunnel to {name} yet: {error.sentence}", retry_in=timedelta(seconds=3))
    return RefusedError(f"No tunnel to {name}: {error.sentence}")
