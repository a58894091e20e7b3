"""Asking for access, taking it back, and seeing where it stands."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from access import lifecycle
from access.audit import Event, Kind
from access.errors import (
    AlreadyDecidedError,
    InvalidInputError,
    NotFoundError,
    PassportError,
    RefusedError,
    UnavailableError,
)
from access.model import (
    OPEN_STATES,
    AccessRequest,
    Grant,
    ParkedRequest,
    RequestState,
    Review,
    SlackUser,
    Submission,
)
from access.policy import decide_end
from access.ports import UnitOfWork
from access.service.desk import Caller, Desk, by_person, claim, known_person, live_link
from access.service.filing import Asked, Filing, Submitted
from access.words import join_words

REASON_LENGTH = 1000
PARKED_LIFETIME = timedelta(hours=1)
MOST_PARKED = 5  # of one Slack user: nobody has said yet who that is


@dataclass(frozen=True, kw_only=True, slots=True)
class Parked:
    """The submission waits for a sign-in; ``linked_at`` is when the last one was, if there was one."""

    parked: ParkedRequest
    linked_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unparked:
    """What became of a parked submission after the sign-in: a request, or the sentence that says why not."""

    parked: ParkedRequest
    request: AccessRequest | None
    sentence: str
    is_kept: bool = False  # parked still: something does not answer, and ``file_left_behind`` tries again


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A request with all that belongs to it."""

    request: AccessRequest
    grants: Sequence[Grant]
    reviews: Sequence[Review]


class Submitting:
    """From words to a request that its reviewers see."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._filing = Filing(desk)

    def submit(self, caller: Caller, submission: Submission) -> Submitted | Parked:
        """File the request, or park it until its person has signed in.

        Raises InvalidInputError, NotFoundError, RefusedError, DuplicateDeliveryError or UnavailableError.
        """
        check_reason(submission.reason)
        filed = self._filing.file(Asked(caller=caller, submission=submission))
        if filed is not None:
            return filed
        parked = self._park(caller, submission)
        if self._is_signed_in(caller, submission):  # at this very moment: that sign-in may have found nothing to send
            sent = self._unpark(parked.parked)
            if sent.request:
                return Submitted(request=sent.request, reason=sent.sentence)
        return parked

    def unpark(self, slack_user: SlackUser) -> list[Unparked]:
        """File what waited for this Slack user's sign-in, each in its own unit of work."""
        with self._desk.store.unit_of_work(read_only=True) as uow:
            waiting = uow.sign_ins.parked_of(slack_user)
        return [self._unpark(parked) for parked in waiting]

    def lapse_parked(self) -> None:
        """Tell those who never signed in, or whose servers could not be looked up since, that it is gone."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            signed_in = {parked.id for parked in uow.sign_ins.overtaken_parked()}
            lapsed = [parked for parked in uow.sign_ins.lapsed_parked(now) if uow.sign_ins.unpark(parked.id)]
            for parked in lapsed:
                kept = parked.id in signed_in
                text = (
                    f"Your request for {join_words(parked.submission.servers)} "
                    f"{'could not be sent since you signed in,' if kept else 'waited for your sign-in'} and has lapsed."
                    " Nothing was asked of anybody. Type it again when you need it."
                )
                uow.outbox.add(parked.slack_user, text, at=now)
                why = "it could not be sent" if kept else "nobody signed in"
                uow.record(_of_parked(Kind.REQUEST_UNPARKED, parked, now, why))
            if lapsed:
                uow.commit()

    def file_left_behind(self) -> None:
        """File what is parked still though its person has signed in since: a process died, or AWS did not answer."""
        with self._desk.store.unit_of_work(read_only=True) as uow:
            waiting = {parked.slack_user for parked in uow.sign_ins.overtaken_parked()}
        for slack_user in sorted(waiting, key=lambda user: (user.team_id, user.user_id)):
            self.unpark(slack_user)

    def cancel(self, caller: Caller, request_id: str) -> AccessRequest:
        """Take a pending request back; raises NotFoundError, RefusedError or AlreadyDecidedError."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            person = known_person(uow, caller)
            request = uow.requests.get(request_id, lock=True)
            claim(uow, caller, subject=request_id, at=now)
            if not person.is_same_human(request.person_id, request.person_email):
                event = by_person(Kind.REFUSED, person, at=now, request_id=request_id, details={"act": "cancel"})
                self._desk.refuse(uow, event, f"Only {request.person_name} can cancel {request_id}.")
            if request.state is not RequestState.PENDING:
                raise AlreadyDecidedError(
                    f"{request_id} is {request.state} already; to end it: /passport done {request_id}"
                )
            cancelled = lifecycle.decide(request, RequestState.CANCELLED, at=now)
            uow.requests.save(cancelled)
            uow.record(by_person(Kind.REQUEST_CANCELLED, person, at=now, request_id=request_id))
            uow.commit()
        return cancelled

    def own(self, caller: Caller) -> list[Standing]:
        """The caller's open requests, newest first; raises SignInNeededError."""
        with self._desk.store.unit_of_work(read_only=True) as uow:
            person, _ = live_link(uow, caller, now=self._desk.clock())
            found = uow.requests.find(person_id=person.id, states=sorted(OPEN_STATES))
            return [standing(uow, request) for request in found]

    def status(self, caller: Caller, request_id: str) -> Standing:
        """One request, for its requester, its reviewers and admins; to others it does not exist (NotFoundError)."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work(read_only=True) as uow:
            person, _ = live_link(uow, caller, now=now)
            request = uow.requests.get(request_id)
            own = person.is_same_human(request.person_id, request.person_email)
            if not own and not decide_end(self._desk.policy, request, person, now=now).allowed:
                raise NotFoundError(f"There is no request {request_id} that you may see.")
            return standing(uow, request)

    def _is_signed_in(self, caller: Caller, submission: Submission) -> bool:
        with self._desk.store.unit_of_work(read_only=True) as uow:
            link = uow.people.link_of(caller.slack_user)
        return link is not None and self._filing.lasts(link, submission)

    def _park(self, caller: Caller, submission: Submission) -> Parked:
        """Keep it for after the sign-in."""
        now = self._desk.clock()
        parked = ParkedRequest(
            id=self._desk.token(),
            slack_user=caller.slack_user,
            submission=submission,
            parked_at=now,
            lapses_at=now + PARKED_LIFETIME,
        )
        with self._desk.store.unit_of_work() as uow:
            link = uow.people.link_of(caller.slack_user)
            claim(uow, caller, subject="", at=now)
            if len(uow.sign_ins.parked_of(caller.slack_user)) >= MOST_PARKED:
                raise RefusedError(
                    f"{MOST_PARKED} of your requests wait for your sign-in already. Type /passport link."
                )
            uow.sign_ins.park(parked)
            uow.record(_of_parked(Kind.REQUEST_PARKED, parked, now, "no live link"))
            uow.commit()
        return Parked(parked=parked, linked_at=link.linked_at if link else None)

    def _unpark(self, parked: ParkedRequest) -> Unparked:
        """File it, or tell its person why not; it stays parked while there is no sign-in, or something is away."""
        caller = Caller(slack_user=parked.slack_user)
        now = self._desk.clock()
        try:
            with self._desk.store.unit_of_work() as uow:
                person, _ = live_link(uow, caller, now=now)
                if not uow.sign_ins.unpark(parked.id):
                    return Unparked(parked=parked, request=None, sentence="It was sent already.")
                filed = self._filing.file_in(uow, Asked(caller=caller, submission=parked.submission), person)
                if isinstance(filed, UnavailableError):
                    raise filed
                if isinstance(filed, PassportError):
                    uow.outbox.add(parked.slack_user, f"I could not send your request: {filed.sentence}", at=now)
                    uow.record(_of_parked(Kind.REQUEST_UNPARKED, parked, now, filed.sentence))
                uow.commit()
        except PassportError as error:
            is_kept = isinstance(error, UnavailableError)
            return Unparked(parked=parked, request=None, sentence=error.sentence, is_kept=is_kept)
        if isinstance(filed, PassportError):
            return Unparked(parked=parked, request=None, sentence=filed.sentence)
        return Unparked(parked=parked, request=filed.request, sentence=filed.reason)


def standing(uow: UnitOfWork, request: AccessRequest) -> Standing:
    """The request with its grants and reviews."""
    return Standing(request=request, grants=uow.grants.of(request.id), reviews=uow.reviews.of(request.id))


def standings(uow: UnitOfWork, requests: Sequence[AccessRequest]) -> list[Standing]:
    """Each request with its grants and reviews, in few statements however many they are."""
    ids = [request.id for request in requests]
    grants, reviews = uow.grants.of_all(ids), uow.reviews.of_all(ids)
    return [
        Standing(request=request, grants=grants.get(request.id, ()), reviews=reviews.get(request.id, ()))
        for request in requests
    ]


def check_reason(reason: str) -> None:
    """Raises InvalidInputError for a reason that is empty, endless, or would read as what it is not."""
    if not reason.strip():
        raise InvalidInputError("Say why: add `because …` and your reason.", field="reason")
    if len(reason) > REASON_LENGTH:
        raise InvalidInputError(
            f"The reason has {len(reason)} characters; I keep {REASON_LENGTH}. Say it shorter.", field="reason"
        )
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs"} and char not in "\n\t\u200d" for char in reason):
        raise InvalidInputError(
            "The reason holds invisible control characters. Type it again without them.", field="reason"
        )


def _of_parked(kind: Kind, parked: ParkedRequest, at: datetime, why: str) -> Event:
    details = {"servers": join_words(parked.submission.servers), "why": why}
    return Event(kind=kind, at=at, actor=Caller(slack_user=parked.slack_user).actor, details=details)
