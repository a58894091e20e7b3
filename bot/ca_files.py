"""The certificate authority's keys in sealed files: the first in ``ca_key_file``, later ones beside it.

A file beside it is named after the beginning of its key's fingerprint, so that no key ever takes another's place:
a crash between any two steps leaves a file too many, never one too few.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from access.authorities import FILE, Authority, AuthorityRole
from access.errors import PassportError, UnavailableError
from bot.settings import SettingsError
from provisioning.ssh_ca import SshCertificateAuthority
from storage.sealing import Sealer

PURPOSE = "ssh-ca"
ABANDONED = timedelta(hours=1)  # what is not on record by then never will be
_BESIDE = re.compile(r"\.[0-9A-Za-z-]{16}$")


class KeyFiles:
    """Finds, makes and takes away the private keys of this machine."""

    def __init__(self, path: Path, sealing: Sealer) -> None:
        self._path = path
        self._sealing = sealing

    @property
    def has_first(self) -> bool:
        """Whether ``ca_key_file`` is there."""
        return self._path.exists()

    def first(self) -> SshCertificateAuthority:
        """The key of ``ca_key_file``, made if the file is not there; raises SettingsError."""
        try:
            if not self._path.exists():
                self._write(self._path, SshCertificateAuthority.generate())
        except FileExistsError:
            pass  # another replica's start was quicker
        except OSError as error:
            raise self._unusable(self._path, error) from None
        return self._read(self._path)

    def make(self) -> SshCertificateAuthority:
        """A new key, in a file of its own; raises SettingsError."""
        made = SshCertificateAuthority.generate()
        path = self._beside(made.fingerprint)
        try:
            self._write(path, made)
        except OSError as error:
            raise self._unusable(path, error) from None
        return made

    def find(self, authority: Authority) -> SshCertificateAuthority:
        """The key of that fingerprint; raises UnavailableError if no file here holds it."""
        for path in (self._beside(authority.fingerprint), self._path):
            if path.exists():
                try:
                    found = self._read(path)
                except PassportError as error:
                    raise UnavailableError(error.sentence) from None
                if found.fingerprint == authority.fingerprint:
                    return found
        name = self._beside(authority.fingerprint).name
        raise UnavailableError(
            f"The certificate authority's key {authority.fingerprint} is not on this machine. An admin copies "
            f"{self._path} or {name} here, or runs `passport ca rotate --compromised` if it is lost."
        )

    def forget(self, fingerprint: str) -> None:
        """Take away the file of a key that must not sign any more, or was never put to use; raises SettingsError."""
        for path in (self._beside(fingerprint), self._path):
            try:
                if path.exists() and self._read(path).fingerprint == fingerprint:
                    path.unlink()
            except OSError as error:
                raise self._unusable(path, error) from None

    def tidy(self, authorities: Iterable[Authority], now: datetime) -> None:
        """Take away what a crash or another machine's command has left behind; raises SettingsError."""
        used = {self._path}
        for authority in authorities:
            if authority.role is AuthorityRole.RETIRED and authority.place == FILE:
                self.forget(authority.fingerprint)
            else:
                used.add(self._beside(authority.fingerprint))
        for path in {*self._path.parent.glob(f".{self._path.name}.*"), *self._others()} - used:
            if path.exists() and now.timestamp() - path.stat().st_mtime > ABANDONED.total_seconds():
                path.unlink(missing_ok=True)

    def open_to_others(self) -> Iterator[Path]:
        """The files that others than their owner may read or write."""
        for path in sorted({self._path, *self._others()}):
            if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                yield path

    def _others(self) -> Iterator[Path]:
        return (path for path in self._path.parent.glob(f"{self._path.name}.*") if _BESIDE.search(path.name))

    def _beside(self, fingerprint: str) -> Path:
        name = re.sub(r"[^0-9A-Za-z]", "-", fingerprint.removeprefix("SHA256:"))
        return self._path.with_name(f"{self._path.name}.{name[:16]}")

    def _write(self, path: Path, key: SshCertificateAuthority) -> None:
        self._sealing.seal_file(path, key.private_pem(), purpose=PURPOSE, replace=False)

    def _read(self, path: Path) -> SshCertificateAuthority:
        try:
            return SshCertificateAuthority.from_pem(self._sealing.open_file(path, purpose=PURPOSE))
        except (OSError, ValueError) as error:
            raise self._unusable(path, error) from None

    def _unusable(self, path: Path, error: Exception) -> SettingsError:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        return SettingsError(f"The file of the setting ca_key_file cannot be used: {path}: {why}.")
