"""Showing credentials: made anew each time, for the requester alone, while the request is active."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from access.audit import Kind
from access.authorities import Authority, signers
from access.errors import AlreadyDecidedError, NotFoundError
from access.model import AccessRequest, Grant, GrantState, Person, RequestState, SshKey
from access.ports import Certificate, CertificateAuthority, UnitOfWork
from access.service.desk import Caller, Desk, by_person, claim, live_link

CLOCK_SKEW = timedelta(minutes=1)  # servers' clocks may be a little behind
THROUGH_THE_TUNNEL = ("127.0.0.1/32", "::1/128")  # the agent dials from the server itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What opens the servers: a certificate for the person's own key; "" where their laptop fetches its own."""

    request: AccessRequest
    grants: Sequence[Grant]
    key: SshKey
    certificate: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wish:
    """A certificate that may be signed, and by which keys."""

    person: Person
    request: AccessRequest
    grants: Sequence[Grant]
    key: SshKey
    wanted: Certificate
    signers: Sequence[Authority]


class Showing:
    """The one use case that hands something out."""

    def __init__(self, desk: Desk, authority: CertificateAuthority) -> None:
        self._desk = desk
        self._authority = authority

    def credentials(self, caller: Caller, request_id: str) -> Credentials:
        """A fresh certificate for the newest key, no longer valid than the request.

        The key may be AWS's, so signing is between two transactions: nothing waits for it, and what it made leaves
        only once it is on record. Raises SignInNeededError, NotFoundError, RefusedError, AlreadyDecidedError or
        UnavailableError.
        """
        wish = self._wish(caller, request_id)
        certificate = self._authority.certify(wish.wanted, wish.signers)
        self._record(wish)
        return Credentials(request=wish.request, grants=wish.grants, key=wish.key, certificate=certificate)

    def look(self, caller: Caller, request_id: str) -> Credentials:
        """What is open, and with which key: nothing is signed, and nothing given out.

        Raises SignInNeededError, NotFoundError, RefusedError or AlreadyDecidedError.
        """
        with self._desk.store.unit_of_work() as uow:
            _, found = self._open(uow, caller, request_id)
            uow.commit()
        return found

    def _wish(self, caller: Caller, request_id: str) -> _Wish:
        with self._desk.store.unit_of_work() as uow:
            person, found = self._open(uow, caller, request_id)
            now, serial = self._desk.clock(), uow.requests.next_serial()
            wish = _Wish(
                person=person,
                request=found.request,
                grants=found.grants,
                key=found.key,
                wanted=wanted_certificate(
                    found.request,
                    found.key,
                    serial=serial,
                    now=now,
                    valid_before=found.request.expires_at or now,  # open_grants has seen to it
                ),
                signers=signers(uow.authorities.all(), found.grants),
            )
            uow.commit()
        return wish

    def _open(self, uow: UnitOfWork, caller: Caller, request_id: str) -> tuple[Person, Credentials]:
        """Whatever speaks against it is said here, and the delivery is used up."""
        now = self._desk.clock()
        person, _ = live_link(uow, caller, now=now)
        request = uow.requests.get(request_id, lock=True)
        claim(uow, caller, subject=request_id, at=now)
        if person.id != request.person_id:  # an email may have passed to somebody else: it opens nothing
            event = by_person(Kind.REFUSED, person, at=now, request_id=request_id, details={"act": "credentials"})
            self._desk.refuse(uow, event, f"{request_id} is {request.person_name}'s; its credentials are theirs alone.")
        grants = open_grants(uow, request, now)
        keys = uow.people.keys_of(person.id)
        if not keys:
            raise NotFoundError("Register your public key first: /passport key add ssh-ed25519 AAAA…")
        return person, Credentials(request=request, grants=grants, key=keys[-1])

    def _record(self, wish: _Wish) -> None:
        """Put it on record, if the request is still what it was."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            request = uow.requests.get(wish.request.id, lock=True)
            open_grants(uow, request, now)
            details = {"serial": str(wish.wanted.serial), "fingerprint": wish.key.fingerprint}
            uow.record(by_person(Kind.CREDENTIALS_SHOWN, wish.person, at=now, request_id=request.id, details=details))
            uow.commit()


def open_grants(uow: UnitOfWork, request: AccessRequest, now: datetime) -> Sequence[Grant]:
    """What the request has open; raises AlreadyDecidedError, and NotFoundError where nothing is."""
    if request.state is not RequestState.ACTIVE or request.expires_at is None or request.expires_at <= now:
        raise AlreadyDecidedError(f"{request.id} is not active. Ask anew: /passport request")
    grants = [grant for grant in uow.grants.of(request.id) if grant.state is GrantState.ACTIVE]
    if not grants:
        raise NotFoundError(f"No server of {request.id} is open now. I tell you when one is.")
    return grants


def wanted_certificate(
    request: AccessRequest, key: SshKey, *, serial: int, now: datetime, valid_before: datetime
) -> Certificate:
    """What a certificate for this request says, whoever asks for it."""
    return Certificate(
        public_key=key.line,
        principal=request.user_name,
        key_id=f"passport:{request.id}:{request.person_email}",
        serial=serial,
        valid_after=now - CLOCK_SKEW,
        valid_before=valid_before,
        source_addresses=THROUGH_THE_TUNNEL,
        forwarding=request.terms.rights.forwarding,
    )
