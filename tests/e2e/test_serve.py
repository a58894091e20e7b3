"""``passport serve`` as a process of its own: stopped, killed, attacked, looked into; with real servers behind it."""

import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests

from bot import settings as settings_module
from bot.serve import Passport
from sandbox.company import COMMAND, LEADS_CHANNEL, Company, Employee
from sandbox.hosts import HostWish
from sandbox.idp import Browser
from sandbox.reading import first_url, wait_for, with_button
from sandbox.serving import Serving
from sandbox.slack import Delivery, Message
from storage.errors import StoreBusyError

pytestmark = pytest.mark.hosts

SERVERS = (HostWish(name="web-1", init="systemd"), HostWish(name="db-2", init="cron"))
REQUEST = re.compile(r"AR-[0-9A-Z]{4,8}")


class Night:
    """Ana asks, Ben decides, and somebody looks after the process."""

    def __init__(self, company: Company, passport: Serving) -> None:
        self.company, self.passport = company, passport
        self.ana, self.ben = company.people["ana"], company.people["ben"]
        self.answers: list[str] = []  # what the identity provider said, base64
        self.links: list[str] = []

    def sign_in(self, who: Employee) -> None:
        """Link the Slack user, and keep what must never be in a log."""
        shown = who.slack.command(COMMAND, "link").message
        assert shown
        self.links.append(first_url(shown).rsplit("/", 1)[1])
        with Browser(runs_scripts=False) as browser:
            browser.open(first_url(shown)).press("Sign in")
            page = browser.sign_in_as(who.email)
            self.answers.append(page.forms[0].fields["SAMLResponse"])
            assert page.press("Continue").status == 200

    def ask(self, words: str) -> str:
        """Ana's request, pending."""
        answer = self.ana.slack.command(COMMAND, f"request {words} because INC-1: disk full")
        found = REQUEST.search(answer.plain)
        assert found, answer.plain
        return found[0]

    def approve(self, request_id: str) -> Delivery:
        """Ben says yes on the card."""
        card = wait_for(
            lambda: with_button(self.company.slack.messages(LEADS_CHANNEL), "review.approve", request_id),
            f"the card of {request_id}",
        )
        return self.ben.slack.click(card, "review.approve")

    def ready(self, request_id: str) -> Message:
        """The message that says that every server is open."""

        def look() -> Message | None:
            found = with_button(self.ana.slack.direct_messages(), "credentials.show", request_id)
            return None if found is None or "still being opened" in found.plain else found

        return wait_for(look, f"{request_id} to be ready")

    def closed(self, request_id: str) -> str:
        """What Ana reads when it is over."""
        told = self.ana.slack.direct_messages
        return wait_for(
            lambda: next((m.plain for m in told() if request_id in m.plain and "Closed: " in m.plain), None),
            f"{request_id} to end",
        )

    def events(self) -> list[dict[str, str]]:
        """The audit log, read beside the process."""
        with closing(sqlite3.connect(f"file:{self.passport._folder}/passport.db?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT kind, request_id, actor, hash FROM audit_events ORDER BY sequence")
            return [dict(zip(("kind", "request_id", "actor", "hash"), row, strict=True)) for row in rows]

    def restart(self) -> None:
        """Kill -9, and start again."""
        self.passport.kill()
        self.passport.start()


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with Company(tmp_path_factory.mktemp("company"), SERVERS) as company:
        yield company


@pytest.fixture(scope="module")
def serving(company: Company, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Set up once, with the most talkative log."""
    folder = tmp_path_factory.mktemp("passport")
    passport = Serving(company, folder, settings={"PASSPORT_LOG_LEVEL": "DEBUG"})
    passport.run("migrate")
    passport.run("documents", "publish")
    yield passport
    passport.kill()


@pytest.fixture(scope="module")
def once(company: Company, serving: Serving) -> Night:
    """Ana and Ben signed in."""
    serving.start()
    serving.trust()
    night = Night(company, serving)
    night.sign_in(night.ana)
    night.sign_in(night.ben)
    return night


@pytest.fixture
def night(once: Night) -> Iterator[Night]:
    """The night, with a running Passport."""
    before = once.passport.log.stat().st_size
    if once.passport._process is None or once.passport._process.poll() is not None:
        once.passport.start()
    yield once
    log = once.passport.log.read_bytes()[before:].decode()
    assert "Traceback" not in log, log


# --- Stopping and dying --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_peace(night: Night, how: signal.Signals) -> None:
    process = night.passport._process
    assert process is not None
    process.send_signal(how)
    assert process.wait(timeout=15) == 0
    assert night.passport.log.read_text().splitlines()[-1].endswith("Passport has stopped")
    assert night.passport.run("migrate").stdout == "The database is up to date.\n"  # it let go of the database


def test_what_is_asked_survives_a_kill_and_is_approved_afterwards(night: Night) -> None:
    request_id = night.ask("web-1 for 1h")
    night.restart()
    night.approve(request_id)
    night.ready(request_id)
    night.ana.slack.command(COMMAND, f"done {request_id}")
    assert "Closed: " in night.closed(request_id)
    kinds = [event["kind"] for event in night.events() if event["request_id"] == request_id]
    assert kinds[0] == "request.submitted"
    assert kinds[-1] == "request.ended"
    assert len([kind for kind in kinds if kind == "request.approved"]) == 1


def test_a_second_process_on_the_same_database_is_refused(night: Night) -> None:
    second = night.passport.run("serve", check=False)
    assert second.returncode == 1
    [line] = second.stderr.splitlines()
    assert "Another Passport process uses" in line
    assert requests.get(f"{night.passport.url}/healthz", timeout=5).status_code == 200


@pytest.mark.timeout(300)
def test_servers_end_access_alone_while_passport_is_dead(night: Night) -> None:
    request_id = night.ask("web-1 db-2 for 45s")
    night.approve(request_id)
    night.ready(request_id)
    user = f"pp-{request_id[3:].lower()}"
    night.passport.kill()
    uids = {name: int(host.run("id", "-u", user).stdout) for name, host in night.company.hosts.items()}
    for name, host in night.company.hosts.items():
        wait_for(lambda: not host.leftovers(user, uids[name], user), f"{name} to clean up", seconds=150)  # noqa: B023
        assert host.run("id", "-u", user).returncode == 1
    assert night.passport._process is not None
    assert night.passport._process.poll() is not None
    night.passport.start()
    assert "Closed: " in night.closed(request_id)
    ended = [event for event in night.events() if event["request_id"] == request_id][-1]
    assert ended["kind"] == "request.ended"


# --- Slack's signature ---------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_happens(night: Night) -> Iterator[None]:
    """The database is the same afterwards."""
    before = night.events()
    yield
    assert night.events() == before


def forged(night: Night, delivery: Delivery) -> list[Delivery]:
    """The delivery as those send it who do not know the signing secret, or too late."""
    resend, now = night.company.slack.resend, int(time.time())
    return [
        resend(delivery, signed=False),
        resend(delivery, timestamp=now - 60 * 6),
        resend(delivery, timestamp=now + 60 * 6),
        resend(delivery, signature="v0=" + "0" * 64),
        resend(delivery, signature=""),
        resend(delivery, body=delivery.body.replace(b"web-1", b"db-2")),
        resend(delivery, headers={"X-Slack-Request-Timestamp": str(now + 1)}),
        resend(delivery, headers={"X-Slack-Request-Timestamp": "soon"}),
        resend(delivery, headers={"X-Slack-Request-Timestamp": "9" * 12}),
        resend(delivery, body=b"\xff" + delivery.body),
        resend(delivery, signature="v0=é"),
    ]


def test_a_request_that_is_not_slacks_is_refused(night: Night) -> None:
    answer = night.ana.slack.command(COMMAND, "request web-1 for 1h because INC-2: again")
    found = REQUEST.search(answer.plain)
    assert found
    before = night.events()
    assert [sent.status for sent in forged(night, answer)] == [401] * 11
    assert night.events() == before
    again = night.company.slack.resend(answer)
    assert again.status == 200  # Slack's own retry: it is acknowledged, and counts once
    assert night.events() == before
    night.ana.slack.command(COMMAND, f"cancel {found[0]}")


def test_a_click_counts_once(night: Night) -> None:
    request_id = night.ask("web-1 for 1h")
    click = night.approve(request_id)
    night.ready(request_id)
    before = [event for event in night.events() if event["kind"] == "request.approved"]
    assert {sent.status for sent in forged(night, click)[:5]} == {401}
    assert night.company.slack.resend(click).status == 200
    assert [event for event in night.events() if event["kind"] == "request.approved"] == before
    night.ana.slack.command(COMMAND, f"done {request_id}")
    night.closed(request_id)


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 401),
        (b"{", 401),
        (b"payload=%7B%22type%22%3A%22block_actions%22%7D", 401),
        (b'{"type": "url_verification", "challenge": "x"}', 401),
        (b"ssl_check=1", 401),
        (b"\xff" * 1000, 401),
        (b"x" * 2_000_000, 413),
    ],
)
def test_noise_is_refused(night: Night, body: bytes, status: int) -> None:
    kind = "application/json" if body[:1] == b"{" else "application/x-www-form-urlencoded"
    answer = requests.post(f"{night.passport.url}/slack/events", data=body, headers={"Content-Type": kind}, timeout=10)
    assert answer.status_code == status


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/slack/events", 405),
        ("PUT", "/saml/acs", 405),
        ("GET", "/", 404),
        ("GET", "/link/", 404),
        ("GET", "/link/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/static/../bot/settings.py", 404),
    ],
)
def test_other_addresses_are_nothing(night: Night, method: str, path: str, status: int) -> None:
    answer = requests.request(method, f"{night.passport.url}{path}", timeout=10)
    assert answer.status_code == status
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "waitress" not in answer.headers.get("Server", "").lower()


# --- Secrets -------------------------------------------------------------------------------------------------------


def secrets_of(night: Night) -> dict[str, str]:
    """What nobody may read anywhere, by a name for the message."""
    environment = dict(night.passport._environment())
    return {
        **{name: value for name, value in environment.items() if name in night.passport._secrets},
        "sealing key": environment["PASSPORT_SEALING_KEYS"].split(":")[1],
        "AWS secret": environment["AWS_SECRET_ACCESS_KEY"],
        "SAML key": (night.passport._folder / "saml.key").read_text().splitlines()[5],
        **{f"SAMLResponse {number}": answer[200:260] for number, answer in enumerate(night.answers)},
        **{f"link {number}": token for number, token in enumerate(night.links)},
    }


def test_no_secret_is_in_the_log_or_the_arguments(night: Night) -> None:
    """After a story of every kind; the log is at DEBUG."""
    night.sign_in(night.ana)
    night.ana.slack.command(COMMAND, f"key add {night.ana.public_key}")
    request_id = night.ask("web-1 for 1h")
    night.approve(request_id)
    night.ana.slack.click(night.ready(request_id), "credentials.show")
    wait_for(lambda: any("ssh " in m.plain for m in night.ana.slack.ephemerals()), "the credentials")
    night.ana.slack.command(COMMAND, f"done {request_id}")
    night.closed(request_id)
    secrets = secrets_of(night)
    assert len(secrets) >= 9
    assert all(len(secret) >= 16 for secret in secrets.values())
    log, arguments = night.passport.log.read_text(), Path(f"/proc/{night.passport.pid}/cmdline").read_text()
    assert "passport" in arguments
    assert "Passport listens on" in log
    assert [name for name, secret in secrets.items() if secret in log] == []
    assert [name for name, secret in secrets.items() if secret in arguments] == []
    assert "SAMLResponse" not in log
    assert "BEGIN " not in log


def test_it_starts_no_processes_that_could_show_any(night: Night) -> None:
    tasks = Path(f"/proc/{night.passport.pid}/task")
    assert [children for task in tasks.iterdir() if (children := (task / "children").read_text())] == []


def test_its_files_are_for_its_user_alone(night: Night) -> None:
    folder = night.passport._folder
    for name in ("passport.db", "passport.db-wal", "passport.db.lock", "passport-ca.sealed", "ca.sealed"):
        if (folder / name).exists():
            assert (folder / name).stat().st_mode & 0o077 == 0, name
    assert b"PRIVATE KEY" not in (folder / "ca.sealed").read_bytes()


# --- Readiness, and starting and stopping by halves ----------------------------------------------------------------


@pytest.fixture
def in_this_process(
    company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Passport]]:
    """Makes a Passport of its own in this very process."""
    serving = Serving(company, tmp_path / "passport")
    serving.run("migrate")
    for name in [name for name in os.environ if name.startswith(("PASSPORT_", "AWS_"))]:
        monkeypatch.delenv(name)
    for name, value in serving._environment().items():
        monkeypatch.setenv(name, value)
    made: list[Passport] = []

    def make() -> Passport:
        made.append(Passport(settings_module.load()))
        return made[-1]

    yield make
    company.aws.faults.clear()
    for passport in made:
        passport.stop()


def test_what_never_started_can_be_stopped_and_lets_go_of_everything(in_this_process: Callable[[], Passport]) -> None:
    first = in_this_process()
    with pytest.raises(StoreBusyError):
        in_this_process()
    first.stop()
    first.stop()
    in_this_process()  # the database and the port are free again


def test_it_is_ready_only_with_loops_servers_and_a_database(
    in_this_process: Callable[[], Passport], company: Company, tmp_path: Path
) -> None:
    passport = in_this_process()
    assert passport._why_not_ready() == "The reconciler or the feed does not run. Restart Passport."
    company.aws.faults.fail("DescribeInstanceInformation", 500)
    company.aws.faults.fail("DescribeInstances", 500)
    passport.start()
    assert passport._why_not_ready() == "The servers have not been listed yet. Try again in a moment."
    company.aws.faults.clear()
    wait_for(lambda: not passport._why_not_ready(), "the servers to be listed")
    with closing(sqlite3.connect(tmp_path / "passport" / "passport.db")) as database, database:
        (newest,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = '0001'")
    assert "run `passport migrate`" in passport._why_not_ready()
    with closing(sqlite3.connect(tmp_path / "passport" / "passport.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (newest,))
    assert passport._why_not_ready() == ""
    passport._feed_loop.stop()
    assert "does not run" in passport._why_not_ready()
