"""Which grant a host name means to its person: the one that is open, or why none is. Pure."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from access.errors import InvalidInputError, RefusedError
from access.model import AccessRequest, Grant, GrantState, RequestState, Server
from access.recording import RUNNING, Case, problem_of
from access.words import join_words

WAITING = (RequestState.PENDING, *RUNNING)
OVER = (RequestState.ENDING, RequestState.ENDED, RequestState.DENIED, RequestState.LAPSED, RequestState.CANCELLED)
_INSTANCE_ID = re.compile(r"m?i-[0-9a-f]{8,17}")
_DECISIONS_TAKE = timedelta(seconds=5)  # between two looks
_OPENING_TAKES = timedelta(seconds=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An open grant of a running request."""

    request: AccessRequest
    grant: Grant
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class NotYet:
    """It is coming: for whom or what it waits, and when to ask again."""

    sentence: str
    retry_in: timedelta


class WrongAddressError(RefusedError):
    """The request is bound to another source address."""

    def __init__(self, sentence: str, *, request_id: str) -> None:
        super().__init__(sentence)
        self.request_id = request_id


def choose(cases: Sequence[Case], host: str, *, address: str, now: datetime) -> Choice | NotYet:
    """What the name (of a server, or its instance id) means among a person's requests, the newest of them first.

    Raises InvalidInputError where several servers have the name, WrongAddressError and RefusedError.
    """
    ready = [choice for case in cases for choice in _ready(case, host, now)]
    if ready:
        return _last_to_end(ready, host, address)
    coming = [found for case in cases if (found := _coming(case, host, now))]
    if coming:
        return coming[0]
    raise RefusedError(_why_not(cases, host, now))


def is_named(server: Server, host: str) -> bool:
    """Whether a person may call the server that; case does not count, as in every host name.

    An id is never taken for a name: whoever may tag servers could have given it to another.
    """
    return host == (server.instance_id if _INSTANCE_ID.fullmatch(host) else server.name.casefold())


def comes_from(wanted: str | None, address: str) -> bool:
    """Whether the caller's address is the one that the request names, if it names one."""
    return wanted is None or _plain(wanted) == _plain(address)


def _plain(address: str) -> str:
    """An address in its one form; IPv4 in IPv6's clothes is IPv4."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def _ready(case: Case, host: str, now: datetime) -> list[Choice]:
    request, ends = case.request, case.request.expires_at
    if request.state is not RequestState.ACTIVE or ends is None or ends <= now:
        return []
    return [
        Choice(request=request, grant=grant, expires_at=ends)
        for grant in case.grants
        if grant.state is GrantState.ACTIVE and is_named(grant.server, host)
    ]


def _last_to_end(ready: Sequence[Choice], host: str, address: str) -> Choice:
    servers = {choice.grant.server.key: choice.grant.server for choice in ready}
    if len(servers) > 1:
        ids = [f"{s.instance_id} ({s.account} {s.region})" for s in servers.values()]
        first = next(iter(servers.values())).instance_id
        raise InvalidInputError(
            f"{host} is the name of {len(ids)} servers that are open for you: {join_words(ids)}. "
            f"Say which: ssh {first}.passport",
            field="host",
        )
    from_here = [choice for choice in ready if comes_from(choice.request.source_ip, address)]
    if not from_here:
        request = ready[0].request
        raise WrongAddressError(
            f"{request.id} is bound to the address {request.source_ip}, and you come from {address}. "
            f"Connect from there, or ask anew in Slack: /passport request {host} from {address} for 1h because …",
            request_id=request.id,
        )
    return max(from_here, key=lambda choice: (choice.expires_at, choice.request.id))


def _coming(case: Case, host: str, now: datetime) -> NotYet | None:
    request = case.request
    if request.state is RequestState.PENDING and request.lapses_at > now:
        if not any(is_named(server, host) for server in request.servers):
            return None
        who = join_words(sorted(request.terms.reviewers), last="or")
        until = f"{request.lapses_at:%H:%M} UTC"
        return NotYet(sentence=f"{request.id} waits for someone of {who} until {until}.", retry_in=_DECISIONS_TAKE)
    if request.state not in RUNNING or (request.expires_at is not None and request.expires_at <= now):
        return None
    for grant in case.grants:
        if grant.state is GrantState.PROVISIONING and is_named(grant.server, host):
            trouble = problem_of(grant) or request.problem
            words = f"{request.id} is approved, and {host} is being opened. {trouble}".rstrip()
            return NotYet(sentence=words, retry_in=_OPENING_TAKES)
    return None


def _why_not(cases: Sequence[Case], host: str, now: datetime) -> str:
    ask = f"/passport request {host} for 1h because …"
    for case in cases:
        request = case.request
        for grant in case.grants:
            if request.state in RUNNING and is_named(grant.server, host) and grant.outcome:
                return f"{host} could not be opened for {request.id}: {grant.outcome} Ask anew in Slack: {ask}"
        if any(is_named(server, host) for server in request.servers) and (said := _over(request, now)):
            return f"{said} Ask anew in Slack: {ask}"
    return f"You have no access to {host}. Ask in Slack: {ask}"


def _over(request: AccessRequest, now: datetime) -> str:
    match request.state:
        case RequestState.DENIED:
            return f"{request.id} was not approved."
        case RequestState.LAPSED | RequestState.PENDING:
            return f"{request.id} lapsed: nobody decided in time."
        case RequestState.CANCELLED:
            return f"{request.id} was cancelled."
        case _:
            ended = request.expires_at if request.expires_at and request.expires_at <= now else request.ended_at
            return f"Your access by {request.id} ended{f' at {ended:%H:%M} UTC' if ended else ''}."
