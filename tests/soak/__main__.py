"""The command line of the soak."""

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.soak.ground import Ground
from tests.soak.oracle import Oracle
from tests.soak.plan import plan
from tests.soak.story import Story, stories
from tests.soak.watch import Watch
from tests.soak.weather import Weather
from tests.stores import run_together

LEAST_SECONDS = 30
LEAST_STORIES = 3  # two of them in bad weather
LOG_TAIL = 6000  # characters


def main() -> int:
    """Play until the time is up; 1 at the first thing that is not so."""
    parser = _parser()
    options = parser.parse_args()
    if options.seconds < LEAST_SECONDS:
        parser.error(f"{options.seconds:g} seconds are too few to tell anything. Give it {LEAST_SECONDS} or more.")
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="passport-soak-"))
    try:
        with Ground(folder, seed) as ground, Watch(ground.company.hosts.values()) as watch:
            soak = Soak(ground, seed, Oracle(ground, watch))
            if options.story is not None:
                return 0 if soak.tell(options.story) else 1
            _say(f"seed {seed}: {options.seconds:.0f} s on {ground}. Again: python -m tests.soak --seed {seed}")
            return 0 if soak.last(options.seconds) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Soak:
    """The stories of one seed, and what came of them."""

    def __init__(self, ground: Ground, seed: int, oracle: Oracle) -> None:
        self._ground, self._seed, self._oracle = ground, seed, oracle
        self._troubles: Counter[str] = Counter()

    def last(self, seconds: float) -> bool:
        """One story after the other for as long, and a few at least; whether everything held."""
        ends, number = time.monotonic() + seconds, 0
        while time.monotonic() < ends or number < LEAST_STORIES:
            number += 1
            if not self.tell(number):
                return False
        commands, events = len(self._ground.company.aws.commands), self._ground.tables().head.sequence
        met = f"{self._troubles.total()} troubles of {len(self._troubles)} kinds"
        _say(f"{number} stories, {met}, {commands} commands, {events} events: everything held.")
        return True

    def tell(self, number: int) -> bool:
        """One story in its weather; whether everything holds after it."""
        begun = time.monotonic()
        planned = plan(
            self._seed, number, postgres=self._ground.postgres is not None, sockets=self._ground.over_sockets
        )
        played = stories(self._ground, planned)
        try:
            with Weather(self._ground, planned.troubles) as weather:
                run_together(*(story.play for story in played), seconds=300)
            self._troubles.update(weather.passed)
            tolds = [story.told for story in played]
            faults = list(self._oracle.faults(*tolds, calm=not planned.troubles))
        except Exception as error:  # noqa: BLE001 - whatever broke, the seed and the log must be seen
            faults = [f"{type(error).__name__}: {error}"]
        came = " | ".join(map(_came, played))
        _say(f"{number:4} {'ok' if not faults else 'NOT SO'} {time.monotonic() - begun:4.0f} s  {planned}  -> {came}")
        if faults:
            ids = ", ".join(story.told.request_id or "no request" for story in played)
            _say(f"\n{self._ground.passport.log.read_text()[-LOG_TAIL:]}\n")
            _say(f"seed {self._seed}, story {number} ({ids}):")
            _say("".join(f"  - {fault}\n" for fault in faults))
            _say(f"This story alone: python -m tests.soak --seed {self._seed} --story {number}")
        return not faults


def _came(story: Story) -> str:
    told = story.told
    return f"open, {told.logged_in} logins" if told.opened else told.setback or "as planned"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Random stories in random weather.")
    parser.add_argument("--seconds", type=float, default=600, help="how long; the story that runs then is finished")
    parser.add_argument("--seed", type=int, help="the choices of an earlier run; a new one without it")
    parser.add_argument("--story", type=int, help="the story of this number alone")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
