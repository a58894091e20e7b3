"""How a laptop reaches the Remote Desktop of a Windows server: a port of its own, forwarded by Session Manager."""

import re

from access.model import Grant

_INSTANCE_ID = re.compile(r"m?i-[0-9a-f]{8,17}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]{2,12}){1,3}-[0-9]{1,2}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


def forwarding_command(grant: Grant, local_port: int) -> str:
    """The command that forwards ``localhost:local_port``; raises ValueError for what does not belong into one."""
    words = (
        f"aws ssm start-session --target {_matching(_INSTANCE_ID, grant.server.instance_id)}",
        "--document-name AWS-StartPortForwardingSession",
        f"--parameters portNumber={_matching(_PORT, grant.details.get('port', '3389'))},localPortNumber={local_port}",
        f"--region {_matching(_REGION, grant.server.region)}",
    )
    return " ".join(words)


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{text[:40]!r} does not belong into a command")
    return text
