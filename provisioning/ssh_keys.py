"""People's public keys: which kinds Passport takes, and why it refuses the others."""

import base64
import hashlib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from access.errors import InvalidInputError
from provisioning.ssh_wire import Reader, decode_base64

MIN_RSA_BITS = 3072
MAX_RSA_BITS = 16384  # what OpenSSH reads at most (SSHBUF_MAX_BIGNUM)
MAX_LENGTH = 8192

CURVES: Mapping[str, ec.EllipticCurve] = {
    "nistp256": ec.SECP256R1(),
    "nistp384": ec.SECP384R1(),
    "nistp521": ec.SECP521R1(),
}
_PRIVATE_SIGNS = ("PRIVATE KEY", "PuTTY-User-Key-File", "b3BlbnNzaC1rZXkt")  # the last: OpenSSH's, without its head
_HOW = "Paste the one line of the .pub file, for example from ~/.ssh/id_ed25519.pub."
_MAKE = "Make one with: ssh-keygen -t ed25519"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicKey:
    """A public key that has been checked; the comment is dropped."""

    type: str
    base64: str
    fingerprint: str  # SHA256:…, as ssh-keygen -l prints it

    @property
    def line(self) -> str:
        """``type base64``."""
        return f"{self.type} {self.base64}"


def parse_public_key(text: str) -> PublicKey:
    """Read the line of a ``.pub`` file; raises InvalidInputError, whose sentence never repeats what was pasted."""
    if any(sign in text for sign in _PRIVATE_SIGNS):
        _refuse(
            "That is your private key: never paste it anywhere. Whoever has seen it can use it, so throw it away. "
            f"{_MAKE}, and give me the line of its .pub file."
        )
    words = _one_line(text).split()
    if not words:
        _refuse(f"There is no key. {_HOW}")
    _check_type(words)
    if len(words) < 2:
        _refuse(f"After {words[0]} the key itself is missing. {_HOW}")
    try:
        blob = _check_blob(words[0], words[1])
    except ValueError as error:
        raise InvalidInputError(f"That {words[0]} key is damaged: {error}. {_HOW}", field="key") from error
    return PublicKey(type=words[0], base64=words[1], fingerprint=fingerprint(blob))


def fingerprint(blob: bytes) -> str:
    """``SHA256:…`` of a public key's bytes."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _refuse(sentence: str) -> NoReturn:
    raise InvalidInputError(sentence, field="key")


def _one_line(text: str) -> str:
    line = text.strip()
    if len(line) > MAX_LENGTH:
        _refuse(f"That is too long for a public key. {_HOW}")
    if "BEGIN SSH2 PUBLIC KEY" in line:
        _refuse("That is a key in PuTTY's form. Convert it with: ssh-keygen -i -f key.pub")
    if "\n" in line or "\r" in line:
        _refuse(f"Give me one key at a time, on one line. {_HOW}")
    # Cc holds control characters, Cf the ones that turn the writing direction, Zl and Zp line ends.
    if not line.isprintable() and any(map(_is_invisible, line)):
        _refuse(f"There are invisible characters in that key. {_HOW}")
    return line


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"} and character != "\t"


def _check_type(words: list[str]) -> None:
    kind = words[0]
    if kind in _CHECKS:
        return
    if kind == "ssh-dss":
        _refuse(f"DSA keys (ssh-dss) are broken, and servers refuse them. {_MAKE}")
    if kind.endswith("-cert-v01@openssh.com"):
        _refuse(f"That is a certificate. I want the public key that belongs to it. {_HOW}")
    if any(word in _CHECKS for word in words[1:]):
        _refuse(f"There is something before the key; options have no place here. {_HOW}")
    _refuse(f"I do not know that kind of key. I take {', '.join(_CHECKS)}. {_HOW}")


def _check_blob(kind: str, text: str) -> bytes:
    blob = decode_base64(text)
    reader = Reader(blob)
    if reader.string() != kind.encode():
        raise ValueError("its inside says another kind")
    _CHECKS[kind](reader)
    reader.finish()
    return blob


def _check_ed25519(reader: Reader) -> None:
    if len(reader.string()) != 32:
        raise ValueError("it has not 32 bytes")


def _check_point(reader: Reader, curve: str) -> None:
    if reader.string() != curve.encode():
        raise ValueError("its inside says another curve")
    point = reader.string()
    # Only the uncompressed form, as OpenSSH; the constructor checks that it is on the curve.
    if point[:1] != b"\x04":
        raise ValueError("its point is compressed")
    ec.EllipticCurvePublicKey.from_encoded_point(CURVES[curve], point)


def _check_application(reader: Reader) -> None:
    application = reader.string()
    if not application.startswith(b"ssh:") or len(application) > 128 or not application.decode("ascii").isprintable():
        raise ValueError('its application is not "ssh:"')


def _check_rsa(reader: Reader) -> None:
    exponent, modulus = reader.mpint(), reader.mpint()
    bits = modulus.bit_length()
    if bits < MIN_RSA_BITS:
        _refuse(f"That RSA key has {bits} bits; I take {MIN_RSA_BITS} and more. {_MAKE}")
    if bits > MAX_RSA_BITS:
        raise ValueError(f"it has {bits} bits")
    if exponent < 65537 or exponent.bit_length() > 64 or not modulus % 2:
        raise ValueError("its numbers are weak")
    rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _check_sk_ed25519(reader: Reader) -> None:
    _check_ed25519(reader)
    _check_application(reader)


def _check_sk_ecdsa(reader: Reader) -> None:
    _check_point(reader, "nistp256")
    _check_application(reader)


_CHECKS: Mapping[str, Callable[[Reader], None]] = {
    "ssh-ed25519": _check_ed25519,
    "ecdsa-sha2-nistp256": lambda reader: _check_point(reader, "nistp256"),
    "ecdsa-sha2-nistp384": lambda reader: _check_point(reader, "nistp384"),
    "ecdsa-sha2-nistp521": lambda reader: _check_point(reader, "nistp521"),
    "ssh-rsa": _check_rsa,
    "sk-ssh-ed25519@openssh.com": _check_sk_ed25519,
    "sk-ecdsa-sha2-nistp256@openssh.com": _check_sk_ecdsa,
}
