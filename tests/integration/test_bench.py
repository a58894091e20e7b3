"""The benches' command line: it runs, tells and writes what it measured, and takes a bench that breaks for a miss."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench.figures import Figure, at_least, told
from tests.bench.ground import Ground

ROOT = Path(__file__).parents[2]


def test_a_quick_bench_tells_its_figures_and_writes_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--quick", "--only", "certificates"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    figures = json.loads((tmp_path / "build/bench.json").read_text())
    assert [figure["bar"] for figure in figures] == ["", "", "", ">= 0.7", ">= 15"], done.stderr
    assert all(figure["value"] > 0 and figure["name"] in done.stdout for figure in figures)
    missed = sum(not figure["ok"] for figure in figures)  # on a busy machine; that it is told is what matters here
    assert f"{missed} of 2 bars missed." in done.stdout
    assert done.returncode == bool(missed)


def test_a_bench_that_breaks_is_a_miss_and_the_others_are_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(_: Ground) -> Iterator[Figure]:
        yield told("before it broke", 1.0, "1/s")
        raise LookupError("gone")

    def works(_: Ground) -> Iterator[Figure]:
        yield at_least("works", 2.0, "x", 1)

    (tmp_path / "build").mkdir()
    (tmp_path / "build/bench.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "BENCHES", {"breaks": breaks, "works": works})
    monkeypatch.setattr(sys, "argv", ["bench"])

    assert bench.main() == 1
    written = [(figure["name"], figure["ok"]) for figure in json.loads((tmp_path / "build/bench.json").read_text())]
    assert written == [("before it broke", True), ("breaks broke off: LookupError", False), ("works", True)]
    printed = capsys.readouterr()
    assert "1 of 2 bars missed" in printed.out
    assert "LookupError: gone" in printed.err


def test_a_bench_that_is_interrupted_leaves_no_old_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Ground) -> Iterator[Figure]:
        yield told("before", 1.0, "1/s")
        raise KeyboardInterrupt

    (tmp_path / "build").mkdir()
    (tmp_path / "build/bench.json").write_text('[{"name": "old"}]')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "BENCHES", {"interrupted": interrupted})
    monkeypatch.setattr(sys, "argv", ["bench"])

    with pytest.raises(KeyboardInterrupt):
        bench.main()
    assert [figure["name"] for figure in json.loads((tmp_path / "build/bench.json").read_text())] == ["before"]
