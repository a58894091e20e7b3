"""The command line: what each command prints, its exit status, and one plain line where something is wrong."""

import base64
import json
import logging
import os
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from access.audit import Head, chain
from bot import cli
from provisioning.documents import documents
from sandbox.aws import EXTERNAL_ID, AwsDouble
from sandbox.idp import IdentityProviderDouble
from sandbox.idp.keys import new_key_pair
from storage.migrations import migrate
from storage.unit_of_work import SqlStore
from tests.stores import SEALER
from tests.world import World

TOKEN, SIGNING = "xoxb-1234567890-secretsecret", "0123456789abcdef" * 2
KEY = "k1:" + base64.b64encode(b"s" * 32).decode()
CONFIG = """
public_url = "http://127.0.0.1:{port}"
listen = "127.0.0.1:{port}"
slack_team_id = "T0PASSPORT"
slack_audit_channel = "C0AUDIT"
slack_api_url = "http://127.0.0.1:1/api/"
saml_key_file = "saml.key"
saml_certificate_file = "saml.crt"

[[providers]]
name = "okta"
metadata_file = "idp.xml"

[[accounts]]
name = "prod-payments"
id = "{account}"
regions = ["{region}"]

[[rules]]
name = "prod-root"
groups = ["payments"]
reviewers = ["payments-leads"]
tell = ["C0LEADS"]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the settings name."""
    folder, keys, idp = tmp_path_factory.mktemp("passport"), new_key_pair("passport"), IdentityProviderDouble()
    (folder / "saml.key").write_bytes(keys.key_pem)
    (folder / "saml.crt").write_bytes(keys.certificate_pem)
    (folder / "idp.xml").write_bytes(idp.metadata)
    idp.close()
    return folder


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, files: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of somebody who runs Passport, with everything but a database."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("PASSPORT_", "AWS_"))]:
        monkeypatch.delenv(name)
    for path in files.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "passport.toml").write_text(CONFIG.format(port=port, account="123456789012", region="eu-west-1"))
    monkeypatch.setenv("PASSPORT_SLACK_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("PASSPORT_SLACK_SIGNING_SECRET", SIGNING)
    monkeypatch.setenv("PASSPORT_SEALING_KEYS", KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ran]]:
    """Runs ``passport …`` in this process, and puts logging back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in list(logging.root.manager.loggerDict)}

    def running(*words: str) -> Ran:
        capsys.readouterr()
        try:
            status = cli.main(words)
        except SystemExit as exit_:  # argparse
            status = int(exit_.code or 0)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        assert not [secret for secret in (TOKEN, SIGNING, KEY[3:]) if secret in printed.out + printed.err]
        return Ran(status=status, out=printed.out, err=printed.err)

    yield running
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


def process(*words: str, **extra: str) -> Ran:
    """Run ``passport …`` as a process of its own; every warning is an error, but for sockets left to a dying one."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-m", "bot", *words],
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), **extra},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(status=done.returncode, out=done.stdout, err=done.stderr)


def one_line(ran: Ran) -> str:
    """The one line that a command stops with."""
    assert (ran.status, ran.out) == (1, "")
    [line] = ran.err.splitlines()
    assert line.startswith("passport: ")
    return line.removeprefix("passport: ")


@pytest.fixture
def recorded(sqlite_url: str) -> int:
    """A database (the settings' own) with a story in its log; how many events that is."""
    store = SqlStore(sqlite_url, sealing=SEALER)
    world = World(store)
    world.approve(world.submit())
    world.reconcile()
    world.submit("db-2")
    count = len(world.kinds())
    store.close()
    assert count >= 6
    return count


# --- Help, settings ------------------------------------------------------------------------------------------------


def test_help_says_what_there_is(run: Callable[..., Ran]) -> None:
    said = run("--help")
    assert said.status == 0
    for words in ("Short, audited access to servers", "serve", "migrate", "documents", "audit", "answer Slack"):
        assert words in said.out
    assert "usage: passport" in said.out
    for command in ("serve", "migrate", "documents", "audit"):
        assert run(command, "--help").status == 0
    assert "SEQUENCE:HASH" in run("audit", "verify", "--help").out


@pytest.mark.parametrize("words", [[], ["dance"], ["documents"], ["documents", "burn"], ["audit"], ["serve", "now"]])
def test_words_that_mean_nothing_are_explained(run: Callable[..., Ran], words: list[str]) -> None:
    said = run(*words)
    assert (said.status, said.out) == (2, "")
    assert "usage: passport" in said.err


def test_the_console_script_and_the_module_are_the_same() -> None:
    assert "usage: passport" in process("--help").out
    script = subprocess.run([Path(sys.executable).with_name("passport"), "--help"], capture_output=True, check=True)
    assert b"usage: passport" in script.stdout


@pytest.mark.parametrize(
    "words", [["serve"], ["migrate"], ["documents", "show"], ["audit", "export"], ["audit", "verify"]]
)
def test_every_command_stops_at_a_wrong_setting(
    run: Callable[..., Ran], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSPORT_DATABASE_URL", "mysql://root:hunter22@db/passport")
    monkeypatch.setenv("PASSPORT_LISTEN", "nowhere")
    said = one_line(run(*words))
    assert said.startswith("The setting listen is wrong")
    assert "hunter22" not in said


@pytest.mark.parametrize("words", [["serve"], ["migrate"], ["audit", "export"], ["audit", "verify"]])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://root:hunter22@db/passport", "Passport knows sqlite and postgresql"),
        ("nonsense", "The database URL cannot be read"),
        ("sqlite:////no/such/folder/passport.db", ""),
        ("postgresql://passport:hunter22@127.0.0.1:1/passport", "The database does not answer"),
    ],
)
def test_a_database_that_cannot_be_used(
    run: Callable[..., Ran], words: list[str], url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSPORT_DATABASE_URL", url)
    line = one_line(run(*words))
    assert said in line
    assert "hunter22" not in line


# --- migrate, serve ------------------------------------------------------------------------------------------------


def test_migrating_twice_is_fine(run: Callable[..., Ran], folder: Path) -> None:
    for _ in range(2):
        assert run("migrate") == Ran(status=0, out="The database is up to date.\n", err="")
    assert stat.S_IMODE((folder / "passport.db").stat().st_mode) == 0o600


def test_serving_an_unmigrated_database_is_refused() -> None:
    assert "run `passport migrate`" in one_line(process("serve"))


def test_serving_an_older_database_is_refused(folder: Path) -> None:
    migrate(f"sqlite:///{folder}/passport.db", to="0001")
    assert "not at this version's schema: run `passport migrate`" in one_line(process("serve"))


def test_a_database_in_use_is_refused(folder: Path, sqlite_url: str, run: Callable[..., Ran]) -> None:
    running = SqlStore(sqlite_url, sealing=SEALER)
    try:
        for said in (one_line(process("serve")), one_line(run("migrate"))):
            assert f"Another Passport process uses {folder}/passport.db" in said.replace(
                " passport.db", f" {folder}/passport.db"
            )
            assert "stop that process" in said
        assert run("audit", "verify").status == 0  # beside the server
    finally:
        running.close()


def test_a_port_in_use_is_refused(sqlite_url: str, port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        said = one_line(process("serve"))
    assert f"Passport cannot listen on 127.0.0.1:{port}" in said
    assert "See the setting listen." in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("saml.key", None, "The file of the setting saml_key_file cannot be read: saml.key: No such file"),
        ("saml.key", "not a key", "SAML cannot be set up"),
        ("saml.crt", "not a certificate", "SAML cannot be set up"),
        ("idp.xml", "<not>metadata</not>", "SAML cannot be set up"),
        ("passport-ca.sealed", "not sealed", "is not a sealed value"),
        ("passport-ca.sealed", "\udcff", "ca_key_file"),
    ],
)
def test_a_file_that_will_not_do_is_named(
    folder: Path, sqlite_url: str, name: str, content: str | None, said: str
) -> None:
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_bytes(content.encode(errors="surrogateescape"))
    assert said in one_line(process("serve"))


def test_a_ca_that_another_sealing_key_sealed_is_named(folder: Path, sqlite_url: str) -> None:
    SEALER.seal_file(folder / "passport-ca.sealed", b"secret", purpose="ssh-ca")
    assert "sealed with the key test, which is not among the sealing keys" in one_line(process("serve"))


# --- documents -----------------------------------------------------------------------------------------------------


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, folder: Path, port: int) -> Iterator[AwsDouble]:
    with AwsDouble() as aws:
        for name, value in aws.environment("admin").items():
            monkeypatch.setenv(name, value)
        (folder / "passport.toml").write_text(CONFIG.format(port=port, account=aws.account, region=aws.region))
        yield aws


def test_documents_are_published_once_and_checked(run: Callable[..., Ran], aws: AwsDouble) -> None:
    place = f"prod-payments {aws.region}"
    missing = run("documents", "check")
    assert missing.status == 1
    assert f"{place}: The document Passport-CreateUser is not there: run passport documents publish." in missing.out
    published = run("documents", "publish")
    assert (published.status, published.err) == (0, "")
    names = "Passport-CreateUser, Passport-RemoveUser, Passport-Probe"
    names += ", Passport-CreateWindowsUser, Passport-RemoveWindowsUser, Passport-ProbeWindows"
    assert published.out == f"{place}: published {names}\n"
    for act in ("publish", "check"):
        assert run("documents", act) == Ran(status=0, out=f"{place}: all documents are up to date\n", err="")


def test_an_admin_publishes_as_a_role_of_their_own(
    run: Callable[..., Ran], aws: AwsDouble, folder: Path, port: int
) -> None:
    text = CONFIG.format(port=port, account="222222222222", region=aws.region)
    role = f'role_arn = "arn:aws:iam::222222222222:role/PassportServers"\nexternal_id = "{EXTERNAL_ID}"'
    (folder / "passport.toml").write_text(text.replace('id = "222222222222"', f'id = "222222222222"\n{role}'))
    assert "publish with --role PassportPublisher" in one_line(run("documents", "publish"))
    published = run("documents", "publish", "--role", "PassportPublisher")
    assert published.out == f"prod-payments {aws.region}: published {', '.join(each.name for each in documents())}\n"


def test_the_template_needs_no_settings(run: Callable[..., Ran], folder: Path) -> None:
    (folder / "passport.toml").unlink()
    shown = run("documents", "template")
    assert (shown.status, shown.err) == (0, "")
    assert set(json.loads(shown.out)["Resources"]) == {document.name for document in documents("")}


def test_documents_can_be_shown_without_aws(run: Callable[..., Ran]) -> None:
    shown = run("documents", "show")
    assert shown.status == 0
    told = [json.loads(line) for line in shown.out.splitlines()]
    assert [document["mainSteps"][0]["name"] for document in told] == ["create", "remove", "probe"] * 2


def test_the_wrong_account_is_refused(run: Callable[..., Ran], aws: AwsDouble, folder: Path, port: int) -> None:
    (folder / "passport.toml").write_text(CONFIG.format(port=port, account="999999999999", region=aws.region))
    said = one_line(run("documents", "publish"))
    assert f"are of AWS account {aws.account}, and the settings say 999999999999" in said


@pytest.mark.parametrize("operation", ["GetDocument", "CreateDocument"])
def test_what_aws_refuses_is_one_line(run: Callable[..., Ran], aws: AwsDouble, operation: str) -> None:
    aws.faults.fail(operation, 400)
    assert "Passport-CreateUser" in one_line(run("documents", "publish"))


def test_aws_away_is_one_line(run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    said = one_line(run("documents", "check"))
    assert "Passport finds no AWS credentials for prod-payments" in said
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-aws")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    said = one_line(run("documents", "check"))
    assert "AWS does not answer in prod-payments" in said
    assert "secret-of-aws" not in said


# --- audit export --------------------------------------------------------------------------------------------------


def test_the_export_is_a_json_object_a_line(run: Callable[..., Ran], recorded: int) -> None:
    exported = run("audit", "export")
    assert (exported.status, exported.err) == (0, f"Wrote {recorded} events.\n")
    events = [json.loads(line) for line in exported.out.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, recorded + 1))
    assert events[0].keys() == {
        "sequence", "previous", "at", "kind", "actor", "actor_name", "request_id", "server", "details", "hash",
    }  # fmt: skip
    assert all(after["previous"] == before["hash"] for before, after in pairwise(events))


def test_the_export_to_a_file_is_for_its_owner_alone(run: Callable[..., Ran], recorded: int, folder: Path) -> None:
    for _ in range(2):
        exported = run("audit", "export", "--output", "log.jsonl")
        assert exported == Ran(status=0, out="", err=f"Wrote {recorded} events.\n")
    lines = (folder / "log.jsonl").read_text().splitlines()
    assert lines == run("audit", "export").out.splitlines()
    assert stat.S_IMODE((folder / "log.jsonl").stat().st_mode) == 0o600


def test_an_export_that_cannot_be_written_is_one_line(run: Callable[..., Ran], recorded: int) -> None:
    said = one_line(run("audit", "export", "--output", "no/such/folder/log.jsonl"))
    assert said == "no/such/folder/log.jsonl cannot be written: No such file or directory."


@pytest.mark.parametrize("act", ["export", "verify"])
def test_a_log_that_is_not_there_yet(run: Callable[..., Ran], act: str, folder: Path) -> None:
    assert "run `passport migrate`" in one_line(run("audit", act))
    assert not (folder / "passport.db").exists()


def test_exporting_keeps_nobody_from_writing(run: Callable[..., Ran], recorded: int, sqlite_url: str) -> None:
    writer = SqlStore(sqlite_url, sealing=SEALER)
    try:
        with writer.unit_of_work():  # holds SQLite's write lock
            assert run("audit", "export").status == 0
            assert run("audit", "verify").status == 0
    finally:
        writer.close()


# --- audit verify --------------------------------------------------------------------------------------------------


@dataclass
class Vandal:
    """Somebody with the database file, who has dropped the triggers."""

    path: Path
    head: str  # as the channel saw it

    def sql(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.path)) as database, database:
            for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                database.execute(f'DROP TRIGGER "{trigger}"')
            assert database.execute(statement, values).rowcount > 0

    def rechain(self, url: str) -> None:
        """Give every event the hash that would be right."""
        store = SqlStore(url, sealing=SEALER)
        with store.unit_of_work(read_only=True) as uow:
            events, head = list(uow.audit.all()), Head()
        store.close()
        for found in events:
            link = chain(head, found.event)
            head = Head(sequence=link.sequence, hash=link.hash)
            self.sql(
                "UPDATE audit_events SET previous = ?, hash = ? WHERE sequence = ?",
                link.previous,
                link.hash,
                link.sequence,
            )
        self.move_head(head)

    def move_head(self, head: Head) -> None:
        self.sql("UPDATE audit_head SET sequence = ?, hash = ?", head.sequence, head.hash)


@pytest.fixture
def vandal(recorded: int, folder: Path, run: Callable[..., Ran]) -> Vandal:
    whole = run("audit", "verify")
    assert whole.status == 0
    assert whole.out.startswith(f"The audit log is whole: {recorded} events. Head {recorded}:")
    return Vandal(path=folder / "passport.db", head=whole.out.split()[-1])


NOT_WHOLE = "The audit log is NOT whole."


def test_a_whole_log_is_whole_against_the_channel(run: Callable[..., Ran], vandal: Vandal, recorded: int) -> None:
    whole = run("audit", "verify", "--head", vandal.head.upper())
    assert whole.status == 0
    assert f"and holds what the channel saw at event {recorded}." in whole.out


def test_an_empty_log_is_whole(run: Callable[..., Ran], sqlite_url: str) -> None:
    assert run("audit", "verify").out == f"The audit log is whole: 0 events. Head 0:{'0' * 64}\n"


def test_an_altered_event_is_found(run: Callable[..., Ran], vandal: Vandal) -> None:
    vandal.sql("UPDATE audit_events SET actor_name = 'Somebody Else' WHERE sequence = 2")
    said = run("audit", "verify")
    assert said.status == 1
    assert "Event 2 was altered: its content does not match its hash.\n" in said.out
    assert NOT_WHOLE in said.out


def test_an_altered_hash_is_found(run: Callable[..., Ran], vandal: Vandal) -> None:
    vandal.sql("UPDATE audit_events SET hash = ? WHERE sequence = 2", "0" * 64)
    said = run("audit", "verify")
    assert said.status == 1
    assert "Event 2 was altered" in said.out
    assert "Event 3 does not follow event 2" in said.out


def test_a_missing_event_is_found(run: Callable[..., Ran], vandal: Vandal) -> None:
    vandal.sql("DELETE FROM audit_events WHERE sequence = 2")
    said = run("audit", "verify")
    assert said.status == 1
    assert "Between event 1 and event 3 something is missing." in said.out


def test_an_event_that_cannot_be_read_is_one_line(run: Callable[..., Ran], vandal: Vandal) -> None:
    vandal.sql("UPDATE audit_events SET details = 'no JSON' WHERE sequence = 2")
    assert "holds an event that Passport did not write so" in one_line(run("audit", "verify"))


def test_a_chain_written_anew_is_found_against_the_channel(
    run: Callable[..., Ran], vandal: Vandal, sqlite_url: str, recorded: int
) -> None:
    vandal.sql("UPDATE audit_events SET actor_name = 'Somebody Else' WHERE sequence = 2")
    vandal.rechain(sqlite_url)
    assert run("audit", "verify").status == 0  # only the outside witness can tell
    said = run("audit", "verify", "--head", vandal.head)
    assert said.status == 1
    assert f"Event {recorded} is not the one the channel saw: the chain was rewritten." in said.out


def test_an_end_cut_off_is_found(run: Callable[..., Ran], vandal: Vandal, recorded: int) -> None:
    vandal.sql("DELETE FROM audit_events WHERE sequence = ?", recorded)
    said = run("audit", "verify")
    assert said.status == 1
    assert f"The log's own head is event {recorded}, which is not there: the end is cut off." in said.out


def test_an_end_cut_off_with_care_is_found_against_the_channel(
    run: Callable[..., Ran], vandal: Vandal, recorded: int, sqlite_url: str
) -> None:
    vandal.sql("DELETE FROM audit_events WHERE sequence = ?", recorded)
    vandal.rechain(sqlite_url)
    assert run("audit", "verify").status == 0
    said = run("audit", "verify", "--head", vandal.head)
    assert said.status == 1
    assert f"The log ends at event {recorded - 1}, the channel saw event {recorded}: the end is cut off." in said.out


def test_everything_gone_is_found_against_the_channel(run: Callable[..., Ran], vandal: Vandal) -> None:
    vandal.sql("DELETE FROM audit_events")
    vandal.move_head(Head())
    assert run("audit", "verify", "--head", vandal.head).status == 1


@pytest.mark.parametrize("head", ["", "12", "12:abc", f"x:{'0' * 64}", f"-1:{'0' * 64}", f"1:{'g' * 64}"])
def test_a_head_that_is_none_is_explained(run: Callable[..., Ran], head: str) -> None:
    said = run("audit", "verify", f"--head={head}")
    assert (said.status, said.out) == (2, "")
    assert "a head is SEQUENCE:HASH, as the audit channel shows it" in said.err


def test_a_head_of_another_log_is_found(run: Callable[..., Ran], vandal: Vandal) -> None:
    assert run("audit", "verify", "--head", f"{vandal.head.split(':')[0]}:{'a' * 64}").status == 1


def test_what_was_recorded_before_is_still_there(vandal: Vandal, sqlite_url: str, run: Callable[..., Ran]) -> None:
    """A head from the channel stays good while the log grows."""
    store = SqlStore(sqlite_url, sealing=SEALER)
    world = World(store)
    world.inventory.servers = [replace(server, name="web-9") for server in world.inventory.servers[:1]]
    world.submit("web-9")
    store.close()
    assert run("audit", "verify", "--head", vandal.head).status == 0
