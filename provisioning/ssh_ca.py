"""Passport's SSH certificate authority."""

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_network
from typing import cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.ports import Certificate, Clock
from provisioning.ssh_certificate import USER_CERTIFICATE, CertificateBody, certificate_line, read_certificate
from provisioning.ssh_keys import fingerprint, parse_public_key
from provisioning.ssh_wire import Reader, decode_base64, mpint, string

AuthorityKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey

LONGEST = timedelta(hours=24)  # no request is longer, whatever a caller wants
_PRINCIPAL = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_KEY_ID = re.compile(r"[!-~]{1,255}")


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


class SshCertificateAuthority:
    """Signs short-lived user certificates with one Ed25519 or P-256 key."""

    def __init__(
        self, private_key: AuthorityKey, *, clock: Clock = utc_now, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        if not _fits(private_key):
            raise ValueError("the authority's key must be Ed25519 or ECDSA P-256")
        self._private_key = private_key
        self._clock = clock
        self._random_bytes = random_bytes
        form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self._public_key = private_key.public_key().public_bytes(*form).decode()
        self._signature_key = decode_base64(self._public_key.partition(" ")[2])
        self.fingerprint = fingerprint(self._signature_key)  # SHA256:…, as ssh-keygen -l prints it

    @classmethod
    def generate(cls, *, clock: Clock = utc_now) -> "SshCertificateAuthority":
        """An authority with a new Ed25519 key."""
        return cls(Ed25519PrivateKey.generate(), clock=clock)

    @classmethod
    def from_pem(cls, pem: bytes, *, clock: Clock = utc_now) -> "SshCertificateAuthority":
        """The authority of a private key in OpenSSH's form or PKCS #8, unencrypted; raises ValueError."""
        try:
            if b"BEGIN OPENSSH PRIVATE KEY" in pem:
                key: object = serialization.load_ssh_private_key(pem, password=None)
            else:
                key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            # What the library says might quote the key.
            raise ValueError(f"that is no unencrypted private key ({type(error).__name__})") from None
        return cls(cast("AuthorityKey", key), clock=clock)

    def private_pem(self) -> bytes:
        """The private key as PKCS #8, to be sealed at once."""
        return self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def __repr__(self) -> str:
        return f"SshCertificateAuthority({self._public_key})"

    @property
    def public_key(self) -> str:
        """``type base64``, as a server's TrustedUserCAKeys wants it."""
        return self._public_key

    def prove(self) -> None:
        """Sign something that is no certificate, and see that it verifies; raises what signing raises, ValueError."""
        signed = b"passport: a trial" + self._random_bytes(16)
        try:
            self._verify(signed, self._sign(signed))
        except InvalidSignature:
            raise ValueError("what the key signs does not verify") from None

    def certify(self, wanted: Certificate) -> str:
        """The certificate as one line ``type base64``, re-parsed and checked against what was wanted.

        Raises InvalidInputError for a public key that cannot be certified, ValueError for any other wish.
        """
        self._check_wish(wanted)
        body = CertificateBody(
            nonce=self._random_bytes(32),
            public_key=parse_public_key(wanted.public_key).line,
            serial=wanted.serial,
            kind=USER_CERTIFICATE,
            key_id=wanted.key_id,
            principals=(wanted.principal,),
            valid_after=int(wanted.valid_after.timestamp()),
            valid_before=int(wanted.valid_before.timestamp()),
            critical_options=(("source-address", ",".join(wanted.source_addresses)),),
            extensions=_extensions(wanted),
            signature_key=self._signature_key,
        )
        encoded = body.encode()
        line = certificate_line(encoded, self._sign(encoded))
        self._check_result(line, body)
        return line

    def _check_wish(self, wanted: Certificate) -> None:
        if not _PRINCIPAL.fullmatch(wanted.principal):
            raise ValueError("a certificate names exactly one user")
        if not _KEY_ID.fullmatch(wanted.key_id):
            raise ValueError("a certificate's key id is 1 to 255 printable ASCII characters without spaces")
        if not 0 < wanted.serial < 2**64:
            raise ValueError("a certificate's serial is a positive number of 64 bits")
        if not wanted.source_addresses:
            raise ValueError("a certificate is bound to addresses")
        for address in wanted.source_addresses:
            _check_address(address)
        if wanted.valid_before <= self._clock():
            raise ValueError("the time that the certificate would be valid is over")
        if not timedelta() < wanted.valid_before - wanted.valid_after <= LONGEST:
            raise ValueError(f"a certificate is valid for at most {LONGEST}")

    def _sign(self, encoded: bytes) -> bytes:
        if isinstance(self._private_key, Ed25519PrivateKey):
            return string(b"ssh-ed25519") + string(self._private_key.sign(encoded))
        r, s = utils.decode_dss_signature(self._private_key.sign(encoded, ec.ECDSA(hashes.SHA256())))
        return string(b"ecdsa-sha2-nistp256") + string(mpint(r) + mpint(s))

    def _check_result(self, line: str, body: CertificateBody) -> None:
        read, signed, signature = read_certificate(line)
        if read != body:
            raise ValueError("the certificate does not say what was wanted; it is thrown away")
        try:
            self._verify(signed, signature)
        except InvalidSignature:
            raise ValueError("the certificate's signature does not verify; it is thrown away") from None

    def _verify(self, signed: bytes, signature: bytes) -> None:
        reader = Reader(signature)
        kind, value = reader.string(), reader.string()
        reader.finish()
        if isinstance(self._private_key, Ed25519PrivateKey):
            # Always the same for the same bytes, so signing again finds any slip, three times as fast as verifying.
            expected = b"ssh-ed25519"
            if value != self._private_key.sign(signed):
                raise InvalidSignature
        else:
            expected = b"ecdsa-sha2-nistp256"
            numbers = Reader(value)
            dss = utils.encode_dss_signature(numbers.mpint(), numbers.mpint())
            self._private_key.public_key().verify(dss, signed, ec.ECDSA(hashes.SHA256()))
        if kind != expected:
            raise InvalidSignature


@lru_cache(maxsize=100)
def _check_address(address: str) -> None:
    ip_network(address)


def _fits(key: object) -> bool:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return isinstance(key.curve, ec.SECP256R1)
    return isinstance(key, Ed25519PrivateKey)


def _extensions(wanted: Certificate) -> tuple[tuple[str, str], ...]:
    forwarding = ("permit-agent-forwarding", "permit-port-forwarding") if wanted.forwarding else ()
    return tuple((name, "") for name in (*forwarding, "permit-pty"))
