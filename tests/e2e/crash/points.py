"""The points at which Passport is killed: which there are in the story, and which are chosen."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

SIGN_IN, REVIEW, OPENING, USE, END, EXPIRY = STAGES = ("sign-in", "review", "opening", "use", "end", "expiry")
CLICKS = "a commit of waitress"  # of what people type, click and ask for
RECONCILER = ("SendCommand", "ListCommandInvocations", "Session", "Sessions", "reconcile", "reconciler")
ONCE = "conversations.open"  # of each person in the life of a process

Passed = Mapping[str, Sequence[str]]  # the points of a run, in their order, by stage


class Point(NamedTuple):
    """The how-manieth time of what in a stage; every stage counts anew."""

    stage: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.what}, time {self.number}"


def choose(fresh: Passed, other: Passed) -> list[Point]:
    """What both runs pass: behind every commit of people's clicks; the reconciler's kinds once in each stage.

    All other kinds are chosen where they come most often; what only a fresh process does, from the run that had one.
    """
    common = {stage: Counter(fresh[stage]) & Counter(other[stage]) for stage in fresh}
    chosen = [
        Point(stage, number, f"after {CLICKS}")
        for stage, counts in common.items()
        for number in range(1, counts[f"after {CLICKS}"] + 1)
    ]
    for what in sorted({what for passed in fresh.values() for what in passed} - {f"after {CLICKS}"}):
        counts = {stage: Counter(fresh[stage])[what] if what.endswith(ONCE) else common[stage][what] for stage in fresh}
        stages = [stage for stage in sorted(counts, key=lambda stage: -counts[stage]) if counts[stage]]
        chosen += [Point(stage, 1, what) for stage in (stages if what.endswith(RECONCILER) else stages[:1])]
    return chosen


def in_runs(points: Iterable[Point]) -> list[list[Point]]:
    """As few runs as will do: a run is killed in each of its stages once at most, and ends in one way only."""
    by_stage: dict[str, list[Point]] = {stage: [] for stage in STAGES}
    for point in points:
        by_stage[point.stage].append(point)
    expiries = by_stage.pop(EXPIRY)
    runs = [[point for point in run if point] for run in zip_longest(*by_stage.values())]
    return [*([point] for point in expiries), *runs]
