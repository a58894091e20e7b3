"""A minute of the soak, with choices that are new each time: the seed is in the output, and plays them again."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60


@pytest.mark.hosts
@pytest.mark.timeout(420)
def test_a_minute_of_random_stories_in_random_weather() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--seconds", str(SECONDS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert "everything held" in done.stdout
