"""The workstation's pages over HTTP, on real storage and the sandbox's Systems Manager, and laptops that ask."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol

import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from access.audit import Event, Kind
from access.model import AccessRequest, SshKey
from access.orphans import Orphans
from access.ports import Store
from access.service.challenges import NAMESPACE, Challenges
from access.service.connecting import Connecting
from access.service.desk import Caller
from access.service.keys import Keys
from access.steps import Done
from bot.proxies import TrustedProxies
from bot.workstation import site as workstation
from bot.workstation.limits import AddressLimit, Lane
from handlers.members import Refusals
from provisioning.routes.session_manager import SessionManager
from provisioning.ssh_signature import verify_signature
from provisioning.ssh_wire import string, u32
from provisioning.tunnel_sessions import TunnelSessions
from provisioning.tunnels import StartedTunnels
from sandbox.aws import Server
from sandbox.aws.sessions import Session
from tests.authorities import ring
from tests.integration.aws_desk import AwsDesk, asked
from tests.stores import SEALER
from tests.unit.test_ssh_keys import ED25519
from tests.values import ANA, FakeClock
from tests.world import World

HOME_URL = "https://passport.example.com"
PROXY = "127.0.0.1"  # what these tests call from is a trusted proxy, so that laptops can have addresses
LIFETIME = timedelta(minutes=5)
Answer = dict[str, list[str]]


class Lab:
    """Ana asks, Ben decides; servers of the sandbox; one or several processes' pages."""

    def __init__(self, desk: AwsDesk, store: Store) -> None:
        self.desk, self.double, self.store = desk, desk.double, store
        desk.reset()
        self.double.faults.quotas = {}
        self.world = World(store)
        self.clock: FakeClock = self.world.clock
        self.book = TunnelSessions(desk.sessions, home=HOME_URL, monotonic=self._seconds, sleep=lambda _: None)
        self.world.route = SessionManager(self.book)  # type: ignore[assignment]
        self.world.account.on_provision = lambda *_: Done(details={"host_keys": ED25519, "port": "22"})
        self.world.inventory.servers = []
        self.replicas: list[Replica] = []
        self.began = len(self.double.sessions)
        for session in self.double.sessions:
            self.double._sessions.end(session)

    def server(self, name: str, **more: Any) -> Server:
        """A production server that can be asked for."""
        made = self.double.add_server(name, **more)
        platform = "windows" if more.get("platform") == "Windows" else "linux"
        self.world.inventory.servers.append(replace(asked(made), tags={"env": "prod"}, platform=platform))
        return made

    def opened(self, *names: str, minutes: int = 60, source_ip: str | None = None) -> AccessRequest:
        """A request of Ana's that is active."""
        request = self.asked(*names, minutes=minutes, source_ip=source_ip)
        self.world.approve(request)
        self.reconcile()
        return self.world.standing(request.id).request

    def asked(self, *names: str, minutes: int = 60, source_ip: str | None = None) -> AccessRequest:
        """A request of Ana's that is pending."""
        return self.world.submit(*names, minutes=minutes, source_ip=source_ip)

    def reconcile(self) -> None:
        """Everything that becomes due within a few seconds."""
        until = self.clock.now + timedelta(seconds=10)
        worker = self.world.reconciler()
        while True:
            self.world.reconcile(worker)
            due = worker.next_due_at()
            if due is None or due > until:
                return
            self.clock.now = max(self.clock.now, due)

    def end(self, request: AccessRequest) -> None:
        """Ana is done."""
        self.world.ending.complete(Caller(slack_user=ANA), request.id)

    @contextmanager
    def serving(self, **more: Any) -> Iterator[Replica]:
        """Another process's pages."""
        replica = Replica(self, **more)
        self.replicas.append(replica)
        with replica.listening():
            yield replica

    def orphans(self) -> Orphans:
        return Orphans(self.store, self.book, clock=self.clock)

    def sessions(self) -> list[Session]:
        """Those that began in this test."""
        return self.double.sessions[self.began :]

    def open(self) -> list[Session]:
        return [session for session in self.sessions() if session.ended_at is None]

    def events(self, *kinds: Kind) -> list[Event]:
        with self.store.unit_of_work(read_only=True) as uow:
            return [found.event for found in uow.audit.all() if not kinds or found.event.kind in kinds]

    def register(self, laptop: Laptop, person_id: str = "P-ana") -> None:
        """The laptop's key becomes that person's."""
        with self.store.unit_of_work() as uow:
            uow.people.add_key(
                SshKey(fingerprint=laptop.fingerprint, person_id=person_id, line=laptop.line, added_at=self.clock.now)
            )
            uow.commit()

    def keys(self) -> Keys:
        return Keys(self.world.desk)

    def _seconds(self) -> float:
        return self.clock.now.timestamp()


class Replica:
    """One process: its pages, its tunnels, its counts."""

    def __init__(
        self, lab: Lab, *, width: int = 24, tunnels: Any = None, proxies: Sequence[str] = (PROXY,), **tuning: Any
    ) -> None:
        self.lab = lab
        self.started = StartedTunnels(lab.desk.sessions, lab.book, **tuning)
        self.tunnels = tunnels or self.started
        self.refusals = Refusals()
        self.lane, self.limit = Lane(width), AddressLimit(monotonic=lab._seconds)
        self.challenges = Challenges(SEALER.derive("test"), clock=lab.clock, random_bytes=os.urandom)
        self.app = Flask("bot")
        self.connecting = Connecting(
            lab.world.desk,
            ring(lab.world.authority),
            self.tunnels,
            challenges=self.challenges,
            verify=verify_signature,
            home=HOME_URL,
            lifetime=LIFETIME,
        )
        workstation.register(
            self.app,
            workstation.Workstation(
                home=HOME_URL,
                connecting=self.connecting,
                lane=self.lane,
                limit=self.limit,
                count_stranger=self.refusals.count,
            ),
        )
        self.proxies = proxies
        self.url = ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        wsgi = TrustedProxies(self.app.wsgi_app, self.proxies)
        server = make_server("127.0.0.1", 0, wsgi, threaded=True, request_handler=_Quiet)  # type: ignore[arg-type]
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.started.start()
        try:
            yield
        finally:
            self.started.stop()
            server.shutdown()
            server.server_close()
            thread.join()

    def strangers(self) -> dict[str, int]:
        return dict(self.refusals._counts)


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        logging.getLogger("werkzeug").debug(message, *args)


class Site(Protocol):
    """Whatever serves the pages."""

    @property
    def url(self) -> str: ...


@dataclass
class Laptop:
    """Somebody with a key, at an address."""

    replica: Site
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    address: str = "203.0.113.7"

    @property
    def line(self) -> str:
        form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return self.key.public_key().public_bytes(*form).decode()

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.line.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def post(self, path: str, form: Any, **more: Any) -> Answer:
        """The answer, each key with its values; ``http`` is the code."""
        headers = {"X-Forwarded-For": self.address, **more.pop("headers", {})}
        response = requests.post(
            f"{self.replica.url}/workstation/{path}", data=form, headers=headers, timeout=60, **more
        )
        found: Answer = {"http": [str(response.status_code)]}
        lines = response.text.splitlines()
        assert lines and lines[0].startswith("status="), response.text
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        for line in lines:
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
        return found

    def challenge(self) -> str:
        (found,) = self.post("challenge", {"key": self.fingerprint})["challenge"]
        return found

    def proof(
        self, act: str, host: str, *, challenge: str = "", stated: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The form of a proof; ``stated`` puts other words into the statement that is signed."""
        challenge = challenge or self.challenge()
        words = {"home": HOME_URL, "act": act, "host": host, "challenge": challenge, **(stated or {})}
        lines = ["passport-workstation-1", words["home"], words["act"], words["host"], words["challenge"]]
        signature = self.sign("".join(f"{line}\n" for line in lines).encode())
        form = {"key": self.line, "host": host, "challenge": challenge, "signature": signature}
        return form if act == "certificate" else {**form, "act": act}

    def ask(self, act: str, host: str, **more: Any) -> Answer:
        """A fresh proof, and what is answered to it."""
        return self.send(act, self.proof(act, host, **more))

    def send(self, act: str, form: dict[str, str], **more: Any) -> Answer:
        return self.post("certificate" if act == "certificate" else "tunnel", form, **more)

    def sign(self, message: bytes, *, namespace: str = NAMESPACE) -> str:
        """As ``ssh-keygen -Y sign`` does."""
        frame = string(namespace.encode()) + string(b"") + string(b"sha512")
        over = b"SSHSIG" + frame + string(hashlib.sha512(message).digest())
        signature = string(b"ssh-ed25519") + string(self.key.sign(over))
        blob = b"SSHSIG" + u32(1) + string(base64.b64decode(self.line.split()[1])) + frame + string(signature)
        text = base64.b64encode(blob).decode()
        lines = [text[at : at + 70] for at in range(0, len(text), 70)]
        return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


def said(answer: Answer) -> str:
    """``refused: sentence``."""
    return f"{answer['status'][0]}: {answer.get('message', [''])[0]}"
