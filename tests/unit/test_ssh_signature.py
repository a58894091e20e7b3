"""Signatures of ssh-keygen -Y sign: the real ones of every kind of key verify, and nothing else does."""

import base64
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from provisioning.ssh_keys import parse_public_key
from provisioning.ssh_signature import SignatureError, verify_signature
from provisioning.ssh_wire import Reader, mpint, string, u32
from tests.unit.test_ssh_keys import line_of

NAMESPACE = "workstation@passport"
MESSAGE = b"passport-workstation-1\nhttps://passport.example.com\ntunnel\nweb-1\nchallenge\n"
APPLICATION = b"ssh:"
KINDS = [("ed25519", ""), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "3072")]

ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
P256 = ec.derive_private_key(7**40, ec.SECP256R1())
RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
POINT = P256.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
PLAIN = line_of("ssh-ed25519", ED25519.public_key().public_bytes(*RAW))
SK_ED25519 = line_of("sk-ssh-ed25519@openssh.com", ED25519.public_key().public_bytes(*RAW), APPLICATION)
SK_ECDSA = line_of("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", POINT, APPLICATION)

Sign = Callable[[bytes], bytes]


def ran(*words: str | Path, **more: object) -> bytes:
    return subprocess.run(words, check=True, capture_output=True, **more).stdout  # type: ignore[call-overload, no-any-return]


def new_key(folder: Path, kind: str, bits: str) -> Path:
    file = folder / f"id_{kind}{bits}"
    ran("ssh-keygen", "-q", "-t", kind, *(("-b", bits) if bits else ()), "-N", "", "-f", file)
    return file


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {kind: new_key(folder, *kind) for kind in KINDS}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of whoever speaks to an agent of this test's own."""
    environment = {"SSH_AUTH_SOCK": str(tmp_path / "agent"), "PATH": os.environ["PATH"]}
    running = subprocess.Popen(["ssh-agent", "-D", "-a", environment["SSH_AUTH_SOCK"]], stdout=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()  # it says where it listens, once it does
    yield environment
    running.terminate()
    running.wait()
    running.stdout.close()


def public(file: Path) -> str:
    return parse_public_key(file.with_suffix(".pub").read_text()).line


def signed_by_keygen(file: Path, *, namespace: str = NAMESPACE, options: tuple[str, ...] = (), **more: object) -> str:
    words = ("ssh-keygen", "-Y", "sign", "-n", namespace, *options, "-f", file)
    return ran(*words, input=MESSAGE, **more).decode()


def verified(armored: str, line: str, message: bytes = MESSAGE) -> None:
    verify_signature(armored, message, public_key=line, namespace=NAMESPACE)


def to_sign(digest: str = "sha512", *, namespace: bytes = NAMESPACE.encode(), reserved: bytes = b"") -> bytes:
    hashed = hashlib.new(digest, MESSAGE).digest()
    return b"SSHSIG" + string(namespace) + string(reserved) + string(digest.encode()) + string(hashed)


def armored(blob: bytes) -> str:
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


def framed(
    line: str,
    signature: bytes,
    *,
    magic: bytes = b"SSHSIG",
    version: int = 1,
    namespace: bytes = NAMESPACE.encode(),
    digest: bytes = b"sha512",
    tail: bytes = b"",
) -> bytes:
    key = base64.b64decode(line.split()[1])
    middle = string(key) + string(namespace) + string(b"") + string(digest)
    return magic + u32(version) + middle + string(signature) + tail


def sign_plain(over: bytes) -> bytes:
    return string(b"ssh-ed25519") + string(ED25519.sign(over))


def ecdsa_value(over: bytes) -> bytes:
    r, s = utils.decode_dss_signature(P256.sign(over, ec.ECDSA(hashes.SHA256())))
    return mpint(r) + mpint(s)


def touched(
    over: bytes, line: str, sign: Sign, *, flags: int = 1, application: bytes = APPLICATION, tail: bytes = b""
) -> bytes:
    """As PROTOCOL.u2f says a security key signs."""
    rest = bytes([flags]) + u32(7)
    value = sign(hashlib.sha256(application).digest() + rest + hashlib.sha256(over).digest())
    return string(line.split(maxsplit=1)[0].encode()) + string(value) + rest + tail


SECURITY_KEYS = [(SK_ED25519, ED25519.sign), (SK_ECDSA, ecdsa_value)]


@pytest.mark.parametrize("kind", KINDS, ids="".join)
@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_what_ssh_keygen_signs_verifies(
    key_files: dict[tuple[str, str], Path], kind: tuple[str, str], digest: str
) -> None:
    found = signed_by_keygen(key_files[kind], options=("-O", f"hashalg={digest}"))
    verified(found, public(key_files[kind]))
    verified(found.replace("\n", "\r\n"), public(key_files[kind]))  # PowerShell's line ends
    with pytest.raises(SignatureError, match="does not fit"):
        verified(found, public(key_files[kind]), MESSAGE.replace(b"web-1", b"web-2"))


@pytest.mark.parametrize("kind", KINDS, ids="".join)
def test_what_an_agent_signs_verifies(
    key_files: dict[tuple[str, str], Path], agent: dict[str, str], tmp_path: Path, kind: tuple[str, str]
) -> None:
    ran("ssh-add", "-q", key_files[kind], env=agent)
    alone = tmp_path / "only.pub"  # the private key is nowhere near it
    alone.write_text(key_files[kind].with_suffix(".pub").read_text())
    verified(signed_by_keygen(alone, options=("-U",), env=agent), public(key_files[kind]))


def test_another_key_another_purpose_and_another_kind_of_hash_are_refused(
    key_files: dict[tuple[str, str], Path],
) -> None:
    file = key_files["ed25519", ""]
    with pytest.raises(SignatureError, match="of another key"):
        verified(signed_by_keygen(file), PLAIN)
    with pytest.raises(SignatureError, match="not made for workstation@passport"):
        verified(signed_by_keygen(file, namespace="file"), public(file))
    weak = framed(PLAIN, sign_plain(to_sign("sha1")), digest=b"sha1")
    with pytest.raises(SignatureError, match="unknown kind of hash"):
        verified(armored(weak), PLAIN)


@pytest.mark.parametrize(("line", "sign"), SECURITY_KEYS, ids=["ed25519", "ecdsa"])
def test_a_security_key_counts_when_somebody_touched_it(line: str, sign: Sign) -> None:
    by = partial(touched, to_sign(), line, sign)
    for flags in (0x01, 0x05):  # touched; touched, and its PIN given
        verified(armored(framed(line, by(flags=flags))), line)
    for flags in (0x00, 0x04):
        with pytest.raises(SignatureError, match="nobody touched"):
            verified(armored(framed(line, by(flags=flags))), line)
    with pytest.raises(SignatureError, match="does not fit"):  # made for a web page
        verified(armored(framed(line, by(application=b"https://example.com"))), line)
    with pytest.raises(SignatureError, match="after its end"):
        verified(armored(framed(line, by(tail=b"\0"))), line)
    claimed = by(flags=0x00)
    lied = claimed[:-5] + b"\x01" + claimed[-4:]
    with pytest.raises(SignatureError, match="does not fit"):
        verified(armored(framed(line, lied)), line)


def test_ssh_keygen_takes_our_hand_made_security_key_signatures_too(tmp_path: Path) -> None:
    for line, sign in SECURITY_KEYS:
        (tmp_path / "allowed").write_text(f"ana {line}\n")
        (tmp_path / "signature").write_text(armored(framed(line, touched(to_sign(), line, sign))))
        words = ("-Y", "verify", "-n", NAMESPACE, "-I", "ana", "-f", tmp_path / "allowed", "-s", tmp_path / "signature")
        assert b"Good" in ran("ssh-keygen", *words, input=MESSAGE)


def test_rsa_with_sha_1_is_refused() -> None:
    key = rsa.generate_private_key(65537, 3072)
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    line = key.public_key().public_bytes(*form).decode()
    kinds: list[tuple[bytes, hashes.HashAlgorithm]] = [(b"ssh-rsa", hashes.SHA1()), (b"rsa-sha2-999", hashes.SHA512())]  # noqa: S303
    for name, kind in kinds:
        value = key.sign(to_sign(), padding.PKCS1v15(), kind)
        with pytest.raises(SignatureError, match="rsa-sha2-256 or rsa-sha2-512 only"):
            verified(armored(framed(line, string(name) + string(value))), line)
    lied = key.sign(to_sign(), padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    with pytest.raises(SignatureError, match="does not fit"):
        verified(armored(framed(line, string(b"rsa-sha2-512") + string(lied))), line)


GOOD = framed(PLAIN, sign_plain(to_sign()))
TEXT = armored(GOOD)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "begin and end"),
        ("-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----", "begin and end"),
        (TEXT.replace("SSH SIGNATURE", "SSH SIG"), "begin and end"),
        (f"x\n{TEXT}", "begin and end"),
        (f"{TEXT}x", "begin and end"),
        (f"{TEXT}{TEXT}", "not base64"),
        (TEXT.replace("\n", " \n"), "begin and end"),
        (TEXT.replace("U1NIU0lH", "U1NI\n\nU0lI"), "not a signature"),
        (TEXT.replace("U1NI", "U1N-"), "not base64"),
        (TEXT.replace("U1NI", "é1NI"), "damaged"),
        (TEXT + "\n" * 9000, "too long"),
        (armored(framed(PLAIN, sign_plain(to_sign()), magic=b"SSHSIH")), "not a signature"),
        (armored(framed(PLAIN, sign_plain(to_sign()), version=2)), "not a signature"),
        (armored(framed(PLAIN, sign_plain(to_sign()), tail=b"\0")), "after its end"),
        (armored(framed(PLAIN, sign_plain(to_sign()) + b"\0")), "after its end"),
        (armored(framed(PLAIN, string(b"ssh-ed25519") + string(ED25519.sign(to_sign())[:63]))), "does not fit"),
        (armored(framed(PLAIN, string(b"ssh-ed25519") + string(b""))), "does not fit"),
        (
            armored(framed(PLAIN, string(b"ecdsa-sha2-nistp256") + string(ecdsa_value(to_sign())))),
            "another kind of key",
        ),
        (armored(GOOD[:-1]), "cut off"),
    ],
)
def test_what_is_not_exactly_a_signature_is_refused(text: str, words: str) -> None:
    with pytest.raises(SignatureError, match=words):
        verified(text, PLAIN)


def test_the_reserved_field_is_covered() -> None:
    key = base64.b64decode(PLAIN.split()[1])
    for value in (b"", b"later"):
        head = b"SSHSIG" + u32(1) + string(key) + string(NAMESPACE.encode()) + string(value) + string(b"sha512")
        verified(armored(head + string(sign_plain(to_sign(reserved=value)))), PLAIN)
        with pytest.raises(SignatureError, match="does not fit"):
            verified(armored(head + string(sign_plain(to_sign(reserved=b"other")))), PLAIN)


def test_numbers_of_an_ecdsa_signature_have_one_form() -> None:
    line = line_of("ecdsa-sha2-nistp256", b"nistp256", POINT)
    verified(armored(framed(line, string(b"ecdsa-sha2-nistp256") + string(ecdsa_value(to_sign())))), line)
    reader = Reader(ecdsa_value(to_sign()))
    r, s = reader.string(), reader.string()
    for value in (string(b"\0" + r) + string(s), string(r) + string(s) + b"\0", string(r), string(b"") + string(b"")):
        with pytest.raises(SignatureError):
            verified(armored(framed(line, string(b"ecdsa-sha2-nistp256") + string(value))), line)


@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, value: int) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= value
    with pytest.raises(SignatureError):
        verified(armored(bytes(changed)), PLAIN)


@given(
    st.one_of(st.text(), st.binary().map(armored), st.binary(max_size=300).map(lambda more: armored(GOOD[:60] + more)))
)
def test_nonsense_is_refused_and_nothing_else_happens(text: str) -> None:
    for line in (PLAIN, SK_ED25519, SK_ECDSA):
        with pytest.raises(SignatureError):
            verified(text, line)


@given(signature=st.binary(max_size=200), line=st.sampled_from([PLAIN, SK_ED25519, SK_ECDSA]))
def test_a_nonsensical_inside_is_refused(signature: bytes, line: str) -> None:
    with pytest.raises(SignatureError):
        verified(armored(framed(line, string(line.split(maxsplit=1)[0].encode()) + signature)), line)
