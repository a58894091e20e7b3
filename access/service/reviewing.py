"""A colleague's word on a request."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from access import lifecycle
from access.audit import Kind
from access.errors import AlreadyDecidedError, InvalidInputError
from access.model import AccessRequest, Grant, Person, RequestState, Review, Verdict
from access.policy import decide_review, is_quorate, own_request
from access.ports import UnitOfWork
from access.service.desk import Caller, Desk, by_person, claim, live_link
from access.service.submitting import Standing, check_reason, standing
from access.words import duration_words


class Reviewing:
    """Approve or deny, once, by someone else who may."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def look(self, caller: Caller, request_id: str) -> Standing:
        """The request as it stands, if this person may decide on it now; raises as ``review`` does."""
        with self._desk.store.unit_of_work() as uow:
            request = uow.requests.get(request_id)
            self._reviewer(uow, caller, request)
            return standing(uow, request)

    def is_left_behind(self, request_id: str, channel: str, ts: str) -> bool:
        """Whether this card is a second one in its channel: posted by a process that died before it could note it."""
        with self._desk.store.unit_of_work(read_only=True) as uow:
            known = {post.ts for post in uow.posts.of(request_id) if post.channel == channel and post.ts}
        return bool(known) and ts not in known

    def review(
        self,
        caller: Caller,
        request_id: str,
        verdict: Verdict,
        *,
        reason: str = "",
        duration: timedelta | None = None,
    ) -> Standing:
        """Count the reviewer's word; ``duration`` approves a shorter time than was asked for.

        Raises SignInNeededError, RefusedError, AlreadyDecidedError, InvalidInputError or DuplicateDeliveryError.
        """
        now = self._desk.clock()
        if verdict is Verdict.DENY:
            check_reason(reason)
        with self._desk.store.unit_of_work() as uow:
            request = uow.requests.get(request_id, lock=True)
            claim(uow, caller, subject=request_id, at=now)
            reviewer, reviews = self._reviewer(uow, caller, request)
            _check_duration(request, duration)
            review = Review(
                request_id=request_id,
                person_id=reviewer.id,
                person_name=reviewer.name,
                person_email=reviewer.email,
                slack_user=caller.slack_user,
                verdict=verdict,
                at=now,
                reason=reason.strip(),
                duration=duration,
            )
            uow.reviews.add(review)
            done = self._count(uow, request, [*reviews, review], reviewer)
            uow.commit()
        return done

    def _reviewer(self, uow: UnitOfWork, caller: Caller, request: AccessRequest) -> tuple[Person, Sequence[Review]]:
        """Who decides, and who has before."""
        now = self._desk.clock()
        reviewer, _ = live_link(uow, caller, now=now)
        # A Slack account asks, or decides once, whoever it is linked to by now: people have second identities.
        own = caller.slack_user == request.slack_user
        decision = own_request(request) if own else decide_review(self._desk.policy, request, reviewer, now=now)
        if not decision.allowed:
            details = {"reason": decision.reason, "act": "review"}
            event = by_person(Kind.REFUSED, reviewer, at=now, request_id=request.id, details=details)
            self._desk.refuse(uow, event, f"Not counted: {decision.reason[0].lower()}{decision.reason[1:]}")
        reviews = uow.reviews.of(request.id)
        if request.state is not RequestState.PENDING or request.lapses_at <= now:
            raise AlreadyDecidedError(decided_words(request, reviews))
        if any(
            review.slack_user == caller.slack_user or reviewer.is_same_human(review.person_id, review.person_email)
            for review in reviews
        ):
            raise AlreadyDecidedError(
                f"You have approved {request.id} already; it needs {request.terms.quorum} different people."
            )
        return reviewer, reviews

    def _count(self, uow: UnitOfWork, request: AccessRequest, reviews: Sequence[Review], reviewer: Person) -> Standing:
        """The request after the last of these reviews."""
        review, kind, grants = reviews[-1], Kind.REQUEST_APPROVAL, list[Grant]()
        details = {
            key: value for key, value in (("reason", review.reason), ("requester", request.person_name)) if value
        }
        if review.duration:
            details["duration"] = duration_words(review.duration)
        if review.duration and review.verdict is Verdict.APPROVE:
            request = replace(request, duration=min(request.duration, review.duration))
        if review.verdict is Verdict.DENY:
            request, kind = lifecycle.decide(request, RequestState.DENIED, at=review.at), Kind.REQUEST_DENIED
        elif is_quorate(request, reviews):
            request, kind = lifecycle.decide(request, RequestState.APPROVED, at=review.at), Kind.REQUEST_APPROVED
            grants = [
                Grant(id=f"{request.id}.{number}", request_id=request.id, server=server)
                for number, server in enumerate(request.servers, start=1)
            ]
            uow.grants.add(*grants)
        else:
            request = replace(request, revision=request.revision + 1)
        uow.requests.save(request)
        uow.record(by_person(kind, reviewer, at=review.at, request_id=request.id, details=details))
        return Standing(request=request, grants=grants, reviews=reviews)


def decided_words(request: AccessRequest, reviews: Sequence[Review]) -> str:
    """Who was first, for someone who came later."""
    last = reviews[-1] if reviews else None
    when = _clock_words(request.decided_at)
    if request.state is RequestState.LAPSED or request.state is RequestState.PENDING:
        return f"{request.id} lapsed{_clock_words(request.lapses_at)}: nobody had decided. Nothing changed."
    if request.state is RequestState.CANCELLED and request.cause_detail:
        return f"{request.id} was cancelled{when}: {request.cause_detail}. Nothing changed."
    if request.state is RequestState.CANCELLED:
        return f"{request.person_name} cancelled {request.id}{when}, before your click. Nothing changed."
    word = "denied" if request.state is RequestState.DENIED else "approved"
    who = last.person_name if last else "Somebody"
    return f"{who} {word} this{when}, before your click. Nothing changed."


def _clock_words(at: datetime | None) -> str:
    return f" at {at:%H:%M} UTC" if at else ""


def _check_duration(request: AccessRequest, duration: timedelta | None) -> None:
    if duration is not None and not timedelta() < duration <= request.duration:
        raise InvalidInputError(
            f"A reviewer can shorten a request, not lengthen it: {duration_words(request.duration)} was asked for.",
            field="duration",
        )
