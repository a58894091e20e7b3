"""Servers that do not answer, and when their agents last did."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from access.model import Grant
from provisioning.aws import Sessions
from provisioning.aws_errors import AwsError
from provisioning.command_outcome import Unanswered
from provisioning.instances import read_agents

Lack = tuple[Grant, Unanswered]


def with_last_answers(
    sessions: Sessions, account: str, region: str, lacking: Sequence[Lack], now: datetime
) -> list[Lack]:
    """The same, and of those that are silent the time of their last sign of life, where AWS tells it."""
    silent = [grant.server.instance_id for grant, lack in lacking if lack.silent]
    try:
        agents = read_agents(sessions, account, region, silent)
    except AwsError:
        return list(lacking)
    seen = {instance_id: agent.last_ping for instance_id, agent in agents.items() if not agent.online}
    return [(grant, _told(lack, seen.get(grant.server.instance_id), now)) for grant, lack in lacking]


def _told(lack: Unanswered, last_ping: datetime | None, now: datetime) -> Unanswered:
    if last_ping is None or not lack.silent:
        return lack
    day = "" if now - last_ping < timedelta(hours=20) else f"{last_ping:%Y-%m-%d} "
    return replace(lack, reason=f"{lack.reason} It last answered at {day}{last_ping:%H:%M} UTC.")
