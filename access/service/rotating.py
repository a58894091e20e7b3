"""Changing the certificate authority's key: slowly, so that nobody notices, or at once, because it may be stolen.

A slow rotation starts with a second key that servers opened from then on trust as well, and finishes when no running
access depends on the first one. Every step is one transaction, with its event; running processes read it there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from access.audit import Event, Kind
from access.authorities import KNOWN, OPEN_GRANTS, Authority, AuthorityRole, generation_of, in_role, known_to
from access.errors import AlreadyDecidedError, NotFoundError, RefusedError
from access.model import AccessRequest, EndCause, Grant, GrantState, RequestState
from access.ports import Clock, Store, UnitOfWork
from access.recording import RUNNING, Case, ending, save_changes
from access.words import join_words

MOST = 1_000_000  # requests that are open at once: all of them
_NOT_OVER = (*RUNNING, RequestState.ENDING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """Whoever runs the command, as the machine knows them."""

    name: str

    @property
    def actor(self) -> str:
        """How the audit log names them."""
        return f"os:{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """A server that trusts a key, or may."""

    server: str
    request_id: str
    until: datetime | None  # when the server ends it by itself, even if nobody reaches it any more


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorityStanding:
    """One key, and the servers that depend on it."""

    authority: Authority
    trusting: Sequence[Hold] = field(default=())  # servers that may accept what it signed
    only: Sequence[Hold] = field(default=())  # of running access: those that accept nothing else


class Rotating:
    """The use cases of whoever runs Passport."""

    def __init__(self, store: Store, *, operator: Operator, clock: Clock) -> None:
        self._store = store
        self._operator = operator
        self._clock = clock

    def standing(self) -> Sequence[AuthorityStanding]:
        """Every key, oldest first."""
        with self._store.unit_of_work(read_only=True) as uow:
            authorities = uow.authorities.all()
            cases = _cases(uow, _NOT_OVER)
        return [
            AuthorityStanding(
                authority=authority,
                trusting=_trusting(cases, authority, authorities),
                only=_only([case for case in cases if case.request.state in RUNNING], authority, authorities),
            )
            for authority in authorities
        ]

    def start(self, new: Authority) -> Authority:
        """The key is the NEXT one: servers opened from now on trust it, too.

        Raises NotFoundError before the first start, AlreadyDecidedError while a rotation lasts, RefusedError for a
        key that was used before.
        """
        with self._store.unit_of_work() as uow:
            found = uow.authorities.all(lock=True)
            old = _current(found)
            if started := in_role(found, AuthorityRole.NEXT):
                raise AlreadyDecidedError(
                    f"A rotation is under way since {_time(started.since)}. Go on with `passport ca rotate --finish`, "
                    "or call it off with `--abort`."
                )
            _must_be_new(found, new)
            made = replace(new, role=AuthorityRole.NEXT, generation=generation_of(found) + 1)
            if not uow.authorities.add(made):
                raise AlreadyDecidedError("Somebody else started a rotation at this moment. See `passport ca show`.")
            self._record(uow, Kind.AUTHORITY_ROTATION_STARTED, old=old.fingerprint, new=made.fingerprint)
            uow.commit()
        return made

    def finish(self) -> Authority:
        """The NEXT key is the one; the former is answered, and signs no more.

        Raises RefusedError without a rotation, or while a running access accepts only the former key.
        """
        with self._store.unit_of_work() as uow:
            found = uow.authorities.all(lock=True)
            old, new = _current(found), _next(found)
            if holds := _only(_cases(uow, RUNNING), old, found):
                raise RefusedError(
                    f"Servers that trust only the former key are still open, the last until {_latest(holds)}: "
                    f"{_named(holds)}. Finish after that; whoever is done earlier ends it with /passport done."
                )
            self._retire(uow, [old], generation_of(found) + 1)
            uow.authorities.save(
                replace(new, role=AuthorityRole.CURRENT, changed_at=self._clock(), generation=generation_of(found) + 1)
            )
            self._record(uow, Kind.AUTHORITY_ROTATION_FINISHED, old=old.fingerprint, new=new.fingerprint)
            uow.commit()
        return old

    def abort(self) -> Authority:
        """The NEXT key is answered, and signs no more; every server that knows it knows the other one, too.

        Raises RefusedError without a rotation.
        """
        with self._store.unit_of_work() as uow:
            found = uow.authorities.all(lock=True)
            old, new = _current(found), _next(found)
            self._retire(uow, [new], generation_of(found) + 1)
            self._record(uow, Kind.AUTHORITY_ROTATION_ABORTED, old=old.fingerprint, new=new.fingerprint)
            uow.commit()
        return new

    def replace_at_once(self, new: Authority, *, reason: str) -> Sequence[AccessRequest]:
        """No key of before signs any more, and every access that a server was told of is ended; answers those.

        Only that takes the old keys off the servers, and ends the sessions of whoever used them.
        Raises NotFoundError before the first start, RefusedError for a key that was used before.
        """
        now = self._clock()
        with self._store.unit_of_work() as uow:
            found = uow.authorities.all(lock=True)
            _current(found)
            _must_be_new(found, new)
            generation = generation_of(found) + 1
            old = [authority for authority in found if authority.role is not AuthorityRole.RETIRED]
            self._retire(uow, old, generation)
            uow.authorities.add(replace(new, role=AuthorityRole.CURRENT, generation=generation))
            names = " ".join(authority.fingerprint for authority in old)
            self._record(uow, Kind.AUTHORITY_REPLACED, old=names, new=new.fingerprint, reason=reason)
            before = [case for case in _cases(uow, RUNNING, lock=True) if case.request.expires_at is not None]
            detail = f"{self._operator.name} replaced the key of the certificate authority: {reason}"
            ended = [ending(uow, case, EndCause.REVOKED, detail, now) for case in before]
            save_changes(uow, before, ended)
            uow.commit()
        return [case.request for case in ended]

    def _retire(self, uow: UnitOfWork, authorities: Iterable[Authority], generation: int) -> None:
        now = self._clock()
        for authority in authorities:
            uow.authorities.save(replace(authority, role=AuthorityRole.RETIRED, changed_at=now, generation=generation))

    def _record(self, uow: UnitOfWork, kind: Kind, **details: str) -> None:
        who = self._operator
        uow.record(Event(kind=kind, at=self._clock(), actor=who.actor, actor_name=who.name, details=details))


def _current(found: Sequence[Authority]) -> Authority:
    current = in_role(found, AuthorityRole.CURRENT)
    if current is None:
        raise NotFoundError("The certificate authority has no key yet: `passport serve` makes it at its first start.")
    return current


def _next(found: Sequence[Authority]) -> Authority:
    coming = in_role(found, AuthorityRole.NEXT)
    if coming is None:
        raise RefusedError("No rotation is under way. `passport ca rotate` starts one.")
    return coming


def _must_be_new(found: Sequence[Authority], new: Authority) -> None:
    if any(authority.fingerprint == new.fingerprint for authority in found):
        raise RefusedError(
            f"{new.fingerprint} ({new.place}) is on record already. Make a new KMS key and name it in ca_kms_key."
        )


def _cases(uow: UnitOfWork, states: Sequence[RequestState], *, lock: bool = False) -> list[Case]:
    """The requests that are in one of the states, even after their rows were waited for."""
    ids = [request.id for request in uow.requests.find(states=states, limit=MOST)]
    requests = [request for request in uow.requests.get_all(sorted(ids), lock=lock) if request.state in states]
    grants: Mapping[str, Sequence[Grant]] = uow.grants.of_all([request.id for request in requests])
    return [Case(request=request, grants=tuple(grants.get(request.id, ()))) for request in requests]


def _trusting(cases: Iterable[Case], authority: Authority, authorities: Sequence[Authority]) -> list[Hold]:
    """Where a certificate of the key could still open something."""
    return [
        _hold(request, grant)
        for request, grant in _told(cases)
        if grant.state is not GrantState.REMOVED
        and (_is_unknown(grant) or authority.fingerprint in known_to(grant, authorities))
    ]


def _only(cases: Iterable[Case], authority: Authority, authorities: Sequence[Authority]) -> list[Hold]:
    """Running access that a certificate of no other key would open."""
    usable = {each.fingerprint for each in authorities if each.role is not AuthorityRole.RETIRED}
    return [
        _hold(request, grant)
        for request, grant in _told(cases)
        if grant.state in OPEN_GRANTS
        and (_is_unknown(grant) or known_to(grant, authorities) & usable == {authority.fingerprint})
    ]


def _told(cases: Iterable[Case]) -> Iterator[tuple[AccessRequest, Grant]]:
    """What servers may have been told of: nothing is sent before the end of a request is fixed."""
    for case in cases:
        if case.request.expires_at is not None:
            yield from ((case.request, grant) for grant in case.grants)


def _is_unknown(grant: Grant) -> bool:
    """Whether its server has not said yet what it trusts: whatever was sent may have arrived."""
    return KNOWN not in grant.details and grant.state is not GrantState.ACTIVE


def _hold(request: AccessRequest, grant: Grant) -> Hold:
    return Hold(server=grant.server.name, request_id=request.id, until=request.expires_at)


def _latest(holds: Iterable[Hold]) -> str:
    return _time(max(hold.until for hold in holds if hold.until is not None))


def _named(holds: Sequence[Hold]) -> str:
    return join_words([f"{hold.server} ({hold.request_id})" for hold in holds])


def _time(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"
