"""The certificate authority as the rest of Passport sees it: whichever of its keys is to sign."""

import logging
from collections.abc import Callable, Sequence

from access.authorities import Authority
from access.errors import UnavailableError
from access.ports import Certificate
from provisioning.ssh_ca import SshCertificateAuthority

_log = logging.getLogger(__name__)

Find = Callable[[Authority], SshCertificateAuthority]


class AuthorityRing:
    """Signs with the first key that this process has and that works; ``access.ports.CertificateAuthority``.

    ``find`` raises UnavailableError for a key that cannot be used here. What it found is kept: a key never changes
    under its fingerprint.
    """

    def __init__(self, find: Find) -> None:
        self._find = find
        self._found: dict[str, SshCertificateAuthority] = {}

    def certify(self, wanted: Certificate, signers: Sequence[Authority]) -> str:
        """The certificate as one line ``type base64``; raises UnavailableError with what the first key lacks."""
        lacks: list[UnavailableError] = []
        for authority in signers:
            try:
                return self._key(authority).certify(wanted)
            except UnavailableError as error:
                _log.warning("The key %s cannot sign: %s", authority.fingerprint, error.sentence)
                lacks.append(error)
        raise lacks[0] if lacks else ValueError("somebody has to sign")

    def _key(self, authority: Authority) -> SshCertificateAuthority:
        if authority.fingerprint not in self._found:
            self._found[authority.fingerprint] = self._find(authority)
        return self._found[authority.fingerprint]
