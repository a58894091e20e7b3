"""The certificate authority: what it signs says exactly what was wanted, to OpenSSH as well."""

import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from access.errors import InvalidInputError
from access.ports import Certificate
from provisioning import ssh_ca, ssh_certificate
from provisioning.ssh_ca import AuthorityKey, SshCertificateAuthority
from provisioning.ssh_certificate import read_certificate
from tests.unit.test_ssh_keys import ED25519, SK_ECDSA, SK_ED25519, rsa_line
from tests.values import NOW, FakeClock

CLOCK = FakeClock()
ECDSA = {
    curve.name: ec.generate_private_key(curve)
    .public_key()
    .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    .decode()
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
}
WANTED = Certificate(
    public_key=ED25519,
    principal="pp-7f3k",
    key_id="passport:AR-7F3K:ana@example.com",
    serial=42,
    valid_after=NOW - timedelta(minutes=1),
    valid_before=NOW + timedelta(hours=2),
    source_addresses=("127.0.0.1", "::1"),
)
PERSONS = [ED25519, *ECDSA.values(), rsa_line(3072), SK_ED25519, SK_ECDSA]
AUTHORITIES: list[AuthorityKey] = [Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())]


def authority(key: AuthorityKey = AUTHORITIES[0]) -> SshCertificateAuthority:
    return SshCertificateAuthority(key, clock=CLOCK)


@pytest.mark.parametrize("key", AUTHORITIES)
@pytest.mark.parametrize("person", PERSONS)
def test_ssh_keygen_reads_what_was_wanted(tmp_path: Path, key: AuthorityKey, person: str) -> None:
    (tmp_path / "cert.pub").write_text(authority(key).certify(replace(WANTED, public_key=person)) + "\n")
    ran = subprocess.run(
        ["ssh-keygen", "-L", "-f", tmp_path / "cert.pub"],
        check=True,
        capture_output=True,
        text=True,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
    )
    shown = " ".join(ran.stdout.split())
    assert "user certificate" in shown
    assert 'Key ID: "passport:AR-7F3K:ana@example.com" Serial: 42' in shown
    assert "Valid: from 2026-11-21T02:59:00 to 2026-11-21T05:00:00" in shown
    assert "Principals: pp-7f3k Critical Options: source-address 127.0.0.1,::1 Extensions: permit-pty" in shown
    assert "forwarding" not in shown


@pytest.mark.parametrize("key", AUTHORITIES)
@pytest.mark.parametrize("person", PERSONS[:-2])
def test_the_signature_verifies_in_an_implementation_that_is_not_ours(key: AuthorityKey, person: str) -> None:
    certificate = load_ssh_public_identity(authority(key).certify(replace(WANTED, public_key=person)).encode())
    assert isinstance(certificate, SSHCertificate)
    certificate.verify_cert_signature()
    assert certificate.valid_principals == [b"pp-7f3k"]
    assert certificate.critical_options == {b"source-address": b"127.0.0.1,::1"}


def test_a_certificate_for_a_security_token_carries_its_application() -> None:
    body, _, _ = read_certificate(authority().certify(replace(WANTED, public_key=SK_ECDSA)))
    assert body.public_key == SK_ECDSA


def test_forwarding_is_what_policy_adds() -> None:
    body, _, _ = read_certificate(authority().certify(replace(WANTED, forwarding=True)))
    assert [name for name, _ in body.extensions] == ["permit-agent-forwarding", "permit-port-forwarding", "permit-pty"]


def test_no_two_certificates_are_the_same() -> None:
    assert authority().certify(WANTED) != authority().certify(WANTED)


@pytest.mark.parametrize(
    "wish",
    [
        {"principal": ""},
        {"principal": "pp-7f3k,root"},
        {"principal": "root\n"},
        {"key_id": ""},
        {"key_id": "two words"},
        {"key_id": "line\nbreak"},
        {"key_id": "x" * 256},
        {"serial": 0},
        {"serial": 2**64},
        {"source_addresses": ()},
        {"source_addresses": ("0.0.0.0/0,::/0",)},
        {"source_addresses": ("example.com",)},
        {"valid_before": NOW},
        {"valid_before": NOW - timedelta(seconds=1)},
        {"valid_after": NOW + timedelta(hours=2)},
        {"valid_before": NOW + timedelta(hours=25)},
    ],
)
def test_a_wish_that_is_too_wide_is_refused(wish: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        authority().certify(replace(WANTED, **wish))  # type: ignore[arg-type]


def test_only_a_checked_public_key_is_certified() -> None:
    with pytest.raises(InvalidInputError):
        authority().certify(replace(WANTED, public_key="ssh-ed25519 AAAA"))


@pytest.mark.parametrize(
    "slip",
    [
        {"principals": ("root",)},
        {"principals": ()},
        {"valid_before": 2**64 - 1},
        {"critical_options": ()},
        {"kind": 2},
        {"serial": 1},
        {"extensions": (("permit-X11-forwarding", ""),)},
    ],
)
def test_a_finished_certificate_that_says_anything_else_never_leaves(
    monkeypatch: pytest.MonkeyPatch, slip: dict[str, object]
) -> None:
    real = ssh_certificate.certificate_line

    def slips(encoded: bytes, signature: bytes) -> str:
        body, _, _ = read_certificate(real(encoded, signature))
        return real(replace(body, **slip).encode(), signature)  # type: ignore[arg-type]

    monkeypatch.setattr(ssh_ca, "certificate_line", slips)
    with pytest.raises(ValueError, match="thrown away"):
        authority().certify(WANTED)


def test_a_signature_that_does_not_verify_never_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    made = authority()
    sign = made._sign
    monkeypatch.setattr(made, "_sign", lambda encoded: sign(encoded + b"x"))
    with pytest.raises(ValueError, match="does not verify"):
        made.certify(WANTED)


@pytest.mark.parametrize("key", AUTHORITIES)
def test_a_key_comes_back_from_both_forms_of_pem(key: AuthorityKey) -> None:
    first = authority(key)
    openssh = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    for pem in (first.private_pem(), openssh):
        assert SshCertificateAuthority.from_pem(pem, clock=CLOCK).public_key == first.public_key


def test_a_key_of_another_kind_or_no_key_is_refused_without_quoting_it() -> None:
    secret = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    wide = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for pem in (secret, wide, b"-----BEGIN OPENSSH PRIVATE KEY-----\nSECRET\n-----END OPENSSH PRIVATE KEY-----", b""):
        with pytest.raises(ValueError) as refusal:
            SshCertificateAuthority.from_pem(pem, clock=CLOCK)
        assert "SECRET" not in str(refusal.value)


def test_the_private_key_is_not_in_the_repr() -> None:
    made = SshCertificateAuthority.generate(clock=CLOCK)
    assert repr(made) == f"SshCertificateAuthority({made.public_key})"
    assert made.public_key.startswith("ssh-ed25519 ")
