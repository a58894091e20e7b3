"""What the real Windows document says, as the Windows double runs it, is what the doctor reads."""

from datetime import UTC, datetime

from provisioning.windows_probe import ProbedWindows, parse_probe_windows
from tests.windows_lab import HOUR, INSTANCE, PROBE, REQUEST, USER, WindowsLab, lab

__all__ = ["lab"]


def probed(lab: WindowsLab) -> ProbedWindows:
    _, output, _ = lab.host.powershell(PROBE.script, {"AWS_SSM_INSTANCE_ID": INSTANCE})
    found = parse_probe_windows(output)
    assert isinstance(found, ProbedWindows)
    return found


def test_a_sound_server_and_its_users(lab: WindowsLab) -> None:
    sound = probed(lab)
    assert (sound.has_scheduler, sound.remote_desktop, sound.domain_controller) == (True, True, False)
    assert (sound.users, sound.user_count) == ((), 0)
    assert sound.server_time == datetime.fromtimestamp(lab.clock.now, UTC)
    assert lab.create()["end"] == "ok"
    (user,) = probed(lab).users
    assert (user.request_id, user.user_name) == (REQUEST, USER)
    assert user.not_after == datetime.fromtimestamp(lab.clock.now + HOUR, UTC)
    assert lab.remove()["end"] == "ok"
    assert probed(lab).users == ()
