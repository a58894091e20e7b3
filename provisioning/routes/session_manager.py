"""The route `session_manager`: a tunnel through Systems Manager, so that no port of a server is open."""

from collections.abc import Mapping, Sequence

from access.model import AccessRequest, Grant
from access.steps import Done, Step


class SessionManager:
    """``access.ports.Route``: the SSM agent, which the account needs as well, is the whole way in."""

    def provision(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:  # noqa: ARG002
        """Nothing to prepare: the person's own AWS credentials start the session."""
        return {grant.id: Done() for grant in grants}

    def remove(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:  # noqa: ARG002
        """Nothing to close: the connections died with the user's processes, and a tunnel alone logs nobody in."""
        return {grant.id: Done() for grant in grants}
