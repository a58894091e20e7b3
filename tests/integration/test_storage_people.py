"""Persons, links, exceptions and keys in the database."""

from datetime import timedelta

import pytest

from access.errors import NotFoundError, RefusedError
from access.model import EmailException, Link, SlackUser, SshKey
from storage.unit_of_work import SqlStore
from tests.values import ANA, BEN, NOW, a_person

HOUR = timedelta(hours=1)


def a_link(slack_user: SlackUser = ANA, person_id: str = "P-ana", *, lasts: timedelta = HOUR) -> Link:
    return Link(slack_user=slack_user, person_id=person_id, linked_at=NOW, expires_at=NOW + lasts)


def a_key(name: str = "one", person_id: str = "P-ana", *, age: timedelta = HOUR) -> SshKey:
    return SshKey(fingerprint=f"SHA256:{name}", person_id=person_id, line=f"ssh-ed25519 AAAA{name}", added_at=NOW - age)


def test_a_person_is_found_by_id_and_by_subject(store: SqlStore) -> None:
    ana = a_person(groups=frozenset({"payments", "ops"}))
    with store.unit_of_work() as work:
        work.people.save(ana)
        work.people.save(a_person("Ben Ode"))
        work.commit()

    with store.unit_of_work(read_only=True) as work:
        assert work.people.get("P-ana") == ana
        assert work.people.by_subject("okta", "subject-ana") == ana
        assert work.people.by_subject("other", "subject-ana") is None
        with pytest.raises(NotFoundError, match="no person P-none"):
            work.people.get("P-none")


def test_saving_a_person_again_replaces_what_is_known(store: SqlStore) -> None:
    changed = a_person(email="ana.ruiz@example.com", groups=frozenset(), groups_read_at=NOW + HOUR)
    with store.unit_of_work() as work:
        work.people.save(a_person())
        work.people.save(changed)
        work.commit()

    with store.unit_of_work(read_only=True) as work:
        assert work.people.get("P-ana") == changed


def test_groups_to_read_again_are_those_of_linked_persons_oldest_first(store: SqlStore) -> None:
    cid = SlackUser(team_id="T0PASSPORT", user_id="U0CID")
    with store.unit_of_work() as work:
        work.people.save(a_person("Ana Ruiz", groups_read_at=NOW - HOUR))
        work.people.save(a_person("Ben Ode", groups_read_at=NOW - 2 * HOUR))
        work.people.save(a_person("Cid Vega", groups_read_at=NOW - 3 * HOUR))
        work.people.save(a_person("Dee Yu", groups_read_at=NOW - 4 * HOUR))
        work.people.save_link(a_link())
        work.people.save_link(a_link(SlackUser(team_id="T0OTHER", user_id="U0ANA")))
        work.people.save_link(a_link(BEN, "P-ben"))
        work.people.save_link(a_link(cid, "P-cid", lasts=timedelta(0)))
        work.commit()

    with store.unit_of_work(read_only=True) as work:

        def found(instant: timedelta, limit: int = 9) -> list[str]:
            people = work.people.groups_read_before(NOW + instant, linked_at=NOW, limit=limit)
            return [person.id for person in people]

        assert found(timedelta()) == ["P-ben", "P-ana"]
        assert found(timedelta(), limit=1) == ["P-ben"]
        assert found(-HOUR) == ["P-ben"]


def test_a_slack_user_has_one_link(store: SqlStore) -> None:
    renewed = a_link(lasts=5 * HOUR)
    with store.unit_of_work() as work:
        work.people.save(a_person())
        work.people.save_link(a_link())
        work.people.save_link(renewed)
        work.commit()

    with store.unit_of_work() as work:
        assert work.people.link_of(ANA) == renewed
        assert work.people.link_of(BEN) is None
        assert work.people.links_of("P-ana") == [renewed]
        work.people.remove_link(ANA)
        assert work.people.link_of(ANA) is None


def test_an_exception_replaces_the_one_before(store: SqlStore) -> None:
    exception = EmailException(
        slack_user=ANA, email="ana@corp.example", recorded_by="P-ben", reason="two mailboxes", recorded_at=NOW
    )
    with store.unit_of_work() as work:
        work.people.add_exception(
            EmailException(slack_user=ANA, email="x@y", recorded_by="P-ben", reason="", recorded_at=NOW)
        )
        work.people.add_exception(exception)
        assert work.people.exception_of(ANA) == exception
        assert work.people.exception_of(BEN) is None


def test_keys_are_listed_oldest_first_and_belong_to_one_person(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.people.save(a_person())
        work.people.save(a_person("Ben Ode"))
        work.people.add_key(a_key("new"))
        work.people.add_key(a_key("old", age=2 * HOUR))
        with pytest.raises(RefusedError, match="The key SHA256:old is registered already"):
            work.people.add_key(a_key("old", "P-ben"))
        work.commit()

    with store.unit_of_work() as work:
        assert work.people.keys_of("P-ana") == [a_key("old", age=2 * HOUR), a_key("new")]
        assert work.people.keys_of("P-ben") == []
        work.people.remove_key("SHA256:old")
        assert work.people.key("SHA256:old") is None
        assert work.people.key("SHA256:new") == a_key("new")
