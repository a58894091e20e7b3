"""Certificates a second, re-parsed before they leave, against the bare library and against ssh-keygen."""

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.ports import Certificate
from access.service.showing import THROUGH_THE_TUNNEL
from bot.wiring import now
from provisioning.ssh_ca import SshCertificateAuthority
from tests.bench.figures import Figure, at_least, paired, told
from tests.bench.ground import Ground

ROUNDS = 15
SLICE = 0.3  # seconds
_OPENSSH = serialization.Encoding.OpenSSH


def run(ground: Ground) -> Iterator[Figure]:
    """Ours, the library's, ssh-keygen's, in turn."""
    authority, person = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    wanted = _wanted(person)
    sign = SshCertificateAuthority(authority).certify
    ours, raw, keygen = [], [], []
    by_hand = _ssh_keygen(ground.new_folder(), authority, wanted)
    for _ in range(ground.much(ROUNDS)):
        ours.append(_rate(lambda: sign(wanted)))
        raw.append(_rate(lambda: _raw(authority, person, wanted)))
        keygen.append(_rate(by_hand))
    yield told("certificates, re-parsed", median(ours), "1/s")
    yield told("certificates, SSHCertificateBuilder alone", median(raw), "1/s")
    yield told("certificates, ssh-keygen -s", median(keygen), "1/s")
    yield at_least("certificates, against SSHCertificateBuilder", paired(ours, raw), "x", 0.7)
    yield at_least("certificates, against ssh-keygen -s", paired(ours, keygen), "x", 15)


def _wanted(person: Ed25519PrivateKey) -> Certificate:
    return Certificate(
        public_key=person.public_key().public_bytes(_OPENSSH, serialization.PublicFormat.OpenSSH).decode(),
        principal="pp-7f3k",
        key_id="passport:AR-7F3K:ana@example.com",
        serial=1,
        valid_after=now(),
        valid_before=now() + timedelta(hours=2),
        source_addresses=THROUGH_THE_TUNNEL,
    )


def _raw(authority: Ed25519PrivateKey, person: Ed25519PrivateKey, wanted: Certificate) -> bytes:
    """The same certificate, without a check before or after."""
    builder = serialization.SSHCertificateBuilder().public_key(person.public_key()).serial(wanted.serial)
    builder = builder.type(serialization.SSHCertificateType.USER).key_id(wanted.key_id.encode())
    builder = builder.valid_principals([wanted.principal.encode()])
    builder = builder.valid_after(int(wanted.valid_after.timestamp()))
    builder = builder.valid_before(int(wanted.valid_before.timestamp()))
    builder = builder.add_critical_option(b"source-address", ",".join(wanted.source_addresses).encode())
    return builder.add_extension(b"permit-pty", b"").sign(authority).public_bytes()


def _ssh_keygen(folder: Path, authority: Ed25519PrivateKey, wanted: Certificate) -> Callable[[], object]:
    form = (serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    (folder / "ca").touch(mode=0o600)
    (folder / "ca").write_bytes(authority.private_bytes(serialization.Encoding.PEM, *form))
    (folder / "key.pub").write_text(wanted.public_key + "\n")
    names = ["-I", wanted.key_id, "-n", wanted.principal, "-z", str(wanted.serial), "-V", "+2h"]
    options = ["-O", "clear", "-O", "permit-pty", "-O", "source-address=" + ",".join(wanted.source_addresses)]
    command = ["ssh-keygen", "-q", "-s", str(folder / "ca"), *names, *options, str(folder / "key.pub")]
    return lambda: subprocess.run(command, check=True)


def _rate(act: Callable[[], object]) -> float:
    """How often a second."""
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < SLICE:
        act()
        count += 1
    return count / (time.perf_counter() - begun)
