"""The people that the identity provider knows."""

import hashlib
import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody with an account at the identity provider."""

    email: str
    name: str
    groups: frozenset[str]
    subject: str
    password: str
    active: bool = True


class Directory:
    """Who there is; safe to use from several threads."""

    def __init__(self) -> None:
        self._people: dict[str, Person] = {}
        self._lock = threading.Lock()

    def add(self, person: Person) -> None:
        """Add a person; raises ValueError if there is one of this email."""
        with self._lock:
            if person.email in self._people:
                raise ValueError(f"{person.email} exists already")
            self._people[person.email] = person

    def change(self, email: str, *, groups: frozenset[str] | None = None, active: bool | None = None) -> None:
        """Change somebody's groups or whether the account is active; raises KeyError."""
        with self._lock:
            person = self._people[email]
            self._people[email] = replace(
                person,
                groups=person.groups if groups is None else groups,
                active=person.active if active is None else active,
            )

    def remove(self, email: str) -> None:
        """Forget somebody; raises KeyError."""
        with self._lock:
            del self._people[email]

    def get(self, email: str) -> Person | None:
        """Find somebody by email."""
        with self._lock:
            return self._people.get(email.strip().lower())

    def everybody(self) -> list[Person]:
        """Everybody, in the order they were added."""
        with self._lock:
            return list(self._people.values())


def new_person(email: str, *, name: str, groups: frozenset[str], subject: str | None, password: str) -> Person:
    """Make a person; without a subject, one is derived from the email."""
    lowered = email.lower()
    derived = f"u-{hashlib.sha256(lowered.encode()).hexdigest()[:16]}"
    return Person(email=lowered, name=name, groups=groups, subject=subject or derived, password=password)
