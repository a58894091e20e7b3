"""A person's own public keys. Passport never sees a private one."""

from collections.abc import Sequence

from access.audit import Kind
from access.errors import NotFoundError, RefusedError
from access.model import SshKey
from access.service.desk import Caller, Desk, by_person, claim, live_link

MOST_KEYS = 5


class Keys:
    """Register, list and remove public keys."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add(self, caller: Caller, *, line: str, fingerprint: str) -> SshKey:
        """Register a parsed key (``type base64``, ``SHA256:…``); a direct message says so to the person.

        Raises SignInNeededError, RefusedError (another person's, or too many) or DuplicateDeliveryError.
        """
        now = self._desk.clock()
        with self._desk.store.unit_of_work() as uow:
            person, _ = live_link(uow, caller, now=now)
            claim(uow, caller, subject=fingerprint, at=now)
            known = uow.people.key(fingerprint)
            details = {"fingerprint": fingerprint}
            if known and known.person_id != person.id:
                event = by_person(Kind.REFUSED, person, at=now, details=details | {"act": "key add"})
                self._desk.refuse(uow, event, "This key is registered by somebody else. Make a key of your own.")
            if known:
                return known
            if len(uow.people.keys_of(person.id)) >= MOST_KEYS:
                raise RefusedError(f"You have {MOST_KEYS} keys. Remove one first: /passport key remove <fingerprint>")
            key = SshKey(fingerprint=fingerprint, person_id=person.id, line=line, added_at=now)
            uow.people.add_key(key)
            for link in uow.people.links_of(person.id):
                text = (
                    f"The SSH key {fingerprint} was added to your Passport account just now. "
                    f"If that was not you: /passport key remove {fingerprint} and tell your security team."
                )
                uow.outbox.add(link.slack_user, text, at=now)
            uow.record(by_person(Kind.KEY_ADDED, person, at=now, details=details))
            uow.commit()
        return key

    def all(self, caller: Caller) -> Sequence[SshKey]:
        """The caller's keys, oldest first; raises SignInNeededError."""
        with self._desk.store.unit_of_work(read_only=True) as uow:
            person, _ = live_link(uow, caller, now=self._desk.clock())
            return uow.people.keys_of(person.id)

    def remove(self, caller: Caller, fingerprint: str) -> SshKey:
        """Forget a key of the caller's own, named by its fingerprint or the beginning of it; raises NotFoundError."""
        now = self._desk.clock()
        wanted = "SHA256:" + fingerprint.removeprefix("SHA256:")
        with self._desk.store.unit_of_work() as uow:
            person, _ = live_link(uow, caller, now=now)
            found = [key for key in uow.people.keys_of(person.id) if key.fingerprint.startswith(wanted)]
            if len(found) != 1 or len(wanted) < len("SHA256:") + 4:
                raise NotFoundError("Name one of your keys by its fingerprint; /passport key list shows them.")
            claim(uow, caller, subject=found[0].fingerprint, at=now)
            uow.people.remove_key(found[0].fingerprint)
            uow.record(by_person(Kind.KEY_REMOVED, person, at=now, details={"fingerprint": found[0].fingerprint}))
            uow.commit()
        return found[0]
