"""Stopping: what is under way is finished, but nothing holds the process for longer than it may take."""

import subprocess
import sys

HANGS = """
import logging, threading
from datetime import timedelta
from bot.serve import _at_most
logging.basicConfig()
with _at_most(timedelta(seconds={limit})):
    threading.Event().wait({work})
print("finished")
"""


def stopped(*, limit: float, work: float) -> "subprocess.CompletedProcess[str]":
    program = HANGS.format(limit=limit, work=work)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_what_hangs_is_left_to_the_next_start() -> None:
    done = stopped(limit=0.2, work=600)
    assert done.returncode == 0
    assert done.stdout == ""
    assert "Something was still under way" in done.stderr


def test_what_finishes_in_time_is_finished() -> None:
    done = stopped(limit=600, work=0.01)
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "")
