"""What a server encrypts for a grant, read with the standard's known vectors."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from storage.password_keys import decrypt, modulus_of, new_key, to_bytes
from tests.unit import oaep

KEY = rsa.RSAPrivateNumbers(
    p=oaep.P,
    q=oaep.Q,
    d=oaep.D,
    dmp1=oaep.D % (oaep.P - 1),
    dmq1=oaep.D % (oaep.Q - 1),
    iqmp=pow(oaep.Q, -1, oaep.P),
    public_numbers=rsa.RSAPublicNumbers(e=oaep.E, n=oaep.N),
).private_key()


def encoded(plain: bytes) -> str:
    return base64.b64encode(bytes.fromhex(oaep.VECTORS[plain])).decode()


@pytest.mark.parametrize("plain", [b"Test", b"Message"])
def test_known_ciphertexts_open(plain: bytes) -> None:
    assert decrypt(to_bytes(KEY), encoded(plain)) == plain.decode()


@pytest.mark.parametrize(
    "ciphertext",
    [
        encoded(bytes(range(0xE0, 0x100))),  # opens, but to nothing that could be shown
        encoded(b"Test")[:-8] + "AAAAAA==",
        base64.b64encode(bytes(256)).decode(),
        "not base64!",
        "",
    ],
)
def test_anything_else_is_no_password(ciphertext: str) -> None:
    with pytest.raises(ValueError):
        decrypt(to_bytes(KEY), ciphertext)


def test_another_grants_key_opens_nothing() -> None:
    with pytest.raises(ValueError):
        decrypt(to_bytes(new_key()), encoded(b"Test"))


def test_a_modulus_is_what_the_parameter_takes() -> None:
    modulus = base64.b64decode(modulus_of(KEY), validate=True)
    assert int.from_bytes(modulus) == oaep.N
    assert len(modulus_of(new_key())) == 344
