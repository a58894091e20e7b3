"""Requests that come at the same moment share a transaction, and each is filed, refused or told as if it were alone."""

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from access.audit import Kind, verify
from access.errors import DuplicateDeliveryError, NotFoundError, PassportError, RefusedError, UnavailableError
from access.model import SlackUser, Submission
from access.service.desk import Caller
from access.service.filing import Asked, Filing, Submitted
from sandbox.reading import wait_for
from storage.unit_of_work import SqlStore, SqlUnitOfWork
from tests.values import ANA, a_person
from tests.world import World

STRANGER = SlackUser(team_id=ANA.team_id, user_id="U0STRANGER")
Outcome = Submitted | PassportError | None


def asked(
    delivery: str = "", *, who: SlackUser = ANA, server: str = "web-1", hours: int = 1, reason: str = "INC-1"
) -> Asked:
    words = Submission(servers=(server,), reason=reason, duration=timedelta(hours=hours))
    return Asked(caller=Caller(slack_user=who, delivery=delivery), submission=words)


def first(delivery: str = "first") -> Asked:
    return asked(delivery, reason="the first")


class Rush:
    """Files what comes while the first request is being filed; ``ids`` are the candidates for the others."""

    def __init__(self, world: World, *, ids: Sequence[str] = ()) -> None:
        self._begun, self._go_on = threading.Event(), threading.Event()
        self._ids, self._more = iter(ids), itertools.count()
        self.filing = Filing(replace(world.desk, request_id=self._next_id))

    def file(
        self, *others: Asked, leader: Asked | None = None, before: Callable[[], object] = lambda: None
    ) -> list[Outcome]:
        """What came of the first and the others; ``before`` happens when all have come."""
        with ThreadPoolExecutor(len(others) + 1) as pool:
            running = [pool.submit(self._outcome, leader or first())]
            assert self._begun.wait(30)
            for each in others:
                running.append(pool.submit(self._outcome, each))
                wait_for(lambda: len(self.filing._together._waiting) == len(running) - 1, "the request to wait")
            before()
            self._go_on.set()
            return [each.result(60) for each in running]

    def _outcome(self, each: Asked) -> Outcome:
        try:
            return self.filing.file(each)
        except PassportError as error:
            return error

    def _next_id(self, _: int) -> str:
        if not self._begun.is_set():
            self._begun.set()
            assert self._go_on.wait(30)
        return next(self._ids, f"AR-R{next(self._more):03d}")


def ids_of(outcomes: Sequence[Outcome]) -> list[str]:
    return [each.request.id for each in outcomes if isinstance(each, Submitted)]


def on_record(store: SqlStore) -> list[tuple[Kind, str]]:
    """The events, of a log that holds together."""
    with store.unit_of_work(read_only=True) as uow:
        events = list(uow.audit.all())
        assert verify(events, witness=uow.audit.head()) == []
        return [(each.event.kind, each.event.request_id) for each in events]


def test_what_comes_together_is_one_transaction(store: SqlStore) -> None:
    world = World(store)
    before = len(on_record(store))
    commits: list[object] = []
    store.on_commit(commits.append)
    outcomes = Rush(world).file(*(asked(f"K{number}", reason=f"INC-{number}") for number in range(8)))
    ids = ids_of(outcomes)
    assert len(set(ids)) == 9
    assert on_record(store)[before:] == [(Kind.REQUEST_SUBMITTED, request_id) for request_id in ids]
    assert [world.standing(request_id).request.reason for request_id in ids[1:]] == [f"INC-{n}" for n in range(8)]
    assert len(commits) == 2


@pytest.mark.parametrize(("is_listed", "unknown"), [(True, NotFoundError), (False, UnavailableError)])
def test_each_is_judged_by_itself(store: SqlStore, is_listed: bool, unknown: type[PassportError]) -> None:
    world = World(store)
    world.inventory.is_listed = is_listed
    before = len(on_record(store))
    outcomes = Rush(world).file(
        asked("K1"),
        asked("K2", server="no-such"),
        asked("K3", hours=100),
        asked("K4", who=STRANGER),
        asked("K5", server="db-2"),
    )
    assert [type(each) for each in outcomes] == [
        Submitted, Submitted, unknown, RefusedError, type(None), Submitted
    ]  # fmt: skip
    kinds = [kind for kind, _ in on_record(store)[before:]]
    assert kinds == [Kind.REQUEST_SUBMITTED] * 2 + [Kind.REQUEST_REFUSED, Kind.REQUEST_SUBMITTED]
    with store.unit_of_work(read_only=True) as uow:
        known = [uow.deliveries.is_known(f"K{number}") for number in range(1, 6)]
    assert known == [True, False, True, False, True], "whoever was told only, or has to sign in, may try again with it"


def test_the_same_delivery_among_them_counts_once(store: SqlStore) -> None:
    world = World(store)
    outcomes = Rush(world).file(asked("K1"), asked("K2"), asked("K1"), asked("first"))
    assert len(ids_of(outcomes)) == 3
    assert ids_of(outcomes[:3]) == ids_of(outcomes)
    repeated = [each.subject for each in outcomes if isinstance(each, DuplicateDeliveryError)]
    assert repeated == [ids_of(outcomes)[1], ids_of(outcomes)[0]], "they are told what came of it"
    assert len([kind for kind, _ in on_record(store) if kind is Kind.REQUEST_SUBMITTED]) == 3


def test_an_id_that_is_taken_among_them_stays_with_its_request(store: SqlStore) -> None:
    world = World(store)
    taken = world.submit()
    outcomes = Rush(world, ids=["AR-1", "AR-2", taken.id, "AR-3", "AR-4", taken.id, "AR-5"]).file(
        asked("K1"), asked("K2")
    )
    assert len(set(ids_of(outcomes))) == 3
    assert taken.id not in ids_of(outcomes)
    assert world.standing(taken.id).request == taken
    assert sorted(request_id for _, request_id in on_record(store) if request_id) == sorted(
        [taken.id, *ids_of(outcomes)]
    )


def test_all_are_told_when_the_common_commit_fails(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(store)
    before = on_record(store)

    def fail(_: SqlUnitOfWork) -> None:
        raise UnavailableError("It does not answer.")

    rush = Rush(world)
    outcomes = rush.file(asked("K1"), asked("K2"), before=lambda: monkeypatch.setattr(SqlUnitOfWork, "commit", fail))
    assert [type(each) for each in outcomes] == [UnavailableError] * 3
    monkeypatch.undo()
    assert on_record(store) == before
    assert isinstance(rush.filing.file(asked("K1")), Submitted)


@pytest.mark.postgres
def test_a_sign_in_that_is_being_saved_holds_up_no_request_of_its_person(postgres_store: SqlStore) -> None:
    world = World(postgres_store)
    with ThreadPoolExecutor(1) as pool, postgres_store.unit_of_work() as work:
        work.people.save(a_person("Ana Ruiz", groups=frozenset({"other"})))
        assert isinstance(pool.submit(Filing(world.desk).file, asked("K1")).result(30), Submitted)
        work.commit()
