"""The types of .NET that scripts may name, each with the members that are known and no others."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sandbox.windows.machine import SYSTEM, Machine
from sandbox.windows.values import VOID, Char, Net, PowerShellError, Row, UnknownError, number, octets, text, truth

CASTS: Mapping[str, Callable[[Any], Any]] = {
    "string": text,
    "int": number,
    "long": number,
    "bool": truth,
    "char": lambda value: Char(chr(number(value))),
    "byte": lambda value: _byte(number(value)),
    "byte[]": octets,
}


def _byte(value: int) -> int:
    if not 0 <= value < 256:
        raise PowerShellError("Value was either too large or too small for an unsigned byte.", "OverflowException")
    return value


def types(machine: Machine, write: Callable[[str], None]) -> dict[str, Net]:
    """What ``[name]`` gives, by lower-case name without ``System.``."""
    return {
        "console": _Static(Out=_Writer(write)),
        "array": _Array(),
        "convert": _Convert(),
        "datetimeoffset": _Instants(machine),
        "io.directory": _Directory(machine),
        "io.file": _File(machine),
        "microsoft.win32.registry": _Static(LocalMachine=_Hive(machine)),
        "security.principal.windowsidentity": _Identities(),
        "security.cryptography.randomnumbergenerator": _Randoms(),
        "security.cryptography.rsaencryptionpadding": _Static(OaepSHA256="OAEP-SHA256", OaepSHA1="OAEP-SHA1"),
    }


def made(name: str, argument: Any) -> Any:
    """New-Object."""
    if name == "byte[]":
        return bytearray(number(argument))
    makers: dict[str, Callable[[], Net]] = {
        "security.accesscontrol.directorysecurity": _Security,
        "security.cryptography.rsacng": _RsaCng,
        "security.cryptography.rsaparameters": _RsaParameters,
        "security.securestring": SecureString,
    }
    if name not in makers or argument is not None:
        raise UnknownError(f"a new {name}")
    return makers[name]()


class SecureString(Net):
    """A string that Windows keeps for itself."""

    def __init__(self) -> None:
        self._characters: list[str] = []
        self._fixed = False

    @property
    def content(self) -> str:
        """What only Windows sees."""
        return "".join(self._characters)

    def call_appendchar(self, character: Any) -> Any:
        if self._fixed or not isinstance(character, Char):
            raise UnknownError("AppendChar of something else than a char, or after MakeReadOnly")
        self._characters.append(str(character))
        return VOID

    def call_makereadonly(self) -> Any:
        self._fixed = True
        return VOID


class _Static(Row):
    def set(self, name: str, value: Any) -> None:
        raise UnknownError(f"{name} to be set to {value}")


class _Writer(Net):
    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def call_write(self, value: Any) -> Any:
        self._write(text(value))
        return VOID


class _Array(Net):
    def call_clear(self, array: Any, start: int, length: int) -> Any:
        if not isinstance(array, bytearray):
            raise UnknownError("Clear of something else than bytes")
        array[start : start + length] = bytes(length)
        return VOID


class _Convert(Net):
    def call_tobase64string(self, value: Any) -> str:
        return base64.b64encode(octets(value)).decode()

    def call_frombase64string(self, value: Any) -> bytearray:
        try:
            return bytearray(base64.b64decode(text(value), validate=True))
        except ValueError:
            raise PowerShellError("The input is not a valid Base-64 string.", "FormatException") from None


class _Instants(Net):
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def get_utcnow(self) -> Net:
        return Instant(self._machine.now)

    def call_fromunixtimeseconds(self, value: Any) -> Net:
        return Instant(float(number(value)))


class Instant(Net):
    """A DateTimeOffset or DateTime; a server of the sandbox is two hours east of UTC."""

    def __init__(self, seconds: float, *, utc: bool = False) -> None:
        self.seconds = seconds
        self._utc = utc

    def call_tounixtimeseconds(self) -> int:
        return int(self.seconds)

    def get_localdatetime(self) -> Net:
        return Instant(self.seconds)

    def get_utcdatetime(self) -> Net:
        return Instant(self.seconds, utc=True)

    def call_tostring(self, pattern: str) -> str:
        if pattern != "s":
            raise UnknownError(f"the format {pattern}")
        at = datetime.fromtimestamp(self.seconds, UTC) + (timedelta() if self._utc else timedelta(hours=2))
        return f"{at:%Y-%m-%dT%H:%M:%S}"


class _Directory(Net):
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def call_exists(self, path: Any) -> bool:
        return text(path).lower() in self._machine.folders

    def call_createdirectory(self, path: Any) -> Net:
        self._machine.folders.setdefault(text(path).lower(), "")
        return Row(FullName=text(path))

    def call_setaccesscontrol(self, path: Any, security: Any) -> Any:
        self._machine.folders[text(path).lower()] = security.descriptor
        return VOID


class _Security(Net):
    descriptor = ""

    def call_setsecuritydescriptorsddlform(self, form: Any) -> Any:
        self.descriptor = text(form)
        return VOID


class _File(Net):
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def call_exists(self, path: Any) -> bool:
        return text(path).lower() in self._machine.files

    def call_delete(self, path: Any) -> Any:
        self._machine.files.pop(text(path).lower(), None)
        return VOID

    def call_writealltext(self, path: Any, content: Any) -> Any:
        folder = text(path).lower().rpartition("\\")[0]
        if folder not in self._machine.folders:
            raise PowerShellError(
                "Could not find a part of the path.", "IO.DirectoryNotFoundException", "IO.IOException"
            )
        self._machine.files[text(path).lower()] = text(content)
        return VOID

    def call_open(self, path: Any, mode: Any, access: Any, share: Any) -> Net:
        if (mode, access, share) != ("OpenOrCreate", "ReadWrite", "None"):
            raise UnknownError(f"a file opened as {mode}, {access}, {share}")
        key = text(path).lower()
        with self._machine.lock:
            if key in self._machine.held:
                raise PowerShellError("The process cannot access the file, for another has it.", "IO.IOException")
            self._machine.held.add(key)
        self._machine.files.setdefault(key, "")
        return _OpenFile(self._machine, key)


class _OpenFile(Net):
    def __init__(self, machine: Machine, key: str) -> None:
        self._machine, self._key = machine, key

    def call_dispose(self) -> Any:
        self._machine.held.discard(self._key)
        return VOID


class _Hive(Net):
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def call_opensubkey(self, path: Any) -> Net | None:
        return _Key(self._machine, text(path)) if self._machine.keys_below(text(path)) is not None else None

    def call_createsubkey(self, path: Any) -> Net:
        self._machine.make_key(text(path))
        return _Key(self._machine, text(path), writes=True)

    def call_deletesubkeytree(self, path: Any, must: Any) -> Any:
        if must is not False:
            raise UnknownError("DeleteSubKeyTree that throws")
        self._machine.remove_key(text(path))
        return VOID


class _Key(Net):
    def __init__(self, machine: Machine, path: str, *, writes: bool = False) -> None:
        self._machine, self._path, self._writes = machine, path, writes

    def call_getvalue(self, name: Any, default: Any) -> Any:
        return self._machine.registry.get(self._path.lower(), {}).get(text(name), default)

    def call_setvalue(self, name: Any, value: Any) -> Any:
        if not self._writes:
            raise PowerShellError("Cannot write to the registry key.", "UnauthorizedAccessException")
        self._machine.registry[self._path.lower()][text(name)] = value
        return VOID

    def call_getsubkeynames(self) -> list[str]:
        return self._machine.keys_below(self._path) or []

    def call_flush(self) -> Any:
        self._machine.flush(self._path)
        return VOID

    def call_dispose(self) -> Any:
        return VOID


class _Identities(Net):
    def call_getcurrent(self) -> Net:
        return Row(User=Row(Value=SYSTEM))


class _Randoms(Net):
    def call_create(self) -> Net:
        return _Random()


class _Random(Net):
    def call_getbytes(self, array: Any) -> Any:
        if not isinstance(array, bytearray):
            raise UnknownError("GetBytes into something else than bytes")
        array[:] = secrets.token_bytes(len(array))
        return VOID


class _RsaParameters(Net):
    modulus: bytes | None = None
    exponent: bytes | None = None

    def set_modulus(self, value: Any) -> None:
        self.modulus = bytes(octets(value))

    def set_exponent(self, value: Any) -> None:
        self.exponent = bytes(octets(value))


class _RsaCng(Net):
    _key: rsa.RSAPublicKey | None = None

    def call_importparameters(self, given: Any) -> Any:
        if given.modulus is None or given.exponent is None:
            raise PowerShellError("The specified RSA parameters are not valid.", "CryptographicException")
        numbers = rsa.RSAPublicNumbers(int.from_bytes(given.exponent), int.from_bytes(given.modulus))
        self._key = numbers.public_key()
        return VOID

    def call_encrypt(self, plain: Any, how: Any) -> bytearray:
        if self._key is None or how != "OAEP-SHA256":
            raise UnknownError(f"Encrypt with {how}, or without a key")
        mask = padding.MGF1(algorithm=hashes.SHA256())
        oaep = padding.OAEP(mgf=mask, algorithm=hashes.SHA256(), label=None)
        return bytearray(self._key.encrypt(bytes(octets(plain)), oaep))

    def call_dispose(self) -> Any:
        return VOID
