"""Challenges that a person's key signs: stateless, bound to the key, good for ten minutes and for one success."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import timedelta

from access.errors import RefusedError
from access.ports import Clock

LASTS = timedelta(minutes=10)
NAMESPACE = "workstation@passport"  # what the signature is for: ssh-keygen -Y sign -n …
_HEAD = "passport-workstation-1"
_EXPIRY, _NONCE, _MAC = 8, 16, 32  # bytes


class StaleChallengeError(RefusedError):
    """The challenge is not one of ours for this key, or has run out; the script asks for another."""


class Challenges:
    """Makes and checks them; the first key makes, each of them checks, so that replicas can change keys one by one."""

    def __init__(self, keys: Sequence[bytes], *, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self._keys = tuple(keys)
        self._clock = clock
        self._random_bytes = random_bytes

    def issue(self, fingerprint: str) -> str:
        """A challenge for whoever says that this key (``SHA256:…``) is theirs."""
        expiry = int((self._clock() + LASTS).timestamp())
        body = expiry.to_bytes(_EXPIRY, "big") + self._random_bytes(_NONCE)
        return _encoded(body + _mac(self._keys[0], fingerprint, body))

    def check(self, challenge: str, fingerprint: str) -> str:
        """The name under which a success uses it up; raises StaleChallengeError."""
        blob = _decoded(challenge)
        body, mac = blob[:-_MAC], blob[-_MAC:]
        matches = [hmac.compare_digest(mac, _mac(key, fingerprint, body)) for key in self._keys]
        if not any(matches) or len(body) != _EXPIRY + _NONCE:
            raise StaleChallengeError("This challenge is not mine for your key. Run the same command again.")
        if int.from_bytes(body[:_EXPIRY], "big") <= self._clock().timestamp():
            raise StaleChallengeError("This challenge has run out. Run the same command again.")
        return f"workstation:{body[_EXPIRY:].hex()}"


def statement(*, home: str, act: str, host: str, challenge: str) -> bytes:
    """What the person signs: five lines, so that a signature for one Passport, act or server is none for another."""
    return "".join(f"{line}\n" for line in (_HEAD, home, act, host, challenge)).encode()


def _mac(key: bytes, fingerprint: str, body: bytes) -> bytes:
    return hmac.new(key, body + fingerprint.encode(), hashlib.sha256).digest()


def _encoded(blob: bytes) -> str:
    return base64.urlsafe_b64encode(blob).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """The bytes of a token in its one right form; none for any other."""
    try:
        blob = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
    return blob if _encoded(blob) == text else b""
