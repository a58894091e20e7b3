"""OpenSSH user certificates as bytes: written and read as OpenSSH's PROTOCOL.certkeys says.

``cryptography``'s SSHCertificateBuilder knows no sk- keys. Every kind of public key stands in a certificate
field by field as it stands in itself, so one form serves all.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from provisioning.ssh_wire import Reader, decode_base64, string, u32, u64

USER_CERTIFICATE = 1  # SSH_CERT_TYPE_USER

# How many strings follow the kind of key: its curve, point, modulus, application, …
_FIELDS: Mapping[str, int] = {
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "ssh-rsa": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}


def certificate_type(key_type: str) -> str:
    """``ssh-ed25519-cert-v01@openssh.com`` for ``ssh-ed25519``."""
    return f"{key_type.removesuffix('@openssh.com')}-cert-v01@openssh.com"


_KEY_TYPES = {certificate_type(key_type): key_type for key_type in _FIELDS}


def key_type_of(kind: str) -> str:
    """The other way round; raises ValueError for what is no kind of certificate."""
    if kind not in _KEY_TYPES:
        raise ValueError("that is not a certificate")
    return _KEY_TYPES[kind]


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateBody:
    """What is signed, field by field; times are Unix seconds as in the format."""

    nonce: bytes
    public_key: str  # ``type base64``
    serial: int
    kind: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical_options: tuple[tuple[str, str], ...]  # in the order of their names
    extensions: tuple[tuple[str, str], ...]
    signature_key: bytes

    def encode(self) -> bytes:
        """The bytes that the authority signs."""
        key_type, _, key = self.public_key.partition(" ")
        reader = Reader(decode_base64(key))
        reader.string()
        return b"".join(
            (
                string(certificate_type(key_type).encode()),
                string(self.nonce),
                *(string(reader.string()) for _ in range(_FIELDS[key_type])),
                u64(self.serial),
                u32(self.kind),
                string(self.key_id.encode()),
                string(b"".join(string(principal.encode()) for principal in self.principals)),
                u64(self.valid_after),
                u64(self.valid_before),
                _options(self.critical_options),
                _options(self.extensions),
                string(b""),  # reserved
                string(self.signature_key),
            )
        )


def certificate_line(body: bytes, signature: bytes) -> str:
    """The certificate as ``type base64``."""
    kind = Reader(body).string().decode()
    return f"{kind} {base64.b64encode(body + string(signature)).decode()}"


def read_certificate(line: str) -> tuple[CertificateBody, bytes, bytes]:
    """A certificate's fields, the bytes that were signed, and the signature; raises ValueError."""
    kind, _, text = line.partition(" ")
    blob = decode_base64(text)
    reader = Reader(blob)
    key_type = key_type_of(kind)
    if reader.string() != kind.encode():
        raise ValueError("its inside says another kind")
    body = CertificateBody(
        nonce=reader.string(),
        public_key=_read_key(reader, key_type),
        serial=reader.u64(),
        kind=reader.u32(),
        key_id=reader.string().decode(),
        principals=_read_principals(reader.string()),
        valid_after=reader.u64(),
        valid_before=reader.u64(),
        critical_options=_read_options(reader.string()),
        extensions=_read_options(reader.string()),
        signature_key=_after_reserved(reader),
    )
    signature = reader.string()
    reader.finish()
    return body, blob[: -len(string(signature))], signature


def _options(options: tuple[tuple[str, str], ...]) -> bytes:
    return string(
        b"".join(
            string(name.encode()) + string(string(value.encode()) if value else b"") for name, value in sorted(options)
        )
    )


def _read_key(reader: Reader, key_type: str) -> str:
    fields = b"".join(string(reader.string()) for _ in range(_FIELDS[key_type]))
    return f"{key_type} {base64.b64encode(string(key_type.encode()) + fields).decode()}"


def _read_principals(blob: bytes) -> tuple[str, ...]:
    reader, principals = Reader(blob), []
    while not reader.at_end:
        principals.append(reader.string().decode())
    return tuple(principals)


def _read_options(blob: bytes) -> tuple[tuple[str, str], ...]:
    reader, options = Reader(blob), []
    while not reader.at_end:
        name, value = reader.string().decode(), Reader(reader.string())
        options.append((name, "" if value.at_end else value.string().decode()))
        value.finish()
    return tuple(options)


def _after_reserved(reader: Reader) -> bytes:
    if reader.string():
        raise ValueError("the reserved field is not empty")
    return reader.string()
