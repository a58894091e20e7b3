"""Keeping people's groups fresh, and acting on it when the identity store says that somebody is gone."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from access import lifecycle
from access.audit import Event, Kind
from access.errors import UnavailableError
from access.model import EndCause, Person, RequestState
from access.ports import IdentityStore, UnitOfWork
from access.recording import PASSPORT, RUNNING, begin_end, event, save
from access.service.desk import Desk

_log = logging.getLogger(__name__)

MOST = 10_000  # people of one run, or open requests of one person
MOST_SILENCES = 10  # one after the other, and the store is left for the next run
GONE = "the identity store no longer knows this person"


class Refreshing:
    """Reads groups again in the background, so that a review never waits for an identity store."""

    def __init__(self, desk: Desk, stores: Mapping[str, IdentityStore], *, every: timedelta) -> None:
        self._desk = desk
        self._stores = stores
        self._every = every
        self._unanswered: set[str] = set()  # people of whom a store last said nothing: they come after the others

    def run(self) -> None:
        """Look up everyone whose groups are older than ``every``; a store that does not answer is left for later."""
        now, silences = self._desk.clock(), Counter[str]()
        with self._desk.store.unit_of_work(read_only=True) as uow:
            people = uow.people.groups_read_before(now - self._every, linked_at=now, limit=MOST)
        for person in sorted(people, key=lambda person: person.id in self._unanswered):
            store = self._stores.get(person.provider)
            if store is None or not store.refreshes or silences[person.provider] >= MOST_SILENCES:
                continue
            if self._refresh(person, store):
                silences[person.provider] = 0
            else:
                silences[person.provider] += 1

    def _refresh(self, person: Person, store: IdentityStore) -> bool:
        """Whether the store said something of this person, and it is recorded."""
        self._unanswered.add(person.id)
        try:
            groups = store.groups_of(person.subject, person.email)
            if groups is None:
                self._gone(person)
            else:
                self._found(person, groups)
        except UnavailableError as error:
            _log.warning("groups of %s: %s", person.id, error.sentence)
            return False
        except Exception:  # noqa: BLE001 - one person's trouble must not hide from us who else is gone
            _log.exception("groups of %s", person.id)
            return False
        self._unanswered.discard(person.id)
        return True

    def _found(self, person: Person, groups: frozenset[str]) -> None:
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            current = uow.people.get(person.id)
            if current.groups_read_at > person.groups_read_at:
                return  # a sign-in was quicker, and knows better
            uow.people.save(replace(current, groups=groups, groups_read_at=now))
            if groups != current.groups:
                details = {"was": ", ".join(sorted(current.groups)), "is": ", ".join(sorted(groups))}
                uow.record(_about(person, Kind.GROUPS_CHANGED, details, self._desk))
            uow.commit()

    def _gone(self, person: Person) -> None:
        """Whoever the store no longer knows keeps no link, no groups and no access."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            uow.people.save(replace(uow.people.get(person.id), groups=frozenset(), groups_read_at=now))
            for link in uow.people.links_of(person.id):
                uow.people.remove_link(link.slack_user)
            open_now = uow.requests.find(person_id=person.id, states=(RequestState.PENDING, *RUNNING), limit=MOST)
            for request_id in sorted(found.id for found in open_now):  # the reconciler locks in this order, too
                self._end(uow, request_id)
            uow.record(
                _about(person, Kind.LINK_REMOVED, {"why": "the identity store no longer knows them"}, self._desk)
            )
            uow.commit()

    def _end(self, uow: UnitOfWork, request_id: str) -> None:
        now, request = self._desk.clock(), uow.requests.get(request_id, lock=True)
        if request.state in RUNNING:
            begin_end(uow, request, EndCause.REVOKED, GONE, now)
        elif request.state is RequestState.PENDING:
            cancelled = lifecycle.decide(request, RequestState.CANCELLED, at=now)
            save(uow, replace(cancelled, cause_detail=GONE), event(Kind.REQUEST_CANCELLED, cancelled, now, detail=GONE))


def _about(person: Person, kind: Kind, details: Mapping[str, str], desk: Desk) -> Event:
    return Event(
        kind=kind,
        at=desk.clock(),
        actor=PASSPORT,
        actor_name="Passport",
        details={"person": person.id, "email": person.email, **details},
    )
