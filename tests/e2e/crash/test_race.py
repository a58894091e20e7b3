"""Two `passport serve` on one PostgreSQL share the work, and whatever comes to both at once counts once."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from sandbox.company import COMMAND, Company
from sandbox.reading import wait_for
from sandbox.serving import Serving, ServingError
from sandbox.slack.deliveries import Delivery
from tests.e2e.crash.record import record_faults
from tests.e2e.crash.replicas import Replica, Replicas
from tests.postgres import PostgresServer
from tests.stores import run_together

pytestmark = pytest.mark.postgres

REQUESTS = 500
PAIRS = 100
COMMANDS = 30
DECISIONS = ("request.approved", "request.denied")
ONCE = ("request.approved", "request.started", "grant.active", "request.active", "request.ending", "request.ended")


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, postgres_template: str
) -> Iterator[Replicas]:
    database = postgres_server.create_database(template=postgres_template)
    with Replicas(tmp_path_factory.mktemp("race"), postgres_server.url(database)) as made:
        yield made


def test_a_command_that_is_delivered_to_both_at_once_is_one_request(replicas: Replicas) -> None:
    before = len(replicas.states())
    for number in range(COMMANDS):
        typed = _type_into_the_void(replicas, replicas.words(number))
        answers = run_together(*(partial(replicas.deliver, typed, replica) for replica in (replicas.a, replicas.b)))
        assert [answer.status for answer in answers] == [200, 200]
        told = {found for answer in answers for found in re.findall(r"\(AR-[0-9A-Z]+\)", answer.answer.decode())}
        assert len(told) == 1, answers
    assert len(replicas.states()) == before + COMMANDS


def test_of_an_approval_and_a_denial_at_once_one_counts(replicas: Replicas) -> None:
    request_ids = replicas.all_at_once(lambda _: replicas.ask(), [""] * PAIRS)
    for number, request_id in enumerate(request_ids):
        first, second = (replicas.a, replicas.b) if number % 2 else (replicas.b, replicas.a)
        clicks = (
            (replicas.approval(replicas.ben, request_id), first),
            (replicas.denial(replicas.dan, request_id), second),
        )
        assert all(done.ok for done in run_together(*(partial(replicas.deliver, *click) for click in clicks)))
    tables = replicas.tables()
    decisions = Counter(
        found.event.kind.value for i in request_ids for found in tables.of(i) if found.event.kind.value in DECISIONS
    )
    assert decisions.total() == PAIRS
    assert len(decisions) == 2, f"no race at all: {decisions}"
    for request_id in request_ids:
        kinds = [found.event.kind.value for found in tables.of(request_id)]
        assert sum(kinds.count(kind) for kind in DECISIONS) == 1


@pytest.mark.timeout(400)
def test_500_requests_are_decided_through_both_and_one_is_killed_in_the_middle(replicas: Replicas) -> None:
    request_ids = replicas.all_at_once(lambda _: replicas.ask(), [""] * REQUESTS)
    assert len(set(request_ids)) == REQUESTS

    def approve(request_id: str) -> Delivery:
        if request_id == request_ids[REQUESTS // 2]:
            wait_for(lambda: replicas.leased_to(replicas.b), "b to be at work")
            replicas.b.kill()
        return replicas.insist(lambda: replicas.deliver(replicas.approval(replicas.ben, request_id)))

    replicas.all_at_once(approve, request_ids)
    replicas.b.start()
    replicas.connect()
    replicas.wait_for_states(request_ids, "active", seconds=120)
    replicas.all_at_once(
        lambda i: replicas.insist(lambda: replicas.ana.slack.command(COMMAND, f"done {i}")), request_ids
    )
    replicas.wait_for_states(request_ids, "ended", seconds=120)

    tables = replicas.tables()
    assert list(record_faults(tables)) == []
    wanted = set(request_ids)
    told = Counter(found.event.kind.value for found in tables.events if found.event.request_id in wanted)
    assert {kind: told[kind] for kind in ONCE} == dict.fromkeys(ONCE, REQUESTS)
    assert not wanted & {request_id for host in replicas.hosts for request_id in host.users.values()}


def test_a_restarted_instance_takes_up_its_work_at_once_and_another_only_when_the_lease_has_run_out(
    replicas: Replicas,
) -> None:
    for heir in (replicas.b, replicas.a):
        request_id = _leave_work_behind(replicas)
        replicas.a.start()
        replicas.connect(replicas.a)
        _see_that_others_are_served(replicas)
        assert replicas.states()[request_id] == "approved"  # its lease is that of the dead
        assert replicas.leased_to(replicas.b) == [request_id]
        if heir is replicas.b:
            _die_while_starting(replicas.b)
            replicas.b.start()
        else:
            replicas.let_leases_run_out(replicas.b)
        replicas.wait_for_states([request_id], "active", seconds=30)
        assert replicas.b.is_dead is (heir is replicas.a)


def test_a_second_process_on_sqlite_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Company(tmp_path_factory.mktemp("sqlite")) as company:
        url = f"sqlite:///{company.folder}/passport.db"
        first, second = (Serving(company, company.folder / name, database_url=url, instance=name) for name in "ab")
        first.run("migrate")
        first.start()
        try:
            with pytest.raises(ServingError, match=r"Another Passport process uses .* SQLite serves only one"):
                second.start()
        finally:
            first.kill()
            second.kill()


def _type_into_the_void(replicas: Replicas, words: str) -> Delivery:
    """A command as Slack sends it, before anybody has got it."""
    replicas.slack.disconnect_app()
    try:
        return replicas.ana.slack.command(COMMAND, words)
    finally:
        replicas.connect()


def _leave_work_behind(replicas: Replicas) -> str:
    """A request that b has claimed, and dies before it sends the command."""
    replicas.a.kill()
    if replicas.b.is_dead:
        replicas.b.start()
    replicas.connect(replicas.b)
    request_id = replicas.ask()
    replicas.b.order(1, "before SendCommand")
    replicas.deliver(replicas.approval(replicas.ben, request_id))
    wait_for(lambda: replicas.b.is_dead, "b to die")
    replicas.b.pardon()
    return request_id


def _see_that_others_are_served(replicas: Replicas) -> None:
    request_id = replicas.ask()
    replicas.insist(lambda: replicas.deliver(replicas.approval(replicas.ben, request_id)))
    replicas.wait_for_states([request_id], "active")


def _die_while_starting(replica: Replica) -> None:
    """Just before it has taken back what it had leased."""
    replica.order(1, "before a commit of MainThread")
    with pytest.raises(ServingError):
        replica.start()
    replica.pardon()
