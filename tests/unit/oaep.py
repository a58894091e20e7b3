"""RSA-OAEP with SHA-256 read by RFC 8017's own recipe, with nothing but integers and hashlib; and known vectors.

The vectors are from Project Wycheproof, rsa_oaep_2048_sha256_mgf1sha256_test.json, tests 3, 5 and 7.
"""

import hashlib

# Its key's two primes; the public exponent is 65537.
P = int(
    "dc431050f782e894fb5248247d98cb7d58b8d1e24f3b55d041c56e4de086b0d5bb028bda42eeb5d234d5681e5809d415e6a289ad4cfbf78f978f6c358"
    "14f50eebff1c5b80a69f788e81e6bab5ddaa78369d659d143ec6f17e79813a575cfad9c569156b90113e2e9110ad9e7b48a1c9348a6e6533211912"
    "90ea36cfb3a5b18f1",
    16,
)
Q = int(
    "bd1a81e7977f9898122273ae3222b598ea5fb19eb4eabc38308a5e32196603b2e500ffb79f5b886816611debc472fac45544070beb057c941378a6868"
    "af3b7a03d3f9880ec47d5e089b94fbde542aba9ae8d72c57088d7abf5b131f39098f7bc160f90536abc9492fd4e06f3ed7299d4b97bb03677207d9"
    "5669f140cfbc20f25",
    16,
)
E = 65537
N = P * Q
D = pow(E, -1, (P - 1) * (Q - 1))
VECTORS = {
    b"Test": "5eab3f0741e63986ed647d53e1cd71df041986900803d0f99c68355d249a15a47dc5b4f70a191477654299e5a2731f3b4eec76dea18262fc696ac7"
    "94e5f66cbfcddac4472c578e246c26707598055584540b839836b1404c5611ae558a984cee8fd036cea924e0be2474a940f61e0acc14fcae95ebdc"
    "59942a9ce9af9a9c81999f7f6815f057ffdc2533cb15d6391d1e2d95f16f9c04209c889a4c359c7d2926d28a66e2b030a416b928d2825627998e51"
    "91fb4983a6e65024262d94fc09187a2d78162122433251d1bfcc8e507d06eba2d229c10031261da32ab8ccd15f1c5f9fbf07ed158483d736a110af"
    "4b44d6a4da60d6cb519b4454213cf9f0dc560f2b",
    b"Message": "121196e51a3f4476bfb6adddfdeb3a25dad72d1ea315d652f331a43631ad36724b3d14532110dc44e407b1184618f115677b33751fb0e8786ba22"
    "0cfa7fc3fce22822eabdd4fc2761c7f34a04e8f13c1021c31adc123a32d871f0da6cdacab9c020222da52afd5c307a6e55e4566944403fda426ee2"
    "c6c973ccaaafe2d081ed8c5b1dc00662424e395faed86c9ae19a3a95950c83d2a9ad5c7e7f670faeb123acef07fe7795ad298aafe543504d781133"
    "6b3e2ecb1622bc90599a185b34700f8f4c52a651d73ea57e8cfa80e61d9da61f36951c7194ae4dee3c6e67b5757a39685dd3fe01cb87620a54666f"
    "f8132e93d7081d38ddc9f079431075e96cca78f59",
    bytes(
        range(0xE0, 0x100)
    ): "096958786ee7972050d67a9e4b69d6c6af7db7cc674386df725770dd29129b826e39552330104c8d71e6cc3a3014dd2f61b54153af51b0"
    "438d447ee939f9e3c13bb8b00a37dea6a068f6c9d27e848b1be7a1eeeb3ee50b78036fba95ae46948ca5b13f356ea24db10f60dc09e4b8bad8f766"
    "b668ef72524432080a0ce00ed676d6d5e354984b1078520412525848156d06f0652469f95791baa3d9a798ae537094f76f976faecd5c9ce0c930a7"
    "5910c63dacf63485cb4b5e7bdbcf4d80e74037eaa1a8fe4b52930bec6be99cf6ac88cf5878dbf6859d456a95dbc34654eec425de84ca2a535d5174"
    "03a9aada827e7d0093ecfc97ed056a7652825e9a45cb2dcb",
}


def read(ciphertext: bytes) -> bytes:
    """RSADP and EME-OAEP-DECODE (RFC 8017, 5.1.2 and 7.1.2) with the vectors' key and an empty label."""
    size, length = (N.bit_length() + 7) // 8, hashlib.sha256().digest_size
    encoded = pow(int.from_bytes(ciphertext), D, N).to_bytes(size)
    first, masked_seed, masked = encoded[0], encoded[1 : 1 + length], encoded[1 + length :]
    seed = _xor(masked_seed, _mask(masked, length))
    block = _xor(masked, _mask(seed, len(masked)))
    label, rest = block[:length], block[length:].lstrip(b"\0")
    assert (first, label, rest[:1]) == (0, hashlib.sha256(b"").digest(), b"\1")
    return rest[1:]


def _mask(seed: bytes, length: int) -> bytes:
    rounds = range(-(-length // hashlib.sha256().digest_size))
    return b"".join(hashlib.sha256(seed + number.to_bytes(4)).digest() for number in rounds)[:length]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
