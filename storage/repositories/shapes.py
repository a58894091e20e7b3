"""How values look inside JSON columns, and what a row is that cannot be read."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Row

from access.model import Progress, Rights, RouteName, Server, Submission, Terms
from storage.errors import UnreadableError

Json = Mapping[str, Any]
T = TypeVar("T")


def understood(row: Row[Any], read: Callable[[Row[Any]], T]) -> T:
    """What ``read`` makes of a row that has an id; raises UnreadableError where it cannot."""
    try:
        return read(row)
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableError(f"{row.id} holds what this version of Passport cannot read. See the log.") from error


def server_to_json(server: Server) -> Json:
    """A pinned server."""
    return {
        "account": server.account,
        "region": server.region,
        "instance_id": server.instance_id,
        "name": server.name,
        "platform": server.platform,
        "tags": dict(server.tags),
        "online": server.online,
        "agent_version": server.agent_version,
        "problem": server.problem,
    }


def server_from_json(json: Json) -> Server:
    """The server that ``server_to_json`` wrote, in this version or an earlier one, which knew no agent's version."""
    return Server(**json)


def terms_to_json(terms: Terms) -> Json:
    """What the rule said."""
    return {
        "rule": terms.rule,
        "reviewers": sorted(terms.reviewers),
        "quorum": terms.quorum,
        "tell": list(terms.tell),
        "rights": {
            "sudo": terms.rights.sudo,
            "commands": list(terms.rights.commands),
            "forwarding": terms.rights.forwarding,
            "metadata": terms.rights.metadata,
            "administrator": terms.rights.administrator,
        },
        "keep_home_days": terms.keep_home_days,
    }


def terms_from_json(json: Json) -> Terms:
    """The terms that ``terms_to_json`` wrote, in this version or an earlier one, which had fewer rights."""
    rights = json["rights"]
    return Terms(
        rule=json["rule"],
        reviewers=frozenset(json["reviewers"]),
        quorum=json["quorum"],
        tell=tuple(json["tell"]),
        rights=Rights(**{**rights, "commands": tuple(rights.get("commands", ()))}),
        keep_home_days=json.get("keep_home_days", 0),
    )


def submission_to_json(submission: Submission) -> Json:
    """What was asked for."""
    return {
        "servers": list(submission.servers),
        "reason": submission.reason,
        "duration": None if submission.duration is None else int(submission.duration.total_seconds()),
        "source_ip": submission.source_ip,
        "route": submission.route.value,
    }


def submission_from_json(json: Json) -> Submission:
    """The submission that ``submission_to_json`` wrote."""
    seconds = json["duration"]
    return Submission(
        servers=tuple(json["servers"]),
        reason=json["reason"],
        duration=None if seconds is None else timedelta(seconds=seconds),
        source_ip=json["source_ip"],
        route=RouteName(json["route"]),
    )


def progress_to_json(progress: Progress) -> Json:
    """How far a route or an account is."""
    return {
        "handle": dict(progress.handle),
        "done": progress.done,
        "attempts": progress.attempts,
        "retry_at": None if progress.retry_at is None else _instant_text(progress.retry_at),
        "problem": progress.problem,
        "server_cannot": progress.server_cannot,
    }


def progress_from_json(json: Json) -> Progress:
    """The progress that ``progress_to_json`` wrote."""
    retry_at = json["retry_at"]
    return Progress(
        handle=json["handle"],
        done=json["done"],
        attempts=json["attempts"],
        retry_at=None if retry_at is None else datetime.fromisoformat(retry_at),
        problem=json["problem"],
        server_cannot=json.get("server_cannot", False),  # older rows do not say
    )


def _instant_text(instant: datetime) -> str:
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no time zone")
    return instant.astimezone(UTC).isoformat(timespec="microseconds")
