"""From what was asked to requests on record; those that come at the same moment share a transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from access.audit import Event, Kind
from access.errors import InvalidInputError, NotFoundError, PassportError, RefusedError, UnavailableError
from access.model import AccessRequest, Link, Person, Server, Submission
from access.policy import Decision, decide_submission, stale_groups
from access.ports import UnitOfWork
from access.service.desk import Caller, Desk, by_person
from access.service.together import Together
from access.words import duration_words, join_words


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What somebody asked for, in a delivery of their own."""

    caller: Caller
    submission: Submission


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """The request is with its reviewers; ``reason`` is the policy's."""

    request: AccessRequest
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Judged:
    """What is to be put on record, and what the person is told."""

    outcome: Submitted | PassportError
    event: Event | None = None


class Filing:
    """Decides what was asked by the policy, and puts the request or the refusal on record."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._together = Together(self._file_all)

    def file(self, asked: Asked) -> Submitted | None:
        """The request; None where no sign-in lasts long enough to say who asked.

        Raises InvalidInputError, NotFoundError, RefusedError, DuplicateDeliveryError or UnavailableError.
        """
        return self._together.act_on(asked)

    def file_in(self, uow: UnitOfWork, asked: Asked, person: Person) -> Submitted | PassportError:
        """The request, or why there is none; what is to be on record goes into the unit of work, uncommitted."""
        (outcome,) = self._put_on_record(uow, [(asked, person)])
        return outcome

    def lasts(self, link: Link, submission: Submission) -> bool:
        """Whether the sign-in lasts as long as the access would."""
        return link.expires_at >= self._desk.clock() + self._duration(submission)

    def _file_all(self, asked: Sequence[Asked]) -> Sequence[Submitted | PassportError | None]:
        """What came of each; raises, and files nothing, where one of several would have to be tried again."""
        with self._desk.store.unit_of_work() as uow:
            known = uow.people.behind_all([each.caller.slack_user for each in asked])
            persons = [self._signed_in(known.get(each.caller.slack_user), each.submission) for each in asked]
            pairs = [(each, person) for each, person in zip(asked, persons, strict=True) if person]
            outcomes = iter(self._put_on_record(uow, pairs))
            uow.commit()
        return [next(outcomes) if person else None for person in persons]

    def _signed_in(self, found: tuple[Person, Link] | None, submission: Submission) -> Person | None:
        return found[0] if found and self.lasts(found[1], submission) else None

    def _put_on_record(
        self, uow: UnitOfWork, signed_in: Sequence[tuple[Asked, Person]], *, taken: int = 0
    ) -> Sequence[Submitted | PassportError]:
        now = self._desk.clock()
        judged = [self._judge(asked, person, now, taken) for asked, person in signed_in]
        requests = [each.outcome.request for each in judged if isinstance(each.outcome, Submitted)]
        if not uow.requests.add_all_if_free(requests):
            if len(signed_in) > 1:
                raise _NotTogetherError
            return self._put_on_record(uow, signed_in, taken=taken + 1)
        claims = [
            (asked.caller.delivery, each.event.request_id)
            for (asked, _), each in zip(signed_in, judged, strict=True)
            if each.event and asked.caller.delivery
        ]
        if len(claims) == 1:  # raises, and says what came of the delivery, if it is known
            uow.deliveries.claim(claims[0][0], subject=claims[0][1], at=now)
        elif not uow.deliveries.claim_all(claims, at=now):
            raise _NotTogetherError
        for event in (each.event for each in judged if each.event):
            uow.record(event)
        return [each.outcome for each in judged]

    def _judge(self, asked: Asked, person: Person, now: datetime, taken: int) -> _Judged:
        submission = asked.submission
        try:
            servers = self._resolve(submission.servers)
        except (InvalidInputError, NotFoundError, UnavailableError) as error:
            return _Judged(outcome=error)
        duration = self._duration(submission)
        stale = stale_groups(self._desk.policy, person, now=now)
        decision = (
            Decision(allowed=False, reason=stale)
            if stale
            else decide_submission(self._desk.policy, person, servers, duration)
        )
        if decision.rule is None or not decision.allowed:
            details = {"reason": decision.reason, "servers": join_words(submission.servers)}
            refused = by_person(Kind.REQUEST_REFUSED, person, at=now, details=details)
            return _Judged(outcome=RefusedError(decision.reason), event=refused)
        request = AccessRequest(
            id=self._desk.request_id(taken),
            person_id=person.id,
            person_name=person.name,
            person_email=person.email,
            slack_user=asked.caller.slack_user,
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
        event = by_person(Kind.REQUEST_SUBMITTED, person, at=now, request_id=request.id, details=_details(request))
        return _Judged(outcome=Submitted(request=request, reason=decision.reason), event=event)

    def _duration(self, submission: Submission) -> timedelta:
        return submission.duration if submission.duration is not None else self._desk.policy.default_duration

    def _resolve(self, words: Sequence[str]) -> list[Server]:
        found: dict[str, Server] = {}
        for word in words:
            for server in self._find(word):
                found[server.key] = server
        return list(found.values())

    def _find(self, word: str) -> Sequence[Server]:
        try:
            servers = self._desk.inventory.find(word)
        except UnavailableError as error:
            raise UnavailableError(
                f"I know no server {shorten(word)} so far.{self._near(word)} {error.sentence}"
            ) from None
        if not servers:
            raise NotFoundError(f"I know no server {shorten(word)}.{self._near(word) or ' Check the name.'}")
        if len(servers) > 1 and not word.startswith("tag:"):
            candidates = join_words([f"{s.instance_id} ({s.account}, {s.region})" for s in servers], last="or")
            raise InvalidInputError(
                f"{len(servers)} servers are called {shorten(word)}: say {candidates}.", field="servers"
            )
        return servers

    def _near(self, word: str) -> str:
        names = [server.name for server in self._desk.inventory.search(word[:64], 5)]
        return f" Did you mean {join_words(names, last='or')}?" if names else ""


class _NotTogetherError(Exception):
    """Something is taken or known already: of several, each is filed alone."""


def shorten(word: str, most: int = 60) -> str:
    """The word, cut where it is long, with its control characters made visible."""
    plain = "".join(char if char.isprintable() else "�" for char in word)
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def _details(request: AccessRequest) -> dict[str, str]:
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
