"""A server that keeps its records in memory and answers as the scripts do: for crashes by the dozen."""

import base64
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.aws.nodes import Scripted
from tests.authorities import fingerprints

_KEY = base64.b64encode(struct.pack(">I11sI32s", 11, b"ssh-ed25519", 32, bytes(range(32)))).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Deed:
    """One script that ran, and how it ended."""

    act: str
    request_id: str
    end: str  # ok, or the code of its refusal
    at: float


class SteadyHost:
    """Makes and removes users idempotently; a create after its remove is refused, as by the real scripts."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}  # request ids by user name
        self.deeds: list[Deed] = []
        self._tombstones: set[str] = set()
        self._lock = threading.Lock()

    def answer(self, script: str, given: Mapping[str, str]) -> Scripted:
        """Run one of Passport's documents."""
        act = "create" if script.rstrip().endswith("create_main") else "remove"
        request_id, user = given["SSM_RequestId"], given["SSM_UserName"]
        time.sleep(0.03)
        with self._lock:
            refusal = self._refusal(request_id, given) if act == "create" else ""
            lines = [] if refusal else self._created(user, given) if act == "create" else self._removed(user, given)
            self.deeds.append(Deed(act=act, request_id=request_id, end=refusal or "ok", at=time.time()))
        frame = [f"passport:1:{act}", f"request={request_id}", f"user={user}", *lines]
        end = f"passport:end:failed:{refusal}" if refusal else "passport:end:ok"
        return Scripted(output="\n".join([*frame, end, ""]), code=1 if refusal else 0)

    def _refusal(self, request_id: str, given: Mapping[str, str]) -> str:
        if int(given["SSM_NotAfter"]) <= time.time():
            return "after_end"
        return "tombstone" if f"{request_id}.{given['SSM_Attempt']}" in self._tombstones else ""

    def _created(self, user: str, given: Mapping[str, str]) -> list[str]:
        existing = "yes" if user in self.users else "no"
        self.users[user] = given["SSM_RequestId"]
        known = [f"not_after={given['SSM_NotAfter']}", f"now={int(time.time())}", f"existing={existing}"]
        place = ["uid=200000", "timer=systemd", "sshd=drop_in", "port=22", f"host_key=ssh-ed25519 {_KEY}"]
        return [*known, *place, *(f"authority={key}" for key in fingerprints(given["SSM_CaPublicKey"]))]

    def _removed(self, user: str, given: Mapping[str, str]) -> list[str]:
        self._tombstones.add(f"{given['SSM_RequestId']}.{given['SSM_Attempt']}")
        there = self.users.pop(user, None) is not None
        counts = [f"{name}=0" for name in ("processes", "files", "mounts", "jobs")]
        ended = int(time.time()) if there else 0
        known = [f"result={'removed' if there else 'absent'}", f"ended_at={ended}", f"swept_at={int(time.time())}"]
        return [*known, *counts, "verified=yes", *(["uid=200000", "sudo=all"] if there else [])]
