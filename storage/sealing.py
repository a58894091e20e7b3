"""Encryption at rest: AES-GCM bound to the place of a value, so that a value moved elsewhere does not open.

A sealed value is ``v1:<key id>:<base64 of nonce and ciphertext>``. Random 96-bit nonces are safe for 2³² values
a key (NIST SP 800-38D, section 8.3), far beyond the few secrets that Passport keeps.
"""

import base64
import binascii
import json
import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from storage.errors import SealError

VERSION = "v1"
KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,40}")


class Sealer:
    """Seals with the first of its keys and opens with any of them."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        """Take the keys as (id, 32 bytes), the one to seal with first; raises ValueError."""
        for key_id, key in keys:
            if not _KEY_ID.fullmatch(key_id):
                raise ValueError("the id of a sealing key has 1 to 40 letters, digits, dots, hyphens or underscores")
            if len(key) != KEY_BYTES:
                raise ValueError(f"the sealing key {key_id} has {len(key)} bytes instead of {KEY_BYTES}")
        if not keys:
            raise ValueError("there is no sealing key")
        if len({key_id for key_id, _ in keys}) < len(keys):
            raise ValueError("two sealing keys have the same id")
        self._first = keys[0][0]
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys}
        self._keys = tuple(key for _, key in keys)

    def __repr__(self) -> str:
        return f"Sealer({', '.join(self._ciphers)})"

    def seal(self, plain: bytes, *, table: str, column: str, row: str) -> str:
        """Encrypt the value for this one place."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._ciphers[self._first].encrypt(nonce, plain, _place(self._first, table, column, row))
        return f"{VERSION}:{self._first}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *, table: str, column: str, row: str) -> bytes:
        """Decrypt a value found at this place; raises SealError."""
        return self._open(sealed, f"{table}.{column} of {row}", table, column, row)

    def _open(self, sealed: str, what: str, *place: str) -> bytes:
        key_id, payload = _parse(sealed, what)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SealError(f"{what} is sealed with the key {key_id}, which is not among the sealing keys.")
        try:
            return cipher.decrypt(payload[:_NONCE_BYTES], payload[_NONCE_BYTES:], _place(key_id, *place))
        except InvalidTag:
            raise SealError(f"{what} does not open: it was altered, moved there, or sealed with another key.") from None

    def reseal(self, sealed: str, *, table: str, column: str, row: str) -> str:
        """The value sealed with the first key; unchanged if it is already. Raises SealError."""
        plain = self.open(sealed, table=table, column=column, row=row)
        if sealed.startswith(f"{VERSION}:{self._first}:"):
            return sealed
        return self.seal(plain, table=table, column=column, row=row)

    def derive(self, purpose: str) -> tuple[bytes, ...]:
        """A key for another purpose out of each of the keys, the first one's first (HKDF, RFC 5869)."""
        return tuple(
            HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=f"passport:{purpose}".encode()).derive(
                key
            )
            for key in self._keys
        )

    def seal_file(self, path: Path, plain: bytes, *, purpose: str, replace: bool = True) -> None:
        """Write the value to a file that only its owner can read, whole or not at all.

        Without ``replace``, raises FileExistsError where there is a file, be it made at the same moment.
        """
        sealed = self.seal(plain, table="file", column=purpose, row="")
        written, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 600
        try:
            with os.fdopen(written, "w", encoding="ascii") as file:
                file.write(sealed + "\n")
                file.flush()
                os.fsync(file.fileno())
            if replace:
                Path(name).replace(path)
            else:
                path.hardlink_to(name)
                Path(name).unlink()
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)

    def open_file(self, path: Path, *, purpose: str) -> bytes:
        """Read a value that ``seal_file`` wrote for this purpose; raises SealError, OSError."""
        return self._open(path.read_text(encoding="utf-8").strip(), f"The file {path}", "file", purpose, "")


def _place(*parts: str) -> bytes:
    return json.dumps([VERSION, *parts]).encode()  # JSON, so that no two places read the same


def _parse(sealed: str, place: str) -> tuple[str, bytes]:
    version, _, rest = sealed.partition(":")
    key_id, _, text = rest.partition(":")
    try:
        payload = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        payload = b""
    if version != VERSION or len(payload) <= _NONCE_BYTES:
        raise SealError(f"{place} is not a sealed value.")
    return key_id, payload


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
