"""The database fails: no acknowledged decision is lost, nothing is half done, the loops go on by themselves.

What Passport cannot end while its database is away, the servers' own timers end: see test_scripts_timer.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from access.audit import Kind, verify
from access.errors import UnavailableError
from access.model import AccessRequest, EndCause, Grant, GrantState, RequestState
from access.service.desk import Caller
from access.steps import Done, Step
from bot.loops import ReconcilerTurns
from handlers import ids
from sandbox.company import AUDIT_CHANNEL, COMMAND, LEADS_CHANNEL, Company, Employee
from sandbox.hosts import HostWish
from sandbox.reading import wait_for, with_button
from sandbox.serving import Serving
from sandbox.slack import Message
from storage.migrations import migrate
from storage.unit_of_work import NO_ANSWER, NO_ANSWER_TO_COMMIT, SqlStore
from tests.e2e.database_lab import Disk, Moment, Wire, crash, own_postgres
from tests.integration.aws_desk import answer
from tests.integration.slack_stage import Stage, stage
from tests.postgres import PostgresServer
from tests.values import ANA, BEN
from tests.world import World

Open = Callable[[str], SqlStore]
TOLD = {NO_ANSWER, NO_ANSWER_TO_COMMIT}


class Office:
    """People who ask and decide without a break, and the reconciler's loop, as in ``passport serve``."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.world = World(store)
        self.acknowledged: list[str] = []
        self.told: Counter[str] = Counter()
        self._turns = ReconcilerTurns(self.world.reconciler(), clock=self.world.clock, threads=3, kept_for_removals=1)
        store.on_commit(self._turns.wake_if_due)
        self._stop = threading.Event()

    @contextmanager
    def at_work(self, people: int = 3) -> Iterator[None]:
        """Everybody works inside, and the loop until everything approved is open."""
        threads = [threading.Thread(target=self._ask_and_approve) for _ in range(people)]
        self._turns.loop.start()
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        try:
            wait_for(self._all_open, "every approved request to be opened", seconds=60)
        finally:
            self._turns.stop()

    def wait_for_more(self, count: int) -> None:
        """Return when so many more approvals were acknowledged."""
        goal = len(self.acknowledged) + count
        wait_for(lambda: len(self.acknowledged) >= goal, f"{count} approvals", seconds=60)

    def check(self) -> None:
        """What a person was told is so, and everything is whole or not there."""
        assert set(self.told) <= TOLD, self.told
        with self.store.unit_of_work(read_only=True) as uow:
            events = list(uow.audit.all())
            assert verify(events) == []
            known = {request.id: request for request in uow.requests.find(limit=100_000)}
            decided = {request_id: list(uow.reviews.of(request_id)) for request_id in known}
        approvals = Counter(each.event.request_id for each in events if each.event.kind is Kind.REQUEST_APPROVED)
        assert set(self.acknowledged) <= set(known)
        for request_id, request in known.items():
            assert len(decided[request_id]) == approvals[request_id] <= 1
            assert (request.state is RequestState.PENDING) == (not approvals[request_id])
        for request_id in self.acknowledged:
            assert known[request_id].state is RequestState.ACTIVE

    def _ask_and_approve(self) -> None:
        while not self._stop.is_set():
            try:
                request = self.world.submit("web-1")
                self.world.approve(request)
            except UnavailableError as error:
                self.told[error.sentence] += 1
                time.sleep(0.02)
            else:
                self.acknowledged.append(request.id)

    def _all_open(self) -> bool:
        with self.store.unit_of_work(read_only=True) as uow:
            figures = uow.figures.read(self.world.clock.now, reader="slack")
        return figures.requests.get("approved", 0) == 0 and figures.leases == 0


@pytest.fixture
def server_and_url() -> Iterator[tuple[PostgresServer, str]]:
    with own_postgres() as made:
        yield made


@pytest.mark.postgres
def test_postgres_restarted_under_load(server_and_url: tuple[PostgresServer, str], open_store: Open) -> None:
    server, url = server_and_url
    office = Office(open_store(url))
    with office.at_work():
        for stop in (server.stop, lambda: crash(server), lambda: server.cut_connections(url.rpartition("/")[2])):
            office.wait_for_more(10)
            stop()
            if server._process is None:
                server.start()
        office.wait_for_more(10)
    office.check()
    assert office.told, "nobody noticed: the test did not test"


@pytest.mark.postgres
def test_an_outage_of_five_minutes(
    server_and_url: tuple[PostgresServer, str], open_store: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """An end falls into it; it is made up for as soon as the database answers, and nobody restarts anything."""
    server, url = server_and_url
    store = open_store(url)
    world = World(store)
    turns = ReconcilerTurns(world.reconciler(), clock=world.clock, threads=2, kept_for_removals=1)
    store.on_commit(turns.wake_if_due)
    request = world.submit("web-1", minutes=60)
    undecided = world.submit("db-2")
    world.approve(request)
    turns.loop.start()
    try:
        wait_for(lambda: world.standing(request.id).request.state is RequestState.ACTIVE, "the request to be open")
        world.clock.forward(minutes=58)
        server.stop()
        for _ in range(5):
            world.clock.forward(minutes=1)
            turns.loop.wake()
            with pytest.raises(UnavailableError) as told:
                world.approve(undecided)
            assert told.value.sentence == NO_ANSWER
        wait_for(lambda: "reconciler: a turn failed; trying again" in caplog.text, "the loop to notice")
        assert turns.loop.is_alive
        server.start()
        wait_for(lambda: world.standing(request.id).request.state is RequestState.ENDED, "the request to be ended")
    finally:
        turns.stop()
    standing = world.standing(request.id)
    assert standing.request.cause is EndCause.EXPIRED
    assert [grant.state for grant in standing.grants] == [GrantState.REMOVED]
    assert not world.standing(undecided.id).reviews
    with store.unit_of_work(read_only=True) as uow:
        assert verify(uow.audit.all()) == []


@pytest.mark.postgres
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_connection_cut_in_the_middle_of_a_commit(
    postgres_url: str, open_store: Open, moment: Moment, caplog: pytest.LogCaptureFixture
) -> None:
    with Wire(postgres_url) as wire, stage(open_store(wire.url)) as acting:
        request = acting.world.submit("web-1")
        card = acting.card(request.id, ids.REVIEW_APPROVE)
        wire.cut_next_commit(moment)
        acting.press(card, ids.REVIEW_APPROVE)
        assert acting.told(BEN.user_id) == [NO_ANSWER_TO_COMMIT]
        assert wire.cuts == 1

        arrived = moment == "after"
        if arrived:  # the server may still be at it: it was told nothing of the cut
            wait_for(lambda: acting.world.standing(request.id).reviews, "the commit")
        standing = acting.world.standing(request.id)
        assert standing.request.state is (RequestState.APPROVED if arrived else RequestState.PENDING)
        assert len(standing.reviews) == len(standing.grants) == int(arrived)
        approved = [Kind.REQUEST_APPROVED] if arrived else []
        assert acting.world.kinds(request.id) == [Kind.REQUEST_SUBMITTED, *approved]

        acting.press(card, ids.REVIEW_APPROVE)
        if arrived:
            assert "before your click. Nothing changed." in acting.told(BEN.user_id, 2)[1]
        acting.world.reconcile()
        assert acting.world.standing(request.id).request.state is RequestState.ACTIVE
        assert acting.world.kinds(request.id).count(Kind.REQUEST_APPROVED) == 1
        with acting.world.store.unit_of_work(read_only=True) as uow:
            assert verify(uow.audit.all()) == []
    assert "Something broke" not in caplog.text


@pytest.mark.postgres
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("commit", range(1, 7))
def test_the_reconciler_loses_its_connection_at_any_commit(
    postgres_url: str, open_store: Open, moment: Moment, commit: int
) -> None:
    """Claimed, begun, recorded, given back: whichever commit is cut, the next claim goes on at once."""
    with Wire(postgres_url) as wire:
        store = open_store(wire.url)
        world = World(store)
        reconciler = world.reconciler()
        request = world.submit("web-1")
        world.approve(request)
        commits = iter(range(1, 1000))

        def arm() -> None:
            if next(commits) == commit:
                wire.cut_next_commit(moment)

        _before_each_commit(store, arm)
        for _ in range(6):
            _forgiving(lambda: world.reconcile(reconciler))
        assert wire.cuts == 1

        def is_open() -> bool:
            """PostgreSQL may hold the cut connection's row lock for a moment, and a claim passes over a locked row."""
            _forgiving(lambda: world.reconcile(reconciler))
            return world.standing(request.id).request.state is RequestState.ACTIVE

        wait_for(is_open, "the request to open")
        assert world.kinds(request.id).count(Kind.GRANT_ACTIVE) == 1
        with store.unit_of_work(read_only=True) as uow:
            assert verify(uow.audit.all()) == []
            assert uow.figures.read(world.clock.now, reader="slack").leases == 0


@pytest.mark.postgres
def test_a_database_that_goes_away_during_an_act(server_and_url: tuple[PostgresServer, str], open_store: Open) -> None:
    """Neither what was found can be recorded nor the lease given back; all the same nobody waits for its end."""
    server, url = server_and_url
    store = open_store(url)
    world = World(store)
    turns = ReconcilerTurns(world.reconciler(), clock=world.clock, threads=2, kept_for_removals=1)
    request = world.submit("web-1")
    world.approve(request)
    gone = threading.Event()

    def provision(_request: AccessRequest, _grant: Grant) -> Step:
        if not gone.is_set():
            crash(server)
            gone.set()
        return Done()

    world.account.on_provision = provision
    turns.loop.start()
    try:
        assert gone.wait(30)
        wait_for(lambda: turns._busy == 0, "the piece of work to break off")
        server.start()
        wait_for(lambda: world.standing(request.id).request.state is RequestState.ACTIVE, "the loop to go on")
    finally:
        turns.stop()
    assert [verb for verb, _ in world.account.asked] == ["provision"] * 2  # at least once, and idempotent on the host
    assert world.kinds(request.id).count(Kind.GRANT_ACTIVE) == 1


@pytest.mark.hosts
def test_sqlite_on_a_full_disk(tmp_path: Path, open_store: Open) -> None:
    with Disk(tmp_path / "disk", megabytes=4) as disk:
        url = f"sqlite:///{disk.folder}/passport.db"
        migrate(url)
        store = open_store(url)
        with stage(store) as acting:
            _fills_up_and_recovers(acting, disk)
        store.close()


@pytest.mark.hosts
@pytest.mark.postgres
def test_postgres_on_a_full_disk(tmp_path: Path, open_store: Open) -> None:
    settings = {"min_wal_size": "32MB", "max_wal_size": "32MB"}
    tmp_path.chmod(0o755)  # PostgreSQL runs as another user
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    with Disk(tmp_path / "disk", megabytes=112) as disk:
        disk.folder.chmod(0o777)
        with own_postgres(disk.folder, **settings) as (_, url):
            store = open_store(url)
            with stage(store) as acting:
                _fills_up_and_recovers(acting, disk)
            store.close()


def _fills_up_and_recovers(acting: Stage, disk: Disk) -> None:
    world = acting.world
    running = world.submit("web-1")
    world.approve(running)
    world.reconcile()
    request = world.submit("web-1")
    card = acting.card(request.id, ids.REVIEW_APPROVE)
    disk.fill(but=400_000)
    asked, approved, sentence = _ask_and_approve_until_refused(world)
    assert sentence in TOLD

    assert acting.say("request web-1 for 1h because INC-9").plain in TOLD
    acting.press(card, ids.REVIEW_APPROVE)
    (told,) = acting.told(BEN.user_id)
    assert told in TOLD
    assert world.standing(request.id).request.state is RequestState.PENDING  # and reading still works
    assert not world.standing(request.id).reviews

    disk.clear()
    acting.press(card, ids.REVIEW_APPROVE)
    world.ending.complete(Caller(slack_user=ANA), running.id)
    wait_for(lambda: _forgiving(world.reconcile), "the reconciler to go on")
    assert world.standing(request.id).request.state is RequestState.ACTIVE
    assert world.standing(running.id).request.state is RequestState.ENDED
    assert approved, "the disk was full before anybody approved: the test did not test"
    for request_id in asked:
        kept = RequestState.ACTIVE if request_id in approved else RequestState.PENDING
        assert world.standing(request_id).request.state is kept
    with world.store.unit_of_work(read_only=True) as uow:
        events = list(uow.audit.all())
        assert verify(events) == []
        known = {found.id for found in uow.requests.find(limit=100_000)}
    assert known == {each.event.request_id for each in events if each.event.request_id}


def _ask_and_approve_until_refused(world: World) -> tuple[list[str], list[str], str]:
    """What was asked for, and what was approved of it, as people were told."""
    asked: list[str] = []
    approved: list[str] = []
    for number in range(5000):  # pages that are there already are filled first
        try:
            request = world.submit("web-1")
            asked.append(request.id)
            if number % 5 == 0:
                world.approve(request)
                approved.append(request.id)
        except UnavailableError as error:
            return asked, approved, error.sentence
    raise AssertionError("the disk does not fill up")


def _forgiving(act: Callable[[], object]) -> bool:
    """As the loop does: a turn that breaks off is followed by another."""
    try:
        act()
    except UnavailableError:
        return False
    return True


def _before_each_commit(store: SqlStore, act: Callable[[], None]) -> None:
    event.listen(store._engine, "commit", lambda _connection: act())


@pytest.mark.hosts
@pytest.mark.postgres
@pytest.mark.timeout(400)
def test_a_server_ends_access_alone_while_the_database_is_away(
    server_and_url: tuple[PostgresServer, str], tmp_path: Path
) -> None:
    """What Passport cannot end then, the server's own timer does; afterwards Passport hears of it, with the proof."""
    server, url = server_and_url
    with Company(tmp_path, [HostWish(name="web-1", init="systemd")]) as company:
        serving = Serving(company, tmp_path / "passport", database_url=url)
        serving.run("documents", "publish")
        serving.start()
        serving.trust()
        ana, ben = company.people["ana"], company.people["ben"]
        try:
            company.link(ana)
            company.link(ben)
            request_id = _ask(ana, "45s")
            ben.slack.click(_card(company, request_id), ids.REVIEW_APPROVE)
            _ready(ana, request_id)
            host, user = company.hosts["web-1"], f"pp-{request_id[3:].lower()}"
            uid = int(host.run("id", "-u", user).stdout)
            server.stop()
            wait_for(lambda: not host.leftovers(user, uid, user), "the server to end it", seconds=150)
            assert host.run("id", "-u", user).returncode == 1
            server.start()
            closed = wait_for(lambda: _closed(ana, request_id), "the end to be told", seconds=90)
            assert f"{user} removed from web-1, verified at" in closed
        finally:
            serving.stop()


@pytest.mark.postgres
def test_passport_serve_lives_through_a_restart_of_its_database(
    server_and_url: tuple[PostgresServer, str], tmp_path: Path
) -> None:
    server, url = server_and_url
    with Company(tmp_path) as company:
        company.aws.add_server("web-1", tags={"env": "prod"}, answers=answer)
        serving = Serving(company, tmp_path / "passport", database_url=url)
        serving.run("documents", "publish")
        serving.start()
        serving.trust()
        try:
            _lives_through(company, serving, server)
        finally:
            serving.stop()


def _lives_through(company: Company, serving: Serving, server: PostgresServer) -> None:
    ana, ben = company.people["ana"], company.people["ben"]
    company.link(ana)
    company.link(ben)
    pid = serving.pid
    first = _ask(ana)
    ben.slack.click(_card(company, first), ids.REVIEW_APPROVE)
    ready = _ready(ana, first)
    second = _ask(ana)
    card = _card(company, second)
    _a_twin_is_refused(serving)

    crash(server)
    assert ana.slack.command(COMMAND, "request web-1 for 1h because INC-2").plain == NO_ANSWER
    ben.slack.click(card, ids.REVIEW_APPROVE)
    wait_for(lambda: any(message.plain == NO_ANSWER for message in ben.slack.ephemerals()), "Ben to be told")
    assert not serving._is_ready()

    server.start()
    wait_for(serving._is_ready, "Passport to be ready again")
    ben.slack.click(card, ids.REVIEW_APPROVE)
    ana.slack.click(ready, ids.REQUEST_COMPLETE)
    _ready(ana, second)
    wait_for(lambda: _closed(ana, first), "the end")
    head = wait_for(lambda: _channel_head(company, serving), "the audit channel to catch up")
    assert "The audit log is whole" in serving.run("audit", "verify", "--head", head).stdout
    wait_for(lambda: _names_taken(server, serving), "the name to be taken again")
    assert serving.pid == pid
    assert serving._process is not None
    assert serving._process.poll() is None


def _a_twin_is_refused(serving: Serving) -> None:
    """A second process of the same name would take the first one's work for its own."""
    twin = serving.run("serve", check=False)
    assert twin.returncode == 1
    assert "Another Passport process on this database is called sandbox" in twin.stderr
    assert "has stopped" not in twin.stderr  # it gave nothing back, for it had nothing


def _names_taken(server: PostgresServer, serving: Serving) -> bool:
    with server.connect(serving._database_url.rpartition("/")[2]) as connection:
        return connection.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'").fetchone() is not None


def _closed(person: Employee, request_id: str) -> str | None:
    """What the person reads when it is over."""
    told = person.slack.direct_messages()
    return next((m.plain for m in told if request_id in m.plain and "Closed: " in m.plain), None)


def _ask(person: Employee, length: str = "1h") -> str:
    said = person.slack.command(COMMAND, f"request web-1 for {length} because INC-1: disk full").plain
    found = re.search(r"AR-[0-9A-Z]+", said)
    assert found, said
    return found[0]


def _card(company: Company, request_id: str) -> Message:
    return wait_for(
        lambda: with_button(company.slack.messages(LEADS_CHANNEL), ids.REVIEW_APPROVE, request_id), "the card"
    )


def _ready(person: Employee, request_id: str) -> Message:
    return wait_for(
        lambda: with_button(person.slack.direct_messages(), ids.CREDENTIALS_SHOW, request_id), "the servers to be open"
    )


def _channel_head(company: Company, serving: Serving) -> str | None:
    """The last head in the audit channel, once it is that of the log."""
    text = "\n".join(message.text for message in company.slack.messages(AUDIT_CHANNEL))
    heads = re.findall(r"\b\d+:[0-9a-f]{64}\b", text)
    written = len(serving.run("audit", "export").stdout.splitlines())
    return heads[-1] if heads and heads[-1].startswith(f"{written}:") else None
