"""The roles that the outside plays, as Protocols; adapters live in the packages beside this one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from access.audit import AuditEvent, Event, Head
from access.authorities import Authority
from access.model import (
    AccessRequest,
    EmailException,
    Grant,
    Link,
    LinkTicket,
    Login,
    ParkedRequest,
    Person,
    RequestState,
    Review,
    Server,
    SlackUser,
    SshKey,
)
from access.steps import Step, Waiting


class Clock(Protocol):
    """Tells the time as an aware UTC datetime."""

    def __call__(self) -> datetime: ...


class Route(Protocol):
    """How packets reach servers. Both operations answer at once, a step per grant id."""

    def provision(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]: ...

    def remove(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]: ...


class Account(Protocol):
    """How the person is known on servers. Both operations answer at once, a step per grant id."""

    def intend(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Waiting]:
        """What ``provision`` or ``remove``, as the grants' states say, would first have saved; nothing for some.

        It does nothing else, so that it can be saved inside the unit of work that brings the grants so far.
        """
        ...

    def provision(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]: ...

    def remove(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]: ...


class Inventory(Protocol):
    """Which servers exist."""

    def find(self, words: str) -> Sequence[Server]:
        """Servers by exact name, by instance id, or by ``tag:key=value``; from memory.

        Raises UnavailableError where there is none, but not all servers have been listed yet.
        """
        ...

    def search(self, text: str, limit: int) -> Sequence[Server]:
        """Servers whose name, id or tags contain the text, best first, as far as they are listed; from memory."""
        ...

    def read_again(self, servers: Sequence[Server]) -> Mapping[str, Server]:
        """The servers as they are now, by ``Server.key``, asked from AWS; gone ones are missing.

        Raises UnavailableError.
        """
        ...


class IdentityStore(Protocol):
    """Who people are and which groups they are in."""

    refreshes: bool  # False: groups are what the last sign-in said, and are not looked up

    def groups_of(self, subject: str, email: str) -> frozenset[str] | None:
        """The person's groups now; None: gone or deactivated. Raises UnavailableError."""
        ...


class CertificateAuthority(Protocol):
    """Signs short-lived SSH certificates."""

    def certify(self, wanted: "Certificate", signers: Sequence[Authority]) -> str:
        """The certificate as one line ``type base64``, re-parsed and checked against what was wanted.

        Signed by the first of the keys that can be used here; it may wait for AWS for some seconds, so never call it
        inside a unit of work. Raises UnavailableError.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What a certificate shall say."""

    public_key: str  # the person's own, ``type base64``
    principal: str
    key_id: str
    serial: int
    valid_after: datetime
    valid_before: datetime
    source_addresses: tuple[str, ...]
    forwarding: bool = False


class TunnelUse(StrEnum):
    """What goes through a tunnel."""

    SSH = "ssh"
    RDP = "rdp"


@dataclass(frozen=True, kw_only=True, slots=True)
class TunnelOrder:
    """A tunnel to the server of an open grant, for the person of its request."""

    grant: Grant
    use: TunnelUse
    person_id: str
    person_email: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tunnel:
    """A Session Manager session that runs; whoever has its ``response`` can use it."""

    session_id: str
    account: str
    region: str
    endpoint: str  # Systems Manager's address
    response: str = field(repr=False)  # one line of JSON, as session-manager-plugin wants it
    parameters: str = ""  # one line of JSON: what the session was started with


class Tunnels(Protocol):
    """Opens tunnels; account, server, document and port are the grant's, never a caller's."""

    def open(self, order: TunnelOrder) -> Tunnel:
        """Start the session, in turn; raises BusyError, UnavailableError or RefusedError."""
        ...

    def close(self, tunnel: Tunnel) -> None:
        """End a session whose response has not left; what cannot be ended now ends with its grant."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenTunnel:
    """A session of Passport's that AWS lists as active."""

    session_id: str
    account: str
    region: str
    instance_id: str
    grant_id: str


class OpenTunnels(Protocol):
    """What AWS lists."""

    def places(self) -> Sequence[tuple[str, str]]:
        """Every account and region that Passport serves."""
        ...

    def all_open(self, account: str, region: str) -> Sequence[OpenTunnel]:
        """Every active session that this Passport started there, whenever that was; raises PassportError."""
        ...

    def end(self, account: str, region: str, session_id: str) -> None:
        """End it; raises PassportError."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Leased:
    """A request as it is to be saved by who has worked on it under a lease.

    While lease and revision are as they were, so are the request and its grants: whoever changes one of them without
    the lease counts the revision up.
    """

    request: AccessRequest
    until: datetime  # the lease
    revision: int  # that it had
    is_finished: bool  # whether the lease ends with that


class Requests(Protocol):
    """Access requests."""

    def add(self, request: AccessRequest) -> None: ...

    def add_all_if_free(self, requests: Sequence[AccessRequest]) -> bool:
        """Whether their ids were free; where one is another's already, that one is not added."""
        ...

    def get(self, request_id: str, *, lock: bool = False) -> AccessRequest:
        """The request, its row locked until the end of the unit of work if asked; raises NotFoundError."""
        ...

    def get_all(self, request_ids: Sequence[str], *, lock: bool = False) -> Sequence[AccessRequest]:
        """Each of these requests, in their order, their rows locked if asked; raises NotFoundError."""
        ...

    def save(self, request: AccessRequest) -> None:
        """How it stands; who asked for what, and by which terms, is never written again."""
        ...

    def save_all(self, requests: Sequence[AccessRequest]) -> None: ...

    def save_leased(self, leased: Sequence[Leased], *, owner: str) -> bool:
        """Save what nobody else has changed or leased meanwhile; False if somebody has: do not commit then."""
        ...

    def find(
        self, *, person_id: str | None = None, states: Sequence[RequestState] = (), limit: int = 50
    ) -> Sequence[AccessRequest]:
        """Newest first."""
        ...

    def claim_due(
        self, now: datetime, *, owner: str, lease_until: datetime, limit: int, removals_only: bool
    ) -> Sequence[str]:
        """Lease due requests to ``owner`` and name them: those to end first, then by how long they are due.

        A request is due when ``due_at <= now``, and to be ended when it is ENDING or ``expires_at <= now``.
        Skips rows that another transaction holds and leases that have not run out.
        """
        ...

    def release(self, *request_ids: str, owner: str) -> None:
        """Give the leases back."""
        ...

    def release_all(self, *, owner: str) -> int:
        """Give back every lease of this owner (at its start); says how many there were."""
        ...

    def next_due_at(self) -> datetime | None:
        """The earliest instant at which an unleased request is due, or a lease runs out."""
        ...

    def next_serial(self) -> int:
        """A certificate serial never given before."""
        ...


class Grants(Protocol):
    """Grants, always seen with their request."""

    def add(self, *grants: Grant) -> None: ...

    def of(self, request_id: str) -> Sequence[Grant]:
        """In the order of their ids."""
        ...

    def of_all(self, request_ids: Sequence[str]) -> Mapping[str, Sequence[Grant]]:
        """The grants of each of these requests that has any, by its id; in the order of theirs."""
        ...

    def save(self, grant: Grant) -> None: ...

    def save_all(self, grants: Sequence[Grant]) -> None: ...


class Reviews(Protocol):
    """Reviewers' words; one per person and request."""

    def add(self, review: Review) -> None: ...

    def of(self, request_id: str) -> Sequence[Review]:
        """In the order given."""
        ...

    def of_all(self, request_ids: Sequence[str]) -> Mapping[str, Sequence[Review]]:
        """The reviews of each of these requests that has any, by its id; in the order given."""
        ...


class People(Protocol):
    """Persons, their links to Slack, their keys."""

    def get(self, person_id: str) -> Person:
        """Raises NotFoundError."""
        ...

    def by_subject(self, provider: str, subject: str) -> Person | None: ...

    def save(self, person: Person) -> None:
        """Insert or update."""
        ...

    def groups_read_before(self, instant: datetime, *, linked_at: datetime, limit: int) -> Sequence[Person]:
        """Persons whose groups were read before the instant, oldest first.

        Only those with a link alive at ``linked_at``, or with a request that is pending, approved or active.
        """
        ...

    def behind(self, slack_user: SlackUser) -> tuple[Person, Link] | None:
        """The person whom the Slack user is linked to, and that link, live or not."""
        ...

    def behind_all(self, slack_users: Sequence[SlackUser]) -> Mapping[SlackUser, tuple[Person, Link]]:
        """The same of each who is linked."""
        ...

    def link_of(self, slack_user: SlackUser) -> Link | None:
        """The Slack user's link, live or not."""
        ...

    def links_of(self, person_id: str) -> Sequence[Link]: ...

    def save_link(self, link: Link) -> None:
        """Insert or replace the Slack user's one link."""
        ...

    def remove_link(self, slack_user: SlackUser) -> None: ...

    def add_exception(self, exception: EmailException) -> None:
        """Insert or replace the Slack user's exception."""
        ...

    def exception_of(self, slack_user: SlackUser) -> EmailException | None:
        """The Slack user's exception, run out or not."""
        ...

    def remove_exception(self, slack_user: SlackUser) -> None: ...

    def add_key(self, key: SshKey) -> None: ...

    def key(self, fingerprint: str) -> SshKey | None: ...

    def keys_of(self, person_id: str) -> Sequence[SshKey]:
        """Oldest first."""
        ...

    def remove_key(self, fingerprint: str) -> None: ...


class SignIns(Protocol):
    """What must be used once: link tickets, AuthnRequests, assertions; and requests parked until then."""

    def add_ticket(self, ticket: LinkTicket) -> None: ...

    def ticket(self, token_hash: str) -> LinkTicket | None:
        """Look without using up."""
        ...

    def consume_ticket(self, token_hash: str) -> LinkTicket | None:
        """Use it up; None when it was used up before, even by a transaction at the same moment."""
        ...

    def begun_by(self, slack_user: SlackUser, now: datetime) -> Sequence[datetime]:
        """Until when each of the Slack user's tickets and logins lives, of those that nobody has used up."""
        ...

    def add_login(self, login: Login) -> None: ...

    def consume_login(self, relay_hash: str) -> Login | None:
        """Use it up; None when it was used up before, even by a transaction at the same moment."""
        ...

    def remember_assertion(self, assertion_id: str, until: datetime) -> bool:
        """Whether it is new; False: a replay."""
        ...

    def park(self, parked: ParkedRequest) -> None: ...

    def parked_of(self, slack_user: SlackUser) -> Sequence[ParkedRequest]:
        """Oldest first."""
        ...

    def lapsed_parked(self, now: datetime) -> Sequence[ParkedRequest]: ...

    def overtaken_parked(self) -> Sequence[ParkedRequest]:
        """Those whose Slack user has signed in since."""
        ...

    def unpark(self, parked_id: str) -> bool:
        """Remove it; False when it was gone already."""
        ...

    def purge(self, now: datetime) -> None:
        """Forget what has run out: tickets, logins, assertion ids, deliveries older than a day."""
        ...


class Authorities(Protocol):
    """The keys of Passport's certificate authority."""

    def all(self, *, lock: bool = False) -> Sequence[Authority]:
        """Every key there ever was, oldest first; locked against another rotation until the end if asked."""
        ...

    def add(self, authority: Authority) -> bool:
        """Whether its role was free; where another key has it, even by a transaction at this moment, nothing is added.

        There is one CURRENT and one NEXT at most.
        """
        ...

    def save(self, authority: Authority) -> None:
        """Its role and generation."""
        ...


class Deliveries(Protocol):
    """Slack's deliveries, each acted upon once."""

    def claim(self, key: str, *, subject: str, at: datetime) -> None:
        """Remember the delivery and what came of it; raises DuplicateDeliveryError if it is known."""
        ...

    def claim_all(self, deliveries: Sequence[tuple[str, str]], *, at: datetime) -> bool:
        """Remember each, a key and its subject; whether none was known, nor was twice among them."""
        ...

    def is_known(self, key: str) -> bool:
        """Whether it was claimed before."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Post:
    """A message in Slack that follows a request: the card of a channel, a direct message to a person."""

    request_id: str
    audience: str  # "reviewers" or "requester"
    recipient: str  # the channel or user it was meant for
    stage: str  # a new stage is a new message; within a stage the message is updated
    channel: str = ""
    ts: str = ""
    shown_revision: int = 0
    attempts: int = 0
    retry_at: datetime | None = None
    problem: str = ""


class Posts(Protocol):
    """What Slack shows of each request."""

    def stale(self, now: datetime, limit: int) -> Sequence[AccessRequest]:
        """Requests of which Slack shows less than there is (``shown_revision < revision``), least recent first.

        Left out: those put off until later.
        """
        ...

    def of(self, request_id: str) -> Sequence[Post]: ...

    def of_all(self, request_ids: Sequence[str]) -> Mapping[str, Sequence[Post]]:
        """The same of each that has some."""
        ...

    def save(self, post: Post) -> None:
        """Insert or update, by request, audience, recipient and stage."""
        ...

    def note(self, *, shown: Mapping[str, int], put_off: Mapping[str, datetime]) -> None:
        """Of some requests Slack shows these revisions everywhere; the others are to be tried again at these instants.

        Their rows are changed in the order of their ids, so that nobody waits for each other in a circle.
        """
        ...


class Outbox(Protocol):
    """Direct messages that follow no request (a key was added, a parked request lapsed)."""

    def add(self, slack_user: SlackUser, text: str, *, at: datetime) -> None: ...

    def due(self, now: datetime, limit: int) -> Sequence[tuple[int, SlackUser, str, int]]:
        """Id, recipient, text, attempts so far; oldest first."""
        ...

    def sent(self, message_id: int) -> None: ...

    def put_off(self, message_id: int, until: datetime) -> None: ...


class AuditLog(Protocol):
    """The append-only log."""

    def head(self) -> Head: ...

    def after(self, sequence: int, limit: int) -> Sequence[AuditEvent]:
        """Events that follow this one, in order."""
        ...

    def of(self, request_id: str) -> Sequence[AuditEvent]:
        """The events of one request, in order."""
        ...

    def all(self) -> Iterator[AuditEvent]:
        """The whole log in order, streamed."""
        ...

    def cursor(self, reader: str) -> int:
        """The last sequence this reader (``slack``) is done with; 0 at first."""
        ...

    def advance(self, reader: str, sequence: int) -> None: ...

    def claim_reader(self, reader: str, *, owner: str, now: datetime, until: datetime) -> bool:
        """Lease the reader's role to this owner until then; False while another owner holds it."""
        ...


class Passwords(Protocol):
    """Passwords that servers made, by grant: encrypted to a key of the grant's own, and sealed at rest."""

    def keep(self, grant_id: str, ciphertext: str) -> None:
        """Keep what the server encrypted, in place of what it gave before; raises UnavailableError."""
        ...

    def reveal(self, grant_id: str) -> str:
        """The password in the clear; raises UnavailableError when there is none, or it does not open."""
        ...

    def destroy(self, grant_id: str) -> None:
        """Forget the password and its key for ever; nothing happens where there is none."""
        ...


class UnitOfWork(Protocol):
    """One transaction: everything in it happens, or nothing. Leaving it without ``commit`` undoes it.

    ``record`` keeps an event for the chain; ``commit`` locks the chain's head last, appends, and commits.
    """

    requests: Requests
    grants: Grants
    reviews: Reviews
    people: People
    sign_ins: SignIns
    deliveries: Deliveries
    posts: Posts
    outbox: Outbox
    authorities: Authorities
    passwords: Passwords
    audit: AuditLog

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def record(self, event: Event) -> None: ...

    def commit(self) -> None: ...


class Store(Protocol):
    """Where units of work come from."""

    def unit_of_work(self, *, read_only: bool = False) -> UnitOfWork:
        """A transaction; a read-only one never waits for a writer."""
        ...
