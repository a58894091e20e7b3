"""What the create document answers on Windows, read as strictly as Linux's; the others answer in the same words."""

import base64
import binascii
from dataclasses import dataclass, field
from datetime import datetime

from provisioning.framing import FramingError, read_frame
from provisioning.refusals import Refused

CIPHERTEXT_BYTES = 256  # of RSA with 2,048 bits


@dataclass(frozen=True, kw_only=True, slots=True)
class CreatedWindows:
    """The user is there, and so is its end; ``password`` is encrypted to the grant's key, in base64."""

    user_name: str
    uid: int  # the last part of its security id
    existing: bool
    not_after: datetime
    server_time: datetime
    port: int  # of Remote Desktop
    password: str = field(repr=False)


def parse_create_windows(output: str, *, request_id: str, user_name: str) -> CreatedWindows | Refused:
    """Read the create document's answer about this user; raises FramingError."""
    frame = read_frame(output, "create")
    if frame.refused is not None:
        return frame.refused
    frame.must_be("request", request_id)
    frame.must_be("user", user_name)
    frame.must_be("timer", "task")
    return CreatedWindows(
        user_name=user_name,
        uid=frame.number("uid"),
        existing=frame.choice("existing", "yes", "no") == "yes",
        not_after=frame.instant("not_after"),
        server_time=frame.instant("now"),
        port=frame.port("port"),
        password=_ciphertext(frame.one("password")),
    )


def _ciphertext(text: str) -> str:
    try:
        size = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != CIPHERTEXT_BYTES:
        raise FramingError("The server's password is not encrypted as it should be.")
    return text
