"""The SSH wire encoding: lengths, strings and integers (RFC 4251, section 5)."""

import base64
import binascii


def string(value: bytes) -> bytes:
    """A string: its length, then its bytes."""
    return len(value).to_bytes(4, "big") + value


def mpint(value: int) -> bytes:
    """A non-negative integer in its one right form."""
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


def u32(value: int) -> bytes:
    """Four bytes, the highest first."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """Eight bytes, the highest first."""
    return value.to_bytes(8, "big")


def decode_base64(text: str) -> bytes:
    """The bytes of base64 in its one right form; raises ValueError for any other."""
    try:
        blob = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("that is not base64") from error
    if base64.b64encode(blob).decode() != text:
        raise ValueError("that is not how base64 is written")
    return blob


class Reader:
    """Takes values off the front of a blob; every method raises ValueError when it is too short."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self._at = 0

    def take(self, length: int) -> bytes:
        """That many bytes."""
        end = self._at + length
        if end > len(self._blob):
            raise ValueError("it is cut off")
        taken, self._at = self._blob[self._at : end], end
        return taken

    def u32(self) -> int:
        """Four bytes as a number."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Eight bytes as a number."""
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        """A string's bytes."""
        start = self._at + 4
        end = start + int.from_bytes(self._blob[self._at : start], "big")
        if end > len(self._blob):
            raise ValueError("it is cut off")
        self._at = end
        return self._blob[start:end]

    def mpint(self) -> int:
        """A non-negative integer; also raises ValueError for a negative or padded one."""
        encoded = self.string()
        value = int.from_bytes(encoded, "big")
        if mpint(value) != string(encoded):
            raise ValueError("a number is not written as it should be")
        return value

    @property
    def at_end(self) -> bool:
        """Whether everything was taken."""
        return self._at == len(self._blob)

    def finish(self) -> None:
        """Raises ValueError when something is left over."""
        if not self.at_end:
            raise ValueError("there is something after its end")
