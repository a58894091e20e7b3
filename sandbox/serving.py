"""Passport as a process of its own: configured by a file, started, killed and started again."""

import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from sandbox.company import AUDIT_CHANNEL, LEADS_CHANNEL, Company

_CONFIG = """
public_url = "{url}"
listen = "127.0.0.1:{port}"
instance = "{instance}"
slack_team_id = "T0PASSPORT"
slack_audit_channel = "{audit_channel}"
slack_api_url = "{slack_url}"
database_url = "{database_url}"
ca_key_file = "{folder}/ca.sealed"
saml_key_file = "{folder}/saml.key"
saml_certificate_file = "{folder}/saml.crt"
admins = ["passport-admins"]
min_duration = "5s"
inventory_every = "2s"
own_aws_credentials = true

[[providers]]
name = "okta"
metadata_file = "{folder}/idp.xml"

[[accounts]]
name = "prod-payments"
id = "{aws_account}"
regions = ["{aws_region}"]

[[rules]]
name = "prod-root"
groups = ["payments"]
accounts = ["prod-payments"]
tags = {{ env = "prod" }}
max_duration = "4h"
reviewers = ["payments-leads"]
tell = ["{leads_channel}"]
sudo = true
"""


class ServingError(Exception):
    """Passport did not do as it was told; holds what it printed."""


class Serving:
    """One ``passport serve`` of a company; its secrets are in its environment only.

    ``settings`` are further ones, as variables: ``{"PASSPORT_LOG_LEVEL": "DEBUG"}``.
    """

    def __init__(
        self,
        company: Company,
        folder: Path,
        *,
        database_url: str = "",
        instance: str = "sandbox",
        port: int = 0,
        socket_mode: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._company = company
        self._folder = folder
        self._port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._database_url = database_url or f"sqlite:///{folder}/passport.db"
        self._instance = instance
        self._socket_mode = socket_mode
        self._more = dict(settings or {})
        self.log = folder / "passport.log"
        folder.mkdir(parents=True, exist_ok=True)
        self._configure()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self._port

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, seconds: float = 30, slack: bool = True) -> None:
        """Start it and wait until it is ready; ``slack=False`` where Slack is down, and joined later."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_passport(), "serve"], env=self._environment(), cwd=self._folder, stdout=log, stderr=log
            )
        self._connect_slack()
        deadline = time.monotonic() + seconds
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServingError(f"passport serve did not become ready:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)
        if slack and self._socket_mode:
            self._company.slack.wait_until(lambda: self._company.slack.sockets.connections, seconds=seconds)

    def kill(self) -> None:
        """As when the machine loses power: no time to clean up."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As an operator does."""
        self._end(signal.SIGTERM)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Another command of ``passport``, with the same settings."""
        done = subprocess.run(
            [*_passport(), *words],
            # Who publishes documents decides what runs on servers: an admin, never Passport.
            env=self._environment("admin" if words[:2] == ("documents", "publish") else "passport"),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode:
            raise ServingError(f"passport {' '.join(words)}: {done.stdout}{done.stderr}")
        return done

    def _connect_slack(self) -> None:
        if self._socket_mode:
            self._company.slack.connect_app_socket()
        else:
            self._company.slack.connect_app(f"{self.url}/slack/events")

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:  # noqa: S310 - our own loopback
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _configure(self) -> None:
        company = self._company
        text = _CONFIG.format(
            url=self.url,
            port=self._port,
            instance=self._instance,
            audit_channel=AUDIT_CHANNEL,
            leads_channel=LEADS_CHANNEL,
            slack_url=company.slack.url,
            database_url=self._database_url,
            folder=self._folder,
            aws_account=company.aws.account,
            aws_region=company.aws.region,
        )
        (self._folder / "passport.toml").write_text(text)
        (self._folder / "idp.xml").write_bytes(company.idp.metadata)
        self._secrets = {
            "PASSPORT_SLACK_BOT_TOKEN": company.slack.bot_token,
            **self._slack_secret(),
            "PASSPORT_SEALING_KEYS": f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        }
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=passport"]
        out = ["-keyout", str(self._folder / "saml.key"), "-out", str(self._folder / "saml.crt")]
        subprocess.run([*command, *out], check=True, capture_output=True)

    def _slack_secret(self) -> dict[str, str]:
        if self._socket_mode:
            return {"PASSPORT_SLACK_APP_TOKEN": self._company.slack.app_token}
        return {"PASSPORT_SLACK_SIGNING_SECRET": self._company.slack.signing_secret}

    def trust(self) -> None:
        """Give the identity provider Passport's metadata, as an admin does once."""
        with urllib.request.urlopen(f"{self.url}/saml/metadata", timeout=5) as answer:  # noqa: S310 - our own loopback
            self._company.idp.trust(answer.read())

    def _environment(self, user: Literal["passport", "admin"] = "passport") -> Mapping[str, str]:
        return {
            **self._company.aws.environment(user),
            **self._secrets,
            **self._more,
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PASSPORT_CONFIG": str(self._folder / "passport.toml"),
        }


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _passport() -> list[str]:
    """The console script beside this interpreter."""
    return [str(Path(sys.executable).with_name("passport"))]
