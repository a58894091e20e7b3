"""What a route or an account answers: a step per grant, at once, never blocking."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Under way: save ``handle`` and call again after ``retry_in``.

    With a ``problem``, a sentence for people, it counts as an attempt that failed, of which the handle stays good.
    "" takes back what was said; None leaves it as it is, for the next attempt of what has failed.
    """

    handle: Mapping[str, str]
    retry_in: timedelta
    problem: str | None = None
    is_retry: bool = False  # something failed meanwhile, and is put off


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """Finished; ``details`` are kept with the grant, and so is a password's ciphertext, but sealed."""

    details: Mapping[str, str] = field(default_factory=dict)
    password: str = field(default="", repr=False)  # base64, as the server encrypted it to the grant's key


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """Did not work; ``reason`` is a sentence for people.

    ``details`` are kept with a grant that is given up, for whoever removes it. ``server_cannot``: the server itself
    says so, and its own timer can do no more.
    """

    reason: str
    retryable: bool
    server_cannot: bool = False
    details: Mapping[str, str] = field(default_factory=dict)


Step = Waiting | Done | Failed
