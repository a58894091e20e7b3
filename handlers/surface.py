"""What the listeners need, handed in once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from slack_sdk import WebClient

from access.model import AccessRequest, Grant
from access.policy import Policy
from access.ports import Clock, Inventory
from access.service.bundling import Bundling
from access.service.ending import Ending
from access.service.keys import Keys
from access.service.linking import Linking
from access.service.retrying import Retrying
from access.service.reviewing import Reviewing
from access.service.showing import Showing
from access.service.submitting import Submitting
from handlers.after_ack import AfterAck
from handlers.members import Members


class PublicKey(Protocol):
    """A checked public key: ``type base64`` and ``SHA256:…``."""

    @property
    def line(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


class ParseKey(Protocol):
    """Reads the line of a ``.pub`` file; raises InvalidInputError."""

    def __call__(self, text: str, /) -> PublicKey: ...


class ServerConnection(Protocol):
    """How to reach one server; ``name`` may hold anything."""

    @property
    def name(self) -> str: ...

    @property
    def command(self) -> str: ...


class Connection(Protocol):
    """How a laptop reaches the servers: what to paste once, and the ssh command of each."""

    @property
    def user(self) -> str: ...

    @property
    def key_file(self) -> str: ...

    @property
    def certificate(self) -> str: ...

    @property
    def install(self) -> str: ...

    @property
    def servers(self) -> Sequence[ServerConnection]: ...


class Forward(Protocol):
    """Makes the command that forwards a port of the laptop to a Windows server's Remote Desktop."""

    def __call__(self, grant: Grant, local_port: int, /) -> str: ...


class Connect(Protocol):
    """Makes the texts of a connection out of a request, its active grants and a certificate."""

    def __call__(self, request: AccessRequest, grants: Sequence[Grant], certificate: str, /) -> Connection: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """The services and settings behind the Slack surface; ``client`` knows Slack's address and the bot token."""

    linking: Linking
    submitting: Submitting
    reviewing: Reviewing
    retrying: Retrying
    ending: Ending
    keys: Keys
    showing: Showing
    members: Members
    inventory: Inventory
    policy: Policy
    client: WebClient = field(repr=False)
    after_ack: AfterAck
    connect: Connect
    forward: Forward
    parse_key: ParseKey
    clock: Clock
    team_id: str
    public_url: str
    signing_secret: str = field(repr=False)
    bot_user_id: str = ""
    bundling: Bundling | None = None  # where people have AWS credentials of their own: the plain forms are shown

    def link_url(self, token: str) -> str:
        """The page that starts a sign-in."""
        return f"{self.home}/link/{token}"

    @property
    def home(self) -> str:
        """Passport's address, without the slash at its end."""
        return self.public_url.rstrip("/")
