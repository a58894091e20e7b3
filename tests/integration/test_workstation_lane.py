"""Waiting tunnels never delay Slack: told by who is answered while they wait, not by a clock."""

import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import requests
import waitress
from flask import Response, request

from access.model import SlackUser
from access.ports import Store, Tunnel, TunnelOrder
from bot.proxies import TrustedProxies
from bot.signatures import SignedOnly
from provisioning.tunnels import MOST_A_PERSON, StartedTunnels
from tests.integration.aws_desk import aws_desk
from tests.integration.workstation_lab import Lab, Laptop, Replica, said
from tests.values import a_person

SECRET = "0123456789abcdef0123456789abcdef"
WIDTH, SLACK = 6, 2  # threads of the lane, and Slack's own


class Gate:
    """StartSession, which does not come back until the test lets it."""

    def __init__(self, started: StartedTunnels) -> None:
        self._really = started._called
        self.waiting = threading.Semaphore(0)
        self.opened = threading.Event()
        started._called = self.called  # type: ignore[method-assign]

    def called(self, order: TunnelOrder) -> Tunnel:
        self.waiting.release()
        assert self.opened.wait(timeout=60)
        return self._really(order)


@pytest.fixture
def lab(sqlite_store: Store) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch, aws_desk(patch) as desk:
        lab = Lab(desk, sqlite_store)
        lab.server("web-1")
        yield lab


class Endpoint:
    """Bolt's place: what matters here is which thread answers."""

    def handle(self, req: object) -> Response:
        return Response("helped")


def help_me(url: str) -> str:
    body, now = "command=%2Fpassport&text=help", str(int(time.time()))
    digest = hmac.new(SECRET.encode(), f"v0:{now}:{body}".encode(), hashlib.sha256).hexdigest()
    headers = {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": f"v0={digest}"}
    return requests.post(f"{url}/slack/events", data=body, headers=headers, timeout=60).text


def ready_people(lab: Lab, replica: Replica, count: int) -> list[Laptop]:
    """People, each with a key and web-1 open."""
    laptops = []
    for number in range(count):
        slack_user = SlackUser(team_id="T0PASSPORT", user_id=f"U0P{number}")
        person = lab.world.add_person(a_person(f"Person{number} Name"), slack_user)
        request = lab.world.submit("web-1", who=slack_user)
        lab.world.approve(request)
        laptops.append(Laptop(replica, address=f"203.0.113.{number}"))
        lab.register(laptops[-1], person.id)
    lab.reconcile()
    return laptops


def test_slack_is_answered_while_every_place_of_the_lane_waits_for_aws(lab: Lab) -> None:
    replica = Replica(lab, width=WIDTH)
    slack = SignedOnly(Endpoint(), SECRET)
    replica.app.post("/slack/events")(lambda: slack.handle(request))
    gate = Gate(replica.started)
    server = waitress.create_server(
        TrustedProxies(replica.app.wsgi_app, ["127.0.0.1"]), host="127.0.0.1", port=0, threads=WIDTH + SLACK
    )
    replica.url = f"http://127.0.0.1:{server.effective_port}"
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    replica.started.start()
    laptops = ready_people(lab, replica, WIDTH + 1)
    forms = [laptop.proof("tunnel", "web-1") for laptop in laptops]
    with ThreadPoolExecutor(WIDTH) as pool:
        waiting = [
            pool.submit(laptop.send, "tunnel", form) for laptop, form in zip(laptops[:-1], forms[:-1], strict=True)
        ]
        for _ in range(WIDTH):
            assert gate.waiting.acquire(timeout=60)
        try:
            assert help_me(replica.url) == "helped"  # every place of the lane is taken, and none is free before this
            full = laptops[-1].send("tunnel", forms[-1])
            assert (full["http"], full["status"], full["retry_in"]) == (["503"], ["busy"], ["1"])
            assert [help_me(replica.url) for _ in range(SLACK * 3)] == ["helped"] * SLACK * 3
            assert not any(each.done() for each in waiting)
        finally:
            gate.opened.set()
        assert [each.result(timeout=60)["status"] for each in waiting] == [["ready"]] * WIDTH
    assert laptops[-1].send("tunnel", forms[-1])["status"] == ["ready"]  # the proof was not used up
    replica.started.stop()
    server.close()
    serving.join(timeout=10)


def test_one_person_takes_only_so_many_places(lab: Lab) -> None:
    with lab.serving() as replica:
        gate = Gate(replica.started)
        greedy, modest = ready_people(lab, replica, 2)
        forms = [greedy.proof("tunnel", "web-1") for _ in range(MOST_A_PERSON + 1)]
        with ThreadPoolExecutor(MOST_A_PERSON + 1) as pool:
            waiting = [pool.submit(greedy.send, "tunnel", form) for form in forms[:-1]]
            for _ in range(MOST_A_PERSON):
                assert gate.waiting.acquire(timeout=60)
            seventh = greedy.send("tunnel", forms[-1])
            assert said(seventh) == f"busy: {MOST_A_PERSON} tunnels of yours are being opened just now. I try again."
            other = pool.submit(modest.ask, "tunnel", "web-1")
            assert gate.waiting.acquire(timeout=60)  # the other person's is under way
            gate.opened.set()
            assert {each.result(timeout=60)["status"][0] for each in [*waiting, other]} == {"ready"}
        assert greedy.send("tunnel", forms[-1])["status"] == ["ready"]


def test_who_no_longer_waits_has_no_session(lab: Lab) -> None:
    with lab.serving(patience=timedelta(seconds=0.2)) as replica:
        gate = Gate(replica.started)
        (laptop,) = ready_people(lab, replica, 1)
        assert laptop.ask("tunnel", "web-1")["status"] == ["busy"]
        assert gate.waiting.acquire(timeout=60)
        ended = threading.Event()
        really = lab.book.end
        lab.book.end = lambda *words: (really(*words), ended.set())  # type: ignore[method-assign, assignment, func-returns-value]
        gate.opened.set()  # AWS answers after all
        assert ended.wait(timeout=60)
        assert len(lab.sessions()) == 1 and not lab.open()
