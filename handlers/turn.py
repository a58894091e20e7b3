"""One delivery by Slack, reduced to what the listeners need."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from access.service.desk import Caller

LATE_SECONDS = 0.8  # with two more for an inline call, the ack still comes within Slack's three


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Who did something, by which delivery, and where the answer goes."""

    caller: Caller
    trigger_id: str = field(repr=False)
    response_url: str = field(repr=False)
    channel: str
    message_ts: str  # of the message whose button was pressed, "" elsewhere
    began: float

    @property
    def is_late(self) -> bool:
        """Whether so much time is gone that an inline call would miss the ack."""
        return time.monotonic() - self.began > LATE_SECONDS


def channel_of(body: Mapping[str, Any]) -> str:
    """The channel where it happened, "" in a modal or on Home."""
    container: Mapping[str, Any] = body.get("container") or {}
    channel: Mapping[str, Any] = body.get("channel") or {}
    return str(body.get("channel_id") or channel.get("id") or container.get("channel_id") or "")


def message_ts_of(body: Mapping[str, Any]) -> str:
    """The message whose button was pressed, "" elsewhere."""
    container: Mapping[str, Any] = body.get("container") or {}
    return str(container.get("message_ts") or "")


def user_of(body: Mapping[str, Any]) -> str:
    """The Slack user who did it."""
    user: Mapping[str, Any] = body.get("user") or {}
    return str(body.get("user_id") or user.get("id") or "")


def teams_of(body: Mapping[str, Any]) -> set[str]:
    """Every workspace that the delivery names: the app's, and the person's own."""
    team: Mapping[str, Any] = body.get("team") or {}
    user: Mapping[str, Any] = body.get("user") or {}
    return {str(found) for found in (body.get("team_id"), team.get("id"), user.get("team_id")) if found}
