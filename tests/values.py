"""Values that many tests need."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from access.model import AccessRequest, Person, Rights, Server, SlackUser, Terms
from access.policy import Policy, Rule

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
ANA = SlackUser(team_id="T0PASSPORT", user_id="U0ANA")
BEN = SlackUser(team_id="T0PASSPORT", user_id="U0BEN")


class FakeClock:
    """A clock that a test turns by hand."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        """Let time pass."""
        self.now += timedelta(**by)


def a_server(name: str = "web-1", **changes: Any) -> Server:
    """A Linux server of production."""
    number = sum(name.encode()) % 0xFFFF
    server = Server(
        account="prod-payments",
        region="eu-west-1",
        instance_id=f"i-{number:017x}",
        name=name,
        tags={"env": "prod", "Name": name},
    )
    return replace(server, **changes)


def a_person(name: str = "Ana Ruiz", **changes: Any) -> Person:
    """Somebody of payments."""
    first = name.split(maxsplit=1)[0].lower()
    person = Person(
        id=f"P-{first}",
        provider="okta",
        subject=f"subject-{first}",
        email=f"{first}@example.com",
        name=name,
        groups=frozenset({"payments"}),
        groups_read_at=NOW,
    )
    return replace(person, **changes)


def a_rule(**changes: Any) -> Rule:
    """Payments may ask for production as root; their leads decide."""
    rule = Rule(
        name="prod-root",
        groups=frozenset({"payments"}),
        reviewers=frozenset({"payments-leads"}),
        tell=("C0LEADS",),
        tags={"env": ("prod",)},
        max_duration=timedelta(hours=4),
        rights=Rights(sudo=True),
    )
    return replace(rule, **changes)


def a_policy(**changes: Any) -> Policy:
    """One rule, and the usual bounds."""
    return replace(Policy(rules=(a_rule(),), admins=frozenset({"passport-admins"})), **changes)


def a_request(**changes: Any) -> AccessRequest:
    """Ana asks for web-1, two hours."""
    request = AccessRequest(
        id="AR-7F3K",
        person_id="P-ana",
        person_name="Ana Ruiz",
        person_email="ana@example.com",
        slack_user=ANA,
        servers=(a_server(),),
        reason="INC-123: disk full",
        duration=timedelta(hours=2),
        terms=Terms(
            rule="prod-root",
            reviewers=frozenset({"payments-leads"}),
            quorum=1,
            tell=("C0LEADS",),
            rights=Rights(sudo=True),
        ),
        submitted_at=NOW,
        lapses_at=NOW + timedelta(minutes=30),
        due_at=NOW + timedelta(minutes=30),
    )
    return replace(request, **changes)
