"""The keys of Passport's certificate authority: which there are, what servers trust, which one signs for whom."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from access.errors import RefusedError, UnavailableError
from access.model import Grant, GrantState

FILE = "file"  # the place of a key that is in a sealed file of Passport's
KNOWN = "authorities"  # in a grant's details: the fingerprints that its server trusts, with spaces between
OPEN_GRANTS = frozenset({GrantState.PROVISIONING, GrantState.ACTIVE})


class AuthorityRole(StrEnum):
    """What a key is for; there is at most one CURRENT and one NEXT."""

    CURRENT = "current"
    NEXT = "next"  # while a rotation lasts: servers opened from now on trust it, too
    RETIRED = "retired"


@dataclass(frozen=True, kw_only=True, slots=True)
class Authority:
    """One key: ``place`` is FILE or the ARN of a KMS key, ``public_key`` is ``type base64``."""

    fingerprint: str  # SHA256:…
    public_key: str
    place: str
    role: AuthorityRole
    since: datetime  # when it was first put on record
    changed_at: datetime  # when it got its role
    generation: int  # counts every change of what servers shall trust; this key's last one


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """What servers opened now shall trust; a server never goes back to an earlier generation."""

    generation: int
    authorities: tuple[Authority, ...]  # one, or two while it changes

    @property
    def public_keys(self) -> tuple[str, ...]:
        """``type base64`` of each."""
        return tuple(authority.public_key for authority in self.authorities)

    @property
    def fingerprints(self) -> frozenset[str]:
        """``SHA256:…`` of each."""
        return frozenset(authority.fingerprint for authority in self.authorities)


def in_role(authorities: Iterable[Authority], role: AuthorityRole) -> Authority | None:
    """The one key of this role."""
    return next((authority for authority in authorities if authority.role is role), None)


def generation_of(authorities: Iterable[Authority]) -> int:
    """The generation that there is now; 0 before the first key."""
    return max((authority.generation for authority in authorities), default=0)


def trust_of(authorities: Sequence[Authority]) -> Trust:
    """What to install on servers from now on; raises UnavailableError before the first start made a key."""
    chosen = [in_role(authorities, role) for role in (AuthorityRole.CURRENT, AuthorityRole.NEXT)]
    if chosen[0] is None:
        raise UnavailableError("Passport's certificate authority has no key yet. An admin runs `passport doctor`.")
    return Trust(
        generation=generation_of(authorities), authorities=tuple(authority for authority in chosen if authority)
    )


def known_to(grant: Grant, authorities: Sequence[Authority]) -> frozenset[str]:
    """The fingerprints that the grant's server trusts; a grant from before they were noted knows the first key."""
    if KNOWN in grant.details:
        return frozenset(grant.details[KNOWN].split())
    return frozenset({authority.fingerprint for authority in authorities if authority.since == _first(authorities)})


def signers(authorities: Sequence[Authority], grants: Sequence[Grant]) -> tuple[Authority, ...]:
    """The keys whose certificate every one of the servers accepts, the one that lasts longest first.

    Raises RefusedError when there is none: such access is about to be ended anyway.
    """
    trust = trust_of(authorities)
    shared = frozenset.intersection(trust.fingerprints, *(known_to(grant, authorities) for grant in grants))
    chosen = tuple(authority for authority in reversed(trust.authorities) if authority.fingerprint in shared)
    if not chosen:
        names = ", ".join(grant.server.name for grant in grants)
        raise RefusedError(f"{names}: the key that my certificates were signed with has been replaced. Ask anew.")
    return chosen


def _first(authorities: Sequence[Authority]) -> datetime:
    return min(authority.since for authority in authorities)
