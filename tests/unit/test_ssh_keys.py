"""Public keys of people: what is taken, what is refused, and with which words."""

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from access.errors import InvalidInputError
from provisioning.ssh_keys import parse_public_key
from provisioning.ssh_wire import mpint, string

POINT = (
    ec.derive_private_key(7**40, ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
)
ED25519 = (
    Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    .public_key()
    .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    .decode()
)


def line_of(kind: str, *fields: bytes) -> str:
    """A key line with these fields, right or wrong."""
    return f"{kind} {base64.b64encode(string(kind.encode()) + b''.join(string(field) for field in fields)).decode()}"


def rsa_line(bits: int) -> str:
    """The same line in every run and process; whether somebody could sign with it does not matter here."""
    modulus = (1 << (bits - 1)) + int.from_bytes(bytes(range(1, 255, 2))) * 2 + 1
    numbers = rsa.RSAPublicNumbers(65537, modulus).public_key()
    return numbers.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


SK_ED25519 = line_of("sk-ssh-ed25519@openssh.com", bytes(range(32)), b"ssh:")
SK_ECDSA = line_of("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", POINT, b"ssh:work")


@pytest.mark.parametrize(
    "arguments", [("ed25519",), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "3072")]
)
def test_a_key_of_ssh_keygen_is_taken_with_its_fingerprint(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = tmp_path / "key"
    kind, *bits = arguments
    wanted = ["-b", *bits] if bits else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *wanted, "-N", "", "-C", "ana@laptop", "-f", file], check=True)
    text = file.with_suffix(".pub").read_text()
    shown = subprocess.run(["ssh-keygen", "-l", "-f", file], check=True, capture_output=True, text=True).stdout

    key = parse_public_key(text)

    assert key.line == " ".join(text.split()[:2])
    assert key.fingerprint == shown.split()[1]


@pytest.mark.parametrize("line", [SK_ED25519, SK_ECDSA])
def test_a_key_on_a_security_token_is_taken_and_ssh_keygen_agrees(tmp_path: Path, line: str) -> None:
    (tmp_path / "key.pub").write_text(line + "\n")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], check=True, capture_output=True, text=True
    ).stdout
    assert parse_public_key(f"{line} ana@laptop").fingerprint == shown.split()[1]


PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no key"),
        ("   \n", "no key"),
        (PRIVATE, "private key: never paste"),
        (PRIVATE.splitlines()[1], "private key: never paste"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "private key: never paste"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----", "PuTTY's form"),
        ("ssh-dss AAAAB3NzaC1kc3M=", "DSA"),
        (f"ssh-ed25519-cert-v01@openssh.com {ED25519.split()[1]}", "certificate"),
        (f'command="/bin/sh" {ED25519}', "before the key"),
        (f"{ED25519}\n{ED25519}", "one key at a time"),
        (f"{ED25519} \u202eetihw", "invisible characters"),
        (f"{ED25519}\x00", "invisible characters"),
        ("ssh-ed25519", "missing"),
        ("hello world", "do not know that kind"),
        ("A" * 9000, "too long"),
        (f"{ED25519}=", "damaged"),
        (f"{ED25519}AAAA", "damaged"),
        (ED25519[:-4], "damaged"),
        (ED25519.replace("ssh-ed25519 ", "ssh-rsa "), "damaged"),
        (line_of("ssh-ed25519", b"x" * 31), "32 bytes"),
        (line_of("ssh-ed25519", b"x" * 32, b"more"), "something after"),
        (line_of("ecdsa-sha2-nistp256", b"nistp384", POINT), "another curve"),
        (line_of("ecdsa-sha2-nistp256", b"nistp256", b"\x04" + b"\x01" * 64), "damaged"),
        (line_of("ecdsa-sha2-nistp256", b"nistp256", b"\x02" + POINT[1:33]), "compressed"),
        (line_of("sk-ssh-ed25519@openssh.com", b"x" * 32, b"https://example.com"), "application"),
        (line_of("ssh-rsa", b"\x01", b"\x00" + b"\xff" * 384), "weak"),
        (line_of("ssh-rsa", b"\x00\x01\x00\x01", b"\x00" + b"\xff" * 384), "number"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as refusal:
        parse_public_key(text)
    assert refusal.value.field == "key"


@pytest.mark.parametrize("bits", [1024, 2048])
def test_a_short_rsa_key_is_refused_with_its_length(bits: int) -> None:
    with pytest.raises(InvalidInputError, match=f"{bits} bits; I take 3072"):
        parse_public_key(rsa_line(bits))


def test_the_refusal_of_a_private_key_does_not_repeat_it() -> None:
    with pytest.raises(InvalidInputError) as refusal:
        parse_public_key(PRIVATE)
    assert "b3Blbn" not in refusal.value.sentence


def test_spaces_around_the_line_and_a_comment_with_anything_printable_are_dropped() -> None:
    key = parse_public_key(f"  {ED25519} <mailto:ana@example.com|ana@example.com> 'quoted' `x` $(y)  \n")
    assert key.line == ED25519


@given(st.text(max_size=300))
def test_any_text_is_taken_or_refused_with_a_sentence(text: str) -> None:
    try:
        key = parse_public_key(text)
    except InvalidInputError as refusal:
        sentence = refusal.sentence
    else:
        sentence = "Taken."
        assert key.line.isascii()
    assert sentence[:1].isupper()


@given(
    st.binary(max_size=120),
    st.sampled_from(["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"]),
)
def test_any_blob_is_taken_or_refused_and_never_changed(rest: bytes, kind: str) -> None:
    line = f"{kind} {base64.b64encode(string(kind.encode()) + rest).decode()}"
    try:
        key = parse_public_key(line)
    except InvalidInputError:
        return
    assert key.line == line


@given(st.integers(min_value=0, max_value=2**70))
def test_a_number_has_one_form(value: int) -> None:
    encoded = mpint(value)
    assert int.from_bytes(encoded[4:], "big") == value
    assert not encoded[4:].startswith(b"\x00") or encoded[5] & 0x80
