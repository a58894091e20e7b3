"""Whom a role's session names: AssumeRole's SourceIdentity, which a role's trust policy must allow by itself."""

from __future__ import annotations

import re
import threading
from urllib.parse import parse_qs

from sandbox.aws.errors import AwsError

# "AssumeRole", Security Token Service API reference.
IDENTITY = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
KEY = re.compile(r"<AccessKeyId>([A-Z0-9]+)</AccessKeyId>")


class Roles:
    """The accounts whose roles trust `sts:SetSourceIdentity`, and the keys whose session names somebody."""

    def __init__(self) -> None:
        self._trusting: set[str] = set()
        self._identities: dict[str, str] = {}
        self._lock = threading.Lock()

    def trust(self, account: str) -> None:
        """The roles of this account may be assumed with a SourceIdentity."""
        self._trusting.add(account)

    def check(self, operation: str, body: bytes) -> str:
        """The SourceIdentity that this call asks for, "" for none; raise AwsError where it is not allowed."""
        if operation != "AssumeRole":
            return ""
        asked = parse_qs(body.decode())
        identity, role = asked.get("SourceIdentity", [""])[0], asked.get("RoleArn", [""])[0]
        if not identity:
            return ""
        if not IDENTITY.fullmatch(identity) or identity.lower().startswith("aws:"):
            raise AwsError("ValidationError", f"1 validation error detected: Value '{identity}' at 'sourceIdentity'")
        if role.split(":")[4] not in self._trusting:
            words = f"User is not authorized to perform: sts:SetSourceIdentity on resource: {role}"
            raise AwsError("AccessDenied", words, status=403)
        return identity

    def remember(self, identity: str, answer: bytes) -> None:
        """The key in AssumeRole's answer is of a session that names somebody."""
        if found := KEY.search(answer.decode()):
            with self._lock:
                self._identities[found[1]] = identity

    def named_by(self, access_key: str) -> str:
        """The SourceIdentity of a key's session, "" for none."""
        return self._identities.get(access_key, "")
