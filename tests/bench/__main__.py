"""The command line of the benches."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.bench import certificates, cycles, ends, fleet, login, process, share, slash, workstation
from tests.bench.figures import Figure, line, write
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
    """Run the benches asked for; 1 if a bar is missed."""
    options = _parser().parse_args()
    figures = []
    with Ground(quick=options.quick) as ground:
        for name in options.only or BENCHES:
            begun = time.monotonic()
            for figure in BENCHES[name](ground):
                print(line(figure), flush=True)
                figures.append(figure)
            print(f"    ({name}: {time.monotonic() - begun:.0f} s)", flush=True)
    write(figures, RESULTS)
    missed = [figure.name for figure in figures if not figure.ok]
    print(f"{len(missed)} of {sum(bool(figure.bar) for figure in figures)} bars missed. {RESULTS} has the figures.")
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure Passport against its bars.")
    parser.add_argument("--only", choices=list(BENCHES), action="append", help="this bench alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a fifth of everything: to see that it runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
