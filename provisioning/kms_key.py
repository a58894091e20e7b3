"""The certificate authority's key in AWS KMS: Passport may have it sign, and nobody can carry it away."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import Buffer

from access.errors import UnavailableError
from provisioning.aws import AwsAccount, Sessions
from provisioning.aws_errors import DENIED, AwsError

# "Sign", AWS KMS API Reference: with MessageType RAW, a Message has 1 to 4,096 bytes.
MOST_RAW = 4096
USAGE, SPEC, ALGORITHM = "SIGN_VERIFY", "ECC_NIST_P256", "ECDSA_SHA_256"
OWN = "kms"
# "Key states of AWS KMS keys", AWS KMS Developer Guide: what a call answers for one that is not Enabled.
_OUT_OF_USE = frozenset({"DisabledException", "KMSInvalidStateException", "NotFoundException"})


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyState:
    """What KMS says of a key."""

    usage: str
    spec: str
    state: str  # Enabled, Disabled, PendingDeletion, …


class KmsKeys:
    """KMS keys by their ARN, with Passport's own credentials: the key may be in an account of its own."""

    def __init__(self, *, session_name: str = "passport") -> None:
        own = AwsAccount(name=OWN, id="", regions=())
        self._sessions = Sessions([own], session_name=session_name)

    def key(self, arn: str) -> "KmsKey":
        """The key, its public half read once and checked; raises UnavailableError."""
        with _told(arn, "kms:GetPublicKey"):
            answer = _twice(
                lambda: self._sessions.call(OWN, _region(arn), "kms", "get_public_key", once=True, KeyId=arn)
            )
        usage, spec = answer.get("KeyUsage"), answer.get("KeySpec")
        public = serialization.load_der_public_key(answer["PublicKey"])
        is_p256 = isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
        if not is_p256 or (usage, spec) != (USAGE, SPEC) or ALGORITHM not in answer.get("SigningAlgorithms", ()):
            raise UnavailableError(f"{arn} is a {spec} key for {usage}. Make one that is {SPEC} and for {USAGE}.")
        assert isinstance(public, ec.EllipticCurvePublicKey)  # noqa: S101 - seen above
        return KmsKey(self, arn, public)

    def state(self, arn: str) -> KeyState:
        """What it is, and whether it is enabled; raises UnavailableError."""
        with _told(arn, "kms:DescribeKey"):
            answer = _twice(lambda: self._sessions.call(OWN, _region(arn), "kms", "describe_key", once=True, KeyId=arn))
        found = answer["KeyMetadata"]
        return KeyState(usage=found["KeyUsage"], spec=found["KeySpec"], state=found["KeyState"])

    def sign(self, arn: str, message: bytes, kind: str) -> bytes:
        """The signature, DER, of a ``RAW`` message or of its ``DIGEST``; raises UnavailableError."""
        wanted: dict[str, Any] = {"Message": message, "MessageType": kind, "SigningAlgorithm": ALGORITHM}
        with _told(arn, "kms:Sign"):
            answer = _twice(
                lambda: self._sessions.call(OWN, _region(arn), "kms", "sign", once=True, KeyId=arn, **wanted)
            )
        signature: bytes = answer["Signature"]
        return signature


def _region(arn: str) -> str:
    return arn.split(":")[3]


def _twice(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Tried again at once where that may help: with both, somebody waits for 6 seconds at most; raises AwsError."""
    try:
        return ask()
    except AwsError as error:
        if not error.retryable:
            raise
    return ask()


@contextmanager
def _told(arn: str, action: str) -> Iterator[None]:
    """What AWS's refusal means, and who mends it; raises UnavailableError."""
    try:
        yield
    except AwsError as error:
        raise UnavailableError(_sentence(error, arn, action)) from error


class KmsKey(ec.EllipticCurvePrivateKey):
    """A P-256 key that only signs; whoever signs with it verifies what came back."""

    def __init__(self, keys: KmsKeys, arn: str, public_key: ec.EllipticCurvePublicKey) -> None:
        self._keys = keys
        self._arn = arn
        self._public_key = public_key

    def __repr__(self) -> str:
        return f"KmsKey({self._arn})"

    def __copy__(self) -> "KmsKey":
        return self

    def __deepcopy__(self, memo: object) -> "KmsKey":
        return self

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """The signature, DER; raises UnavailableError."""
        chosen = signature_algorithm.algorithm
        if not isinstance(signature_algorithm, ec.ECDSA) or not isinstance(chosen, hashes.SHA256):
            raise ValueError("this key signs with ECDSA and SHA-256")  # noqa: TRY004 - it is about the choice
        message, kind = bytes(data), "RAW"
        if len(message) > MOST_RAW:
            digest = hashes.Hash(hashes.SHA256())
            digest.update(message)
            message, kind = digest.finalize(), "DIGEST"
        return self._keys.sign(self._arn, message, kind)

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Never: it only signs."""
        raise NotImplementedError

    def private_numbers(self) -> NoReturn:
        """Never: they stay in KMS."""
        raise NotImplementedError

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - cryptography's name
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        """Never: they stay in KMS."""
        raise NotImplementedError


def _sentence(error: AwsError, arn: str, action: str) -> str:
    if error.code in DENIED:
        return f"AWS does not let Passport's role call {action} on {arn}. An admin allows it."
    if error.code in _OUT_OF_USE:
        return f"The certificate authority's key {arn} is not there, or disabled, in AWS KMS. An admin enables it."
    if error.retryable:
        return "AWS KMS, which signs my certificates, does not answer now. Try again in a minute."
    return f"AWS KMS does not sign my certificates ({error.code}). An admin runs `passport doctor`."
