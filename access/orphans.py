"""Tunnels that are open though their access is not: found by what AWS lists, ended, and put on record."""

import logging
from collections.abc import Sequence

from access.audit import Event, Kind
from access.errors import DuplicateDeliveryError, PassportError
from access.model import Grant, GrantState
from access.ports import Clock, OpenTunnel, OpenTunnels, Store
from access.recording import PASSPORT

_log = logging.getLogger(__name__)


class Orphans:
    """The sweep behind the removals: it ends what none of them is going to end."""

    def __init__(self, store: Store, tunnels: OpenTunnels, *, clock: Clock) -> None:
        self._store = store
        self._tunnels = tunnels
        self._clock = clock

    def sweep(self) -> int:
        """Look everywhere; how many were ended. A place that does not answer is looked at next time."""
        ended = 0
        for account, region in self._tunnels.places():
            try:
                for tunnel in self._orphaned(self._tunnels.all_open(account, region)):
                    self._end(tunnel)
                    ended += 1
            except PassportError as error:
                _log.warning("Tunnels of %s %s: %s", account, region, error.sentence)
        return ended

    def _orphaned(self, tunnels: Sequence[OpenTunnel]) -> Sequence[OpenTunnel]:
        if not tunnels:
            return ()
        requests = {tunnel.grant_id.partition(".")[0] for tunnel in tunnels}
        with self._store.unit_of_work(read_only=True) as uow:
            known = uow.grants.of_all(sorted(requests))
        has_access = {grant.id for grants in known.values() for grant in grants if _may_have_tunnels(grant)}
        return [tunnel for tunnel in tunnels if tunnel.grant_id not in has_access]

    def _end(self, tunnel: OpenTunnel) -> None:
        self._tunnels.end(tunnel.account, tunnel.region, tunnel.session_id)
        now, request_id = self._clock(), tunnel.grant_id.partition(".")[0]
        event = Event(
            kind=Kind.TUNNEL_ORPHANED,
            at=now,
            actor=PASSPORT,
            request_id=request_id,
            server=f"{tunnel.account}/{tunnel.region}/{tunnel.instance_id}",
            details={"session": tunnel.session_id},
        )
        with self._store.unit_of_work() as uow:
            try:
                uow.deliveries.claim(f"orphan:{tunnel.session_id}", subject=request_id, at=now)
            except DuplicateDeliveryError:
                return  # another replica was quicker, or AWS still lists it
            uow.record(event)
            uow.commit()


def _may_have_tunnels(grant: Grant) -> bool:
    """Whether the access is open, or its removal is still about to end its tunnels itself."""
    return grant.state is GrantState.ACTIVE or (grant.state is GrantState.REMOVING and not grant.route.done)
