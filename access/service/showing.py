"""Showing credentials: made anew each time, for the requester alone, while the request is active."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from access.audit import Kind
from access.authorities import Authority, signers
from access.errors import AlreadyDecidedError, NotFoundError, PassportError
from access.model import AccessRequest, Grant, GrantState, Person, RequestState, SshKey
from access.ports import Certificate, CertificateAuthority, UnitOfWork
from access.service.desk import Caller, Desk, by_person, claim, live_link

_log = logging.getLogger(__name__)

CLOCK_SKEW = timedelta(minutes=1)  # servers' clocks may be a little behind
THROUGH_THE_TUNNEL = ("127.0.0.1/32", "::1/128")  # the agent dials from the server itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What opens the servers: a certificate for the person's own key; "" where their laptop fetches its own.

    And the passwords of Windows servers, by grant; of those that can be opened.
    """

    request: AccessRequest
    grants: Sequence[Grant]  # of servers that ssh reaches
    key: SshKey | None  # None where there are none of these
    certificate: str = ""
    desktops: Sequence[Grant] = ()  # of Windows servers
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wish:
    """A certificate that may be signed, and by which keys; nothing to sign where no server takes one."""

    person: Person
    found: Credentials
    wanted: Certificate | None
    signers: Sequence[Authority]


class Showing:
    """The one use case that hands something out."""

    def __init__(self, desk: Desk, authority: CertificateAuthority) -> None:
        self._desk = desk
        self._authority = authority

    def credentials(self, caller: Caller, request_id: str, *, with_passwords: bool = False) -> Credentials:
        """A fresh certificate for the newest key, no longer valid than the request; if asked, the passwords as well.

        The key may be AWS's, so signing is between two transactions: nothing waits for it, and what it made leaves
        only once it is on record. Raises SignInNeededError, NotFoundError, RefusedError, AlreadyDecidedError or
        UnavailableError.
        """
        wish = self._wish(caller, request_id)
        certificate = self._authority.certify(wish.wanted, wish.signers) if wish.wanted else ""
        return replace(self._record(wish, with_passwords=with_passwords), certificate=certificate)

    def look(self, caller: Caller, request_id: str) -> Credentials:
        """What is open, with which key, and the passwords of Windows servers: no certificate is signed.

        Raises SignInNeededError, NotFoundError, RefusedError or AlreadyDecidedError.
        """
        with self._desk.store.unit_of_work() as uow:
            person, found = self._open(uow, caller, request_id)
            passwords = _passwords(uow, found.desktops)
            if passwords:
                self._note(uow, person, found.request, _seen(found.desktops, passwords))
            uow.commit()
        return replace(found, passwords=passwords)

    def _wish(self, caller: Caller, request_id: str) -> _Wish:
        with self._desk.store.unit_of_work() as uow:
            person, found = self._open(uow, caller, request_id)
            wanted = self._wanted(uow, found)
            signing = signers(uow.authorities.all(), found.grants) if wanted else ()
            uow.commit()
        return _Wish(person=person, found=found, wanted=wanted, signers=signing)

    def _wanted(self, uow: UnitOfWork, found: Credentials) -> Certificate | None:
        if found.key is None:
            return None
        now = self._desk.clock()
        return wanted_certificate(
            found.request,
            found.key,
            serial=uow.requests.next_serial(),
            now=now,
            valid_before=found.request.expires_at or now,  # check_active has seen to it
        )

    def _open(self, uow: UnitOfWork, caller: Caller, request_id: str) -> tuple[Person, Credentials]:
        """Whatever speaks against it is said here, and the delivery is used up."""
        now = self._desk.clock()
        person, _ = live_link(uow, caller, now=now)
        request = uow.requests.get(request_id, lock=True)
        claim(uow, caller, subject=request_id, at=now)
        if person.id != request.person_id:  # an email may have passed to somebody else: it opens nothing
            event = by_person(Kind.REFUSED, person, at=now, request_id=request_id, details={"act": "credentials"})
            self._desk.refuse(uow, event, f"{request_id} is {request.person_name}'s; its credentials are theirs alone.")
        check_active(request, now)
        opened = open_grants(uow, request)
        grants = [grant for grant in opened if not grant.server.is_windows]
        keys = uow.people.keys_of(person.id)
        if grants and not keys:
            raise NotFoundError("Register your public key first: /passport key add ssh-ed25519 AAAA…")
        desktops = [grant for grant in opened if grant.server.is_windows]
        found = Credentials(request=request, grants=grants, key=keys[-1] if grants else None, desktops=desktops)
        return person, found

    def _record(self, wish: _Wish, *, with_passwords: bool) -> Credentials:
        """Put it on record, if the request is still what it was; with the passwords of what is open now."""
        found, now = wish.found, self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            request = uow.requests.get(found.request.id, lock=True)
            check_active(request, now)
            still_open = {grant.id for grant in open_grants(uow, request)} if with_passwords else set()
            asked = [grant for grant in found.desktops if grant.id in still_open]
            passwords = _passwords(uow, asked)
            details = _seen(asked, passwords)
            if wish.wanted and found.key:
                details |= {"serial": str(wish.wanted.serial), "fingerprint": found.key.fingerprint}
            if details:
                self._note(uow, wish.person, request, details)
            uow.commit()
        return replace(found, passwords=passwords)

    def _note(self, uow: UnitOfWork, person: Person, request: AccessRequest, details: Mapping[str, str]) -> None:
        at = self._desk.clock()
        uow.record(by_person(Kind.CREDENTIALS_SHOWN, person, at=at, request_id=request.id, details=details))


def _passwords(uow: UnitOfWork, grants: Sequence[Grant]) -> Mapping[str, str]:
    """The passwords that can be opened; one that cannot keeps nobody from the others."""
    found = {}
    for grant in grants:
        try:
            found[grant.id] = uow.passwords.reveal(grant.id)
        except PassportError as error:
            _log.warning("the password of %s on %s: %s", grant.id, grant.server.key, error.sentence)
    return found


def _seen(grants: Sequence[Grant], passwords: Mapping[str, str]) -> dict[str, str]:
    """Of which servers a password was seen, for the record; never the password."""
    ids = [grant.server.instance_id for grant in grants if grant.id in passwords]
    return {"passwords": " ".join(ids)} if ids else {}


def check_active(request: AccessRequest, now: datetime) -> None:
    """Raises AlreadyDecidedError if nothing of the request may be open now."""
    if request.state is not RequestState.ACTIVE or request.expires_at is None or request.expires_at <= now:
        raise AlreadyDecidedError(f"{request.id} is not active. Ask anew: /passport request")


def open_grants(uow: UnitOfWork, request: AccessRequest) -> Sequence[Grant]:
    """What the request has open; raises NotFoundError where nothing is."""
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
