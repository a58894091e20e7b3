"""What Prometheus reads: figures of this process and of the database, on a port of their own."""

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from slack_sdk import WebClient

from access.errors import UnavailableError
from access.model import AccountName, RequestState, RouteName
from access.reconcile import LEASE, Reconciler
from access.service.desk import Caller
from access.steps import Done, Failed, Step, Waiting
from bot.loops import Loop
from bot.metrics import CountedRefusals, Metrics
from bot.scraping import MetricsServer
from handlers.members import Members, StrangerError
from handlers.patience import READER
from sandbox.aws import Scripted
from sandbox.company import COMMAND, LEADS_CHANNEL, Company
from sandbox.reading import wait_for, with_button
from sandbox.serving import Serving, free_port
from storage.unit_of_work import SqlStore
from tests.integration.aws_desk import answer, refuses
from tests.values import ANA, FakeClock
from tests.world import World

Scrape = Callable[..., float | None]


@pytest.fixture
def world(store: SqlStore) -> World:
    return World(store)


@pytest.fixture
def metrics(world: World, store: SqlStore) -> Metrics:
    made = Metrics(world.clock)
    made.watch_store(store)
    return made


@pytest.fixture
def scrape(metrics: Metrics) -> Iterator[Scrape]:
    """Asks over HTTP, as Prometheus does."""
    with MetricsServer(metrics.registry, "127.0.0.1", 0) as server:
        yield lambda name, /, **labels: figure(f"http://127.0.0.1:{server.port}/metrics", name, **labels)


def figure(url: str, name: str, /, **labels: str) -> float | None:
    """One sample; None if there is no such."""
    for family in text_string_to_metric_families(requests.get(url, timeout=5).text):
        for sample in family.samples:
            if sample.name == name and sample.labels.items() >= labels.items() and "le" not in sample.labels:
                return float(sample.value)
    return None


def measured(world: World, metrics: Metrics) -> Reconciler:
    """A reconciler as ``passport serve`` makes one."""
    return Reconciler(
        world.store,
        policy=world.desk.policy,
        inventory=world.inventory,
        routes={RouteName.SESSION_MANAGER: metrics.measure_route("session_manager", world.route)},
        accounts={AccountName.SHORT_LIVED_USER: metrics.measure_account("short_lived_user", world.account)},
        clock=world.clock,
        owner="one",
        observe=metrics.moved,
    )


def test_requests_are_counted_by_state(world: World, scrape: Scrape) -> None:
    world.approve(world.submit("web-1"))
    world.submit("db-2")
    assert scrape("passport_database_up") == 1
    assert scrape("passport_requests", state="pending") == 1
    assert scrape("passport_requests", state="approved") == 1
    world.reconcile()
    assert scrape("passport_requests", state="approved") == 0
    assert scrape("passport_requests", state="active") == 1
    assert scrape("passport_requests", state="ended") == 0


def test_steps_retries_and_openings_are_measured(world: World, metrics: Metrics, scrape: Scrape) -> None:
    answers: list[Step] = [
        Failed(reason="The agent is silent.", retryable=True),
        Waiting(handle={"command_id": ""}, retry_in=timedelta(seconds=2), is_retry=True),  # put off by the side itself
        Waiting(handle={"command_id": "c-1"}, retry_in=timedelta(seconds=2)),
        Done(),
    ]
    world.account.on_provision = lambda *_: answers.pop(0)
    reconciler = measured(world, metrics)
    world.approve(world.submit("web-1"))
    for _ in range(4):
        world.reconcile(reconciler)
        world.clock.forward(seconds=2)
    account = {"side": "account", "name": "short_lived_user", "act": "provision"}
    assert [scrape("passport_steps_total", **account, step=word) for word in ("failed", "waiting", "done")] == [1, 2, 1]
    assert scrape("passport_retries_total", **account) == 2
    assert scrape("passport_step_seconds_count", **account) == 4
    assert scrape("passport_steps_total", side="route", act="provision", step="done") == 1
    assert scrape("passport_opening_seconds_count") == 1
    assert scrape("passport_opening_seconds_sum") == 6


def test_a_late_end_shows_while_it_lasts_and_afterwards(world: World, metrics: Metrics, scrape: Scrape) -> None:
    reconciler = measured(world, metrics)
    world.approve(world.submit("web-1", minutes=60))
    world.reconcile(reconciler)
    world.account.on_remove = lambda *_: Failed(reason="web-1 does not answer.", retryable=True)
    world.clock.forward(minutes=60, seconds=10)
    world.reconcile(reconciler)
    assert scrape("passport_overdue_requests") == 1
    assert scrape("passport_overdue_seconds") == 10
    assert scrape("passport_end_lateness_seconds_count") == 0
    world.account.on_remove = lambda *_: Done()
    world.clock.forward(seconds=20)
    world.reconcile(reconciler)
    assert scrape("passport_overdue_requests") == 0
    assert scrape("passport_end_lateness_seconds_count") == 1
    assert scrape("passport_end_lateness_seconds_sum") == 30
    assert scrape("passport_ended_requests_total", cause="expired") == 1


def test_an_early_end_is_not_a_late_one(world: World, metrics: Metrics, scrape: Scrape) -> None:
    reconciler = measured(world, metrics)
    request = world.submit("web-1")
    world.approve(request)
    world.reconcile(reconciler)
    world.ending.complete(Caller(slack_user=ANA), request.id)
    world.reconcile(reconciler)
    assert world.standing(request.id).request.state is RequestState.ENDED
    assert scrape("passport_ended_requests_total", cause="completed") == 1
    assert scrape("passport_end_lateness_seconds_count") == 0


def test_what_slack_has_not_seen_yet_is_the_feeds_lag(world: World, scrape: Scrape) -> None:
    world.submit("web-1")
    world.clock.forward(seconds=45)
    world.submit("db-2")
    assert scrape("passport_feed_lag_events") == 2
    assert scrape("passport_feed_lag_seconds") == 45
    assert scrape("passport_unshown_requests") == 2
    with world.store.unit_of_work() as uow:
        uow.audit.advance(READER, 1)
        uow.outbox.add(ANA, "A key was added.", at=world.clock.now)
        uow.commit()
    assert scrape("passport_feed_lag_events") == 1
    assert scrape("passport_feed_lag_seconds") == 0
    assert scrape("passport_waiting_messages") == 1
    assert scrape("passport_audit_events") == 2


def test_a_lease_that_is_held_for_long_shows(world: World, scrape: Scrape) -> None:
    world.approve(world.submit("web-1"))
    assert scrape("passport_leases") == 0
    assert world.reconciler().claim(5, removals_only=False)
    world.clock.forward(seconds=90)
    assert timedelta(seconds=90) < LEASE
    assert scrape("passport_leases") == 1
    assert scrape("passport_lease_age_seconds") == 90


def test_a_database_that_is_away_is_said_to_be_away(
    world: World, scrape: Scrape, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: object) -> None:
        raise UnavailableError("The database does not answer.")

    monkeypatch.setattr(store, "unit_of_work", away)
    assert scrape("passport_database_up") == 0
    assert scrape("passport_requests") is None
    assert (scrape("process_resident_memory_bytes") or 0) > 1e6


def test_turns_are_timed_and_failures_counted() -> None:
    metrics, turned = Metrics(lambda: pytest.fail("no clock is needed")), threading.Event()
    turns = iter([UnavailableError("gone"), None])

    def turn() -> timedelta | None:
        found = next(turns)
        if found:
            raise found
        turned.set()
        return None

    loop = Loop("feed", metrics.measure("feed", turn))
    loop.start()
    assert turned.wait(10)
    loop.stop()
    samples = {s.name: s.value for family in metrics.registry.collect() for s in family.samples if s.labels.get("loop")}
    assert samples["passport_turn_seconds_count"] == 2
    assert samples["passport_turn_failures_total"] == 1


def test_strangers_are_counted_by_reason() -> None:
    metrics = Metrics(lambda: pytest.fail("no clock is needed"))
    refusals = CountedRefusals(metrics)
    members = Members(WebClient(), team_id="T0PASSPORT", clock=FakeClock(), refusals=refusals)
    for _ in range(2):
        with pytest.raises(StrangerError):
            members.refuse("guest")
    assert metrics.registry.get_sample_value("passport_deliveries_refused_total", {"reason": "guest"}) == 2


def test_passport_serve_shows_its_figures_logs_json_and_stops_when_told(tmp_path: Path) -> None:
    with Company(tmp_path) as company:
        company.aws.add_server("web-1", tags={"env": "prod"}, answers=answer)
        refusing = company.aws.add_server("db-2", tags={"env": "prod"}, answers=refuse_to_create)
        listen = f"127.0.0.1:{free_port()}"
        url = f"http://{listen}/metrics"
        settings = {"PASSPORT_METRICS_LISTEN": listen, "PASSPORT_LOG_FORMAT": "json"}
        serving = Serving(company, tmp_path / "passport", settings=settings)
        serving.run("migrate")
        serving.run("documents", "publish")
        serving.start()
        try:
            company.people["ana"].slack.command("/passport", "help")
            assert requests.post(f"{serving.url}/slack/events", data="command=x", timeout=5).status_code == 401
            assert figure(url, "passport_database_up") == 1
            assert figure(url, "passport_inventory_servers") == 2
            assert (figure(url, "passport_inventory_age_seconds") or 0) < 60
            assert figure(url, "passport_http_seconds_count", page="slack", status="200") == 1
            assert figure(url, "passport_deliveries_refused_total", reason="http 401") == 1
            assert (figure(url, "passport_turn_seconds_count", loop="reconciler") or 0) >= 1
            assert (figure(url, "passport_turn_seconds_count", loop="inventory") or 0) >= 1
            assert requests.get(f"{serving.url}/metrics", timeout=5).status_code == 404
            request_id = a_request_from_its_beginning_to_its_end(company, serving)
            wait_for(lambda: figure(url, "passport_end_lateness_seconds_count") == 1, "the end", seconds=90)
            see_what_the_request_left(url)
        finally:
            serving.stop()
        assert serving._process is not None
        assert serving._process.returncode == 0, signal.strsignal(-serving._process.returncode)
        said = [json.loads(line) for line in serving.log.read_text().splitlines()]
    assert said[-1]["message"] == "Passport has stopped"
    assert {line["level"] for line in said} <= {"INFO", "WARNING"}
    about = {line["message"].partition(":")[0].partition(" ")[2]: line.get("request_id") for line in said}
    assert about["took no answer at a response_url"] == request_id, "of a click"
    assert about["on prod-payments/eu-west-1/" + refusing.instance_id] == request_id, "of a piece of work"


def refuse_to_create(script: str, environment: Mapping[str, str]) -> Scripted:
    """A server whose sshd denies the user; nothing of it is left there."""
    makes = "SSM_NotAfter" in environment
    return refuses("create", "deny_users")(script, environment) if makes else answer(script, environment)


def a_request_from_its_beginning_to_its_end(company: Company, serving: Serving) -> str:
    """Ana asks for both servers, Ben approves; AWS throttles a call, and Slack loses the answer to the click."""
    serving.trust()
    ana, ben = company.people["ana"], company.people["ben"]
    for person in (ana, ben):
        company.link(person)
    asked = ana.slack.command(COMMAND, "request web-1 db-2 for 20s because INC-1: disk full").plain
    found = re.search(r"AR-[0-9A-Z]+", asked)
    assert found, asked
    card = wait_for(
        lambda: with_button(company.slack.messages(LEADS_CHANNEL), "review.approve", found[0]), "the card", seconds=60
    )
    company.aws.faults.throttle("SendCommand", times=1)
    company.slack.faults.fail("response_url", "internal_error", times=1)
    ben.slack.click(card, "review.approve")
    return found[0]


def see_what_the_request_left(url: str) -> None:
    """Each figure of installing.md that speaks of requests, from the process that did the work."""
    assert figure(url, "passport_requests", state="ended") == 1
    assert figure(url, "passport_opening_seconds_count") == 1
    assert figure(url, "passport_ended_requests_total", cause="expired") == 1
    for side, name in (("account", "short_lived_user"), ("route", "session_manager")):
        for act in ("provision", "remove"):
            assert (figure(url, "passport_step_seconds_count", side=side, name=name, act=act) or 0) >= 1
            assert (figure(url, "passport_steps_total", side=side, name=name, act=act, step="done") or 0) >= 1
    assert (figure(url, "passport_retries_total", side="account", name="short_lived_user", act="provision") or 0) >= 1
    for name in ("passport_feed_lag_events", "passport_feed_lag_seconds", "passport_lease_age_seconds"):
        wait_for(lambda: figure(url, name) == 0, f"{name} to be 0 again")  # noqa: B023
