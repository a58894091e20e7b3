"""Two `passport serve` on one PostgreSQL share the work, and whatever comes to both at once counts once."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import chain

import pytest

from bot import wiring
from sandbox.company import AUDIT_CHANNEL, COMMAND, LEADS_CHANNEL, Company, Employee
from sandbox.reading import wait_for
from sandbox.serving import Serving, ServingError
from sandbox.slack import Message
from sandbox.slack.deliveries import Delivery
from tests.e2e.crash.record import BUTTONS, channel_faults, channel_head, record_faults
from tests.e2e.crash.replicas import Replica, Replicas
from tests.postgres import PostgresServer
from tests.stores import run_together

pytestmark = pytest.mark.postgres

SEEN = 40  # Slack takes one message a second in each channel, so that these take a minute and a half
COMMANDS = 30
PAIRS = 1000
AT_WORK = 500  # of the requests that are opened and ended, at least so many
AT_ONCE = 30.0  # seconds, ten of which a command that may have been sent is looked for; a lease lasts for two minutes
DECISIONS = ("request.approved", "request.denied")
ONCE = (
    "request.approved",
    "request.started",
    "grant.active",
    "request.active",
    "request.ending",
    "grant.removed",
    "request.ended",
)


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, postgres_template: str
) -> Iterator[Replicas]:
    database = postgres_server.create_database(template=postgres_template)
    with Replicas(tmp_path_factory.mktemp("race"), postgres_server.url(database)) as made:
        yield made


@pytest.mark.timeout(400)
def test_slack_shows_everything_though_one_was_killed(replicas: Replicas) -> None:
    """First, while there is nothing else that Slack has to be told."""
    askers = [(replicas.ana, replicas.cleo)[number % 2] for number in range(SEEN)]
    request_ids = replicas.all_at_once(replicas.ask, askers)
    _approve_and_kill_one(replicas, request_ids)
    _open_and_end(replicas, request_ids, askers)
    wait_for(lambda: _is_quiet(replicas), "Slack to catch up", seconds=300)

    audit, head = replicas.slack.messages(AUDIT_CHANNEL), replicas.tables().head
    assert list(channel_faults(audit, head, repeats=1)) == []
    cards = replicas.slack.messages(LEADS_CHANNEL)
    direct = {asker: asker.slack.direct_messages() for asker in set(askers)}
    live = [m for m in (*cards, *chain(*direct.values())) if BUTTONS & set(m.actions) and _names(m, request_ids)]
    assert len(live) <= 1, [message.plain for message in live]  # what Slack took just before the kill may have a twin
    for request_id, asker in zip(request_ids, askers, strict=True):
        newest = [message.text for message in cards if request_id in message.plain][-1:]
        assert all(text.startswith("Ended: ") for text in newest), newest
        assert any(request_id in message.plain and "Closed: " in message.plain for message in direct[asker])


def test_a_command_that_is_delivered_to_both_at_once_is_one_request(replicas: Replicas) -> None:
    before = len(replicas.states())
    for number in range(COMMANDS):
        typed = _type_into_the_void(replicas, replicas.words(number))
        twice_each = (replicas.a, replicas.b) * 2
        answers = run_together(*(partial(replicas.deliver, typed, replica) for replica in twice_each))
        assert [answer.status for answer in answers] == [200] * 4
        told = {found for answer in answers for found in re.findall(r"\(AR-[0-9A-Z]+\)", answer.answer.decode())}
        assert len(told) == 1, answers
    assert len(replicas.states()) == before + COMMANDS


def test_a_restarted_instance_takes_up_its_work_at_once_and_another_only_when_the_lease_has_run_out(
    replicas: Replicas,
) -> None:
    for heir in (replicas.b, replicas.a):
        request_id = _leave_work_behind(replicas)
        _see_that_others_are_served(replicas)
        assert replicas.states()[request_id] == "approved"  # its lease is that of the dead
        if heir is replicas.b:
            _die_while_starting(replicas.b)
            replicas.b.start()
            replicas.wait_for_states([request_id], "active", seconds=AT_ONCE)
        else:
            replicas.let_leases_run_out(replicas.b)
            replicas.wait_for_states([request_id], "active", seconds=30)
        assert replicas.b.is_dead is (heir is replicas.a)
    replicas.b.start()
    replicas.connect()


@pytest.mark.timeout(600)
def test_a_thousand_pairs_of_simultaneous_clicks_are_a_thousand_decisions_and_all_of_it_is_done_though_one_is_killed(
    replicas: Replicas,
) -> None:
    request_ids = replicas.all_at_once(replicas.ask, [replicas.ana] * PAIRS)
    assert len(set(request_ids)) == PAIRS
    replicas.all_at_once(partial(_decide_at_both, replicas), list(enumerate(request_ids)))
    decisions = _decisions(replicas, request_ids)
    assert {kind for kind, *others in decisions.values() if not others} == set(DECISIONS), "no race at all"
    assert [found for found in decisions.items() if len(found[1]) != 1] == []

    approved = [request_id for request_id in request_ids if decisions[request_id] == ["request.approved"]]
    more = replicas.all_at_once(replicas.ask, [replicas.ana] * max(100, AT_WORK - len(approved)))
    _approve_and_kill_one(replicas, more)
    _open_and_end(replicas, [*approved, *more], [replicas.ana] * len([*approved, *more]))

    tables = replicas.tables()
    assert list(record_faults(tables)) == []
    wanted = {*approved, *more}
    told = Counter(found.event.kind.value for found in tables.events if found.event.request_id in wanted)
    assert {kind: told[kind] for kind in ONCE} == dict.fromkeys(ONCE, len(wanted))
    assert not wanted & {request_id for host in replicas.hosts for request_id in host.users.values()}


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


def _approve_and_kill_one(replicas: Replicas, request_ids: Sequence[str]) -> None:
    """Through both, and both are seen at work; then b is killed at work, and comes back when all are approved."""
    half = len(request_ids) // 2
    seen = [replicas.pool.submit(_see_at_work, replicas, replica) for replica in (replicas.a, replicas.b)]
    replicas.all_at_once(replicas.approve, request_ids[:half])
    for each in seen:
        each.result()
    killed = replicas.pool.submit(_kill_at_work, replicas)
    replicas.all_at_once(replicas.approve, request_ids[half:])
    killed.result()
    replicas.b.start()
    replicas.connect()


def _see_at_work(replicas: Replicas, replica: Replica) -> None:
    wait_for(lambda: replicas.leased_to(replica), f"{replica.name} to be at work", seconds=60)


def _kill_at_work(replicas: Replicas) -> None:
    _see_at_work(replicas, replicas.b)
    replicas.b.kill()


def _open_and_end(replicas: Replicas, request_ids: Sequence[str], askers: Sequence[Employee]) -> None:
    """All of them are opened, and ended by those who asked."""
    replicas.wait_for_states(request_ids, "active", seconds=240)
    replicas.all_at_once(lambda pair: replicas.finish(*pair), list(zip(askers, request_ids, strict=True)))
    replicas.wait_for_states(request_ids, "ended", seconds=240)


def _decide_at_both(replicas: Replicas, numbered: tuple[int, str]) -> None:
    """Ben approves at one of them while Dan denies at the other."""
    number, request_id = numbered
    first, second = (replicas.a, replicas.b) if number % 2 else (replicas.b, replicas.a)
    clicks = ((replicas.approval(replicas.ben, request_id), first), (replicas.denial(replicas.dan, request_id), second))
    run_together(*(partial(replicas.insist, partial(replicas.deliver, *click)) for click in clicks))


def _decisions(replicas: Replicas, request_ids: Sequence[str]) -> dict[str, list[str]]:
    """What was decided of each, as often as it is on record."""
    found: dict[str, list[str]] = {request_id: [] for request_id in request_ids}
    for event in (each.event for each in replicas.tables().events):
        if event.request_id in found and event.kind.value in DECISIONS:
            found[event.request_id].append(event.kind.value)
    return found


def _is_quiet(replicas: Replicas) -> bool:
    with replicas.store.unit_of_work(read_only=True) as uow:
        head, stale = uow.audit.head(), uow.posts.stale(wiring.now() + timedelta(days=1), 1)
    return not stale and channel_head(replicas.slack.messages(AUDIT_CHANNEL)) == head.sequence


def _names(message: Message, request_ids: Sequence[str]) -> bool:
    return any(request_id in message.plain for request_id in request_ids)


def _type_into_the_void(replicas: Replicas, words: str) -> Delivery:
    """A command as Slack sends it, before anybody has got it."""
    replicas.slack.disconnect_app()
    try:
        return replicas.ana.slack.command(COMMAND, words)
    finally:
        replicas.connect()


def _leave_work_behind(replicas: Replicas) -> str:
    """A request that b has claimed, and dies before it sends the command; a may be quicker a few times."""
    replicas.connect(replicas.a)
    replicas.b.order(1, "before SendCommand")
    while not replicas.b.is_dead:
        request_id = replicas.ask()
        replicas.deliver(replicas.approval(replicas.ben, request_id), replicas.b)
        wait_for(lambda found=request_id: replicas.b.is_dead or replicas.states()[found] == "active", "work")
    replicas.b.pardon()
    assert replicas.leased_to(replicas.b) == [request_id]
    return request_id


def _see_that_others_are_served(replicas: Replicas) -> None:
    request_id = replicas.ask()
    replicas.approve(request_id)
    replicas.wait_for_states([request_id], "active")


def _die_while_starting(replica: Replica) -> None:
    """Just before it has taken back what it had leased."""
    replica.order(1, "before a commit of MainThread")
    with pytest.raises(ServingError):
        replica.start()
    replica.pardon()
