"""Connecting from a workstation: whoever holds a registered key gets what its person has open, and nothing else.

No Slack user is asked here. The key names the person, the person's requests name the servers, and the same rules hold
as for Show credentials: a live sign-in, an active request, nobody else's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Never, Protocol

from access.audit import Kind
from access.authorities import signers
from access.errors import DuplicateDeliveryError, RefusedError, SignInNeededError
from access.model import AccessRequest, Person, SshKey
from access.ports import CertificateAuthority, Tunnel, TunnelOrder, Tunnels, TunnelUse, UnitOfWork
from access.recording import Case
from access.service.challenges import NAMESPACE, Challenges, statement
from access.service.choosing import OVER, WAITING, Choice, NotYet, WrongAddressError, choose, is_named
from access.service.desk import Desk, by_person
from access.service.showing import wanted_certificate

CERTIFICATE, TUNNEL, RDP = "certificate", "tunnel", "rdp"  # the acts, as the statement names them
_MOST_OVER = 20  # requests of the past that are looked at for the reason why there is no access
SIGN_IN = "Your sign-in has run out. In Slack: /passport link, then run the same command again."
UNPROVEN = "Your signature does not show that you hold this key: {}. Run the same command again."
UNKNOWN = "I do not know this key. In Slack: /passport key add, and the line of its .pub file."
USED = "This proof was used before. Run the same command again."


class Verify(Protocol):
    """Checks an armored signature; raises ValueError, whose text is a clause."""

    def __call__(self, armored: str, message: bytes, *, public_key: str, namespace: str) -> None: ...


class UnprovenError(RefusedError):
    """Nobody knows who this is; ``reason`` is for the count of strangers."""

    def __init__(self, sentence: str, *, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What a workstation says of itself, not yet believed; ``address`` is where it calls from."""

    act: str
    key: str  # ``type base64``, parsed
    fingerprint: str
    host: str
    challenge: str
    signature: str
    address: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuedCertificate:
    """A certificate of minutes for an open grant."""

    choice: Choice
    certificate: str
    valid_before: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedTunnel:
    """A running session for an open grant."""

    choice: Choice
    tunnel: Tunnel


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A proof that holds, of whom, and what it is good for."""

    used: str  # the name under which it is used up
    person: Person
    key: SshKey
    choice: Choice


class Connecting:
    """The two things that a workstation asks for."""

    def __init__(
        self,
        desk: Desk,
        authority: CertificateAuthority,
        tunnels: Tunnels,
        *,
        challenges: Challenges,
        verify: Verify,
        home: str,
        lifetime: timedelta,
    ) -> None:
        self._desk = desk
        self._authority = authority
        self._tunnels = tunnels
        self._challenges = challenges
        self._verify = verify
        self._home = home
        self._lifetime = lifetime

    def challenge(self, fingerprint: str) -> str:
        """What the key has to sign; says nothing about who is known."""
        return self._challenges.issue(fingerprint)

    def certificate(self, proof: Proof) -> IssuedCertificate | NotYet:
        """A certificate for the very key of the proof; raises PassportError."""
        found = self._found(proof)
        if isinstance(found, NotYet):
            return found
        choice, now = found.choice, self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            serial, keys = uow.requests.next_serial(), signers(uow.authorities.all(), [choice.grant])
            uow.commit()
        valid_before = min(now + self._lifetime, choice.expires_at)
        wanted = wanted_certificate(choice.request, found.key, serial=serial, now=now, valid_before=valid_before)
        certificate = self._authority.certify(wanted, keys)  # may ask AWS, so not inside a unit of work
        details = {"serial": str(serial), "valid_before": f"{valid_before:%Y-%m-%dT%H:%M:%SZ}"}
        self._use_up(proof, found, Kind.CERTIFICATE_ISSUED, details)
        return IssuedCertificate(choice=choice, certificate=certificate, valid_before=valid_before)

    def tunnel(self, proof: Proof) -> OpenedTunnel | NotYet:
        """A started session; raises PassportError.

        AWS has no client token for it. So it is started first, and its token leaves only once that is on record for
        an access that is still open; else it is ended, and what a dying process leaves ends with the grant.
        """
        found = self._found(proof)
        if isinstance(found, NotYet):
            return found
        order = TunnelOrder(
            grant=found.choice.grant,
            use=TunnelUse.RDP if proof.act == RDP else TunnelUse.SSH,
            person_id=found.person.id,
            person_email=found.person.email,
        )
        tunnel = self._tunnels.open(order)
        try:
            self._use_up(proof, found, Kind.TUNNEL_OPENED, {"session": tunnel.session_id, "use": order.use.value})
        except BaseException:
            self._tunnels.close(tunnel)
            raise
        return OpenedTunnel(choice=found.choice, tunnel=tunnel)

    def _found(self, proof: Proof) -> _Found | NotYet:
        """Who asks, and what they have open under that name; every refusal of a known person is on record."""
        used, now = self._proven(proof), self._desk.clock()
        with self._desk.store.unit_of_work(read_only=True) as uow:
            person, key = self._known(uow, proof, now)
            cases, is_used = _cases(uow, person, proof.host), uow.deliveries.is_known(used)
        try:
            _check_unused(is_used=is_used)
            choice = choose(cases, proof.host, address=proof.address, now=now)
            if isinstance(choice, NotYet):
                return choice
            _check_platform(choice, proof)
        except RefusedError as error:
            self._refuse(proof, person, error)
        return _Found(used=used, person=person, key=key, choice=choice)

    def _proven(self, proof: Proof) -> str:
        """The name that uses the proof up; raises UnprovenError or StaleChallengeError."""
        used = self._challenges.check(proof.challenge, proof.fingerprint)
        said = statement(home=self._home, act=proof.act, host=proof.host, challenge=proof.challenge)
        try:
            self._verify(proof.signature, said, public_key=proof.key, namespace=NAMESPACE)
        except ValueError as error:
            raise UnprovenError(UNPROVEN.format(error), reason="workstation: wrong signature") from None
        return used

    def _known(self, uow: UnitOfWork, proof: Proof, now: datetime) -> tuple[Person, SshKey]:
        """The person whose key it is, with a live sign-in; raises UnprovenError or SignInNeededError."""
        key = uow.people.key(proof.fingerprint)
        if key is None or key.line != proof.key:
            raise UnprovenError(UNKNOWN, reason="workstation: unknown key")
        person = uow.people.get(key.person_id)
        if not any(link.expires_at > now for link in uow.people.links_of(person.id)):
            raise SignInNeededError(SIGN_IN)
        return person, key

    def _use_up(self, proof: Proof, found: _Found, kind: Kind, details: Mapping[str, str]) -> None:
        """Put on record what was made, if it may still leave; raises PassportError."""
        try:
            self._record(proof, found, kind, details)
        except UnprovenError:
            raise
        except DuplicateDeliveryError:
            self._refuse(proof, found.person, RefusedError(USED))
        except RefusedError as error:
            self._refuse(proof, found.person, error)

    def _record(self, proof: Proof, found: _Found, kind: Kind, details: Mapping[str, str]) -> None:
        now, request_id = self._desk.clock(), found.choice.request.id
        with self._desk.store.unit_of_work() as uow:
            request = uow.requests.get(request_id, lock=True)  # whoever ends it waits, or has done so
            self._known(uow, proof, now)
            case = Case(request=request, grants=tuple(uow.grants.of(request_id)))
            now_open = choose([case], proof.host, address=proof.address, now=now)
            if not isinstance(now_open, Choice) or now_open.grant.id != found.choice.grant.id:
                raise RefusedError(f"Your access to {proof.host} has just ended.")
            uow.deliveries.claim(found.used, subject=request_id, at=now)
            event = by_person(
                kind,
                found.person,
                at=now,
                request_id=request_id,
                server=found.choice.grant.server.key,
                details={**details, "fingerprint": found.key.fingerprint, "from": proof.address},
            )
            uow.record(event)
            uow.commit()

    def _refuse(self, proof: Proof, person: Person, error: RefusedError) -> Never:
        """Put the refusal on record, once a minute for each server: a script may ask again and again."""
        now = self._desk.clock()
        request_id = error.request_id if isinstance(error, WrongAddressError) else ""
        details = {"act": proof.act, "host": proof.host, "reason": error.sentence, "from": proof.address}
        with self._desk.store.unit_of_work() as uow:
            try:
                same = f"refused:{person.id}:{proof.act}:{proof.host}:{type(error).__name__}:{now:%Y%m%d%H%M}"
                uow.deliveries.claim(same, subject=request_id, at=now)
            except DuplicateDeliveryError:
                raise error from None
            uow.record(by_person(Kind.REFUSED, person, at=now, request_id=request_id, details=details))
            uow.commit()
        raise error


def _cases(uow: UnitOfWork, person: Person, host: str) -> list[Case]:
    """The person's requests for a server of that name: open or coming, else the latest of the past; newest first.

    Requests may have hundreds of servers: only what the answer depends on is read.
    """
    coming = [found for found in uow.requests.find(person_id=person.id, states=WAITING) if _names(found, host)]
    if not coming:
        past = uow.requests.find(person_id=person.id, states=OVER, limit=_MOST_OVER)
        return [Case(request=request, grants=()) for request in past if _names(request, host)]
    grants = uow.grants.of_all([request.id for request in coming])
    return [Case(request=request, grants=tuple(grants.get(request.id, ()))) for request in coming]


def _names(request: AccessRequest, host: str) -> bool:
    return any(is_named(server, host) for server in request.servers)


def _check_unused(*, is_used: bool) -> None:
    if is_used:
        raise RefusedError(USED)


def _check_platform(choice: Choice, proof: Proof) -> None:
    is_windows = choice.grant.server.platform.casefold() == "windows"
    if is_windows and proof.act != RDP:
        raise RefusedError(f"{proof.host} runs Windows. Run: passport-connect rdp {proof.host}")
    if not is_windows and proof.act == RDP:
        raise RefusedError(f"{proof.host} does not run Windows. Run: ssh {proof.host}.passport")
