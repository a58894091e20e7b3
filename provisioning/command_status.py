"""How Run Command's ends read to a person.

The states are those of "Understanding command statuses", Systems Manager user guide.
"""

from collections.abc import Mapping
from typing import Any

from provisioning.command_outcome import Answered, Unanswered

# Whether trying again later may help, and what to say.
_SENTENCES: Mapping[str, tuple[bool, str]] = {
    "DeliveryTimedOut": (True, "{name} does not answer: its SSM agent did not fetch the command in time."),
    "ExecutionTimedOut": (True, "{name} took too long, and its agent stopped the command."),
    "TimedOut": (True, "{name} did not finish in time."),
    "Undeliverable": (True, "{name} does not answer: Systems Manager could not deliver the command to it."),
    "Terminated": (True, "Systems Manager gave up on {name}, because too many other servers failed."),
    "Cancelled": (True, "Somebody cancelled the command for {name} in AWS."),
    "RateExceeded": (True, "AWS runs too many commands at once for {name}."),
    "InvalidPlatform": (False, "{name} does not run Linux, so Passport's documents are not for it."),
    "AccessDenied": (False, "AWS does not let Passport's role run commands on {name}. An admin must allow it."),
}
_RAN = frozenset({"Success", "Failed"})


def read_invocation(name: str, invocation: Mapping[str, Any]) -> Answered | Unanswered | None:
    """What became of a command on the server of that name; None while it goes on."""
    details, status = (_word(invocation.get(key)) for key in ("StatusDetails", "Status"))
    for word in (details, status):
        if word in _SENTENCES:
            retryable, sentence = _SENTENCES[word]
            return Unanswered(reason=sentence.format(name=name), retryable=retryable)
    if status in _RAN:
        return Answered(output="".join(str(part.get("Output", "")) for part in invocation.get("CommandPlugins", [])))
    return None


def _word(value: object) -> str:
    """``Delivery Timed Out``, ``DeliveryTimedOut`` and ``Canceled`` are all in use."""
    return str(value or "").replace(" ", "").replace("Canceled", "Cancelled")
