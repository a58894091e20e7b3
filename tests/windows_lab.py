"""A Windows double and the documents, run as its agent runs them."""

import base64
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from provisioning.documents import Document, windows_documents
from sandbox.windows import WindowsHost
from sandbox.windows.remote_desktop import answer

CREATE, REMOVE, PROBE = windows_documents()
INSTANCE = "i-0123456789abcdef0"
REQUEST, USER = "AR-7F3K", "pp-7f3k"
HOUR = 3600
OAEP = padding.OAEP(mgf=padding.MGF1(algorithm=hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]


def modulus(key: rsa.RSAPrivateKey) -> str:
    """As the parameter wants it."""
    return base64.b64encode(key.public_key().public_numbers().n.to_bytes(256)).decode()


@dataclass
class Clock:
    """The server's clock, which a test turns."""

    now: float = 1795230000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class WindowsLab:
    """One server with its clock."""

    host: WindowsHost
    clock: Clock
    key: rsa.RSAPrivateKey = field(default_factory=lambda: KEYS[0])
    connections: list[socket.socket] = field(default_factory=list)

    def create(
        self, *, attempt: int = 1, seconds: int = HOUR, administrator: str = "no", **more: str
    ) -> dict[str, str]:
        """Run the create document; its answer."""
        given = {
            "Attempt": str(attempt),
            "NotAfter": str(int(self.clock.now) + seconds),
            "Administrator": administrator,
            "PublicKeys": f"{INSTANCE}:{modulus(self.key)}",
        }
        return self.run(CREATE, **(given | more))

    def remove(self, *, attempt: int = 1, **more: str) -> dict[str, str]:
        """Run the remove document; its answer."""
        return self.run(REMOVE, **({"Attempt": str(attempt)} | more))

    def run(self, document: Document, **given: str) -> dict[str, str]:
        """The answer's lines; ``end`` is its last."""
        names = {parameter.name for parameter in document.parameters}
        about = {"RequestId": REQUEST, "UserName": USER} if "UserName" in names else {}
        values = document.values(about | given)
        environment = {f"SSM_{name}": value[0] for name, value in values.items()}
        code, output, errors = self.host.powershell(document.script, environment | {"AWS_SSM_INSTANCE_ID": INSTANCE})
        first, *lines, last = output.splitlines()
        assert (first, errors) == (f"passport:1:{document.action}", "")
        assert (code == 0) is (last == "passport:end:ok")
        assert len(output) < 2_500  # what ListCommandInvocations keeps
        return dict(line.split("=", 1) for line in lines) | {"end": last.removeprefix("passport:end:")}

    def password(self, answered: dict[str, str]) -> str:
        """What the answer's ciphertext opens to."""
        return self.key.decrypt(base64.b64decode(answered["password"]), OAEP).decode()

    def log_in(self, password: str, user: str = USER) -> str:
        """What Remote Desktop says; a session stays open."""
        said, connection = answer(self.host.dial(3389), user, password)
        self.connections.append(connection)
        return said

    def left(self, user: str = USER) -> set[str]:
        """What there is of the user, looked at from the outside."""
        machine = self.host.machine
        sids = {sid for sid, folder in machine.profiles.items() if folder.lower().endswith(user)}
        sids |= {account.sid for account in machine.accounts.values() if account.name == user}
        found = {"account" for account in machine.accounts.values() if account.name == user}
        found |= {"session" for each in machine.desktops.values() if each.user == user}
        found |= {"process" for each in machine.processes.values() if each.owner in sids}
        found |= {
            "profile" for folder in (*machine.profiles.values(), *machine.folders) if folder.lower().endswith(user)
        }
        found |= {"task" for each in machine.tasks.values() if each.user in {user, *sids} or each.name == REQUEST}
        found |= {"service" for each in machine.services.values() if each.account.endswith(user)}
        found |= {"record" for key in machine.registry if key.endswith(REQUEST.lower())}
        return found


@pytest.fixture
def lab() -> Iterator[WindowsLab]:
    clock = Clock()
    with WindowsHost("win-1", now=clock, ticks=False) as host:
        made = WindowsLab(host, clock)
        yield made
        for connection in made.connections:
            connection.close()
        assert host.unknown == []
