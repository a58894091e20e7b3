"""The soak: a few stories on each engine with choices that are new each time, and proof that it would notice."""

import re
import secrets
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.reading import wait_for
from tests.soak import oracle as judging
from tests.soak.__main__ import main
from tests.soak.ground import Ground
from tests.soak.oracle import Oracle
from tests.soak.plan import CALM_EVERY, HOSTS, Plan, plan
from tests.soak.story import Story
from tests.soak.told import APPROVED, COMPLETED, DENIED, REVOKED, Told
from tests.soak.watch import Watch

ROOT = Path(__file__).parents[2]
SECONDS = 50
KINDS = 6  # of seeds: every third plays on PostgreSQL, every second over sockets
BEN = "Ben Ito"


@pytest.mark.hosts
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [pytest.param(0, id="postgres-http"), pytest.param(1, id="sqlite-sockets")])
def test_random_stories_in_random_weather(kind: int, tmp_path: Path) -> None:
    seed, output = secrets.randbelow(100_000) * KINDS + kind, tmp_path / "output"
    command = [sys.executable, "-m", "tests.soak", "--seconds", str(SECONDS), "--seed", str(seed)]
    with output.open("w") as file:
        try:
            ended = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, check=False, timeout=540).returncode
        except subprocess.TimeoutExpired:
            ended = None
    said = f"seed {seed}\n{output.read_text()}"
    assert ended == 0, said
    found = re.search(r"(\d+) stories, (\d+) troubles of (\d+) kinds, .*: everything held", said)
    assert found, said
    told, troubles, kinds = map(int, found.groups())
    assert told >= CALM_EVERY, said
    assert troubles >= told - told // CALM_EVERY, said  # at least one in every story that is not calm
    assert kinds >= 1, said


def test_a_seed_plays_the_same_choices_again_and_another_plays_others() -> None:
    first = [plan(7, number, postgres=True, sockets=True) for number in range(50)]

    assert first == [plan(7, number, postgres=True, sockets=True) for number in range(50)]
    assert first != [plan(8, number, postgres=True, sockets=True) for number in range(50)]
    assert [story.number for story in first if not story.troubles] == list(range(0, 50, CALM_EVERY))
    assert any(story.beside for story in first)


@pytest.mark.parametrize("seconds", ["0", "29", "-5"])
def test_a_time_in_which_nothing_is_told_is_refused(
    seconds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["soak", "--seconds", seconds])
    with pytest.raises(SystemExit, match="2"):
        main()
    printed = capsys.readouterr()
    assert f"{seconds} seconds are too few to tell anything. Give it 30 or more." in printed.err
    assert "held" not in printed.out


@pytest.mark.hosts
@pytest.mark.timeout(420)
def test_what_is_not_so_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ground(tmp_path, seed=2) as ground, Watch(ground.company.hosts.values()) as watch:
        oracle = Oracle(ground, watch)
        story = Story(ground, _STORY)
        told = story.play()
        assert told.logged_in == len(HOSTS)
        assert list(oracle.faults(told, calm=True)) == []
        assert {(APPROVED, BEN), (COMPLETED, "Ana Ruiz")} <= told.said
        assert told.answered == {APPROVED, COMPLETED}

        short = Story(ground, _SHORT).play()
        wait_for(lambda: ground.state(short.request_id) == "ended", "the end of the short one", seconds=60)
        systemd, cron = (ground.company.hosts[name] for name in HOSTS)
        systemd.run("useradd", "pp-gone")
        late = f"pp-{short.request_id.removeprefix('AR-').lower()}"
        cron.run("useradd", late)
        monkeypatch.setattr(judging, "LATE", 2.0)
        time.sleep(judging.LATE + 2)
        cron.run("sh", "-c", "echo 'Accepted publickey for root from 10.0.0.1 port 1 ssh2' >> /var/log/sshd.log")
        with ground.passport.log.open("a") as log:
            log.write("Traceback (most recent call last):\nKeyError: 'x'\n")
        for message in ground.audit_channel()[:1]:
            ground.company.slack.workspace.delete(message)
        found = "\n".join(oracle.faults(*_not_so(told), calm=True))

    assert "still has the user pp-gone" in found
    assert f"{systemd.name} had the user pp-gone, and no request that had started was for it" in found
    assert re.search(rf"{cron.name} still had {late} \d+ s after the end of {short.request_id}", found)
    assert "a login that nobody asked for: Accepted publickey for root" in found
    assert "in the log: Traceback" in found
    assert "the channel has the events" in found
    assert "-1 requests were typed, 1 were made" in found
    assert f"{short.request_id} is ended, though nobody was told that there is such a request" in found
    assert "on a calm day: no login" in found
    assert "AR-LOST was answered as made, and is not there" in found
    assert (
        f"{told.request_id} was asked for as ('cleo@example.com', frozenset({{'web-1'}}), 60.0), and is ('ana" in found
    )
    # Two click at once, and the first one counts.
    assert re.search(rf"{told.request_id} was approved by (Ben Ito|Dora Lind), who never said so", found)
    assert f"{told.request_id} was answered as denied, and is on record as approved" in found
    assert f"{told.request_id} was completed by Ana Ruiz, who never said so" in found
    assert f"{told.request_id} was answered as revoked, and ended as completed" in found


def _not_so(told: Told) -> list[Told]:
    """What a story would tell if Passport had lost a request, taken deny for approve, and ended for another reason."""
    return [
        Told(typed=-1, setback="no login"),
        Told(request_id="AR-LOST"),
        replace(told, typed=0, logged_in=0, email="cleo@example.com", servers=frozenset({"web-1"})),
        replace(told, typed=0, logged_in=0, said={(DENIED, BEN)}, answered={DENIED, REVOKED}),
    ]


_STORY = Plan(
    number=1,
    requester="ana",
    servers=HOSTS,
    seconds=60,
    slip="",
    relinks=False,
    repeats=True,
    tries_alone=True,
    decision="approve twice",
    logs_in=True,
    plants=True,
    thief=True,
    end="done",
    troubles=(),
)
_SHORT = replace(
    _STORY,
    number=2,
    servers=HOSTS[1:],
    seconds=8,
    repeats=False,
    tries_alone=False,
    decision="approve",
    logs_in=False,
    plants=False,
    thief=False,
    end="expires",
)
