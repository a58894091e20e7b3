"""What Slack shows: the messages that follow requests, and the direct messages that follow none."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Integer, Row, bindparam, case, delete, insert, or_, select, update

from access.model import AccessRequest, SlackUser
from access.ports import Post
from storage.repositories.people import slack_from_row, slack_to_row
from storage.repositories.requests import readable
from storage.repositories.statements import insert_or_update, one_or_all
from storage.rows import outbox, posts, requests

_STALE = (
    select(requests)
    .where(
        requests.c.shown_revision < requests.c.revision,
        or_(requests.c.show_after.is_(None), requests.c.show_after <= bindparam("now")),
    )
    .order_by(requests.c.submitted_at, requests.c.id)
    .limit(bindparam("most", type_=Integer))
)
_POSTS_OF = (
    select(posts).where(posts.c.request_id.in_(bindparam("request_ids", expanding=True))).order_by(posts.c.number)
)
_SAVE_POST = insert_or_update(
    posts,
    ("request_id", "audience", "recipient", "stage"),
    ("channel", "ts", "shown_revision", "attempts", "retry_at", "problem"),
)
_NOTE = (
    update(requests)
    .where(requests.c.id == bindparam("row"))
    .values(
        shown_revision=case(
            (requests.c.shown_revision < bindparam("shown"), bindparam("shown")), else_=requests.c.shown_revision
        ),
        show_after=bindparam("until"),
    )
)
_ADD_MESSAGE = insert(outbox)
_DUE_MESSAGES = (
    select(outbox)
    .where(outbox.c.due_at <= bindparam("now"))
    .order_by(outbox.c.id)
    .limit(bindparam("most", type_=Integer))
)
_SENT = delete(outbox).where(outbox.c.id == bindparam("row"))
_PUT_OFF_MESSAGE = (
    update(outbox)
    .where(outbox.c.id == bindparam("row"))
    .values(due_at=bindparam("until"), attempts=outbox.c.attempts + 1)
)


class SqlPosts:
    """``access.ports.Posts`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stale(self, now: datetime, limit: int) -> Sequence[AccessRequest]:
        most = limit
        while True:
            rows = self._connection.execute(_STALE, {"now": now, "most": most}).all()
            found = list(readable(rows))[:limit]
            if len(found) == limit or len(rows) < most:
                return found
            most *= 2  # past those that cannot be read

    def of(self, request_id: str) -> Sequence[Post]:
        """In the order in which they were first saved."""
        return self.of_all([request_id]).get(request_id, [])

    def of_all(self, request_ids: Sequence[str]) -> Mapping[str, Sequence[Post]]:
        found: dict[str, list[Post]] = defaultdict(list)
        for row in self._connection.execute(_POSTS_OF, {"request_ids": list(request_ids)}):
            found[row.request_id].append(_post_from_row(row))
        return found

    def save(self, post: Post) -> None:
        self._connection.execute(_SAVE_POST[self._connection.dialect.name], _post_to_row(post))

    def note(self, *, shown: Mapping[str, int], put_off: Mapping[str, datetime]) -> None:
        rows = [
            {"row": request_id, "shown": shown.get(request_id, 0), "until": put_off.get(request_id)}
            for request_id in sorted({*shown, *put_off})
        ]
        if rows:
            self._connection.execute(_NOTE, one_or_all(rows))


class SqlOutbox:
    """``access.ports.Outbox`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, slack_user: SlackUser, text: str, *, at: datetime) -> None:
        self._connection.execute(_ADD_MESSAGE, {**slack_to_row(slack_user), "text": text, "due_at": at})

    def due(self, now: datetime, limit: int) -> Sequence[tuple[int, SlackUser, str, int]]:
        rows = self._connection.execute(_DUE_MESSAGES, {"now": now, "most": limit})
        return [(row.id, slack_from_row(row), row.text, row.attempts) for row in rows]

    def sent(self, message_id: int) -> None:
        self._connection.execute(_SENT, {"row": message_id})

    def put_off(self, message_id: int, until: datetime) -> None:
        self._connection.execute(_PUT_OFF_MESSAGE, {"row": message_id, "until": until})


def _post_from_row(row: Row[Any]) -> Post:
    return Post(
        request_id=row.request_id,
        audience=row.audience,
        recipient=row.recipient,
        stage=row.stage,
        channel=row.channel,
        ts=row.ts,
        shown_revision=row.shown_revision,
        attempts=row.attempts,
        retry_at=row.retry_at,
        problem=row.problem,
    )


def _post_to_row(post: Post) -> dict[str, object]:
    return {
        "request_id": post.request_id,
        "audience": post.audience,
        "recipient": post.recipient,
        "stage": post.stage,
        "channel": post.channel,
        "ts": post.ts,
        "shown_revision": post.shown_revision,
        "attempts": post.attempts,
        "retry_at": post.retry_at,
        "problem": post.problem,
    }
