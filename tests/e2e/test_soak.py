"""The soak: two minutes of it with choices that are new each time, and proof that it would notice."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.ground import Ground
from tests.soak.oracle import Oracle
from tests.soak.plan import HOSTS, Plan, plan
from tests.soak.story import Story, Told

ROOT = Path(__file__).parents[2]
SECONDS = 120


@pytest.mark.hosts
@pytest.mark.timeout(600)
def test_two_minutes_of_random_stories_in_random_weather() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--seconds", str(SECONDS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert "everything held" in done.stdout


def test_a_seed_plays_the_same_choices_again_and_another_plays_others() -> None:
    first = [plan(7, number, database_fails=True) for number in range(50)]

    assert first == [plan(7, number, database_fails=True) for number in range(50)]
    assert first != [plan(8, number, database_fails=True) for number in range(50)]


@pytest.mark.hosts
@pytest.mark.timeout(420)
def test_what_is_not_so_is_found(tmp_path: Path) -> None:
    with Ground(tmp_path, seed=2) as ground:
        oracle = Oracle(ground)
        told = Story(ground, _STORY).play()
        assert told.logged_in == len(HOSTS)
        assert list(oracle.faults(told, calm=True)) == []

        systemd, cron = (ground.company.hosts[name] for name in HOSTS)
        systemd.run("useradd", "pp-gone")
        cron.run("sh", "-c", "echo 'Accepted publickey for root from 10.0.0.1 port 1 ssh2' >> /var/log/sshd.log")
        with ground.passport.log.open("a") as log:
            log.write("Traceback (most recent call last):\nKeyError: 'x'\n")
        for message in ground.audit_channel()[:1]:
            ground.company.slack.workspace.delete(message)
        found = "\n".join(oracle.faults(Told(typed=-1, setback="no login"), calm=True))

    assert "still has the user pp-gone" in found
    assert "a login that nobody asked for: Accepted publickey for root" in found
    assert "in the log: Traceback" in found
    assert "the channel has the events" in found
    assert "-1 requests were typed, 0 were made" in found
    assert "on a calm day: no login" in found


_STORY = Plan(
    number=1,
    requester="ana",
    servers=HOSTS,
    seconds=60,
    slip="",
    relinks=False,
    repeats=True,
    decision="approve twice",
    logs_in=True,
    plants=True,
    thief=True,
    end="done",
    troubles=(),
)
