"""What an agent of a version can do (src/config/config.go and src/version of session-manager-plugin)."""

from __future__ import annotations

# Each is there in versions *after* the one named.
TERMINATES_BY_FLAG = "2.3.722.0"
MULTIPLEXES = "3.0.196.0"
NEEDS_NO_KEEP_ALIVE = "3.1.1511.0"
# port.go of the agent: an older client gets one connection at a time.
CLIENT_MULTIPLEXES = "1.1.70.0"


def is_after(version: str, other: str) -> bool:
    """Whether a version is greater; a version of another length or with letters never is."""
    try:
        one, two = ([int(part) for part in text.split(".")] for text in (version, other))
    except ValueError:
        return False
    return len(one) == len(two) and one > two
