"""What happens in a story, chosen by its seed and number alone: the same again plays the same choices."""

from dataclasses import dataclass, replace
from random import Random

HOSTS = ("web-1", "db-2")
REQUESTERS = ("ana", "cleo")
DECISIONS = {"approve": 10, "approve twice": 4, "approve and deny": 3, "deny": 2, "cancel": 2, "nobody": 1}
ENDS = ("expires", "done", "revoked")
SLIPS = (
    "request nowhere-9 for 20s because a server that is not there",
    "request web-1 for 99h because too long",
    "request web-1 for 20s via nothing because no such route",
    "done AR-ZZZZ",
    "cancel AR-ZZZZ",
    "revoke AR-ZZZZ because it is not there",
    "frobnicate",
)
SLACK = (
    "slack down",
    "slack slow",
    "slack rate limited",
    "slack loses answers",
    "slack answers 503",
    "audit channel archived",
)
SOCKETS = ("sockets cut", "sockets refreshed")
AWS = ("aws throttles", "aws answers 500", "aws loses answers")
AGENT = ("agent twice", "agent late", "agent stalls", "agent lost")
POWER = ("reboot", "power cut", "pause")
DISK = ("disk full", "/etc read-only")
PASSPORT = ("kill -9", "restart")
DATABASE = ("database cut", "database crash", "database down")
CALM_EVERY = 3  # stories


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """One thing that goes wrong, some seconds into the story and for some seconds."""

    name: str
    host: str  # where it is one of a host's
    after: float
    lasts: float

    def __str__(self) -> str:
        where = f" {self.host}" if self.name in {*AGENT, *POWER, *DISK} else ""
        return f"{self.name}{where} {self.after:.0f}+{self.lasts:.0f}s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A story: who asks for what, who decides how, what is done with it, how it ends, and the weather."""

    number: int
    requester: str
    servers: tuple[str, ...]
    seconds: int
    slip: str  # something wrong that is typed first
    relinks: bool  # asks without a link, and signs in then
    repeats: bool  # Slack delivers the command and the click once more
    tries_alone: bool  # the requester clicks on Approve
    decision: str
    logs_in: bool
    plants: bool
    thief: bool
    end: str
    troubles: tuple[Trouble, ...]
    beside: "Plan | None" = None  # what the other requester does at the same time on the same servers

    def __str__(self) -> str:
        told = [f"{self.requester} asks for {' '.join(self.servers)} {self.seconds}s"]
        told += [word for word in ("relinks", "repeats", "tries_alone") if getattr(self, word)]
        told += [f"beside {self.beside.requester} ({self.beside.end})"] if self.beside else []
        told += ["a slip first"] if self.slip else []
        told.append(self.decision)
        if self.decision.startswith("approve"):
            told += [
                what for what, so in (("logs in", self.logs_in), ("plants", self.plants), ("thief", self.thief)) if so
            ]
            told.append(self.end)
        return f"{', '.join(told)} | {', '.join(map(str, self.troubles)) or 'calm'}"


def plan(seed: int, number: int, *, postgres: bool, sockets: bool) -> Plan:
    """The story of this number: every third is calm, and in one of four the other requester plays beside it."""
    dice = Random(f"{seed}:{number}")
    end = dice.choice(ENDS)
    logs_in = dice.random() < 0.8
    requester = dice.choice(REQUESTERS)
    alone = Plan(
        number=number,
        requester=requester,
        servers=tuple(dice.sample(HOSTS, dice.randint(1, len(HOSTS)))),
        seconds=dice.randint(6, 20) if end == "expires" else dice.randint(40, 60),
        slip=dice.choice(SLIPS) if dice.random() < 0.25 else "",
        relinks=dice.random() < 0.15,
        repeats=dice.random() < 0.3,
        tries_alone=requester == "ana" and dice.random() < 0.4,  # Cleo does not see the card
        decision=dice.choices(list(DECISIONS), weights=list(DECISIONS.values()))[0],
        logs_in=logs_in,
        plants=logs_in and dice.random() < 0.6,
        thief=logs_in and dice.random() < 0.3,
        end=end,
        troubles=_troubles(dice, postgres=postgres, sockets=sockets) if number % CALM_EVERY else (),
    )
    return replace(alone, thief=False, beside=_beside(dice, alone)) if dice.random() < 0.25 else alone


def _beside(dice: Random, plan: Plan) -> Plan:
    """A plain story, for longer than the end of the other's is likely to take."""
    return replace(
        plan,
        requester=next(name for name in REQUESTERS if name != plan.requester),
        seconds=dice.randint(50, 60),
        slip="",
        relinks=False,
        tries_alone=False,
        decision="approve",
        logs_in=True,
        thief=False,
        end=dice.choice(("done", "revoked")),
        troubles=(),
    )


def _troubles(dice: Random, *, postgres: bool, sockets: bool) -> tuple[Trouble, ...]:
    """One to three, of different families."""
    families = [SLACK, AWS, AGENT, (*POWER, *DISK), PASSPORT]
    families += [DATABASE] if postgres else []
    families += [SOCKETS] if sockets else []
    return tuple(
        Trouble(
            name=dice.choice(family),
            host=dice.choice(HOSTS),
            after=dice.uniform(0, 6),
            lasts=dice.uniform(1, 6),
        )
        for family in dice.sample(families, dice.randint(1, 3))
    )
