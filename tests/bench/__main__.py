"""The command line of the benches."""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.bench import certificates, cycles, ends, fleet, login, process, share, slash, workstation
from tests.bench.figures import Figure, broken, line, pace, write
from tests.bench.ground import Ground

BENCHES: Mapping[str, Callable[[Ground], Iterator[Figure]]] = {
    "certificates": certificates.run,
    "slash": slash.run,
    "cycles": cycles.run,
    "share": share.run,
    "ends": ends.run,
    "fleet": fleet.run,
    "process": process.run,
    "workstation": workstation.run,
    "login": login.run,
}
RESULTS = Path("build/bench.json")


def main() -> int:
    """Run the benches asked for; 1 if a bar is missed. What was measured is written, however it ends."""
    options = _parser().parse_args()
    figures: list[Figure] = []
    try:
        with Ground(quick=options.quick) as ground:
            for name in options.only or BENCHES:
                begun, before = time.monotonic(), pace()
                for figure in _measure(name, ground):
                    print(line(figure), flush=True)
                    figures.append(figure)
                took, after = time.monotonic() - begun, pace()
                print(f"    ({name}: {took:.0f} s; the machine's pace was {before:.0f} and {after:.0f})", flush=True)
    finally:
        write(figures, RESULTS)
    missed = [figure.name for figure in figures if not figure.ok]
    print(f"{len(missed)} of {sum(bool(figure.bar) for figure in figures)} bars missed. {RESULTS} has the figures.")
    return 1 if missed else 0


def _measure(name: str, ground: Ground) -> Iterator[Figure]:
    """The bench's figures; one that breaks off is a bar missed, and the others go on."""
    try:
        yield from BENCHES[name](ground)
    except Exception as error:  # noqa: BLE001 - told, and counted
        traceback.print_exc()
        yield broken(name, error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure Passport against its bars.")
    parser.add_argument("--only", choices=list(BENCHES), action="append", help="this bench alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a fifth of everything: to see that it runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
