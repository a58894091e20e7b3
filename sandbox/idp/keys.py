"""A fresh RSA key and its self-signed certificate."""

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPair:
    """A private key and its certificate, in PEM."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes

    @property
    def certificate_base64(self) -> str:
        """The certificate as SAML metadata wants it."""
        certificate = x509.load_pem_x509_certificate(self.certificate_pem)
        return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


def new_key_pair(name: str) -> KeyPair:
    """Make a key pair that is good for a day."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    return KeyPair(
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate_pem=certificate.public_bytes(Encoding.PEM),
    )
