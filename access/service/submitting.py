"""Asking for access, taking it back, and seeing where it stands."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count

from access import lifecycle
from access.audit import Event, Kind
from access.errors import (
    AlreadyDecidedError,
    InvalidInputError,
    NotFoundError,
    PassportError,
    RefusedError,
)
from access.model import (
    OPEN_STATES,
    AccessRequest,
    Grant,
    Link,
    ParkedRequest,
    Person,
    RequestState,
    Review,
    Server,
    SlackUser,
    Submission,
)
from access.policy import Decision, decide_end, decide_submission, stale_groups
from access.ports import UnitOfWork
from access.service.desk import Caller, Desk, by_person, claim, known_person, live_link
from access.words import duration_words, join_words

REASON_LENGTH = 1000
PARKED_LIFETIME = timedelta(hours=1)
MOST_PARKED = 5  # of one Slack user: nobody has said yet who that is


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """The request is with its reviewers; ``reason`` is the policy's."""

    request: AccessRequest
    reason: str


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

    def submit(self, caller: Caller, submission: Submission) -> Submitted | Parked:
        """File the request, or park it until its person has signed in.

        Raises InvalidInputError, NotFoundError, RefusedError or DuplicateDeliveryError.
        """
        check_reason(submission.reason)
        return self._desk.store.jointly(lambda uow: self._submit(uow, caller, submission))

    def unpark(self, slack_user: SlackUser) -> list[Unparked]:
        """File what waited for this Slack user's sign-in, each in its own unit of work."""
        with self._desk.store.unit_of_work(read_only=True) as uow:
            waiting = uow.sign_ins.parked_of(slack_user)
        return [self._unpark(parked) for parked in waiting]

    def lapse_parked(self) -> None:
        """Tell those who never signed in that their submission is gone."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            lapsed = [parked for parked in uow.sign_ins.lapsed_parked(now) if uow.sign_ins.unpark(parked.id)]
            for parked in lapsed:
                text = (
                    f"Your request for {join_words(parked.submission.servers)} waited for your sign-in and has lapsed."
                    " Nothing was asked of anybody. Type it again when you need it."
                )
                uow.outbox.add(parked.slack_user, text, at=now)
                uow.record(_of_parked(Kind.REQUEST_UNPARKED, parked, now, "nobody signed in"))
            if lapsed:
                uow.commit()

    def file_left_behind(self) -> None:
        """File what a process that died right after its person's sign-in left parked."""
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

    def _submit(self, uow: UnitOfWork, caller: Caller, submission: Submission) -> Submitted | Parked:
        person, link = uow.people.behind(caller.slack_user) or (None, None)
        if person is None or link is None or link.expires_at < self._desk.clock() + self._duration(submission):
            return self._park(uow, caller, submission, link)
        return self._file(uow, caller, submission, person)

    def _duration(self, submission: Submission) -> timedelta:
        return submission.duration if submission.duration is not None else self._desk.policy.default_duration

    def _park(self, uow: UnitOfWork, caller: Caller, submission: Submission, link: Link | None) -> Parked:
        now = self._desk.clock()
        parked = ParkedRequest(
            id=self._desk.token(),
            slack_user=caller.slack_user,
            submission=submission,
            parked_at=now,
            lapses_at=now + PARKED_LIFETIME,
        )
        claim(uow, caller, subject="", at=now)
        if len(uow.sign_ins.parked_of(caller.slack_user)) >= MOST_PARKED:
            raise RefusedError(f"{MOST_PARKED} of your requests wait for your sign-in already. Type /passport link.")
        uow.sign_ins.park(parked)
        uow.record(_of_parked(Kind.REQUEST_PARKED, parked, now, "no live link"))
        uow.commit()
        return Parked(parked=parked, linked_at=link.linked_at if link else None)

    def _unpark(self, parked: ParkedRequest) -> Unparked:
        caller = Caller(slack_user=parked.slack_user)
        now = self._desk.clock()
        try:
            with self._desk.store.unit_of_work() as uow:
                person, _ = live_link(uow, caller, now=now)
                if not uow.sign_ins.unpark(parked.id):
                    return Unparked(parked=parked, request=None, sentence="It was sent already.")
                done = self._file(uow, caller, parked.submission, person)
        except PassportError as error:
            self._drop(parked, error)
            return Unparked(parked=parked, request=None, sentence=error.sentence)
        return Unparked(parked=parked, request=done.request, sentence=done.reason)

    def _drop(self, parked: ParkedRequest, error: PassportError) -> None:
        """A parked submission that cannot be filed is answered, never lost."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            if not isinstance(error, RefusedError | InvalidInputError | NotFoundError):
                return  # it stays parked: the next sign-in, or its lapse, finds it
            uow.sign_ins.unpark(parked.id)
            uow.outbox.add(parked.slack_user, f"I could not send your request: {error.sentence}", at=now)
            uow.record(_of_parked(Kind.REQUEST_UNPARKED, parked, now, error.sentence))
            uow.commit()

    def _file(self, uow: UnitOfWork, caller: Caller, submission: Submission, person: Person) -> Submitted:
        now, duration = self._desk.clock(), self._duration(submission)
        servers = self._resolve(submission.servers)
        stale = stale_groups(self._desk.policy, person, now=now)
        decision = (
            Decision(allowed=False, reason=stale)
            if stale
            else decide_submission(self._desk.policy, person, servers, duration)
        )
        if decision.rule is None or not decision.allowed:
            claim(uow, caller, subject="", at=now)
            details = {"reason": decision.reason, "servers": join_words(submission.servers)}
            event = by_person(Kind.REQUEST_REFUSED, person, at=now, details=details)
            self._desk.refuse(uow, event, decision.reason)
        request = AccessRequest(
            id=self._desk.request_id(0),
            person_id=person.id,
            person_name=person.name,
            person_email=person.email,
            slack_user=caller.slack_user,
            servers=tuple(servers),
            reason=submission.reason.strip(),
            duration=duration,
            source_ip=submission.source_ip,
            route=submission.route,
            terms=decision.rule.terms(),
            submitted_at=now,
            lapses_at=now + self._desk.policy.lapse_after,
            due_at=now + self._desk.policy.lapse_after,
        )
        for taken in count(1):
            if uow.requests.add_if_free(request):
                break
            request = replace(request, id=self._desk.request_id(taken))
        claim(uow, caller, subject=request.id, at=now)
        uow.record(by_person(Kind.REQUEST_SUBMITTED, person, at=now, request_id=request.id, details=_asked(request)))
        uow.commit()
        return Submitted(request=request, reason=decision.reason)

    def _resolve(self, words: Sequence[str]) -> list[Server]:
        found: dict[str, Server] = {}
        for word in words:
            for server in self._find(word):
                found[server.key] = server
        return list(found.values())

    def _find(self, word: str) -> Sequence[Server]:
        servers = self._desk.inventory.find(word)
        if not servers:
            near = [server.name for server in self._desk.inventory.search(word[:64], 5)]
            hint = f" Did you mean {join_words(near, last='or')}?" if near else " Check the name."
            raise NotFoundError(f"I know no server {shorten(word)}.{hint}")
        if len(servers) > 1 and not word.startswith("tag:"):
            candidates = join_words([f"{s.instance_id} ({s.account}, {s.region})" for s in servers], last="or")
            raise InvalidInputError(
                f"{len(servers)} servers are called {shorten(word)}: say {candidates}.", field="servers"
            )
        return servers


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


def shorten(word: str, most: int = 60) -> str:
    """The word, cut where it is long, with its control characters made visible."""
    plain = "".join(char if char.isprintable() else "�" for char in word)
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def _asked(request: AccessRequest) -> dict[str, str]:
    rights = [
        name for name in ("sudo", "administrator", "forwarding", "metadata") if getattr(request.terms.rights, name)
    ]
    if request.terms.rights.commands:
        rights.append(f"sudo for {'; '.join(request.terms.rights.commands)}")
    return {
        "servers": ", ".join(f"{server.name} ({server.key})" for server in request.servers),
        "duration": duration_words(request.duration),
        "reason": request.reason,
        "rule": request.terms.rule,
        "rights": ", ".join(rights) or "login",
        "email": request.person_email,
        **({"source_ip": request.source_ip} if request.source_ip else {}),
    }


def _of_parked(kind: Kind, parked: ParkedRequest, at: datetime, why: str) -> Event:
    details = {"servers": join_words(parked.submission.servers), "why": why}
    return Event(kind=kind, at=at, actor=Caller(slack_user=parked.slack_user).actor, details=details)
