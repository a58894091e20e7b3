"""A figure with its bar, and how figures are read off samples."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One line of the table; ``bar`` is "" for a figure that is only told."""

    name: str
    value: float
    unit: str
    bar: str = ""
    ok: bool = True


def at_most(name: str, value: float, unit: str, bar: float) -> Figure:
    """A figure that must not be larger."""
    return Figure(name=name, value=value, unit=unit, bar=f"<= {bar:g}", ok=value <= bar)


def at_least(name: str, value: float, unit: str, bar: float) -> Figure:
    """A figure that must not be smaller."""
    return Figure(name=name, value=value, unit=unit, bar=f">= {bar:g}", ok=value >= bar)


def told(name: str, value: float, unit: str) -> Figure:
    """A figure without a bar, beside which another is read."""
    return Figure(name=name, value=value, unit=unit)


def broken(name: str, error: Exception) -> Figure:
    """What stands for the figures that a bench did not come to."""
    return at_most(f"{name} broke off: {type(error).__name__}", 1, "errors", 0)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The sample that so many percent do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * percent // 100).__trunc__() - 1)]


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The middle one of the ratios, each of two neighbours in time: what slows the machine slows both."""
    return median(own / other for own, other in zip(ours, theirs, strict=True))


def line(figure: Figure) -> str:
    """A row of the table."""
    verdict = ("ok" if figure.ok else "MISSED") if figure.bar else ""
    return f"{figure.name:<66} {figure.value:>10.4g} {figure.unit:<9} {figure.bar:<9} {verdict}".rstrip()


def write(figures: Sequence[Figure], path: Path) -> None:
    """All figures as a JSON list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


def pace() -> float:
    """How fast this machine is just now: round trips of a small text through JSON a second, in thousands.

    What the absolute figures of a run have to be read beside.
    """
    begun, count = time.perf_counter(), 20_000
    for number in range(count):
        json.loads(json.dumps({"number": number, "words": ["web-1", "payments", "INC-1: disk full"], "none": None}))
    return count / (time.perf_counter() - begun) / 1000
