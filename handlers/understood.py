"""What a command was understood to say."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from access.model import RouteName, Submission


@dataclass(frozen=True, kw_only=True, slots=True)
class Plain:
    """A subcommand without arguments: help, link, whoami, unlink, setup, list, key list."""

    verb: str


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """Status, cancel or done, of one request; done may leave the id out."""

    verb: str
    request_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Revoke:
    """The end of somebody's access; an empty reason is asked for."""

    request_id: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AddKey:
    """A public key as it was pasted."""

    line: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveKey:
    """A key by its fingerprint, or the beginning of it."""

    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Exempt:
    """An admin's exception for a Slack user's email."""

    user_id: str
    email: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Unexempt:
    """The end of such an exception."""

    user_id: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """What was understood of a request; ``missing`` names what has to be asked for."""

    servers: tuple[str, ...] = ()
    duration: timedelta | None = None
    source_ip: str | None = None
    route: RouteName = RouteName.SESSION_MANAGER
    reason: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """``servers`` and ``reason``, where they were not said; a duration has a default."""
        parts = (("servers", self.servers), ("reason", self.reason))
        return tuple(name for name, said in parts if not said)

    @property
    def submission(self) -> Submission:
        """The parts understood, as the service wants them."""
        return Submission(
            servers=self.servers,
            reason=self.reason,
            duration=self.duration,
            source_ip=self.source_ip,
            route=self.route,
        )


Command: TypeAlias = Plain | About | Revoke | AddKey | RemoveKey | Exempt | Unexempt | Parsed
