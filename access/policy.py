"""The rules: who may ask for what, and who may decide. Every answer carries its reason and its rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from access.model import AccessRequest, Person, Review, Rights, Server, Terms, Verdict
from access.words import duration_words, join_sentences, join_words

EVERYTHING = "*"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Which groups may ask for which servers, how long, with which rights, and who decides.

    ``tags`` maps a tag's key to the patterns (``*`` and ``?``) of which its value must match one.
    """

    name: str
    groups: frozenset[str]
    reviewers: frozenset[str]
    tell: tuple[str, ...]
    accounts: frozenset[str] = frozenset({EVERYTHING})
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_duration: timedelta = timedelta(hours=12)
    quorum: int = 1
    rights: Rights = field(default_factory=Rights)
    keep_home_days: int = 0

    def terms(self) -> Terms:
        """What a request under this rule keeps of it."""
        return Terms(
            rule=self.name,
            reviewers=self.reviewers,
            quorum=self.quorum,
            tell=self.tell,
            rights=self.rights,
            keep_home_days=self.keep_home_days,
        )

    def matches(self, person: Person, server: Server) -> bool:
        """Whether this rule speaks of this person and this server."""
        return (
            (EVERYTHING in self.groups or bool(self.groups & person.groups))
            and (EVERYTHING in self.accounts or server.account in self.accounts)
            and all(_tag_matches(server, key, patterns) for key, patterns in self.tags.items())
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """The settings' rules, in order, and the bounds that hold for all."""

    rules: tuple[Rule, ...]
    admins: frozenset[str] = frozenset()
    default_duration: timedelta = timedelta(hours=1)
    max_duration: timedelta = timedelta(hours=12)
    min_duration: timedelta = timedelta(minutes=5)
    lapse_after: timedelta = timedelta(minutes=30)
    link_lifetime: timedelta = timedelta(hours=12)
    groups_max_age: timedelta = timedelta(hours=12)
    exception_lifetime: timedelta = timedelta(days=90)
    max_servers: int = 50

    @property
    def tag_keys(self) -> frozenset[str]:
        """The tags that decide anything: a change of these between submission and start stops a request."""
        return frozenset(key for rule in self.rules for key in rule.tags)

    def rule_for(self, person: Person, server: Server) -> Rule | None:
        """The first rule that speaks of them."""
        return next((rule for rule in self.rules if rule.matches(person, server)), None)

    def is_admin(self, person: Person) -> bool:
        """Whether the identity store says so."""
        return bool(self.admins & person.groups)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Allowed or not, always with the reason as a sentence, and the rule where one spoke."""

    allowed: bool
    reason: str
    rule: Rule | None = None


def decide_submission(policy: Policy, person: Person, servers: Sequence[Server], duration: timedelta) -> Decision:
    """Whether the person may ask for these servers for so long."""
    if not servers:
        return Decision(allowed=False, reason="Name at least one server.")
    if len(servers) > policy.max_servers:
        return Decision(
            allowed=False,
            reason=f"That is {len(servers)} servers; one request takes at most {policy.max_servers}.",
        )
    if broken := [server for server in servers if server.problem]:
        return Decision(allowed=False, reason=join_sentences(server.problem for server in broken))
    return _decide_rule(policy, person, servers, duration)


def _decide_rule(policy: Policy, person: Person, servers: Sequence[Server], duration: timedelta) -> Decision:
    by_rule: dict[str, list[str]] = {}
    rule: Rule | None = None
    for server in servers:
        rule = policy.rule_for(person, server)
        if rule is None:
            return Decision(
                allowed=False,
                reason=f"No rule lets you ask for {server.name}. Your groups: {_groups(person)}. "
                "If that is wrong, ask whoever keeps your groups, then sign in again with /passport link.",
            )
        by_rule.setdefault(rule.name, []).append(server.name)
    if rule is None or len(by_rule) > 1:
        parts = "; ".join(f"{join_words(names)} under {name}" for name, names in by_rule.items())
        return Decision(
            allowed=False,
            reason=f"These servers fall under different rules ({parts}). Ask for them one rule at a time.",
        )
    return _decide_duration(policy, rule, duration)


def _decide_duration(policy: Policy, rule: Rule, duration: timedelta) -> Decision:
    longest = min(rule.max_duration, policy.max_duration)
    if duration < policy.min_duration:
        reason = f"Ask for at least {duration_words(policy.min_duration)}."
        return Decision(allowed=False, reason=reason, rule=rule)
    if duration > longest:
        reason = f"Rule {rule.name} allows at most {duration_words(longest)}; you asked for {duration_words(duration)}."
        return Decision(allowed=False, reason=reason, rule=rule)
    return Decision(allowed=True, reason=f"Rule {rule.name}: {rule.quorum} of {_reviewers(rule.terms())}.", rule=rule)


def decide_review(policy: Policy, request: AccessRequest, reviewer: Person, *, now: datetime) -> Decision:
    """Whether this person may decide on this request at all; the state is the service's to check."""
    if reviewer.is_same_human(request.person_id, request.person_email):
        return own_request(request)
    if stale := stale_groups(policy, reviewer, now=now):
        return Decision(allowed=False, reason=stale)
    if not reviewer.groups & request.terms.reviewers:
        reason = f"Rule {request.terms.rule} wants someone of {_reviewers(request.terms)}; you are not."
        return Decision(allowed=False, reason=reason)
    return Decision(allowed=True, reason=f"Member of {_reviewers(request.terms)}.")


def own_request(request: AccessRequest) -> Decision:
    """Nobody decides on what they asked for."""
    reason = f"You cannot review your own request. Any other member of {_reviewers(request.terms)} can."
    return Decision(allowed=False, reason=reason)


def decide_end(policy: Policy, request: AccessRequest, person: Person, *, now: datetime) -> Decision:
    """Whether this person may revoke somebody's access: a reviewer of its rule, or an admin."""
    if stale := stale_groups(policy, person, now=now):
        return Decision(allowed=False, reason=stale)
    if policy.is_admin(person) or person.groups & request.terms.reviewers:
        return Decision(allowed=True, reason="Reviewer or admin.")
    reason = f"Only {_reviewers(request.terms)} and admins can revoke {request.id}."
    return Decision(allowed=False, reason=reason)


def stale_groups(policy: Policy, person: Person, *, now: datetime) -> str:
    """Why this person's groups cannot be relied upon, as a sentence; "" when they can."""
    if now - person.groups_read_at <= policy.groups_max_age:
        return ""
    return "I have not been able to confirm your groups for too long. Sign in again with /passport link."


def is_quorate(request: AccessRequest, reviews: Sequence[Review]) -> bool:
    """Whether enough different persons approve."""
    approvers = {review.person_email.casefold() for review in reviews if review.verdict is Verdict.APPROVE}
    return len(approvers) >= request.terms.quorum


def changed_tags(policy: Policy, pinned: Server, current: Server | None) -> str:
    """What changed since submission of the tags that policy looks at, as a sentence; "" when nothing did.

    A server that is gone or off is not a change of policy: its own grant fails with its reason, the others go on.
    """
    if current is None:
        return ""
    for key in sorted(policy.tag_keys):
        was, now_is = pinned.tags.get(key), current.tags.get(key)
        if was != now_is:
            return f"The tag {key} of {pinned.name} changed from {was or 'nothing'} to {now_is or 'nothing'}."
    return ""


def _tag_matches(server: Server, key: str, patterns: Sequence[str]) -> bool:
    value = server.tags.get(key)
    return value is not None and any(fnmatchcase(value, pattern) for pattern in patterns)


def _groups(person: Person) -> str:
    return join_words(sorted(person.groups)) or "none"


def _reviewers(terms: Terms) -> str:
    return join_words(sorted(terms.reviewers), last="or")
