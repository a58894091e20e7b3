"""The nouns: frozen values; a change returns a new value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class RequestState(StrEnum):
    """Where a request is; ``lifecycle.REQUEST`` holds the allowed transitions."""

    PENDING = "pending"
    APPROVED = "approved"
    ACTIVE = "active"
    ENDING = "ending"
    ENDED = "ended"
    DENIED = "denied"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"


class GrantState(StrEnum):
    """Where the access to one server is; ``lifecycle.GRANT`` holds the allowed transitions."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    REMOVING = "removing"
    REMOVED = "removed"


class EndCause(StrEnum):
    """Why an approved request ended."""

    COMPLETED = "completed"
    REVOKED = "revoked"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Verdict(StrEnum):
    """What a reviewer says."""

    APPROVE = "approve"
    DENY = "deny"


class RouteName(StrEnum):
    """How packets reach a server."""

    SESSION_MANAGER = "session_manager"


class AccountName(StrEnum):
    """How the person is known on a server."""

    SHORT_LIVED_USER = "short_lived_user"


@dataclass(frozen=True, kw_only=True, slots=True)
class SlackUser:
    """A Slack account: workspace and user id."""

    team_id: str
    user_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Someone an identity store knows: the same person whatever Slack account they use."""

    id: str
    provider: str
    subject: str
    email: str
    name: str
    groups: frozenset[str]
    groups_read_at: datetime

    def is_same_human(self, other_id: str, other_email: str) -> bool:
        """Whether that is this person, be it by another identity provider (same email)."""
        return self.id == other_id or self.email.casefold() == other_email.casefold()


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A Slack account joined to a person until ``expires_at``."""

    slack_user: SlackUser
    person_id: str
    linked_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkTicket:
    """A one-time link, known by the SHA-256 of its token (hex); used up by the button on its page."""

    token_hash: str
    slack_user: SlackUser
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """A sign-in under way: one AuthnRequest, bound to one browser by the SHA-256 (hex) of its cookie."""

    request_id: str
    relay_hash: str
    browser_hash: str
    provider: str
    slack_user: SlackUser
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class SignIn:
    """What a validated SAML response says of somebody."""

    provider: str
    subject: str
    email: str
    name: str
    groups: frozenset[str]
    assertion_id: str
    not_on_or_after: datetime  # until when the assertion's id must be remembered


@dataclass(frozen=True, kw_only=True, slots=True)
class EmailException:
    """An admin's word that this Slack account may be linked to this email though its profile says another."""

    slack_user: SlackUser
    email: str
    recorded_by: str
    reason: str
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class SshKey:
    """A person's registered public key: ``line`` is ``type base64``, ``fingerprint`` is ``SHA256:…``."""

    fingerprint: str
    person_id: str
    line: str
    added_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server as the inventory knows it, or as it was pinned at submission."""

    account: str  # our name of the AWS account, from the settings
    region: str
    instance_id: str
    name: str
    platform: str = "linux"
    tags: Mapping[str, str] = field(default_factory=dict)
    online: bool = True
    agent_version: str = ""  # of the SSM agent, as the inventory last knew it
    problem: str = ""  # why it cannot be asked for, as a sentence; "" when it can

    @property
    def is_windows(self) -> bool:
        """Whether people come by Remote Desktop and a password, and not by SSH and a certificate."""
        return self.platform == "windows"

    @property
    def key(self) -> str:
        """``account/region/instance id``: what makes a server this very server."""
        return f"{self.account}/{self.region}/{self.instance_id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rights:
    """What the person may do on a server beyond logging in."""

    sudo: bool = False  # everything, as root
    commands: tuple[str, ...] = ()  # without ``sudo``: what sudo allows, as root, with just these arguments
    forwarding: bool = False
    administrator: bool = False  # of a Windows server; without it, only logging in by Remote Desktop
    metadata: bool = False  # reaching the instance metadata service, and so the server's own AWS credentials


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What the matching rule said at submission; a later change of the settings does not change a request."""

    rule: str
    reviewers: frozenset[str]  # identity groups whose members may decide
    quorum: int
    tell: tuple[str, ...]  # Slack channels (C…, G…), user groups (S…) or users (U…, W…) that get the card
    rights: Rights
    keep_home_days: int = 0  # for how long after the end root can still read the home; 0: it is deleted


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """What a person asks for, understood but not yet decided upon."""

    servers: tuple[str, ...]  # as typed: names, instance ids, ``tag:key=value``
    reason: str
    duration: timedelta | None = None  # None: the default
    source_ip: str | None = None
    route: RouteName = RouteName.SESSION_MANAGER


@dataclass(frozen=True, kw_only=True, slots=True)
class ParkedRequest:
    """A submission that waits for its person to sign in."""

    id: str
    slack_user: SlackUser
    submission: Submission
    parked_at: datetime
    lapses_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessRequest:
    """Who wants which servers, how long, why; and where that stands."""

    id: str
    person_id: str
    person_name: str
    person_email: str
    slack_user: SlackUser
    servers: tuple[Server, ...]
    reason: str
    duration: timedelta
    terms: Terms
    submitted_at: datetime
    lapses_at: datetime
    source_ip: str | None = None
    route: RouteName = RouteName.SESSION_MANAGER
    account: AccountName = AccountName.SHORT_LIVED_USER
    state: RequestState = RequestState.PENDING
    cause: EndCause | None = None
    cause_detail: str = ""  # who or what ended it, as words for people
    decided_at: datetime | None = None
    expires_at: datetime | None = None  # stamped when provisioning is dispatched
    ended_at: datetime | None = None
    due_at: datetime | None = None  # when the reconciler has to look next; None: never again
    problem: str = ""  # what holds it up now, as a sentence
    revision: int = 1  # counts the changes a reader could see

    @property
    def user_name(self) -> str:
        """The OS user of this request alone: ``pp-7f3k`` for ``AR-7F3K``."""
        return "pp-" + self.id.removeprefix("AR-").lower()

    @property
    def is_open(self) -> bool:
        """Whether anything may still happen to it."""
        return self.state in OPEN_STATES


OPEN_STATES = frozenset({RequestState.PENDING, RequestState.APPROVED, RequestState.ACTIVE, RequestState.ENDING})


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """One reviewer's word on one request."""

    request_id: str
    person_id: str
    person_name: str
    person_email: str
    slack_user: SlackUser
    verdict: Verdict
    at: datetime
    reason: str = ""
    duration: timedelta | None = None  # a shorter time than asked for, if the reviewer chose one


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a route or an account is with one operation on one grant."""

    handle: Mapping[str, str] = field(default_factory=dict)  # what a restart needs to go on
    done: bool = False
    attempts: int = 0  # failures so far
    retry_at: datetime | None = None
    problem: str = ""
    server_cannot: bool = False  # of the problem: the server itself says so, and its own timer can do no more


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """Access to one server of a request."""

    id: str  # request id, a dot, a number: AR-7F3K.1
    request_id: str
    server: Server
    state: GrantState = GrantState.PROVISIONING
    route: Progress = field(default_factory=Progress)
    account: Progress = field(default_factory=Progress)
    details: Mapping[str, str] = field(default_factory=dict)  # what provisioning answered: uid, host_keys, …
    proof: Mapping[str, str] = field(default_factory=dict)  # what removal verified, and who vouches for it
    outcome: str = ""  # how it went, as a sentence; "" while nothing went wrong
