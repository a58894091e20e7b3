"""Requests in the database: values, leases, serials."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import chain
from typing import Any

import pytest
from sqlalchemy import Connection, String, cast, event, insert, literal, select, text, true, update

from access.errors import NotFoundError
from access.model import AccessRequest, EndCause, RequestState, Rights, Terms
from access.ports import Leased
from storage import rows
from storage.repositories.shapes import terms_from_json
from storage.unit_of_work import SqlStore
from tests.stores import run_together
from tests.values import NOW, a_person, a_request, a_server

MINUTE = timedelta(minutes=1)


def fill(store: SqlStore, *requests: AccessRequest) -> None:
    with store.unit_of_work() as work:
        work.people.save(a_person())
        for request in requests:
            work.requests.add(request)
        work.commit()


def due_request(number: int, **changes: Any) -> AccessRequest:
    return replace(a_request(id=f"AR-{number:04}", state=RequestState.APPROVED, due_at=NOW), **changes)


def claim(
    store: SqlStore, *, owner: str = "one", limit: int = 10, removals_only: bool = False, now: timedelta = timedelta()
) -> list[str]:
    with store.unit_of_work() as work:
        claimed = work.requests.claim_due(
            NOW + now, owner=owner, lease_until=NOW + now + MINUTE, limit=limit, removals_only=removals_only
        )
        work.commit()
    return list(claimed)


def test_a_request_comes_back_as_it_went_in(store: SqlStore) -> None:
    full = a_request(
        servers=(a_server("web-1"), a_server("db-2", tags={}, online=False, problem="It is off.")),
        reason="fix: db – „quoted“ 💾\n'; DROP TABLE requests; --",
        terms=Terms(
            rule="r",
            reviewers=frozenset({"b", "a"}),
            quorum=2,
            tell=("C2", "S1"),
            rights=Rights(commands=("/usr/sbin/nginx -t", "/usr/bin/id"), forwarding=True, metadata=True),
            keep_home_days=7,
        ),
        source_ip="2001:db8::1",
        state=RequestState.ENDING,
        cause=EndCause.REVOKED,
        cause_detail="Ben",
        decided_at=NOW + timedelta(microseconds=1),
        expires_at=NOW + 2 * MINUTE,
        ended_at=NOW + 3 * MINUTE,
        due_at=None,
        problem="web-1 does not answer.",
        revision=7,
    )
    fill(store, full, a_request(id="AR-2"))

    with store.unit_of_work(read_only=True) as work:
        assert work.requests.get("AR-7F3K") == full
        assert work.requests.get("AR-2") == a_request(id="AR-2")


def test_terms_of_before_there_were_named_commands_still_load() -> None:
    rights = {"sudo": True, "forwarding": False}
    stored = {"rule": "r", "reviewers": ["a"], "quorum": 1, "tell": ["C1"], "rights": rights}
    terms = terms_from_json(stored)
    assert (terms.rights, terms.keep_home_days) == (Rights(sudo=True), 0)


def test_saving_changes_the_request_and_leaves_its_lease_and_what_slack_shows(store: SqlStore) -> None:
    fill(store, due_request(1))
    assert claim(store) == ["AR-0001"]
    with store.unit_of_work() as work:
        work.posts.note(shown={"AR-0001": 1}, put_off={})
        changed = replace(work.requests.get("AR-0001", lock=True), state=RequestState.ACTIVE, problem="slow")
        work.requests.save(changed)
        work.commit()

    with store.unit_of_work() as work:
        assert work.requests.get("AR-0001") == changed
        assert work.posts.stale(NOW, 10) == []
    assert claim(store, owner="two") == []


def test_an_unknown_request_is_neither_found_nor_saved(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        with pytest.raises(NotFoundError, match="There is no request AR-NONE"):
            work.requests.get("AR-NONE", lock=True)
        with pytest.raises(NotFoundError):
            work.requests.save(a_request(id="AR-NONE"))


def test_requests_are_found_newest_first_by_person_and_state(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.people.save(a_person("Ben Ode"))
        work.commit()
    fill(
        store,
        a_request(id="AR-1", submitted_at=NOW),
        a_request(id="AR-3", submitted_at=NOW + 2 * MINUTE, state=RequestState.ENDED),
        a_request(id="AR-2", submitted_at=NOW + MINUTE),
        a_request(id="AR-4", submitted_at=NOW + 3 * MINUTE, person_id="P-ben"),
    )

    with store.unit_of_work(read_only=True) as work:

        def found(**by: Any) -> list[str]:
            return [request.id for request in work.requests.find(**by)]

        assert found() == ["AR-4", "AR-3", "AR-2", "AR-1"]
        assert found(person_id="P-ana") == ["AR-3", "AR-2", "AR-1"]
        assert found(states=[RequestState.PENDING]) == ["AR-4", "AR-2", "AR-1"]
        assert found(person_id="P-ana", states=[RequestState.PENDING, RequestState.ENDED], limit=2) == ["AR-3", "AR-2"]


def test_removals_are_claimed_first_then_by_how_long_they_are_due(store: SqlStore) -> None:
    fill(
        store,
        due_request(1, due_at=NOW - 9 * MINUTE),
        due_request(2, due_at=NOW - MINUTE),
        due_request(3, due_at=NOW - MINUTE, state=RequestState.ENDING),
        due_request(4, due_at=NOW - 2 * MINUTE, state=RequestState.ACTIVE, expires_at=NOW),
        due_request(5, due_at=NOW - 3 * MINUTE, state=RequestState.ACTIVE, expires_at=NOW + MINUTE),
        due_request(6, due_at=NOW + timedelta(microseconds=1)),
        due_request(7, due_at=None, state=RequestState.ENDED, expires_at=NOW - MINUTE),
    )

    assert claim(store, removals_only=True, limit=1) == ["AR-0004"]
    assert claim(store, removals_only=True) == ["AR-0003"]
    assert claim(store, limit=2) == ["AR-0001", "AR-0005"]
    assert claim(store) == ["AR-0002"]
    assert claim(store) == []


def test_a_lease_holds_until_it_runs_out_or_is_given_back(store: SqlStore) -> None:
    fill(store, due_request(1), due_request(2))
    assert claim(store) == ["AR-0001", "AR-0002"]
    with store.unit_of_work() as work:
        work.requests.release("AR-0001", owner="two")
        work.requests.release("AR-0002", owner="one")
        work.commit()

    assert claim(store, owner="two") == ["AR-0002"]
    assert claim(store, owner="two", now=MINUTE) == ["AR-0001", "AR-0002"]


def leased(number: int, *, until: datetime = NOW + MINUTE, revision: int = 1, is_finished: bool = False) -> Leased:
    later = due_request(number, problem="It takes long.", revision=2)
    return Leased(request=later, until=until, revision=revision, is_finished=is_finished)


def test_who_has_the_lease_saves_what_is_as_it_was_and_keeps_or_ends_the_lease(store: SqlStore) -> None:
    fill(store, due_request(1), due_request(2))
    claim(store, owner="one")
    with store.unit_of_work() as work:
        assert work.requests.save_leased([leased(2, is_finished=True), leased(1)], owner="one")
        work.commit()
    with store.unit_of_work() as work:
        assert [request.problem for request in work.requests.get_all(["AR-0001", "AR-0002"])] == ["It takes long."] * 2
    assert claim(store, owner="two") == ["AR-0002"]


@pytest.mark.parametrize(
    ("other", "owner"),
    [
        (leased(2), "two"),
        (leased(2, until=NOW + 2 * MINUTE), "one"),
        (leased(2, revision=3), "one"),
        (leased(9), "one"),
    ],
)
def test_what_somebody_has_changed_or_leased_meanwhile_is_not_saved(store: SqlStore, other: Leased, owner: str) -> None:
    fill(store, due_request(1), due_request(2))
    claim(store, owner="one")
    with store.unit_of_work() as work:
        assert not work.requests.save_leased([leased(1), other], owner=owner)
    with store.unit_of_work() as work:
        assert {request.problem for request in work.requests.get_all(["AR-0001", "AR-0002"])} == {""}


def test_who_saves_while_somebody_changes_the_same_request_hears_of_it(store: SqlStore) -> None:
    fill(store, due_request(1))
    claim(store, owner="one")

    def save() -> bool:
        with store.unit_of_work() as work:
            return work.requests.save_leased([leased(1)], owner="one")

    with ThreadPoolExecutor(1) as other:
        with store.unit_of_work() as work:
            request = work.requests.get("AR-0001", lock=True)
            saved = other.submit(save)
            with pytest.raises(TimeoutError):
                saved.result(0.2)  # it waits for the row
            work.requests.save(replace(request, state=RequestState.ENDING, revision=2))
            work.commit()
        assert saved.result(10) is False


def test_at_its_start_an_instance_gives_back_its_own_leases_only(store: SqlStore) -> None:
    fill(store, due_request(1), due_request(2), due_request(3))
    claim(store, owner="one", limit=2)
    claim(store, owner="two")
    with store.unit_of_work() as work:
        assert work.requests.release_all(owner="one") == 2
        assert work.requests.release_all(owner="one") == 0
        work.commit()

    assert claim(store, owner="three") == ["AR-0001", "AR-0002"]


def test_next_due_is_when_a_request_can_next_be_claimed(store: SqlStore) -> None:
    def next_due() -> object:
        with store.unit_of_work(read_only=True) as work:
            return work.requests.next_due_at()

    assert next_due() is None
    fill(store, due_request(1), due_request(2, due_at=NOW + 5 * MINUTE), due_request(3, due_at=None))
    assert next_due() == NOW
    claim(store)
    assert next_due() == NOW + MINUTE  # the lease's end
    with store.unit_of_work() as work:
        work.requests.save(replace(work.requests.get("AR-0001"), due_at=NOW + 9 * MINUTE))
        work.commit()
    assert next_due() == NOW + 5 * MINUTE  # leased and due later than the lease's end: not before it is due


def test_serials_are_never_given_twice(store: SqlStore) -> None:
    def serials() -> list[int]:
        given = []
        for _ in range(10):
            with store.unit_of_work() as work:
                given.append(work.requests.next_serial())
                work.commit()
        return given

    given = chain.from_iterable(run_together(*[serials] * 4))

    assert sorted(given) == list(range(1, 41))


def test_instants_are_kept_to_the_microsecond_and_in_utc(store: SqlStore) -> None:
    summer = timezone(timedelta(hours=2))
    instant = NOW + timedelta(microseconds=1)
    fill(store, a_request(submitted_at=instant.astimezone(summer)))

    with store.unit_of_work() as work:
        read = work.requests.get("AR-7F3K").submitted_at
        assert (read, read.utcoffset()) == (instant, timedelta())
        with pytest.raises(Exception, match="has no time zone"):
            work.requests.add(a_request(id="AR-2", submitted_at=NOW.replace(tzinfo=None)))


def test_text_that_no_database_holds_is_made_storable(store: SqlStore) -> None:
    fill(store, a_request(reason="a\x00b\ud800c", cause_detail="é\x00"))

    with store.unit_of_work() as work:
        read = work.requests.get("AR-7F3K")
        assert (read.reason, read.cause_detail) == ("a\ufffdb\ufffdc", "é\ufffd")


def test_a_state_that_does_not_exist_is_refused_by_the_database(store: SqlStore) -> None:
    fill(store, a_request())
    with (
        pytest.raises(Exception, match="ck_requests_state"),
        store.unit_of_work() as work,
    ):
        work._connection.execute(text("UPDATE requests SET state = 'limbo'"))


@pytest.mark.postgres
def test_workers_never_claim_the_same_request(postgres_url: str, open_store: Callable[[str], SqlStore]) -> None:
    stores = [open_store(postgres_url) for _ in range(4)]
    fill(stores[0], *[due_request(number) for number in range(200)])

    def work_through(number: int) -> list[str]:
        claimed: list[str] = []
        while batch := claim(stores[number], owner=str(number), limit=7):
            claimed += batch
        return claimed

    claimed = run_together(*[lambda number=number: work_through(number) for number in range(4)])

    assert sorted(chain.from_iterable(claimed)) == [f"AR-{number:04}" for number in range(200)]


@pytest.mark.postgres
def test_claiming_skips_a_row_that_another_transaction_holds(postgres_store: SqlStore) -> None:
    fill(postgres_store, due_request(1), due_request(2))
    with postgres_store.unit_of_work() as work:
        work.requests.get("AR-0001", lock=True)
        assert claim(postgres_store) == ["AR-0002"]


def test_the_hot_questions_use_their_indexes_among_100_000_ended_requests(store: SqlStore) -> None:
    fill(store, a_request(state=RequestState.ENDED, due_at=None), due_request(1))
    asked: list[tuple[str, Any]] = []
    with store.unit_of_work() as work:
        connection = work._connection
        multiply_ended(connection)
        event.listen(connection, "before_cursor_execute", lambda *told: asked.append(told[2:4]))
        work.requests.claim_due(NOW, owner="one", lease_until=NOW, limit=9, removals_only=False)
        work.requests.claim_due(NOW, owner="one", lease_until=NOW, limit=9, removals_only=True)
        work.requests.next_due_at()
        work.requests.release_all(owner="one")
        assert [request.id for request in work.posts.stale(NOW, 9)] == ["AR-0001"]

        explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
        plans = [
            "\n".join(map(str, connection.exec_driver_sql(explain + statement, values)))
            for statement, values in list(asked)
        ]

    indexes = ["ix_requests_due", "ix_requests_due", "ix_requests_due", "ix_requests_leased", "ix_requests_stale"]
    for plan, index in zip(plans, indexes, strict=True):
        assert index in plan
        assert "Seq Scan on requests" not in plan
        assert "SCAN requests\n" not in plan


def multiply_ended(connection: Connection) -> None:
    """Copy AR-7F3K, which has ended and is shown, 100,000 times."""
    table = rows.requests
    same = [column for column in table.columns if column.name not in {"id", "shown_revision"}]
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < 100_000))
    copies = select("X" + cast(numbers.c.n, String), literal(1), *same)
    copies = copies.select_from(table.join(numbers, true())).where(table.c.id == "AR-7F3K")
    connection.execute(insert(table).from_select([table.c.id, table.c.shown_revision, *same], copies))
    connection.execute(update(table).where(table.c.id == "AR-7F3K").values(shown_revision=1))
    connection.execute(text("ANALYZE"))
