"""Grants and reviews: what belongs to a request."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from access.errors import NotFoundError, RefusedError
from access.model import Grant, GrantState, Review, SlackUser, Verdict
from storage.repositories.shapes import (
    progress_from_json,
    progress_to_json,
    server_from_json,
    server_to_json,
    understood,
)
from storage.repositories.statements import add_new, insert_new, one_or_all
from storage.rows import grants, reviews

_ADD_GRANT = insert(grants)
_GRANTS_OF = select(grants).where(grants.c.request_id == bindparam("request_id"))
_GRANTS_OF_ALL = select(grants).where(grants.c.request_id.in_(bindparam("request_ids", expanding=True)))
_SAVE_GRANT = update(grants).where(grants.c.id == bindparam("row"))
_ADD_REVIEW = insert_new(reviews, "request_id", "person_id")
_REVIEWS_OF = select(reviews).where(reviews.c.request_id == bindparam("request_id")).order_by(reviews.c.number)
_REVIEWS_OF_ALL = (
    select(reviews).where(reviews.c.request_id.in_(bindparam("request_ids", expanding=True))).order_by(reviews.c.number)
)


class SqlGrants:
    """``access.ports.Grants`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, *grants: Grant) -> None:
        self._connection.execute(_ADD_GRANT, one_or_all([_grant_to_row(grant) for grant in grants]))

    def of(self, request_id: str) -> Sequence[Grant]:
        rows = self._connection.execute(_GRANTS_OF, {"request_id": request_id})
        return sorted(map(_grant_from_row, rows), key=_number)

    def of_all(self, request_ids: Sequence[str]) -> Mapping[str, Sequence[Grant]]:
        found: dict[str, list[Grant]] = defaultdict(list)
        rows = self._connection.execute(_GRANTS_OF_ALL, {"request_ids": list(request_ids)})
        for grant in sorted(map(_grant_from_row, rows), key=_number):
            found[grant.request_id].append(grant)
        return found

    def save(self, grant: Grant) -> None:
        self.save_all([grant])

    def save_all(self, grants: Sequence[Grant]) -> None:
        rows = [{"row": grant.id, **_progress_to_row(grant)} for grant in grants]
        if rows and self._connection.execute(_SAVE_GRANT, one_or_all(rows)).rowcount != len(rows):
            raise NotFoundError(f"There is no grant {' or '.join(grant.id for grant in grants)}.")


class SqlReviews:
    """``access.ports.Reviews`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, review: Review) -> None:
        """Keep the reviewer's word; raises RefusedError if this person has given one on this request."""
        if not add_new(self._connection, _ADD_REVIEW, _review_to_row(review)):
            raise RefusedError(f"You have decided on {review.request_id} before. Nothing changed.")

    def of(self, request_id: str) -> Sequence[Review]:
        return [_review_from_row(row) for row in self._connection.execute(_REVIEWS_OF, {"request_id": request_id})]

    def of_all(self, request_ids: Sequence[str]) -> Mapping[str, Sequence[Review]]:
        found: dict[str, list[Review]] = defaultdict(list)
        for row in self._connection.execute(_REVIEWS_OF_ALL, {"request_ids": list(request_ids)}):
            found[row.request_id].append(_review_from_row(row))
        return found


def _number(grant: Grant) -> tuple[int, str]:
    """AR-7F3K.10 comes after AR-7F3K.2."""
    number = grant.id.rpartition(".")[2]
    return (int(number) if number.isdecimal() else 0, grant.id)


def _grant_from_row(row: Row[Any]) -> Grant:
    return understood(row, _from_row)


def _from_row(row: Row[Any]) -> Grant:
    return Grant(
        id=row.id,
        request_id=row.request_id,
        server=server_from_json(row.server),
        state=GrantState(row.state),
        route=progress_from_json(row.route),
        account=progress_from_json(row.account),
        details=row.details,
        proof=row.proof,
        outcome=row.outcome,
    )


def _grant_to_row(grant: Grant) -> dict[str, object]:
    return {
        "id": grant.id,
        "request_id": grant.request_id,
        "server": server_to_json(grant.server),
        **_progress_to_row(grant),
    }


def _progress_to_row(grant: Grant) -> dict[str, object]:
    """How far it is; which server it is for is never written again."""
    return {
        "state": grant.state.value,
        "route": progress_to_json(grant.route),
        "account": progress_to_json(grant.account),
        "details": dict(grant.details),
        "proof": dict(grant.proof),
        "outcome": grant.outcome,
    }


def _review_from_row(row: Row[Any]) -> Review:
    return Review(
        request_id=row.request_id,
        person_id=row.person_id,
        person_name=row.person_name,
        person_email=row.person_email,
        slack_user=SlackUser(team_id=row.team_id, user_id=row.user_id),
        verdict=Verdict(row.verdict),
        at=row.at,
        reason=row.reason,
        duration=row.duration,
    )


def _review_to_row(review: Review) -> dict[str, object]:
    return {
        "request_id": review.request_id,
        "person_id": review.person_id,
        "person_name": review.person_name,
        "person_email": review.person_email,
        "team_id": review.slack_user.team_id,
        "user_id": review.slack_user.user_id,
        "verdict": review.verdict.value,
        "at": review.at,
        "reason": review.reason,
        "duration": review.duration,
    }
