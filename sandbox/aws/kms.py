"""Where moto's KMS is laxer than AWS's: keys out of use that sign, messages of any length, a field left out."""

from __future__ import annotations

import base64
import json
from typing import Any

from moto.kms.models import Key, kms_backends

from sandbox.aws.callers import Caller
from sandbox.aws.errors import AwsError

TARGET = "TrentService."
# "Key states of AWS KMS keys", AWS KMS Developer Guide: what these two answer for a key in that state.
OUT_OF_USE = {"Disabled": "DisabledException", "PendingDeletion": "KMSInvalidStateException"}
USES = {"GetPublicKey", "Sign"}
MOST_RAW = 4096  # "Sign", AWS KMS API Reference


def refuse(operation: str, caller: Caller, request: dict[str, Any]) -> None:
    """Raise AwsError for what AWS would refuse and moto would not."""
    if operation not in USES:
        return
    key = _key(caller, str(request.get("KeyId", "")))
    if key is None:
        return  # moto says so itself
    if key.key_state in OUT_OF_USE:
        raise AwsError(OUT_OF_USE[key.key_state], f"{key.arn} is {key.key_state.lower()}.")
    if operation == "Sign":
        _check_message(base64.b64decode(request.get("Message", "")), str(request.get("MessageType", "RAW")))


def mend(operation: str, answer: bytes) -> bytes:
    """The answer with KeySpec, which moto leaves out beside its older name, and the key's ARN instead of its id."""
    found = json.loads(answer)
    if operation == "GetPublicKey" and "CustomerMasterKeySpec" in found:
        found["KeySpec"] = found["CustomerMasterKeySpec"]
    return json.dumps(found).encode()


def _check_message(message: bytes, kind: str) -> None:
    if len(message) > MOST_RAW:
        raise AwsError("ValidationException", "'message' must have length less than or equal to 4096")
    if kind != "RAW":
        # moto would sign the digest as if it were the message.
        raise AwsError("KMSInternalException", "the sandbox's KMS signs RAW messages only", status=500)


def _key(caller: Caller, name: str) -> Key | None:
    backend = kms_backends[caller.account][caller.region]
    key: Key | None = backend.keys.get(backend.any_id_to_key_id(name))
    return key
