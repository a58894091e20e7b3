"""Showing credentials: made anew each time, for the requester alone, while the request is active."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from access.audit import Kind
from access.errors import AlreadyDecidedError, NotFoundError
from access.model import AccessRequest, Grant, GrantState, RequestState, SshKey
from access.ports import Certificate, CertificateAuthority
from access.service.desk import Caller, Desk, by_person, claim, live_link

CLOCK_SKEW = timedelta(minutes=1)  # servers' clocks may be a little behind
THROUGH_THE_TUNNEL = ("127.0.0.1/32", "::1/128")  # the agent dials from the server itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What opens the servers: a certificate for the person's own key."""

    request: AccessRequest
    grants: Sequence[Grant]
    key: SshKey
    certificate: str


class Showing:
    """The one use case that hands something out."""

    def __init__(self, desk: Desk, authority: CertificateAuthority) -> None:
        self._desk = desk
        self._authority = authority

    def credentials(self, caller: Caller, request_id: str) -> Credentials:
        """A fresh certificate for the newest key, no longer valid than the request.

        Raises SignInNeededError, NotFoundError, RefusedError or AlreadyDecidedError.
        """
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            person, _ = live_link(uow, caller, now=now)
            request = uow.requests.get(request_id, lock=True)
            claim(uow, caller, subject=request_id, at=now)
            if person.id != request.person_id:  # an email may have passed to somebody else: it opens nothing
                event = by_person(Kind.REFUSED, person, at=now, request_id=request_id, details={"act": "credentials"})
                self._desk.refuse(
                    uow, event, f"{request_id} is {request.person_name}'s; its credentials are theirs alone."
                )
            if request.state is not RequestState.ACTIVE or request.expires_at is None or request.expires_at <= now:
                raise AlreadyDecidedError(f"{request_id} is not active. Ask anew: /passport request")
            grants = [grant for grant in uow.grants.of(request_id) if grant.state is GrantState.ACTIVE]
            if not grants:
                raise NotFoundError(f"No server of {request_id} is open now. I tell you when one is.")
            keys = uow.people.keys_of(person.id)
            if not keys:
                raise NotFoundError("Register your public key first: /passport key add ssh-ed25519 AAAA…")
            key, serial = keys[-1], uow.requests.next_serial()
            certificate = self._authority.certify(
                Certificate(
                    public_key=key.line,
                    principal=request.user_name,
                    key_id=f"passport:{request.id}:{request.person_email}",
                    serial=serial,
                    valid_after=now - CLOCK_SKEW,
                    valid_before=request.expires_at,
                    source_addresses=THROUGH_THE_TUNNEL,
                    forwarding=request.terms.rights.forwarding,
                )
            )
            details = {"serial": str(serial), "fingerprint": key.fingerprint}
            uow.record(by_person(Kind.CREDENTIALS_SHOWN, person, at=now, request_id=request_id, details=details))
            uow.commit()
        return Credentials(request=request, grants=grants, key=key, certificate=certificate)
