"""How Run Command's ends read to a person.

The states are those of "Understanding command statuses", Systems Manager user guide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provisioning.command_outcome import Answered, Unanswered


@dataclass(frozen=True, kw_only=True, slots=True)
class _End:
    """How an end other than the script's own reads; ``silent``: the agent gave no sign of life."""

    sentence: str
    retryable: bool = True
    silent: bool = False


_ENDS: Mapping[str, _End] = {
    "DeliveryTimedOut": _End(
        sentence="{name} does not answer: its SSM agent did not fetch the command in time.", silent=True
    ),
    "ExecutionTimedOut": _End(sentence="{name} took too long, and its agent stopped the command."),
    "TimedOut": _End(sentence="{name} did not finish in time.", silent=True),
    "Undeliverable": _End(
        sentence="{name} does not answer: Systems Manager could not deliver the command to it.", silent=True
    ),
    "Terminated": _End(sentence="Systems Manager gave up on {name}, because too many other servers failed."),
    "Cancelled": _End(sentence="Somebody cancelled the command for {name} in AWS."),
    "RateExceeded": _End(sentence="AWS runs too many commands at once for {name}."),
    "Incomplete": _End(sentence="Systems Manager ended the command without reaching {name}.", silent=True),
    "NoInstancesInTag": _End(sentence="Systems Manager found no server to run the command on where {name} was."),
    "InvalidPlatform": _End(
        sentence="{name} does not run the system that Systems Manager told me, so nothing was run on it. "
        "Ask again when its SSM agent has reported anew.",
        retryable=False,
    ),
    "AccessDenied": _End(
        sentence="AWS does not let Passport's role run commands on {name}. An admin must allow it.", retryable=False
    ),
}
_RAN = frozenset({"Success", "Failed"})


def read_invocation(name: str, invocation: Mapping[str, Any]) -> Answered | Unanswered | None:
    """What became of a command on the server of that name; None while it goes on."""
    details, status = (_word(invocation.get(key)) for key in ("StatusDetails", "Status"))
    for word in (details, status):
        if end := _ENDS.get(word):
            return Unanswered(reason=end.sentence.replace("{name}", name), retryable=end.retryable, silent=end.silent)
    if status in _RAN:
        return _ran(name, status, invocation.get("CommandPlugins", []))
    return None


def _ran(name: str, status: str, plugins: Sequence[Mapping[str, Any]]) -> Answered | Unanswered:
    output = "".join(str(part.get("Output", "")) for part in plugins)
    if status == "Failed" and not output.strip():
        code = next((int(part["ResponseCode"]) for part in plugins if "ResponseCode" in part), -1)
        reason = f"{name}'s SSM agent could not run the script, and did not say why (exit status {code})."
        return Unanswered(reason=reason, retryable=True)
    return Answered(output=output)


def _word(value: object) -> str:
    """``Delivery Timed Out``, ``DeliveryTimedOut`` and ``Canceled`` are all in use."""
    return str(value or "").replace(" ", "").replace("Canceled", "Cancelled")
