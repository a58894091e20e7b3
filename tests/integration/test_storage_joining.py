"""Acts that share a transaction: each gets its own outcome, and nobody's failure becomes another's."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial

import pytest
from sqlalchemy.exc import OperationalError

from access.audit import Event, Kind, verify
from access.errors import DuplicateDeliveryError, NotFoundError, RefusedError, UnavailableError
from access.ports import UnitOfWork
from sandbox.reading import wait_for
from storage import joining
from storage.unit_of_work import SharedSqlUnitOfWork, SqlStore
from tests.stores import run_together
from tests.values import NOW, a_person, a_request

Act = Callable[[UnitOfWork], str]


def event(name: str) -> Event:
    return Event(kind=Kind.KEY_ADDED, at=NOW, actor=name)


def adding(name: str, *, between: Callable[[], object] = lambda: None) -> Act:
    """Keep a delivery, and then an event, of that name."""

    def act(work: UnitOfWork) -> str:
        work.deliveries.claim(name, subject=name, at=NOW)
        between()
        work.record(event(name))
        work.commit()
        return name

    return act


def missing(work: UnitOfWork) -> str:
    """Write, then fail without a commit."""
    work.deliveries.claim("lost", subject="", at=NOW)
    work.record(event("lost"))
    raise NotFoundError("There is no such thing.")


def refused(work: UnitOfWork) -> str:
    """Put a refusal on record, then raise it."""
    work.record(event("refused"))
    work.commit()
    raise RefusedError("Not you.")


def actors(store: SqlStore) -> list[str]:
    """Who is in the audit log, which holds together."""
    with store.unit_of_work(read_only=True) as work:
        events = list(work.audit.all())
        assert verify(events, witness=work.audit.head()) == []
        return [each.event.actor for each in events]


@contextmanager
def crowd(store: SqlStore, acts: Sequence[Act], *, led_by: str = "first") -> Iterator[list["Future[str]"]]:
    """Acts that have come while another is under way; that one ends when the block does."""
    begun, go_on = threading.Event(), threading.Event()

    def first(work: UnitOfWork) -> str:
        begun.set()
        assert go_on.wait(30)
        return adding(led_by)(work)

    with ThreadPoolExecutor(len(acts) + 1) as pool:
        running = [pool.submit(store.jointly, first)]
        assert begun.wait(30)
        for act in acts:
            running.append(pool.submit(store.jointly, act))
            wait_for(lambda: len(store._joint._waiting) == len(running) - 1, "the act to wait")
        try:
            yield running
        finally:
            go_on.set()


def test_what_comes_together_is_one_transaction(store: SqlStore) -> None:
    names = [f"act-{number}" for number in range(8)]
    commits: list[int] = []
    store.on_commit(lambda: commits.append(1))
    with crowd(store, [adding(name) for name in names]) as running:
        pass
    assert [each.result(30) for each in running] == ["first", *names]
    assert actors(store) == ["first", *names], "in the order in which they came"
    assert len(commits) == 2


def test_more_than_may_share_one_go_with_the_next(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "MOST", 3)
    names = [f"act-{number}" for number in range(7)]
    commits: list[int] = []
    store.on_commit(lambda: commits.append(1))
    with crowd(store, [adding(name) for name in names]) as running:
        pass
    assert [each.result(30) for each in running] == ["first", *names]
    assert len(commits) == 4
    assert store.jointly(adding("later")) == "later", "the lead is free again"


def test_one_that_fails_undoes_only_itself(store: SqlStore) -> None:
    with crowd(store, [adding("before"), missing, adding("after")]) as running:
        pass
    assert [running[0].result(30), running[1].result(30), running[3].result(30)] == ["first", "before", "after"]
    with pytest.raises(NotFoundError, match="no such thing"):
        running[2].result(30)
    assert sorted(actors(store)) == ["after", "before", "first"]
    with store.unit_of_work(read_only=True) as work:
        assert not work.deliveries.is_known("lost")


def test_a_refusal_stays_on_record_with_the_others(store: SqlStore) -> None:
    commits: list[int] = []
    store.on_commit(lambda: commits.append(1))
    with crowd(store, [refused, adding("after")]) as running:
        pass
    with pytest.raises(RefusedError, match="Not you"):
        running[1].result(30)
    assert actors(store) == ["first", "refused", "after"]
    assert len(commits) == 2, "nothing was done again"


def test_what_was_recorded_after_the_agreement_is_not_half_kept(store: SqlStore) -> None:
    def twice(work: UnitOfWork) -> str:
        adding("agreed")(work)
        work.record(event("not agreed"))
        return "done"

    with crowd(store, [twice, adding("after")]) as running:
        pass
    assert running[2].result(30) == "after"
    assert sorted(actors(store)) == ["after", "first"]


def test_all_are_told_when_the_common_commit_fails(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with crowd(store, [adding("one"), adding("two")]) as running:

        def fail(_: SharedSqlUnitOfWork) -> None:
            raise UnavailableError("It does not answer.")

        monkeypatch.setattr(SharedSqlUnitOfWork, "commit_all", fail)
    for each in running:
        with pytest.raises(UnavailableError, match="does not answer"):
            each.result(30)
    monkeypatch.undo()
    assert actors(store) == []
    assert store.jointly(adding("one")) == "one"


def test_a_database_that_fails_in_an_act_is_said_in_words(store: SqlStore) -> None:
    def fail(work: UnitOfWork) -> str:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    with pytest.raises(UnavailableError, match="does not answer"):
        store.jointly(fail)
    with crowd(store, [adding("one"), fail]) as running:
        pass
    assert running[0].result(30) == "first"
    for each in running[1:]:
        with pytest.raises(UnavailableError, match="does not answer"):
            each.result(30)
    assert actors(store) == ["first"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_leader_that_breaks_leaves_the_others_theirs(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    with crowd(store, [adding("one"), adding("two")]) as running:
        commit_all = SharedSqlUnitOfWork.commit_all

        def fail(_: SharedSqlUnitOfWork) -> None:
            monkeypatch.setattr(SharedSqlUnitOfWork, "commit_all", commit_all)
            raise error

        monkeypatch.setattr(SharedSqlUnitOfWork, "commit_all", fail)
    with pytest.raises(error):
        running[0].result(30)
    assert [each.result(30) for each in running[1:]] == ["one", "two"]
    assert actors(store) == ["one", "two"]


def test_each_act_keeps_the_context_of_its_caller(store: SqlStore) -> None:
    whose: ContextVar[str] = ContextVar("whose")

    def act(work: UnitOfWork) -> str:
        return adding(whose.get())(work)

    def ask(name: str) -> str:
        whose.set(name)
        return store.jointly(act)

    names = [f"act-{number}" for number in range(6)]
    assert run_together(*[partial(ask, name) for name in names]) == names
    assert sorted(actors(store)) == names


def test_the_same_deliveries_in_another_order_to_two_processes_count_once(
    postgres_url: str, open_store: Callable[[str], SqlStore]
) -> None:
    one, other = open_store(postgres_url), open_store(postgres_url)
    both = threading.Barrier(2)

    def meet() -> None:
        with suppress(threading.BrokenBarrierError):  # who has the head waits in vain: the other has nothing yet
            both.wait(timeout=2)

    def kept(store: SqlStore, names: Sequence[str]) -> list[str]:
        with crowd(store, [adding(name, between=meet) for name in names], led_by=f"before {names}") as running:
            pass
        found = [name for name, each in zip(names, running[1:], strict=True) if each.exception(30) is None]
        duplicates = [each.exception(30) for each in running[1:] if each.exception(30) is not None]
        assert all(isinstance(each, DuplicateDeliveryError) for each in duplicates), duplicates
        return found

    ours, theirs = run_together(lambda: kept(one, ["K1", "K2"]), lambda: kept(other, ["K2", "K1"]))
    assert sorted(ours + theirs) == ["K1", "K2"]


def test_a_sign_in_that_is_being_saved_holds_up_no_request_of_its_person(postgres_store: SqlStore) -> None:
    with postgres_store.unit_of_work() as work:
        work.people.save(a_person("Ana Ruiz"))
        work.commit()

    def file(work: UnitOfWork) -> str:
        assert work.requests.add_if_free(a_request())
        work.record(event("filed"))
        work.commit()
        return "filed"

    with ThreadPoolExecutor(1) as pool, postgres_store.unit_of_work() as work:
        work.people.save(a_person("Ana Ruiz", groups=frozenset({"other"})))
        assert pool.submit(postgres_store.jointly, file).result(30) == "filed"
        work.commit()
