"""What the probe document answers on Windows, read as strictly as Linux's."""

from dataclasses import dataclass
from datetime import datetime

from provisioning.framing import Present, read_frame, read_present
from provisioning.refusals import Refused


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbedWindows:
    """What a Windows server says of itself."""

    system: str
    server_time: datetime
    has_scheduler: bool
    remote_desktop: bool
    domain_controller: bool
    users: tuple[Present, ...] = ()  # at most twenty
    user_count: int = 0


def parse_probe_windows(output: str) -> ProbedWindows | Refused:
    """Read the probe document's answer; raises FramingError."""
    frame = read_frame(output, "probe")
    if frame.refused is not None:
        return frame.refused
    return ProbedWindows(
        system=frame.one("os").strip(),
        server_time=frame.instant("now"),
        has_scheduler=frame.choice("timer", "task", "none") == "task",
        remote_desktop=frame.choice("rdp", "yes", "no") == "yes",
        domain_controller=frame.choice("domain_controller", "yes", "no") == "yes",
        users=tuple(read_present(value) for value in frame.many("account")),
        user_count=frame.number("accounts"),
    )
