"""The key pair of a grant, to which a server encrypts the password that it makes: RSA-OAEP with SHA-256.

2,048 bits: the password lives for hours, and the moduli of 50 servers have to fit into one command.
"""

import base64
import binascii

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

BITS = 2048
EXPONENT = 65537


def new_key() -> rsa.RSAPrivateKey:
    """A pair for one grant."""
    return rsa.generate_private_key(public_exponent=EXPONENT, key_size=BITS)


def modulus_of(key: rsa.RSAPrivateKey) -> str:
    """The public half, big-endian in base64."""
    return base64.b64encode(key.public_key().public_numbers().n.to_bytes(BITS // 8)).decode()


def to_bytes(key: rsa.RSAPrivateKey) -> bytes:
    """The private half, to be sealed."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def decrypt(private_key: bytes, ciphertext: str) -> str:
    """What a server encrypted; raises ValueError for a ciphertext that does not open to printable ASCII."""
    key = load_der_private_key(private_key, None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("the private key of a grant is an RSA key")
    oaep = padding.OAEP(mgf=padding.MGF1(algorithm=hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    try:
        plain = key.decrypt(base64.b64decode(ciphertext, validate=True), oaep).decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("not a password") from error
    if not plain or not plain.isprintable():
        raise ValueError("not a password")
    return plain
