"""What a round does outside of any transaction: it asks about servers, and routes and accounts to open and close."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from access.attempts import is_unread
from access.errors import PassportError
from access.model import AccessRequest, AccountName, Grant, GrantState, Progress, RequestState, RouteName
from access.policy import Policy, changed_tags
from access.ports import Account, Clock, Inventory, Route
from access.recording import AXES, MOVING, Case, after, is_due, is_over, open_axes
from access.steps import Done, Failed, Step, Waiting
from access.words import join_sentences

_log = logging.getLogger(__name__)

BROKEN = Failed(reason="Something broke on Passport's side.", retryable=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Acted:
    """What an act found: steps of route and account by grant id in their order, or whether the request can start."""

    steps: Mapping[str, Sequence[tuple[str, Step]]] = field(default_factory=dict)
    start: Step | None = None  # for a request that is to start: Done, or Failed


class Acting:
    """The acts of a round; none of them raises, so that one poisoned request stops no other."""

    def __init__(
        self,
        *,
        policy: Policy,
        inventory: Inventory,
        routes: Mapping[RouteName, Route],
        accounts: Mapping[AccountName, Account],
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._inventory = inventory
        self._routes = routes
        self._accounts = accounts
        self._clock = clock

    def act(self, case: Case) -> Acted:
        """Whatever is due now; of a request whose time is over, nothing before that is on record."""
        now = self._clock()
        if is_over(case.request, now):
            return Acted()
        if case.request.state is RequestState.APPROVED and case.request.expires_at is None:
            return Acted(start=self._may_start(case.request))
        steps: dict[str, list[tuple[str, Step]]] = defaultdict(list)
        for state in reversed(MOVING):  # removals first
            moving = [grant for grant in case.grants if grant.state is state]
            stopped = self._changed([grant for grant in moving if is_unread(grant) and is_due(grant, "route", now)])
            for grant_id, failed in stopped.items():
                steps[grant_id].append(("route", failed))
            moving = [grant for grant in moving if grant.id not in stopped]
            for axis in AXES[state]:
                chosen = [grant for grant in moving if axis in open_axes(grant) and is_due(grant, axis, now)]
                found = self._call(axis, state, case.request, chosen) if chosen else {}
                for grant_id, step in found.items():
                    steps[grant_id].append((axis, step))
                moving = [_gone_on(grant, axis, found.get(grant.id)) for grant in moving]
        return Acted(steps=steps)

    def intend(self, case: Case) -> Mapping[str, Waiting]:
        """What accounts can have saved before they begin, by grant id: it spares a round."""
        fresh = [grant for grant in case.grants if grant.state in MOVING and grant.account == Progress()]
        if not fresh:
            return {}
        try:
            return self._accounts[case.request.account].intend(case.request, fresh)
        except Exception:  # noqa: BLE001 - as in _call; what is due all the same, says why
            _log.exception("%s: nothing could be intended", case.request.id)
            return {}

    def _call(
        self, axis: str, state: GrantState, request: AccessRequest, grants: Sequence[Grant]
    ) -> Mapping[str, Step]:
        adapter: Route | Account = self._routes[request.route] if axis == "route" else self._accounts[request.account]
        operation = adapter.provision if state is GrantState.PROVISIONING else adapter.remove
        try:
            steps = operation(request, grants)
            return {grant.id: steps.get(grant.id, BROKEN) for grant in grants}
        except Exception as error:  # noqa: BLE001 - one poisoned request must not stop the others, nor be forgotten
            _log.exception("%s: %s of %s failed", request.id, operation.__qualname__, [grant.id for grant in grants])
            failed = Failed(reason=error.sentence, retryable=True) if isinstance(error, PassportError) else BROKEN
            return {grant.id: failed for grant in grants}

    def _may_start(self, request: AccessRequest) -> Step:
        """Read again what policy looked at; a change since submission stops the request."""
        try:
            current = self._inventory.read_again(request.servers)
        except PassportError as error:
            return Failed(reason=error.sentence, retryable=True)
        except Exception:  # noqa: BLE001 - as in _call
            _log.exception("%s: its servers could not be read again", request.id)
            return BROKEN
        changes = [changed_tags(self._policy, pinned, current.get(pinned.key)) for pinned in request.servers]
        sentence = join_sentences(change for change in changes if change)
        return Failed(reason=sentence, retryable=False) if sentence else Done()

    def _changed(self, unread: Sequence[Grant]) -> dict[str, Failed]:
        """Read again what policy looked at before a further attempt; a change stops that server alone."""
        if not unread or unread[0].state is not GrantState.PROVISIONING:
            return {}
        try:
            current = self._inventory.read_again([grant.server for grant in unread])
        except PassportError as error:
            return {grant.id: Failed(reason=error.sentence, retryable=True) for grant in unread}
        except Exception:  # noqa: BLE001 - as in _call
            _log.exception("The servers of %s could not be read again", [grant.id for grant in unread])
            return {grant.id: BROKEN for grant in unread}
        changes = {
            grant.id: changed_tags(self._policy, grant.server, current.get(grant.server.key)) for grant in unread
        }
        return {grant_id: Failed(reason=change, retryable=False) for grant_id, change in changes.items() if change}


def _gone_on(grant: Grant, axis: str, step: Step | None) -> Grant:
    """The grant as what comes next needs to see it; it is recorded later, with that."""
    return after(grant, axis, step) if isinstance(step, Done) else grant
