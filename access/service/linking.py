"""Linking a Slack user to the person that an identity store knows."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from access.audit import Event, Kind
from access.errors import NotFoundError, RefusedError
from access.model import EmailException, Link, LinkTicket, Login, Person, SignIn, SlackUser
from access.policy import stale_groups
from access.ports import UnitOfWork
from access.service.desk import Caller, Desk, by_person, claim, live_link

TICKET_LIFETIME = timedelta(minutes=10)
MOST_TICKETS = 3  # alive at once: each is an event, and anybody in the workspace can ask for one
USED_UP = "This link was used before or has run out. Type /passport link in Slack for a new one."


@dataclass(frozen=True, kw_only=True, slots=True)
class Linked:
    """A person with the link that says so."""

    person: Person
    link: Link


class Linking:
    """From ``/passport link`` to a live link, and back."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def begin(self, caller: Caller) -> str:
        """A one-time token for the page that starts the sign-in; it is shown to this Slack user only.

        Raises RefusedError, which is not put on record, while the last few still work.
        """
        now, token = self._desk.clock(), self._desk.token()
        with self._desk.store.unit_of_work() as uow:
            claim(uow, caller, subject="", at=now)
            alive = uow.sign_ins.begun_by(caller.slack_user, now)
            if len(alive) >= MOST_TICKETS:
                raise RefusedError(
                    f"You have asked for {len(alive)} sign-in links just now. Use one that you have not opened yet, "
                    f"or ask again after {min(alive):%H:%M:%S} UTC."
                )
            ticket = LinkTicket(
                token_hash=digest(token),
                slack_user=caller.slack_user,
                created_at=now,
                expires_at=now + TICKET_LIFETIME,
            )
            uow.sign_ins.add_ticket(ticket)
            uow.record(Event(kind=Kind.LINK_STARTED, at=now, actor=caller.actor))
            uow.commit()
        return token

    def look(self, token: str) -> LinkTicket:
        """The ticket behind a link, without using it up (scanners and previews look too); raises NotFoundError."""
        with self._desk.store.unit_of_work(read_only=True) as uow:
            return self._alive(uow.sign_ins.ticket(digest(token)))

    def go_on(self, token: str, *, provider: str, request_id: str, relay_state: str, browser: str) -> None:
        """Use the ticket up and remember the AuthnRequest sent, for this browser alone; raises NotFoundError."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            ticket = self._alive(uow.sign_ins.consume_ticket(digest(token)))
            uow.sign_ins.add_login(
                Login(
                    request_id=request_id,
                    relay_hash=digest(relay_state),
                    browser_hash=digest(browser),
                    provider=provider,
                    slack_user=ticket.slack_user,
                    expires_at=now + TICKET_LIFETIME,
                )
            )
            uow.commit()

    def take_login(self, relay_state: str, browser: str) -> Login:
        """The sign-in that this browser began, used up by this; raises RefusedError."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            login = uow.sign_ins.consume_login(digest(relay_state))
            problem = _login_problem(login, browser, now)
            if login and not problem:
                uow.commit()
                return login
        # Left unconsumed: whoever began must not be locked out by somebody else's attempt.
        if login:
            self.refused(login, problem)
        raise RefusedError(problem)

    def refused(self, login: Login, sentence: str) -> None:
        """Put on record that a sign-in failed before it named a person."""
        with self._desk.store.unit_of_work() as uow:
            uow.record(
                Event(
                    kind=Kind.LINK_REFUSED,
                    at=self._desk.clock(),
                    actor=Caller(slack_user=login.slack_user).actor,
                    details={"reason": sentence, "provider": login.provider},
                )
            )
            uow.commit()

    def link(self, login: Login, sign_in: SignIn, *, profile_email: str) -> Linked:
        """Join the Slack user to the person who signed in.

        ``profile_email`` is the email of the Slack profile; raises RefusedError where it is another's.
        """
        now, caller = self._desk.clock(), Caller(slack_user=login.slack_user)
        with self._desk.store.unit_of_work() as uow:
            if problem := self._objection(uow, login.slack_user, sign_in, profile_email):
                details = {"reason": problem, "email": sign_in.email, "provider": sign_in.provider}
                event = Event(kind=Kind.LINK_REFUSED, at=now, actor=caller.actor, details=details)
                self._desk.refuse(uow, event, problem)
            person = self._person(uow, sign_in)
            link = Link(
                slack_user=login.slack_user,
                person_id=person.id,
                linked_at=now,
                expires_at=now + self._desk.policy.link_lifetime,
            )
            uow.people.save(person)
            uow.people.save_link(link)
            details = {"slack": caller.actor, "email": person.email, "provider": person.provider}
            uow.record(by_person(Kind.LINK_MADE, person, at=now, details=details))
            uow.commit()
        return Linked(person=person, link=link)

    def whoami(self, caller: Caller) -> Linked:
        """Who Passport takes the Slack user for; raises SignInNeededError."""
        with self._desk.store.unit_of_work(read_only=True) as uow:
            person, link = live_link(uow, caller, now=self._desk.clock())
        return Linked(person=person, link=link)

    def knows(self, caller: Caller) -> bool:
        """Whether the Slack user has ever signed in, and neither they nor the identity store undid it."""
        with self._desk.store.unit_of_work(read_only=True) as uow:
            return uow.people.link_of(caller.slack_user) is not None

    def unlink(self, caller: Caller) -> None:
        """Forget the link; open requests end as planned. Raises NotFoundError."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            link = uow.people.link_of(caller.slack_user)
            if link is None:
                raise NotFoundError("You are not linked. Nothing changed.")
            claim(uow, caller, subject="", at=now)
            uow.people.remove_link(caller.slack_user)
            uow.record(by_person(Kind.LINK_REMOVED, uow.people.get(link.person_id), at=now))
            uow.commit()

    def record_exception(self, caller: Caller, slack_user: SlackUser, email: str, reason: str) -> datetime:
        """An admin lets a Slack user link to an email that is not their profile's; until when. Raises RefusedError."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            details = {"slack": Caller(slack_user=slack_user).actor, "email": email, "reason": reason}
            admin = self._admin(uow, caller, details, now=now)
            uow.people.add_exception(
                EmailException(
                    slack_user=slack_user,
                    email=email.casefold(),
                    recorded_by=admin.id,
                    reason=reason,
                    recorded_at=now,
                )
            )
            until = self._ends(now)
            details |= {"until": f"{until:%Y-%m-%d}"}
            uow.record(by_person(Kind.EXCEPTION_RECORDED, admin, at=now, details=details))
            uow.commit()
        return until

    def remove_exception(self, caller: Caller, slack_user: SlackUser, reason: str) -> None:
        """An admin takes an exception back, and with it the link that it made; what is open ends as planned.

        Raises RefusedError, or NotFoundError where there is none.
        """
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            details = {"slack": Caller(slack_user=slack_user).actor, "reason": reason}
            admin = self._admin(uow, caller, details, now=now)
            exception = uow.people.exception_of(slack_user)
            if exception is None:
                raise NotFoundError("There is no exception for them. Nothing changed.")
            uow.people.remove_exception(slack_user)
            linked = uow.people.behind(slack_user)
            is_its = linked is not None and linked[0].email == exception.email
            if is_its:
                uow.people.remove_link(slack_user)
            details |= {"email": exception.email, "link": "removed" if is_its else ""}
            uow.record(by_person(Kind.EXCEPTION_REMOVED, admin, at=now, details=details))
            uow.commit()

    def _admin(self, uow: UnitOfWork, caller: Caller, details: Mapping[str, str], *, now: datetime) -> Person:
        """Whoever may make exceptions; raises SignInNeededError, and RefusedError, on record, for anybody else."""
        person, _ = live_link(uow, caller, now=now)
        claim(uow, caller, subject="", at=now)
        only = "" if self._desk.policy.is_admin(person) else "Only admins decide about exceptions. Ask one of them."
        if problem := only or stale_groups(self._desk.policy, person, now=now):
            event = by_person(Kind.REFUSED, person, at=now, details={**details, "act": "exception"})
            self._desk.refuse(uow, event, problem)
        return person

    def _ends(self, recorded_at: datetime) -> datetime:
        return recorded_at + self._desk.policy.exception_lifetime

    def _alive(self, ticket: LinkTicket | None) -> LinkTicket:
        if ticket is None or ticket.expires_at <= self._desk.clock():
            raise NotFoundError(USED_UP)
        return ticket

    def _objection(self, uow: UnitOfWork, slack_user: SlackUser, sign_in: SignIn, profile_email: str) -> str:
        if not uow.sign_ins.remember_assertion(sign_in.assertion_id, sign_in.not_on_or_after):
            return "This sign-in was used before. Type /passport link in Slack for a new one."
        if sign_in.email.casefold() == profile_email.casefold():
            return ""
        exception = uow.people.exception_of(slack_user)
        differ = f"You signed in as {sign_in.email}, but your Slack profile says {profile_email or 'no email'}."
        if exception is None or exception.email != sign_in.email.casefold():
            return f"{differ} Sign in as the same person, or ask a Passport admin for an exception."
        if (ended := self._ends(exception.recorded_at)) <= self._desk.clock():
            return f"{differ} The exception for that ran out on {ended:%Y-%m-%d}. Ask a Passport admin for a new one."
        return ""

    def _person(self, uow: UnitOfWork, sign_in: SignIn) -> Person:
        now = self._desk.clock()
        known = uow.people.by_subject(sign_in.provider, sign_in.subject)
        return Person(
            id=known.id if known else f"P-{self._desk.token()[:16]}",
            provider=sign_in.provider,
            subject=sign_in.subject,
            email=sign_in.email.casefold(),
            name=sign_in.name,
            groups=sign_in.groups,
            groups_read_at=now,
        )


def _login_problem(login: Login | None, browser: str, now: datetime) -> str:
    if login is None or login.expires_at <= now:
        return USED_UP
    if not hmac.compare_digest(login.browser_hash, digest(browser)):
        return "This sign-in began in another browser. Type /passport link in Slack and stay in one."
    return ""


def digest(secret: str) -> str:
    """SHA-256 in hex: one-time secrets are long and random, so that a plain hash keeps them safe at rest."""
    return hashlib.sha256(secret.encode()).hexdigest()
