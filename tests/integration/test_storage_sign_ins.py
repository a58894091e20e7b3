"""What is used once: tickets, logins, assertions, deliveries; and parked requests."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from access.errors import DuplicateDeliveryError
from access.model import LinkTicket, Login, ParkedRequest, Submission
from storage.unit_of_work import SqlStore
from tests.postgres import PostgresServer
from tests.stores import run_together
from tests.values import ANA, BEN, NOW

MINUTE = timedelta(minutes=1)
TICKET = LinkTicket(token_hash="a" * 64, slack_user=ANA, created_at=NOW, expires_at=NOW + 10 * MINUTE)
LOGIN = Login(
    request_id="id-1",
    relay_hash="b" * 64,
    browser_hash="c" * 64,
    provider="okta",
    slack_user=ANA,
    expires_at=NOW + 10 * MINUTE,
)
PARKED = ParkedRequest(
    id="PK-1",
    slack_user=ANA,
    submission=Submission(servers=("web-1", "tag:env=prod"), reason="fix: db", duration=90 * MINUTE, source_ip="::1"),
    parked_at=NOW,
    lapses_at=NOW + 30 * MINUTE,
)


def claim_all(store: SqlStore, keys: Sequence[str]) -> bool:
    with store.unit_of_work() as work:
        done = work.deliveries.claim_all([(key, "") for key in keys], at=NOW)
        work.commit()
    return done


def claim(store: SqlStore, key: str, subject: str) -> str:
    try:
        with store.unit_of_work() as work:
            work.deliveries.claim(key, subject=subject, at=NOW)
            work.commit()
    except DuplicateDeliveryError as duplicate:
        return f"duplicate of {duplicate.subject}"
    return "claimed"


def test_a_ticket_can_be_looked_at_and_is_used_up_once(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.sign_ins.add_ticket(TICKET)
        work.commit()

    def consume() -> LinkTicket | None:
        with store.unit_of_work() as work:
            consumed = work.sign_ins.consume_ticket(TICKET.token_hash)
            work.commit()
        return consumed

    with store.unit_of_work(read_only=True) as work:
        assert work.sign_ins.ticket(TICKET.token_hash) == TICKET
        assert work.sign_ins.ticket("unknown") is None
    consumed = run_together(*[consume] * 4)
    assert consumed.count(TICKET) == 1
    assert consumed.count(None) == 3


def test_a_login_is_used_up_once(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.sign_ins.add_login(LOGIN)
        work.commit()

    def consume() -> Login | None:
        with store.unit_of_work() as work:
            consumed = work.sign_ins.consume_login(LOGIN.relay_hash)
            work.commit()
        return consumed

    consumed = run_together(*[consume] * 4)
    assert consumed.count(LOGIN) == 1
    assert consumed.count(None) == 3


def test_a_login_whose_transaction_is_undone_is_not_used_up(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.sign_ins.add_login(LOGIN)
        work.commit()
    with store.unit_of_work() as work:
        assert work.sign_ins.consume_login(LOGIN.relay_hash) == LOGIN
    with store.unit_of_work() as work:
        assert work.sign_ins.consume_login(LOGIN.relay_hash) == LOGIN


def test_an_assertion_is_new_once(store: SqlStore) -> None:
    def remember() -> bool:
        with store.unit_of_work() as work:
            new = work.sign_ins.remember_assertion("assertion-1", NOW + MINUTE)
            work.commit()
        return new

    assert sorted(run_together(*[remember] * 4)) == [False, False, False, True]
    with store.unit_of_work() as work:
        assert work.sign_ins.remember_assertion("assertion-2", NOW + MINUTE)


def test_parked_requests_come_back_oldest_first_and_go_once(store: SqlStore) -> None:
    older = replace(
        PARKED,
        id="PK-2",
        parked_at=NOW - MINUTE,
        lapses_at=NOW + 29 * MINUTE,
        submission=Submission(servers=(), reason=""),
    )
    with store.unit_of_work() as work:
        for parked in (PARKED, older, replace(PARKED, id="PK-3", slack_user=BEN)):
            work.sign_ins.park(parked)
        work.commit()

    with store.unit_of_work() as work:
        assert work.sign_ins.parked_of(ANA) == [older, PARKED]
        assert work.sign_ins.lapsed_parked(NOW + 29 * MINUTE) == [older]
        assert work.sign_ins.unpark("PK-2")
        assert not work.sign_ins.unpark("PK-2")
        assert work.sign_ins.parked_of(ANA) == [PARKED]


def test_what_has_run_out_is_forgotten(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.sign_ins.add_ticket(TICKET)
        work.sign_ins.add_login(LOGIN)
        work.sign_ins.remember_assertion("assertion-1", NOW + 10 * MINUTE)
        work.deliveries.claim("trigger-1", subject="", at=NOW)
        work.commit()

    with store.unit_of_work() as work:
        work.sign_ins.purge(NOW + 9 * MINUTE)
        assert work.sign_ins.ticket(TICKET.token_hash) == TICKET
        assert not work.sign_ins.remember_assertion("assertion-1", NOW)
        work.sign_ins.purge(NOW + 10 * MINUTE)
        assert work.sign_ins.ticket(TICKET.token_hash) is None
        assert work.sign_ins.consume_login(LOGIN.relay_hash) is None
        assert work.sign_ins.remember_assertion("assertion-1", NOW)
        with pytest.raises(DuplicateDeliveryError):
            work.deliveries.claim("trigger-1", subject="", at=NOW)
        work.sign_ins.purge(NOW + timedelta(days=1))
        work.deliveries.claim("trigger-1", subject="", at=NOW)


def test_a_known_delivery_says_what_came_of_it_and_the_unit_of_work_goes_on(store: SqlStore) -> None:
    assert claim(store, "trigger-1", "AR-1") == "claimed"
    with store.unit_of_work() as work:
        with pytest.raises(DuplicateDeliveryError) as caught:
            work.deliveries.claim("trigger-1", subject="AR-2", at=NOW)
        work.deliveries.claim("trigger-2", subject="AR-2", at=NOW)
        work.commit()

    assert caught.value.subject == "AR-1"
    assert claim(store, "trigger-2", "AR-3") == "duplicate of AR-2"


def test_a_delivery_whose_transaction_is_undone_counts_as_never_seen(store: SqlStore) -> None:
    with store.unit_of_work() as work:
        work.deliveries.claim("trigger-1", subject="AR-1", at=NOW)
    assert claim(store, "trigger-1", "AR-2") == "claimed"


def test_of_the_same_delivery_many_times_at_once_one_counts(store: SqlStore) -> None:
    outcomes = run_together(*[lambda: claim(store, "trigger-1", "AR-1")] * 6)

    assert outcomes.count("claimed") == 1
    assert outcomes.count("duplicate of AR-1") == 5


@pytest.mark.postgres
def test_the_same_delivery_at_the_same_moment_waits_for_the_first(
    postgres_server: PostgresServer, postgres_url: str, open_store: Callable[[str], SqlStore]
) -> None:
    one, two = open_store(postgres_url), open_store(postgres_url)
    with ThreadPoolExecutor(1) as pool, one.unit_of_work() as work:
        work.deliveries.claim("trigger-1", subject="AR-1", at=NOW)
        second = pool.submit(claim, two, "trigger-1", "AR-2")
        postgres_server.wait_for_waiters(postgres_url)
        work.commit()
        assert second.result(timeout=10) == "duplicate of AR-1"


@pytest.mark.postgres
def test_the_same_deliveries_in_another_order_to_two_processes_count_once(
    postgres_server: PostgresServer, postgres_url: str, open_store: Callable[[str], SqlStore]
) -> None:
    """Had each its own order, each would have one that the other waits for."""
    keys = ["trigger-1", "trigger-2", "trigger-3"]
    one, two, middle = (open_store(postgres_url) for _ in range(3))
    with ThreadPoolExecutor(2) as pool:
        with middle.unit_of_work() as work:  # undone when both wait
            work.deliveries.claim("trigger-2", subject="", at=NOW)
            outcomes = [pool.submit(claim_all, one, keys)]
            postgres_server.wait_for_waiters(postgres_url)
            outcomes.append(pool.submit(claim_all, two, keys[::-1]))
            postgres_server.wait_for_waiters(postgres_url, waiters=2)
        assert [each.result(timeout=10) for each in outcomes] == [True, False]
