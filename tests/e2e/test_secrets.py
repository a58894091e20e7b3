"""A search for secrets by value: the whole demo, then everything that it left behind, read byte by byte."""

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit

import boto3
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
    load_ssh_private_key,
)
from slack_sdk import WebClient

from sandbox.aws.nodes import Scripted
from sandbox.aws.sessions import Session
from sandbox.company import AUDIT_CHANNEL, Company, Employee
from sandbox.demo import DESKTOP, SERVERS, Story
from sandbox.idp import Browser
from sandbox.narrator import Narrator
from sandbox.reading import wait_for
from sandbox.serving import Serving
from sandbox.windows.machine import Machine
from storage.sealing import Sealer

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(400)]

STARTS = Path(__file__).with_name("starts")
SHORTEST = 12  # bytes; half of a secret is a secret, too
MOST_READ = 32 << 20  # of one file


class Silent(Narrator):
    """Checks everything, and says nothing."""

    def __init__(self) -> None:
        super().__init__(as_json=True)

    def _say(self, words: str, began: float, *, ok: bool, checks: int) -> None:
        """Nothing."""


@dataclass
class Secrets:
    """Every secret of the story, by name: what Passport was given, and what came up on the way."""

    values: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, value: str | bytes) -> None:
        """One more; the number is for those of which there are several."""
        number = sum(known.startswith(f"{name} ") for known in self.values) + 1
        self.values[f"{name} {number}"] = value.encode() if isinstance(value, str) else value

    def add_pem(self, name: str, pem: bytes) -> None:
        """A private key: its lines, its bytes, its numbers."""
        body = [line for line in pem.decode().splitlines()[1:-1] if len(line) >= 2 * SHORTEST]
        for line in body[
            :: max(1, len(body) // 4)
        ]:  # the first says little in a long one, and all of it in a short one
            self.add(name, line)
        key = load_pem_private_key(pem, None)
        if isinstance(key, rsa.RSAPrivateKey):
            self.add_rsa(name, key)

    def add_rsa(self, name: str, key: rsa.RSAPrivateKey) -> None:
        """The numbers of an RSA key, as bytes and as digits."""
        for number in (key.private_numbers().d, key.private_numbers().p, key.private_numbers().q):
            self.add(name, number.to_bytes((number.bit_length() + 7) // 8, "big"))
            self.add(name, str(number))

    def add_ssh_key(self, name: str, pem: bytes) -> None:
        """A person's Ed25519 key: its 32 secret bytes, and the lines of the file that hold them; the rest is public."""
        key = load_ssh_private_key(pem, None)
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        self.add(name, seed := key.private_bytes_raw())
        body = pem.splitlines()[1:-1]
        begin = base64.b64decode(b"".join(body)).index(seed)
        ends = (begin * 8 // 6, (begin + len(seed) - 1) * 8 // 6)  # in characters of base64
        first, last = (end // len(body[0]) for end in ends)
        for line in body[first : last + 1]:
            self.add(name, line)

    def found_in(self, places: Mapping[str, bytes]) -> set[str]:
        """Which secret is where, and in what disguise."""
        return {
            f"{name} in {place}, {disguise}"
            for name, value in self.values.items()
            for form, disguise in disguises(value).items()
            for place, content in places.items()
            if form in content
        }


@cache
def disguises(secret: bytes) -> dict[bytes, str]:
    """The secret whole and in halves, as it is and as it is commonly written; with the name of each form."""
    parts = {"whole": secret}
    if len(secret) >= 2 * SHORTEST:
        middle = len(secret) // 2
        parts |= {"its first half": secret[:middle], "its second half": secret[middle:]}
    return {form: f"{part} as {name}" for part, value in parts.items() for name, form in _forms(value).items()}


def _forms(value: bytes) -> dict[str, bytes]:
    forms = {
        "it is": value,
        "hex": value.hex().encode(),
        "HEX": value.hex().upper().encode(),
        "a URL": quote(value, safe="").encode(),
        "UTF-16": value.decode("latin-1").encode("utf-16-le"),
    }
    if value.isascii():
        forms["JSON"] = json.dumps(value.decode())[1:-1].encode()
    for shift in range(3):  # where it may begin within three bytes; what its neighbours change is left out
        encoded = base64.b64encode(b"\0" * shift + value)[(0, 2, 3)[shift] :].rstrip(b"=")
        whole = encoded[: len(encoded) - (1 if (len(value) + shift) % 3 else 0)]
        forms |= {f"base64 {shift}": whole, f"base64url {shift}": whole.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms


class Watched(Company):
    """A company that notes the secrets of each sign-in."""

    def __init__(self, folder: Path, secrets: Secrets) -> None:
        super().__init__(folder, SERVERS, windows=[DESKTOP])
        self._secrets = secrets
        self.on_desktop: Callable[[], None] = lambda: None  # whenever somebody has opened one

    def __enter__(self) -> Self:
        super().__enter__()
        for desktop in self.desktops.values():
            self._note_passwords(desktop.machine)
        return self

    def _note_passwords(self, machine: Machine) -> None:
        """Of whoever logs in, as only they and the server know it."""
        refusal = machine.refusal

        def noted(user: str, password: str) -> str:
            why = refusal(user, password)
            if not why:
                self._secrets.add("Windows password", password)
                self.on_desktop()
            return why

        machine.refusal = noted  # type: ignore[method-assign]

    def sign_in(self, person: Employee, url: str) -> str:
        """As everybody does it."""
        self._secrets.add("link token", urlsplit(url).path.rpartition("/")[2])
        with Browser() as browser:
            browser.open(url).press("Sign in")
            for cookie in browser.cookies:
                self._secrets.add(f"cookie {cookie.name}", cookie.value)
            page = browser.sign_in_as(person.email)
        answer = self.idp._last
        assert answer is not None
        self._secrets.add("relay state", answer.relay_state)
        self._secrets.add("assertion", answer.saml_response[400:600])
        xml = base64.b64decode(answer.saml_response).decode()
        for signature in re.findall(r"SignatureValue>\s*([^<\s]+)", xml):
            self._secrets.add("signature of an assertion", signature)
        return page.text


class Processes:
    """What /proc tells meanwhile: the arguments of every process, and the environment of Passport's children."""

    def __init__(self, passport: Callable[[], int]) -> None:
        self._passport = passport
        self.arguments: set[bytes] = set()
        self.environments: set[bytes] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, bytes]:
        """What was seen."""
        self._stopping.set()
        self._thread.join()
        return {
            "arguments of processes": b"\n".join(self.arguments),
            "environment of Passport's children": b"\n".join(self.environments),
        }

    def _watch(self) -> None:
        while not self._stopping.wait(0.05):
            for process in Path("/proc").glob("[0-9]*"):
                self._look(process)

    def _look(self, process: Path) -> None:
        try:
            self.arguments.add((process / "cmdline").read_bytes())
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == self._passport():
                self.environments.add((process / "environ").read_bytes())
        except (OSError, AssertionError):  # it has ended, or Passport has not begun
            return


@dataclass
class Ground:
    """The company after the story, with what was seen meanwhile."""

    company: Watched
    passport: Serving
    folder: Path
    secrets: Secrets
    seen: dict[str, bytes]

    def places(self) -> dict[str, bytes]:
        """Everything that can be read now, by where it is."""
        return {
            **self.seen,
            **files(self.folder),
            "the audit export": self.passport.run("audit", "export").stdout.encode(),
            **dict(self._run_command()),
            **dict(self._slack()),
            **dict(self._disks()),
        }

    def _run_command(self) -> Iterator[tuple[str, bytes]]:
        for command in self.company.aws.commands:
            sent = [command.parameters, dict(command.values), command.comment, command.document]
            yield f"parameters of the command {command.id}", json.dumps(sent, default=str).encode()
            texts = [text for each in command.invocations.values() for text in (each.output, each.errors)]
            yield f"output of the command {command.id}", "\n".join(texts).encode()

    def _slack(self) -> Iterator[tuple[str, bytes]]:
        """Each message as it is now, and each as it was ever written or shown on Home; no ephemeral answer."""
        slack = self.company.slack
        directs = [message for each in self.company.people.values() for message in each.slack.direct_messages()]
        channels = [m for name in (AUDIT_CHANNEL, "C0LEADS") for m in slack.messages(name)]
        for message in [*directs, *channels]:
            if message.ephemeral_to is None:
                yield f"the message {message.ts}", repr((message.text, message.blocks, message.metadata)).encode()
        for number, call in enumerate(slack.calls):
            if call.method != "response_url":
                yield f"call {number} of {call.method}", json.dumps(call.arguments, default=str).encode()

    def _disks(self) -> Iterator[tuple[str, bytes]]:
        for host in self.company.hosts.values():
            for path in host.disk.rglob("*"):
                if path.is_file() and not path.is_symlink() and path.stat().st_size < MOST_READ:
                    yield f"{host.name}:/{path.relative_to(host.disk)}", without_gaps(path.read_bytes())


def files(folder: Path) -> dict[str, bytes]:
    """Passport's own: the log, the database with its write-ahead log, the settings, the sealed CA; not the SAML key."""
    return {f"the file {path.name}": path.read_bytes() for path in folder.iterdir() if path.name != "saml.key"}


def without_gaps(content: bytes) -> bytes:
    """The same without long runs of zeros, of which a journal is full."""
    return re.sub(rb"\0{64,}", b"\0" * 64, content)


@pytest.fixture(scope="module", params=["http", "sockets"])
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder, secrets = tmp_path_factory.mktemp("company"), Secrets()
    with pytest.MonkeyPatch.context() as patch, Watched(folder, secrets) as company:
        passport = _serving(company, folder / "passport", socket_mode=request.param == "sockets")
        company.on_desktop = partial(_add_grant_keys, secrets, passport, folder / "passport")
        patch.setattr(Session, "new_token", _noting(secrets))
        processes = Processes(lambda: passport.pid)
        Story(company, passport, Silent()).tell()  # which ends with kill -9
        seen = {f"{name}, at the kill": content for name, content in files(folder / "passport").items()}
        _gather(secrets, company, passport, folder / "passport")
        seen |= processes.stop()
        yield Ground(company=company, passport=passport, folder=folder / "passport", secrets=secrets, seen=seen)


def _noting(secrets: Secrets) -> Callable[[Session], str]:
    """Gives tokens as ever, each of which lets somebody into a tunnel."""
    new_token = Session.new_token

    def noted(session: Session) -> str:
        token = new_token(session)
        secrets.add("session token", token)
        return token

    return noted


def _serving(company: Company, folder: Path, *, socket_mode: bool) -> Serving:
    """With every secret that Passport can be given, and with its most talkative log."""
    provider = {
        "name": "okta",
        "metadata_file": str(folder / "idp.xml"),
        "scim_url": company.idp.scim_url,
        "scim_token": company.idp.scim_token,
    }
    settings = {
        "PASSPORT_LOG_LEVEL": "DEBUG",
        "PASSPORT_PROVIDERS": json.dumps([provider]),
        "PASSPORT_GROUPS_REFRESH_EVERY": "1s",
        "PASSPORT_OWN_AWS_CREDENTIALS": "false",  # as the demo has it
        **_noting_starts(folder),
    }
    return Serving(company, folder, socket_mode=socket_mode, settings=settings)


def _noting_starts(folder: Path) -> dict[str, str]:
    """Variables of a Python that writes down what it starts."""
    return {"PYTHONPATH": str(STARTS), "STARTS_FILE": str(folder / "starts")}


def _gather(secrets: Secrets, company: Company, passport: Serving, folder: Path) -> None:
    secrets.add("bot token", company.slack.bot_token)
    secrets.add("app token", company.slack.app_token)
    secrets.add("signing secret", company.slack.signing_secret)
    secrets.add("scim token", company.idp.scim_token)
    secrets.add("AWS secret key", company.aws.environment()["AWS_SECRET_ACCESS_KEY"])
    name, _, encoded = passport._secrets["PASSPORT_SEALING_KEYS"].partition(":")
    secrets.add("sealing key", encoded)
    secrets.add("sealing key", base64.b64decode(encoded))
    secrets.add_pem("SAML key", (folder / "saml.key").read_bytes())
    sealer = Sealer([(name, base64.b64decode(encoded))])
    ca = sealer.open_file(folder / "ca.sealed", purpose="ssh-ca")
    secrets.add_pem("CA key", ca)
    secrets.add("CA key", base64.b64decode(b"".join(ca.splitlines()[1:-1]))[-32:])
    for person in company.people.values():
        secrets.add_ssh_key("person's key", person.key.read_bytes())


def _add_grant_keys(secrets: Secrets, passport: Serving, folder: Path) -> None:
    """What opens the passwords of Windows servers, while there is one: it goes with the access."""
    name, _, encoded = passport._secrets["PASSPORT_SEALING_KEYS"].partition(":")
    sealer = Sealer([(name, base64.b64decode(encoded))])
    with closing(sqlite3.connect(f"file:{folder}/passport.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT grant_id, private_key FROM grant_passwords WHERE private_key IS NOT NULL")
        for grant_id, sealed in rows.fetchall():
            opened = sealer.open(sealed, table="grant_passwords", column="private_key", row=grant_id)
            key = load_der_private_key(opened, None)
            assert isinstance(key, rsa.RSAPrivateKey)
            secrets.add_rsa("key of a grant", key)


def test_no_secret_is_left_anywhere(ground: Ground) -> None:
    kinds = {name.rpartition(" ")[0] for name in ground.secrets.values}
    assert kinds >= {
        *("bot token", "app token", "signing secret", "scim token", "AWS secret key", "sealing key", "SAML key"),
        *("CA key", "person's key", "link token", "relay state", "assertion", "signature of an assertion"),
        *("cookie passport-sign-in", "Windows password", "key of a grant", "session token"),
    }
    assert all(len(value) >= SHORTEST for value in ground.secrets.values.values())
    places = ground.places()
    assert b"Passport listens" in places["the file passport.log"]
    assert places["the file passport.db-wal, at the kill"]
    assert b"passport\0serve" in places["arguments of processes"]
    assert b"passport', 'serve'" in places["the file starts"]
    assert b"[hidden]" not in places["the file passport.log"]  # nothing had to be struck out at the last moment
    assert ground.secrets.found_in(places) == set()


def test_the_search_finds_a_secret_in_each_place(ground: Ground) -> None:
    planted = Secrets()

    def plant(place: str) -> str:
        word = f"planted/secret/number/{len(planted.values):02d}/of/this/search"
        planted.add(place, word)
        return word

    with ground.passport.log.open("a") as log:
        log.write(base64.b64encode(f"x{plant('the file passport.log')}".encode()).decode())
    (ground.folder / "notes").write_text(plant("the file notes")[:20])
    _plant_key(ground.folder / "key", planted)
    _plant_in_starts(ground, plant("the file starts"), plant("the file starts"))
    _plant_in_database(ground.folder, plant("the file passport.db"), plant("the file passport.db-wal"))
    _plant_in_processes(ground, plant("arguments of processes"), plant("environment of Passport's children"))
    _plant_in_commands(ground.company, plant("parameters of the command"), plant("output of the command"))
    client = WebClient(ground.company.slack.bot_token, base_url=ground.company.slack.url)
    client.chat_postMessage(channel=AUDIT_CHANNEL, text=quote(plant("the message"), safe=""))
    for text in (plant("call"), "gone"):
        client.chat_update(channel=AUDIT_CHANNEL, ts=ground.company.slack.messages(AUDIT_CHANNEL)[0].ts, text=text)
    hidden = plant("db-2:/opt/x").encode().hex().encode()
    ground.company.hosts["db-2"].run("sh", "-c", "cat > /opt/x", input=hidden)
    plant("nowhere")
    found = planted.found_in(ground.places())
    missed = [name for name in planted.values if not any(line.startswith(f"{name} in {name[:-2]}") for line in found)]
    assert missed == ["nowhere 1"]


def _plant_key(path: Path, planted: Secrets) -> None:
    """A private key, as JSON writes its lines."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    planted.add_ssh_key("the file key", path.read_bytes())
    path.write_text(json.dumps(path.read_text()))


def _plant_in_starts(ground: Ground, argument: str, variable: str) -> None:
    """A child too short-lived to be seen otherwise."""
    code = "import subprocess; subprocess.run(['true', input()], env={'X': input()})"
    environment = {**os.environ, **_noting_starts(ground.folder)}
    subprocess.run(
        [sys.executable, "-c", code], input=f"{argument}\n{variable}\n", env=environment, text=True, check=True
    )


def _plant_in_database(folder: Path, in_file: str, in_log: str) -> None:
    """One that has been moved into the file, and one that is in the write-ahead log only."""
    engine = sa.create_engine(f"sqlite:///{folder}/passport.db")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE planted (word TEXT)")
        for word in (in_file, in_log):
            connection.execute(sa.text("INSERT INTO planted VALUES (:word)"), {"word": word})
            connection.commit()
            if word == in_file:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        log = (folder / "passport.db-wal").read_bytes()  # it goes with the last connection
    engine.dispose()
    (folder / "passport.db-wal.copy").write_bytes(log)


def _plant_in_processes(ground: Ground, argument: str, variable: str) -> None:
    """A parent that stands for Passport, with a child of its own."""
    code = "import subprocess; subprocess.Popen(['cat'], env={'X': input()}).wait()"
    with subprocess.Popen([sys.executable, "-c", code, argument], stdin=subprocess.PIPE) as parent:
        processes = Processes(lambda: parent.pid)
        assert parent.stdin is not None
        parent.stdin.write(f"{variable}\n".encode())
        parent.stdin.flush()
        wait_for(lambda: any(variable.encode() in seen for seen in processes.environments), "the child to be seen")
        parent.stdin.close()
    ground.seen = {name: seen + b"\n" + ground.seen.get(name, b"") for name, seen in processes.stop().items()}


def _plant_in_commands(company: Company, parameter: str, output: str) -> None:
    """A command of its own document, whose parameter holds one and whose output another."""
    aws = company.aws
    server = aws.add_server("loud-1", answers=lambda _script, _given: Scripted(output=output))
    keys = aws.environment("admin")
    ssm = boto3.client(
        "ssm",
        endpoint_url=aws.url,
        region_name=aws.region,
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )
    step = {"action": "aws:runShellScript", "name": "say", "inputs": {"runCommand": ["echo"], "timeoutSeconds": "60"}}
    content = {
        "schemaVersion": "2.2",
        "description": "loud",
        "parameters": {"Word": {"type": "String"}},
        "mainSteps": [step],
    }
    ssm.create_document(Name="Loud", DocumentType="Command", DocumentFormat="JSON", Content=json.dumps(content))
    ssm.send_command(InstanceIds=[server.instance_id], DocumentName="Loud", Parameters={"Word": [parameter]})
    wait_for(lambda: output in aws.commands[-1].invocations[server.instance_id].output, "the output")
    ssm.close()
