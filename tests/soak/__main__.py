"""The command line of the soak."""

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.ground import Ground
from tests.soak.oracle import Oracle
from tests.soak.plan import plan
from tests.soak.story import Story
from tests.soak.weather import Weather

LOG_TAIL = 6000  # characters


def main() -> int:
    """Play until the time is up; 1 at the first thing that is not so."""
    options = _parser().parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="passport-soak-"))
    try:
        with Ground(folder, seed) as ground:
            _say(f"seed {seed}: {options.seconds:.0f} s on {ground}. Again: python -m tests.soak --seed {seed}")
            return _soak(ground, seed, options.seconds, first=options.story)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _soak(ground: Ground, seed: int, seconds: float, *, first: int) -> int:
    oracle, number = Oracle(ground), first
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if not _tell(ground, oracle, seed, number):
            return 1
        number += 1
    commands = len(ground.company.aws.commands)
    _say(f"{number - first} stories, {commands} commands, {ground.tables().head.sequence} events: everything held.")
    return 0


def _tell(ground: Ground, oracle: Oracle, seed: int, number: int) -> bool:
    """One story in its weather; whether everything holds after it."""
    begun = time.monotonic()
    planned = plan(seed, number, database_fails=ground.postgres is not None)
    story = Story(ground, planned)
    try:
        with Weather(ground, planned.troubles):
            told = story.play()
        faults = list(oracle.faults(told, calm=not planned.troubles))
    except Exception as error:  # noqa: BLE001 - whatever broke, the seed and the log must be seen
        told, faults = story.told, [f"{type(error).__name__}: {error}"]
    came = f"open, {told.logged_in} logins" if told.opened else told.setback or "as planned"
    _say(f"{number:4} {'ok' if not faults else 'NOT SO'} {time.monotonic() - begun:4.0f} s  {planned}  -> {came}")
    if faults:
        _say(f"\n{ground.passport.log.read_text()[-LOG_TAIL:]}\n")
        _say(f"seed {seed}, story {number} ({told.request_id or 'no request'}, {told.setback or 'no setback'}):")
        _say("".join(f"  - {fault}\n" for fault in faults))
        _say(f"This story alone: python -m tests.soak --seed {seed} --story {number} --seconds 1")
    return not faults


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Random stories in random weather.")
    parser.add_argument("--seconds", type=float, default=600, help="how long; the story that runs then is finished")
    parser.add_argument("--seed", type=int, help="the choices of an earlier run; a new one without it")
    parser.add_argument("--story", type=int, default=1, help="the number of the first story")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
