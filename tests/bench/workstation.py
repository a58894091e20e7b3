"""What `ssh web-1.passport` takes longer than plain ssh: two proofs, a certificate, a tunnel, beside StartSession itself.

Everything as a laptop does it: a new connection for each of the four calls, and `ssh-keygen -Y sign` as a process.
"""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from statistics import median

import boto3
import requests

from access.model import Grant, GrantState, RequestState, Server, SshKey
from access.service.challenges import NAMESPACE, statement
from bot.wiring import now
from provisioning.ssh_keys import PublicKey, parse_public_key
from sandbox.company import Company
from storage.unit_of_work import SqlStore
from tests.bench.figures import Figure, at_most, percentile, told
from tests.bench.ground import ENGINES, Ground
from tests.bench.premises import company, passport
from tests.stores import SEALER
from tests.unit.test_ssh_keys import ED25519
from tests.values import a_request

ROUNDS = 40
APART = 0.4  # seconds: what goes faster waits for its turn, three a second
SERVER = "db-2"


def run(ground: Ground) -> Iterator[Figure]:
    """One engine after the other; each round's own StartSession is measured beside it."""
    with ExitStack() as stack:
        running = stack.enter_context(company(ground))
        running.aws.faults.quotas = {}  # the bench's own StartSession is beside Passport's
        server = running.aws.add_server(SERVER, tags={"env": "prod"})
        for engine in ENGINES:
            serving, url = passport(ground, running, engine)
            serving.start()
            stack.callback(serving.stop)
            laptop = Laptop(ground.new_folder(), serving.url)
            _open(url, running, server.instance_id, laptop.key)
            took = _measure(running, laptop, server.instance_id, ground.much(ROUNDS))
            yield told(f"ssh {SERVER}.passport, certificate and tunnel, {engine}, p50", median(took), "ms")
            yield at_most(
                f"ssh {SERVER}.passport, certificate and tunnel, {engine}, p99", percentile(took, 99), "ms", 400
            )


class Laptop:
    """A key in a file, and the two exchanges."""

    def __init__(self, folder: Path, url: str) -> None:
        self._url, self._file = url, folder / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._file)], check=True)
        self.key: PublicKey = parse_public_key(self._file.with_suffix(".pub").read_text())

    def ask(self, act: str) -> None:
        """A challenge, its signature, and an answer that is ready."""
        challenge = self._post("challenge", {"key": self.key.fingerprint})["challenge"]
        said = statement(home=self._url, act=act, host=SERVER, challenge=challenge)
        words = ["ssh-keygen", "-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(self._file)]
        signature = subprocess.run(words, input=said, stdout=subprocess.PIPE, check=True).stdout.decode()
        form = {"key": self.key.line, "host": SERVER, "challenge": challenge, "signature": signature, "act": act}
        answer = self._post(act, form)
        assert answer["status"] == "ready", answer

    def _post(self, path: str, form: Mapping[str, str]) -> dict[str, str]:
        response = requests.post(f"{self._url}/workstation/{path}", data=dict(form), timeout=30)
        return dict(line.split("=", 1) for line in response.text.splitlines())


def _measure(running: Company, laptop: Laptop, instance_id: str, rounds: int) -> list[float]:
    """Milliseconds of each round without what StartSession took just after it."""
    ssm = aws_client(running)
    asked = {"Target": instance_id, "DocumentName": "AWS-StartSSHSession", "Parameters": {"portNumber": ["22"]}}
    took = []
    for _ in range(rounds + 2):
        time.sleep(APART)
        begun = time.perf_counter()
        laptop.ask("certificate")
        laptop.ask("tunnel")
        between = time.perf_counter()
        ssm.start_session(**asked)
        took.append((between - begun - (time.perf_counter() - between)) * 1000)
    ssm.close()
    return took[2:]  # the first calls of a server are no measure


def aws_client(running: Company) -> boto3.client:
    """Passport's own, of Systems Manager."""
    names = running.aws.environment()
    return boto3.client(
        "ssm",
        endpoint_url=names["AWS_ENDPOINT_URL"],
        region_name=names["AWS_REGION"],
        aws_access_key_id=names["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=names["AWS_SECRET_ACCESS_KEY"],
    )


def _open(url: str, running: Company, instance_id: str, key: PublicKey) -> None:
    """An active request of Ana's for the server, and her key."""
    server = Server(account="prod-payments", region=running.aws.region, instance_id=instance_id, name=SERVER)
    until = now() + timedelta(hours=1)
    request = a_request(state=RequestState.ACTIVE, servers=(server,), expires_at=until, due_at=until)
    details = {"host_keys": ED25519, "port": "22"}
    store = SqlStore(url, sealing=SEALER, exclusive=False)
    with store.unit_of_work() as uow:
        uow.requests.add(request)
        uow.grants.add(Grant(id=f"{request.id}.1", request_id=request.id, server=server,
                             state=GrantState.ACTIVE, details=details))  # fmt: skip
        uow.people.add_key(SshKey(fingerprint=key.fingerprint, person_id="P-ana", line=key.line, added_at=now()))
        uow.commit()
    store.close()
