"""The route `session_manager`: a tunnel through Systems Manager, so that no port of a server is open."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from access.model import AccessRequest, Grant
from access.steps import Done, Failed, Step, Waiting
from provisioning.aws_errors import THROTTLED, AwsError
from provisioning.tunnel_sessions import TunnelSessions

MOST_AT_ONCE = 5  # sessions ended in one call: TerminateSession may be called six times a second
MOST_THROTTLED = 30  # answers "slower" in a row before it is called a failure
_SOON = timedelta(seconds=0.5)
_LATER = timedelta(seconds=2)
_AT_ONCE = timedelta()


class SessionManager:
    """``access.ports.Route``: tunnels are opened when a person asks, and all of them are ended with their grant."""

    def __init__(self, tunnels: TunnelSessions) -> None:
        self._tunnels = tunnels

    def provision(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:  # noqa: ARG002
        """Nothing to prepare: the agent, which the account needs as well, is the whole way in."""
        return {grant.id: Done() for grant in grants}

    def remove(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:
        """End every session of these grants; ``Done`` once Systems Manager lists none of them any more."""
        if request.expires_at is None:  # no server was ever opened, so there is no tunnel either
            return {grant.id: Done() for grant in grants}
        return {grant.id: self._close(grant) for grant in grants}

    def _close(self, grant: Grant) -> Step:
        """Look, in a listing that began after this removal; end what is there; look again."""
        handle, server = grant.route.handle, grant.server
        if handle.get("by") != self._tunnels.name:
            return self._look_again(grant, _AT_ONCE)
        try:
            listed = self._tunnels.open_since(server.account, server.region, int(handle["after"]))
            if listed is None:
                return Waiting(handle=handle, retry_in=_SOON)
            found = listed.get(grant.id, ())
            for session in found[:MOST_AT_ONCE]:
                self._tunnels.end(server.account, server.region, session.session_id)
        except AwsError as error:
            return self._failed(grant, error)
        return self._look_again(grant, _SOON) if found else Done(details={"tunnel": "closed"})

    def _look_again(self, grant: Grant, retry_in: timedelta, *, throttled: int = 0) -> Waiting:
        """Number and name of the process say which listings are new enough."""
        after = self._tunnels.last_begun(grant.server.account, grant.server.region)
        handle = {"by": self._tunnels.name, "after": str(after), "throttled": str(throttled)}
        return Waiting(handle=handle, retry_in=retry_in, is_retry=throttled > 0)

    def _failed(self, grant: Grant, error: AwsError) -> Step:
        """A failure, unless AWS only wants it slower: that is said once it has gone on for a while."""
        throttled = int(grant.route.handle["throttled"]) + 1
        if error.code in THROTTLED and throttled <= MOST_THROTTLED:
            return self._look_again(grant, _LATER, throttled=throttled)
        return Failed(reason=error.sentence, retryable=True)
