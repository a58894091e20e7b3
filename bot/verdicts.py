"""What ``passport doctor`` finds: one line each, and the mend with it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal

from access.errors import PassportError, UnavailableError
from provisioning.aws_errors import AwsError
from storage.errors import SealError

MOST_SKEW = timedelta(seconds=30)  # Slack's signatures and AWS's allow 5 minutes, SAML's conditions 60 s

_GOES_ON = re.compile(r"\bI (try|go on|renew)\b|Try again")  # true of a server, not of a command that looks once

Verdict = Literal["ok", "problem", "unseen"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at; ``unseen`` where Passport may not look."""

    subject: str
    verdict: Verdict
    sentence: str

    @property
    def is_wrong(self) -> bool:
        """Whether it has to be mended."""
        return self.verdict == "problem"

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.verdict:<8} {self.subject}: {' '.join(self.sentence.split())}"

    def as_json(self) -> dict[str, str]:
        """For machines."""
        return {"subject": self.subject, "verdict": self.verdict, "sentence": self.sentence}


def good(subject: str, sentence: str) -> Finding:
    """As it should be."""
    return Finding(subject=subject, verdict="ok", sentence=sentence)


def wrong(subject: str, what: str, mend: str) -> Finding:
    """To be mended: what is wrong, and how to mend it."""
    return Finding(subject=subject, verdict="problem", sentence=f"{what} {mend}")


def failed(subject: str, error: PassportError, otherwise: str) -> Finding:
    """What an error says; ``otherwise`` is the mend where it says none, because it is usually mended elsewhere."""
    what, stop, mend = error.sentence.partition(". ")
    if not isinstance(error, UnavailableError | SealError | AwsError) or (mend and not _GOES_ON.search(mend)):
        return Finding(subject=subject, verdict="problem", sentence=error.sentence)
    return wrong(subject, what + stop.rstrip(), otherwise)


def unseen(subject: str, sentence: str) -> Finding:
    """Not to be known from here."""
    return Finding(subject=subject, verdict="unseen", sentence=sentence)


def clock_finding(whose: str, date: str, now: datetime) -> Iterator[Finding]:
    """This machine's clock beside the Date header of an answer, which has whole seconds; nothing without one."""
    try:
        theirs = parsedate_to_datetime(date).astimezone(UTC)
    except (TypeError, ValueError):
        return
    skew = now - theirs
    seconds = abs(skew.total_seconds())
    if abs(skew) > MOST_SKEW:
        way = "ahead of" if skew > timedelta() else "behind"
        yield wrong("clock", f"This machine is {seconds:.0f} s {way} {whose}.", "Let NTP set its clock.")
    else:
        yield good("clock", f"This machine and {whose} agree within {max(seconds, 1):.0f} s.")
