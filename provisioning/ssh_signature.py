"""Signatures of ``ssh-keygen -Y sign``: does a person hold a key? OpenSSH's PROTOCOL.sshsig and PROTOCOL.u2f.

The PyPI package ``sshsig`` (0.3.1) reads Ed25519 and RSA only; people also sign with ECDSA and FIDO keys.
"""

import hashlib
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from provisioning.ssh_keys import CURVES
from provisioning.ssh_wire import Reader, decode_base64, string

MAGIC = b"SSHSIG"
VERSION = 1
MOST_CHARACTERS = 8192  # of an armored signature: one of RSA with 16,384 bits has about 6,000

_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_DIGESTS = frozenset({"sha256", "sha512"})
_RSA_HASHES: Mapping[bytes, hashes.HashAlgorithm] = {
    b"rsa-sha2-256": hashes.SHA256(),
    b"rsa-sha2-512": hashes.SHA512(),
}
_CURVE_HASHES: Mapping[str, hashes.HashAlgorithm] = {  # RFC 5656, section 6.2.1
    ec.SECP256R1.name: hashes.SHA256(),
    ec.SECP384R1.name: hashes.SHA384(),
    ec.SECP521R1.name: hashes.SHA512(),
}
PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey
_USER_PRESENT = 0x01  # PROTOCOL.u2f: somebody touched the key


class SignatureError(ValueError):
    """The signature does not show what it should; the text is a clause: ``it is of another key``."""


def verify_signature(armored: str, message: bytes, *, public_key: str, namespace: str) -> None:
    """Make sure that the holder of ``public_key`` (``type base64``, parsed before) signed the message for this purpose.

    Raises SignatureError.
    """
    try:
        signed, signature = _read(armored, message, public_key=public_key, namespace=namespace)
        _verify(public_key, signed, Reader(signature))
    except SignatureError:
        raise
    except InvalidSignature:
        raise SignatureError("it does not fit what was to be signed") from None
    except ValueError as error:
        raise SignatureError(f"it is damaged: {error}") from error


def _read(armored: str, message: bytes, *, public_key: str, namespace: str) -> tuple[bytes, bytes]:
    """The bytes that were signed if the signature is right, and the signature's own; raises ValueError."""
    reader = Reader(_dearmored(armored))
    if reader.take(len(MAGIC)) != MAGIC or reader.u32() != VERSION:
        raise SignatureError("it is not a signature of ssh-keygen -Y sign")
    key, purpose, reserved, digest, signature = (reader.string() for _ in range(5))
    reader.finish()
    if key != decode_base64(public_key.partition(" ")[2]):
        raise SignatureError("it is of another key")
    if purpose != namespace.encode():
        raise SignatureError(f"it was not made for {namespace}")
    if digest.decode("ascii", "replace") not in _DIGESTS:
        raise SignatureError("it is over an unknown kind of hash")
    hashed = hashlib.new(digest.decode(), message).digest()
    return MAGIC + string(purpose) + string(reserved) + string(digest) + string(hashed), signature


def _dearmored(armored: str) -> bytes:
    if len(armored) > MOST_CHARACTERS:
        raise SignatureError("it is too long")
    lines = [line.removesuffix("\r") for line in armored.strip("\r\n").split("\n")]
    if len(lines) < 3 or (lines[0], lines[-1]) != (_BEGIN, _END):
        raise SignatureError("it does not begin and end as ssh-keygen writes it")
    return decode_base64("".join(lines[1:-1]))


def _verify(public_key: str, signed: bytes, signature: Reader) -> None:
    """Raises InvalidSignature, and ValueError for a signature that is none."""
    kind, _, blob = public_key.partition(" ")
    key, algorithm = Reader(decode_base64(blob)), signature.string()
    key.string()  # its kind, which the line says as well
    if kind == "ssh-rsa":
        _verify_rsa(key, algorithm, signed, signature.string())
    elif algorithm != kind.encode():
        raise SignatureError("its inside says another kind of key")
    elif kind.startswith("sk-"):
        _verify_touched(_read_key(key), key.string(), signed, signature)
    else:
        _verify_value(_read_key(key), signed, signature.string())
    signature.finish()


def _verify_rsa(key: Reader, algorithm: bytes, signed: bytes, value: bytes) -> None:
    if algorithm not in _RSA_HASHES:  # ssh-rsa is SHA-1
        raise SignatureError("RSA counts with rsa-sha2-256 or rsa-sha2-512 only")
    exponent, modulus = key.mpint(), key.mpint()
    public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    public.verify(value, signed, padding.PKCS1v15(), _RSA_HASHES[algorithm])


def _verify_touched(public: PublicKey, application: bytes, signed: bytes, signature: Reader) -> None:
    """A FIDO key signs hashes, and whether somebody touched it: here somebody always has to."""
    value, flags, counter = signature.string(), signature.take(1), signature.take(4)
    if not flags[0] & _USER_PRESENT:
        raise SignatureError("nobody touched the security key")
    over = hashlib.sha256(application).digest() + flags + counter + hashlib.sha256(signed).digest()
    _verify_value(public, over, value)


def _verify_value(public: PublicKey, signed: bytes, value: bytes) -> None:
    if isinstance(public, Ed25519PublicKey):
        public.verify(value, signed)
        return
    numbers = Reader(value)
    dss = utils.encode_dss_signature(numbers.mpint(), numbers.mpint())
    numbers.finish()
    public.verify(dss, signed, ec.ECDSA(_CURVE_HASHES[public.curve.name]))


def _read_key(key: Reader) -> PublicKey:
    """The Ed25519 key or the point on a curve that comes next."""
    first = key.string()
    if first.decode("ascii", "replace") not in CURVES:
        return Ed25519PublicKey.from_public_bytes(first)
    return ec.EllipticCurvePublicKey.from_encoded_point(CURVES[first.decode()], key.string())
