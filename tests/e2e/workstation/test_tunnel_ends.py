"""Tunnels of `ssh web-1.passport` end with their access: with a silent agent, and after a kill -9 of Passport."""

import subprocess
from collections.abc import Iterator

import pytest

from sandbox.company import COMMAND
from sandbox.reading import wait_for
from tests.e2e.workstation.test_serve import Desk, desk, set_up

__all__ = ["desk", "set_up"]  # the fixtures
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]


class Evening:
    """Ana is logged in on web-1, through a tunnel that Passport opened."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.double = desk, desk.company.aws
        self.request_id = desk.ask("web-1 for 1h")
        desk.approve(self.request_id)
        desk.ready(self.request_id)
        self.shell = wait_for(self._logged_in, "a login")

    def _logged_in(self) -> subprocess.Popen[str] | None:
        """A shell; the laptop may have to notice first that the request is another."""
        shell = self.desk.laptop.start("ssh", "-o", "BatchMode=yes", "web-1.passport", "echo in; sleep 600")
        assert shell.stdout
        if shell.stdout.readline() == "in\n":
            return shell
        shell.communicate()
        return None

    def tunnels(self) -> list[str]:
        """The sessions of this request that are open, by their reason."""
        return [
            session.reason
            for session in self.double.sessions
            if session.ended_at is None and session.reason.startswith(f"passport {self.request_id}.")
        ]

    def done(self) -> None:
        self.desk.ana.slack.command(COMMAND, f"done {self.request_id}")


@pytest.fixture
def evening(set_up: Desk) -> Iterator[Evening]:
    evening = Evening(set_up)
    yield evening
    evening.double.faults.clear()
    evening.shell.kill()
    evening.shell.communicate()


def test_a_silent_agent_keeps_no_tunnel_open(evening: Evening) -> None:
    assert len(evening.tunnels()) == 1
    evening.double.faults.stall(evening.desk.company.servers["web-1"])
    evening.done()
    assert evening.shell.wait(timeout=60) == 255  # the server has not even heard of it
    wait_for(lambda: not evening.tunnels(), "the tunnel to be closed")
    kinds = [event["kind"] for event in evening.desk.events() if event["request_id"] == evening.request_id]
    assert "tunnel.opened" in kinds and "grant.removed" not in kinds
    evening.double.faults.unstall(evening.desk.company.servers["web-1"])
    evening.desk.closed(evening.request_id)


def test_a_passport_that_was_killed_finds_its_tunnels_again(evening: Evening) -> None:
    evening.desk.passport.kill()
    with pytest.raises(subprocess.TimeoutExpired):  # nobody is cut off by that
        evening.shell.wait(timeout=1)
    evening.desk.passport.start()
    evening.done()
    assert evening.shell.wait(timeout=60) == 255
    evening.desk.closed(evening.request_id)
    assert not evening.tunnels()
