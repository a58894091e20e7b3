"""Slack fails around a real `passport serve`: access ends all the same, and Slack is told everything, in order."""

import hashlib
import hmac
import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from access.model import AccessRequest
from handlers.members import UNKNOWN
from handlers.request import IN_ONE_LINE
from handlers.responding import NO_FORM
from sandbox.company import AUDIT_CHANNEL, COMMAND, LEADS_CHANNEL, Company, Employee
from sandbox.reading import wait_for, with_button
from sandbox.serving import Serving
from sandbox.slack import Delivery
from storage.unit_of_work import SqlStore
from tests.e2e.crash.record import Tables, channel_faults, channel_head, read_tables, record_faults
from tests.e2e.crash.steady_host import SteadyHost
from tests.stores import SEALER

PATIENCE = 60.0
LATEST = timedelta(seconds=15)  # after its end, on a slow machine
_REQUEST = re.compile(r"AR-[0-9A-Z]{4,8}")


class Office:
    """A company with one server, its Passport, and what can be seen of both from outside."""

    def __init__(self, company: Company, folder: Path, *, socket_mode: bool) -> None:
        self.company, self.slack = company, company.slack
        self.ana, self.ben, self.cleo = (company.people[name] for name in ("ana", "ben", "cleo"))
        self.host = SteadyHost()
        company.aws.add_server("web-1", tags={"env": "prod"}, answers=self.host.answer)
        self.passport = Serving(
            company, folder, socket_mode=socket_mode, settings={"PASSPORT_SLACK_ADMINS": self.ben.slack.id}
        )
        self._url = f"sqlite:///{folder}/passport.db"

    def open(self) -> None:
        """Set Passport up, and sign Ana and Ben in."""
        self.passport.run("migrate")
        self.passport.run("documents", "publish")
        self.passport.start()
        self.passport.trust()
        for person in (self.ana, self.ben):
            self.company.link(person)

    def ask(self, duration: str = "1h", *, who: Employee | None = None) -> str:
        """Ask for web-1; the request's id."""
        sent = (who or self.ana).slack.command(COMMAND, f"request web-1 for {duration} because INC-1")
        found = _REQUEST.search(sent.plain)
        assert found, sent
        return found[0]

    def approve(self, request_id: str) -> Delivery:
        """Ben says yes on the card."""
        card = wait_for(
            lambda: with_button(self.slack.messages(LEADS_CHANNEL), "review.approve", request_id),
            f"the card of {request_id}",
            seconds=PATIENCE,
        )
        return self.ben.slack.click(card, "review.approve")

    def has_access(self, request_id: str) -> bool:
        """Whether the server has the request's user."""
        return request_id in self.host.users.values()

    def wait_for_access(self, request_id: str, *, access: bool) -> None:
        """Until the server has the user, or has it no more."""
        what = f"{request_id} to {'open' if access else 'end'}"
        wait_for(lambda: self.has_access(request_id) == access, what, seconds=PATIENCE)

    def opened(self, duration: str) -> str:
        """A request that is open for so long."""
        request_id = self.ask(duration)
        assert self.approve(request_id).ok
        self.wait_for_access(request_id, access=True)
        return request_id

    def wait_for_end(self, request_id: str) -> None:
        """Until it is on record that the request has ended, which it has in time: by the server, and by the record."""
        wait_for(lambda: self.state(request_id) == "ended", f"the end of {request_id}", seconds=PATIENCE)
        request = self.request(request_id)
        removed = [d.at for d in self.host.deeds if (d.act, d.request_id, d.end) == ("remove", request_id, "ok")]
        assert request.expires_at
        assert request.ended_at
        assert datetime.fromtimestamp(removed[0], UTC) - request.expires_at < LATEST
        assert request.ended_at - request.expires_at < LATEST

    def tables(self) -> Tables:
        """The database, read beside the server."""
        store = SqlStore(self._url, sealing=SEALER, exclusive=False)
        try:
            return read_tables(store)
        finally:
            store.close()

    def request(self, request_id: str) -> AccessRequest:
        """The request as it stands."""
        return next(found for found in self.tables().requests if found.id == request_id)

    def state(self, request_id: str) -> str:
        """Where the request is."""
        return self.request(request_id).state.value

    def caught_up(self) -> None:
        """The audit channel has every event, once told, in order; and the tables say the same."""
        channel = self.company.slack
        wait_for(
            lambda: channel_head(channel.messages(AUDIT_CHANNEL)) == self.tables().head.sequence,
            "the audit channel to catch up",
            seconds=PATIENCE,
        )
        tables = self.tables()
        assert list(channel_faults(channel.messages(AUDIT_CHANNEL), tables.head)) == []
        assert list(record_faults(tables)) == []

    def told_closed(self, person: Employee, request_id: str) -> None:
        """The person reads that it is over."""
        wait_for(
            lambda: [m for m in person.slack.direct_messages() if request_id in m.plain and "Closed: " in m.plain],
            f"{person.email} to read that {request_id} is over",
            seconds=PATIENCE,
        )


@pytest.fixture(scope="module", params=["http", "sockets"])
def office(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    with Company(folder) as company:
        made = Office(company, folder / "passport", socket_mode=request.param == "sockets")
        try:
            made.open()
            yield made
        finally:
            made.passport.kill()


def test_slack_is_down_at_start_and_joined_later(office: Office) -> None:
    request_id = office.opened("12s")
    office.passport.kill()
    with office.slack.faults.down():
        office.passport.start(slack=False)  # it comes up, and is ready
        office.wait_for_access(request_id, access=False)
        office.wait_for_end(request_id)
        behind = channel_head(office.slack.messages(AUDIT_CHANNEL))
        assert behind < office.tables().head.sequence
    office.caught_up()
    office.told_closed(office.ana, request_id)
    wait_for(lambda: office.ana.slack.command(COMMAND, "help").ok, "Slack to be joined", seconds=PATIENCE)


def test_slack_goes_down_before_the_end_and_comes_back_after_it(office: Office) -> None:
    request_id = office.opened("6s")
    with office.slack.faults.down():
        assert office.ana.slack.command(COMMAND, "help").error == "dispatch_failed"
        office.wait_for_end(request_id)
        assert not office.has_access(request_id)
    office.caught_up()
    office.told_closed(office.ana, request_id)
    wait_for(lambda: office.ana.slack.command(COMMAND, "help").ok, "Slack to be joined", seconds=PATIENCE)


def test_slack_takes_two_seconds_for_everything(office: Office) -> None:
    for person in (office.ana, office.ben):
        assert person.slack.command(COMMAND, "help").ok  # from now on Slack need not be asked who they are
    office.slack.faults.slow(2.3)  # no call before an ack waits for more than two
    try:
        # Slack has to be asked who Cleo is: she is answered all the same.
        assert office.cleo.slack.command(COMMAND, "list").plain == UNKNOWN
        request_id = office.opened("6s")
        office.wait_for_access(request_id, access=False)
        office.wait_for_end(request_id)
        asked = office.ana.slack.command(COMMAND, "request")  # opens a form before the ack
        assert asked.plain == f"{NO_FORM} {IN_ONE_LINE}"
        office.slack.wait_until(office.ana.slack.view)  # as the sentence allows for
        office.ana.slack.close()
    finally:
        office.slack.faults.clear()
    assert {delivery.error for delivery in office.slack.deliveries[-5:]} == {None}
    office.told_closed(office.ana, request_id)
    office.caught_up()


def test_slack_limits_every_method_for_a_while(office: Office) -> None:
    request_id = office.ask("6s")
    office.slack.faults.rate_limit(None, retry_after=1, times=15)
    assert office.approve(request_id).ok
    office.wait_for_end(request_id)
    assert not office.has_access(request_id)
    office.told_closed(office.ana, request_id)
    office.caught_up()


def test_the_audit_channel_is_lost_and_the_requester_gone(office: Office, request: pytest.FixtureRequest) -> None:
    slack, ana = office.slack, office.ana.slack
    office.company.link(office.cleo)
    request_id = office.opened("8s")
    if "http" in request.node.name:
        slack.archive(AUDIT_CHANNEL)
    else:
        slack.leave(AUDIT_CHANNEL, slack.workspace.bot_user_id)
    slack.deactivate(ana.id)
    try:
        others = office.ask("6s", who=office.cleo)
        assert office.approve(others).ok
        office.told_closed(office.cleo, others)  # nobody waits for the channel, nor for Ana
        for ended in (request_id, others):
            office.wait_for_access(ended, access=False)
            office.wait_for_end(ended)
        wait_for(
            lambda: [m for m in office.ben.slack.direct_messages() if f"{AUDIT_CHANNEL} takes no messages" in m.plain],
            "the admin to be told",
            seconds=PATIENCE,
        )
        assert channel_head(slack.messages(AUDIT_CHANNEL)) < office.tables().head.sequence
    finally:
        workspace = slack.workspace
        workspace.put_member(replace(workspace.member(ana.id), deleted=False))
        workspace.put_channel(replace(workspace.channel(AUDIT_CHANNEL), archived=False))
        slack.join(AUDIT_CHANNEL, workspace.bot_user_id)
    office.caught_up()


def test_everything_comes_again_in_another_order(office: Office) -> None:
    seen = len(office.slack.deliveries)
    request_id = office.opened("1h")
    ready = wait_for(
        lambda: with_button(office.ana.slack.direct_messages(), "request.complete", request_id), "the button"
    )
    assert office.ana.slack.click(ready, "request.complete").ok
    office.wait_for_end(request_id)
    wait_for(lambda: office.slack.messages(AUDIT_CHANNEL), "the record")
    before = [found.event.kind for found in office.tables().events]
    again = [*office.slack.deliveries[seen:]] * 3
    random.Random(3).shuffle(again)
    sent = [office.slack.resend(delivery) for delivery in again]
    assert {delivery.error for delivery in sent} == {None}
    assert [found.event.kind for found in office.tables().events] == before
    assert not office.has_access(request_id)
    office.caught_up()


def test_slacks_endpoint_is_there_only_where_it_is_signed(office: Office, request: pytest.FixtureRequest) -> None:
    body = b"command=%2Fpassport&text=help&user_id=U0ANA&team_id=T0PASSPORT&trigger_id=1"
    stamp = str(int(time.time()))
    signature = "v0=" + hmac.new(b"", f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()  # of no secret
    headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}
    answer = requests.post(f"{office.passport.url}/slack/events", data=body, headers=headers, timeout=5)
    assert answer.status_code == (404 if "sockets" in request.node.name else 401)


def test_a_stop_hangs_up_and_a_start_is_back(office: Office) -> None:
    office.passport.stop()
    assert "Passport has stopped" in office.passport.log.read_text().splitlines()[-1]
    wait_for(lambda: office.slack.sockets.connections == 0, "the sockets to be closed")
    office.passport.start()
    assert office.ana.slack.command(COMMAND, "help").ok
