"""Keeping people's groups fresh, and acting on it when the identity store says that somebody is gone."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from access.audit import Event, Kind
from access.errors import UnavailableError
from access.model import EndCause, Person
from access.ports import IdentityStore
from access.recording import PASSPORT, RUNNING, begin_end
from access.service.desk import Desk

_log = logging.getLogger(__name__)

BATCH = 100


class Refreshing:
    """Reads groups again in the background, so that a review never waits for an identity store."""

    def __init__(self, desk: Desk, stores: Mapping[str, IdentityStore], *, every: timedelta) -> None:
        self._desk = desk
        self._stores = stores
        self._every = every

    def run(self) -> None:
        """Look up everyone whose groups are older than ``every``; a store that does not answer is left for later."""
        now = self._desk.clock()
        with self._desk.store.unit_of_work(read_only=True) as uow:
            people = uow.people.groups_read_before(now - self._every, linked_at=now, limit=BATCH)
        for person in people:
            store = self._stores.get(person.provider)
            if store is not None and store.refreshes:
                self._refresh(person, store)

    def _refresh(self, person: Person, store: IdentityStore) -> None:
        try:
            groups = store.groups_of(person.subject, person.email)
        except UnavailableError as error:
            _log.warning("groups of %s: %s", person.id, error.sentence)
            return
        if groups is None:
            self._gone(person)
        else:
            self._found(person, groups)

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
            for found in uow.requests.find(person_id=person.id, states=RUNNING):
                request = uow.requests.get(found.id, lock=True)
                if request.state in RUNNING:
                    begin_end(uow, request, EndCause.REVOKED, "the identity store no longer knows this person", now)
            uow.record(
                _about(person, Kind.LINK_REMOVED, {"why": "the identity store no longer knows them"}, self._desk)
            )
            uow.commit()


def _about(person: Person, kind: Kind, details: Mapping[str, str], desk: Desk) -> Event:
    return Event(
        kind=kind,
        at=desk.clock(),
        actor=PASSPORT,
        actor_name="Passport",
        details={"person": person.id, "email": person.email, **details},
    )
