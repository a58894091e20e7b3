"""SIGTERM in the middle of everything: what is under way is finished, and nothing is kept from another replica."""

import re
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.company import COMMAND, LEADS_CHANNEL, Company
from sandbox.reading import wait_for, with_button
from sandbox.serving import Serving
from sandbox.slack import Message
from sandbox.slack.wire import Json
from tests.integration.aws_desk import answer

STOPPED = "Passport has stopped"
SLOW = 3.0  # seconds: longer than a stop takes when nothing is under way


class Late:
    """Something outside that takes its time over one call."""

    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()

    def hold(self) -> None:
        self.asked.set()
        assert self.answers.wait(30)


def late_command(company: Company, monkeypatch: pytest.MonkeyPatch) -> Late:
    late, before = Late(), company.aws.faults.before

    def held_back(operation: str, account: str, region: str) -> None:
        if operation == "SendCommand":
            late.hold()
        before(operation, account, region)

    monkeypatch.setattr(company.aws.faults, "before", held_back)
    return late


def late_card(company: Company, monkeypatch: pytest.MonkeyPatch) -> Late:
    late, answer = Late(), company.slack._api.answer

    def held_back(name: str, content_type: str, body: bytes, bearer: str | None) -> Json:
        if name == "chat.postMessage" and b"review.approve" in body:
            late.hold()
        return answer(name, content_type, body, bearer)

    monkeypatch.setattr(company.slack._api, "answer", held_back)
    return late


@pytest.mark.timeout(300)
def test_sigterm_finishes_what_is_under_way_and_gives_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Company(tmp_path / "company") as company:
        company.aws.add_server("web-1", tags={"env": "prod"}, answers=answer)
        passport = Serving(company, tmp_path / "passport")
        passport.run("migrate")
        passport.run("documents", "publish")
        passport.start()
        try:
            stop_in_the_middle(company, passport, tmp_path / "passport" / "passport.db", monkeypatch)
        finally:
            passport.kill()


def stop_in_the_middle(company: Company, passport: Serving, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a command that is being sent; of a click that is being answered; of a card that is being posted."""
    passport.trust()
    ana, ben = company.people["ana"], company.people["ben"]
    for person in (ana, ben):
        company.link(person)
    working, decided, kept = ask(company), ask(company), ask(company)
    sending = late_command(company, monkeypatch)
    ben.slack.click(card(company, working), "review.approve")
    assert sending.asked.wait(30)
    wait_for(lambda: said_to_ben(company, working), "the first click to be answered")
    keep_a_lease(database, kept)
    terminate_while(passport, sending)
    see_it_stopped(passport, database)

    start(passport)
    ready = wait_for(
        lambda: with_button(ana.slack.direct_messages(), "credentials.show", working), "the server", seconds=90
    )
    assert working in ready.plain
    company.slack.faults.slow(SLOW, "response_url", times=1)
    ben.slack.click(card(company, decided), "review.approve")
    terminate(passport)
    wait_for(lambda: has_stopped(passport), "the stop", seconds=20)
    assert said_to_ben(company, decided), "the click was not answered"
    see_it_stopped(passport, database)

    start(passport)
    posting = late_card(company, monkeypatch)
    shown = ask(company)
    assert posting.asked.wait(30)
    terminate_while(passport, posting)
    see_it_stopped(passport, database)
    [posted] = [message for message in company.slack.messages(LEADS_CHANNEL) if shown in message.plain]
    assert posted.ts in timestamps(database, shown), "where the card is was not kept: it would be posted again"


def start(passport: Serving) -> None:
    passport.log.write_text("")
    passport.start(seconds=60)


def terminate(passport: Serving) -> None:
    assert passport._process is not None
    passport._process.terminate()


def terminate_while(passport: Serving, late: Late) -> None:
    """It waits for the call, and stops once that is answered."""
    terminate(passport)
    try:
        with pytest.raises(TimeoutError):
            wait_for(lambda: has_stopped(passport), "a stop in the middle of a call", seconds=3)
    finally:
        late.answers.set()
    wait_for(lambda: has_stopped(passport), "the stop", seconds=20)


def has_stopped(passport: Serving) -> bool:
    return STOPPED in passport.log.read_text()


def see_it_stopped(passport: Serving, database: Path) -> None:
    """In time, and what another replica needs is free."""
    assert passport._process is not None
    assert passport._process.wait(timeout=20) == 0
    assert has_stopped(passport)
    assert leases(database) == []
    assert feeds_until(database) <= datetime.now(UTC)


def ask(company: Company) -> str:
    said = company.people["ana"].slack.command(COMMAND, "request web-1 for 1h because INC-1: disk full").plain
    found = re.search(r"AR-[0-9A-Z]+", said)
    assert found, said
    return found[0]


def card(company: Company, request_id: str) -> Message:
    return wait_for(
        lambda: with_button(company.slack.messages(LEADS_CHANNEL), "review.approve", request_id), "the card", seconds=90
    )


def said_to_ben(company: Company, request_id: str) -> bool:
    return any(request_id in message.plain for message in company.people["ben"].slack.ephemerals())


def keep_a_lease(database: Path, request_id: str) -> None:
    """As a piece of work does that breaks in a way nobody foresaw."""
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        connection.execute(
            "UPDATE requests SET lease_owner = 'sandbox', lease_until = lapses_at WHERE id = ?", (request_id,)
        )


def timestamps(database: Path, request_id: str) -> list[str]:
    """Of the messages that follow the request."""
    with closing(sqlite3.connect(database)) as connection:
        return [ts for (ts,) in connection.execute("SELECT ts FROM posts WHERE request_id = ?", (request_id,))]


def leases(database: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT id, lease_owner FROM requests WHERE lease_owner IS NOT NULL").fetchall()


def feeds_until(database: Path) -> datetime:
    """Until when the feed's role is taken."""
    with closing(sqlite3.connect(database)) as connection:
        (until,) = connection.execute("SELECT until FROM audit_readers WHERE reader = 'slack'").fetchone()
    return datetime.fromisoformat(str(until)).replace(tzinfo=UTC)
