"""The certificate authority's key in AWS KMS: what it signs is a certificate to OpenSSH, and AWS failing is a sentence."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from access.errors import UnavailableError
from provisioning.kms_key import MOST_RAW, KmsKey, KmsKeys
from provisioning.ssh_ca import SshCertificateAuthority
from sandbox.aws import AwsDouble
from tests.unit.test_ssh_ca import CLOCK, WANTED
from tests.unit.test_ssh_keys import ED25519, SK_ECDSA, SK_ED25519


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsDouble]:
    with AwsDouble() as double:
        for name, value in double.environment().items():
            monkeypatch.setenv(name, value)
        yield double


def make_key(aws: AwsDouble, spec: str = "ECC_NIST_P256", usage: str = "SIGN_VERIFY") -> str:
    return str(kms(aws).create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["Arn"])


def kms(aws: AwsDouble) -> Any:
    keys = aws.keys(None)
    return boto3.client(
        "kms",
        region_name=aws.region,
        endpoint_url=aws.url,
        aws_access_key_id=keys.id,
        aws_secret_access_key=keys.secret,
        aws_session_token=keys.token,
    )


def authority(arn: str) -> SshCertificateAuthority:
    return SshCertificateAuthority(KmsKeys().key(arn), clock=CLOCK)


@pytest.mark.parametrize("person", [ED25519, SK_ECDSA, SK_ED25519])
def test_openssh_reads_a_certificate_that_kms_signed(aws: AwsDouble, tmp_path: Path, person: str) -> None:
    made = authority(make_key(aws))
    made.prove()
    (tmp_path / "cert.pub").write_text(made.certify(replace(WANTED, public_key=person)) + "\n")
    said = subprocess.run(["ssh-keygen", "-L", "-f", tmp_path / "cert.pub"], capture_output=True, text=True, check=True)
    assert f"Signing CA: ECDSA {made.fingerprint} (using ecdsa-sha2-nistp256)" in said.stdout


def test_the_public_key_is_read_once_and_each_certificate_is_one_call(aws: AwsDouble) -> None:
    made = authority(make_key(aws))
    aws.calls.clear()
    for _ in range(3):
        made.certify(WANTED)
    assert [call.operation for call in aws.calls] == ["Sign"] * 3


def test_messages_over_4096_bytes_are_hashed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    private = ec.generate_private_key(ec.SECP256R1())

    class Recorder(KmsKeys):
        def __init__(self) -> None:
            self.asked: list[tuple[str, int]] = []

        def sign(self, arn: str, message: bytes, kind: str) -> bytes:
            self.asked.append((kind, len(message)))
            # As KMS does: moto takes a digest for a message, so its DIGEST signatures do not verify.
            chosen: Any = Prehashed(hashes.SHA256()) if kind == "DIGEST" else hashes.SHA256()
            return private.sign(message, ec.ECDSA(chosen))

    keys = Recorder()
    key = KmsKey(keys, "arn:aws:kms:eu-west-1:111111111111:key/k", private.public_key())
    for length in (1, MOST_RAW, MOST_RAW + 1):
        message = bytes(length)
        private.public_key().verify(key.sign(message, ec.ECDSA(hashes.SHA256())), message, ec.ECDSA(hashes.SHA256()))
    assert keys.asked == [("RAW", 1), ("RAW", MOST_RAW), ("DIGEST", 32)]


def test_it_only_signs(aws: AwsDouble) -> None:
    key = KmsKeys().key(make_key(aws))
    with pytest.raises(ValueError, match="ECDSA and SHA-256"):
        key.sign(b"x", ec.ECDSA(hashes.SHA384()))
    for forbidden in (
        key.private_numbers,
        lambda: key.exchange(ec.ECDH(), key.public_key()),
        lambda: key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    ):
        with pytest.raises(NotImplementedError):
            forbidden()


@pytest.mark.parametrize(
    ("spec", "usage"), [("ECC_NIST_P384", "SIGN_VERIFY"), ("RSA_3072", "SIGN_VERIFY"), ("RSA_3072", "ENCRYPT_DECRYPT")]
)
def test_a_key_of_another_kind_is_refused(aws: AwsDouble, spec: str, usage: str) -> None:
    with pytest.raises(UnavailableError, match="Make one that is ECC_NIST_P256 and for SIGN_VERIFY"):
        KmsKeys().key(make_key(aws, spec, usage))


def test_a_signature_by_another_key_never_leaves(aws: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    made, other = authority(make_key(aws)), ec.generate_private_key(ec.SECP256R1())
    forged = other.sign(b"something else", ec.ECDSA(hashes.SHA256()))
    monkeypatch.setattr(KmsKeys, "sign", lambda *_: forged)
    with pytest.raises(ValueError, match="does not verify; it is thrown away"):
        made.certify(WANTED)


class TestAwsFails:
    """Somebody waits in Slack for the answer."""

    def refusal(self, made: SshCertificateAuthority) -> str:
        with pytest.raises(UnavailableError) as caught:
            made.certify(WANTED)
        return caught.value.sentence

    def test_a_key_that_is_disabled_or_gone(self, aws: AwsDouble) -> None:
        arn = make_key(aws)
        made = authority(arn)
        kms(aws).disable_key(KeyId=arn.rpartition("/")[2])
        assert self.refusal(made).endswith("is not there, or disabled, in AWS KMS. An admin enables it.")

    @pytest.mark.parametrize("operation", ["Sign", "GetPublicKey"])
    def test_a_role_that_may_not(self, aws: AwsDouble, operation: str) -> None:
        arn = make_key(aws)
        aws.faults.fail(operation, 400)
        with pytest.raises(UnavailableError, match=f"does not let Passport's role call kms:{operation} on {arn}"):
            authority(arn).certify(WANTED)

    def test_one_lost_answer_is_asked_for_again(self, aws: AwsDouble) -> None:
        made = authority(make_key(aws))
        aws.faults.throttle("Sign", times=1)
        assert made.certify(WANTED)

    def test_aws_that_does_not_answer_is_a_sentence_and_not_a_stuck_thread(self, aws: AwsDouble) -> None:
        made = authority(make_key(aws))
        aws.faults.fail("Sign", 500)
        aws.calls.clear()
        assert self.refusal(made) == "AWS KMS, which signs my certificates, does not answer now. Try again in a minute."
        assert len(aws.calls) == 2
