"""Tells the story as it goes: a line per step for people, a JSON object per step for programs."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class NotSoError(Exception):
    """Something in the story is not as it must be."""


class Narrator:
    """Counts what was checked; the first thing that is not so ends the story."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self.checks = 0
        self._in_step = 0

    def title(self, words: str) -> None:
        """A heading between steps."""
        if not self._as_json:
            print(f"\n{words}", flush=True)

    @contextmanager
    def step(self, words: str) -> Iterator[None]:
        """One step: its words, whether it was so, and how long it took."""
        began, before = time.monotonic(), self.checks
        try:
            yield
        except BaseException as error:
            self._say(words, began, ok=False, checks=self.checks - before)
            if isinstance(error, NotSoError) and not self._as_json:
                print(f"        {error}", file=sys.stderr)
            raise
        self._say(words, began, ok=True, checks=self.checks - before)

    def check(self, holds: object, otherwise: str) -> None:
        """Count something that must be so; raises NotSoError with the words where it is not."""
        if not holds:
            raise NotSoError(otherwise)
        self.checks += 1

    def aside(self, words: str) -> None:
        """What somebody reads or types, for the people who watch."""
        if not self._as_json:
            for line in words.splitlines():
                print(f"          {line}", flush=True)

    def end(self) -> None:
        """The last line."""
        seconds = time.monotonic() - self._began
        if self._as_json:
            print(json.dumps({"step": "end", "ok": True, "ms": round(seconds * 1000), "checks": self.checks}))
        else:
            print(f"\ndemo: {self.checks} checks passed in {seconds:.1f} s", flush=True)

    def _say(self, words: str, began: float, *, ok: bool, checks: int) -> None:
        ms = round((time.monotonic() - began) * 1000)
        if self._as_json:
            print(json.dumps({"step": words, "ok": ok, "ms": ms, "checks": checks}), flush=True)
        else:
            print(f"  {'ok  ' if ok else 'FAIL'} {ms:>6} ms  {words}", flush=True)
