"""``python -m sandbox demo``: passes when everything is so, and fails at the first thing that is not."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import __main__ as program

pytestmark = pytest.mark.hosts

ROOT = Path(__file__).parents[2]
LIAR = """#!/bin/sh
# Passport, but for one thing that it only pretends to do.
[ "$1 $2" = "{words}" ] && exit 0
exec {passport} "$@"
"""


def play(*options: str, python: Path = Path(sys.executable)) -> subprocess.CompletedProcess[str]:
    """Play the demo in a process of its own."""
    return subprocess.run(
        [python, "-m", "sandbox", "demo", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def steps(played: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in played.stdout.splitlines()]


@pytest.mark.timeout(300)
def test_the_whole_story_is_so() -> None:
    played = play("--json")
    assert played.returncode == 0, played.stderr + played.stdout
    *told, end = steps(played)
    assert len(told) >= 20
    assert all(step["ok"] is True and isinstance(step["ms"], int) and step["step"] for step in told)
    assert (end["step"], end["ok"]) == ("end", True)
    assert isinstance(end["checks"], int)
    assert end["checks"] >= 30
    assert sum(int(str(step["checks"])) for step in told) == end["checks"]
    words = " ".join(str(step["step"]) for step in told)
    for moment in ("Ana types: /passport request web-1 db-2 app-3", "the parked request submits itself",
                   "/passport setup: one line", "ssh app-3.passport, verbatim, with her own key and no AWS credentials",
                   "with her key in an ssh-agent only", "but not her key: refused", "past the tunnel", "refused, and told",
                   "passport-connect rdp win-1, verbatim", "has the password; it opens the desktop", "kill -9 passport serve",
                   "nothing left", "passport audit verify --head"):  # fmt: skip
        assert moment in words
    assert [without_ids(str(step["step"])) for step in told] == [without_ids(line) for line in told_by_readme()]


def told_by_readme() -> list[str]:
    """The steps of the transcript."""
    lines = (ROOT / "README.md").read_text().splitlines()
    return [found[1] for line in lines if (found := re.fullmatch(r" {2}ok +\d+ ms {2}(.*)", line))]


def without_ids(words: str) -> str:
    return re.sub(r"\d+:[0-9a-f]{10,}…", "HEAD", words)


def test_what_is_not_so_fails_it(tmp_path: Path) -> None:
    """A Passport that only pretends to publish its documents, beside another name of this very interpreter."""
    (tmp_path / "python").symlink_to(sys.executable)
    liar = tmp_path / "passport"
    liar.write_text(LIAR.format(words="documents publish", passport=Path(sys.executable).with_name("passport")))
    liar.chmod(0o755)
    played = play("--json", python=tmp_path / "python")
    assert played.returncode == 1
    *so, failed = steps(played)
    assert all(step["ok"] for step in so)
    assert (failed["step"], failed["ok"]) == ("passport documents publish", False)
    assert "demo: not so" in played.stderr
    assert "Traceback" not in played.stderr


def test_without_root_it_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sandbox", "demo"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert program.main() == 1
    assert "demo: not so: The sandbox's servers are real namespaces: this needs root (sudo)." in capsys.readouterr().err
