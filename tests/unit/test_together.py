"""Items that share an act: each gets its own outcome, and nobody's failure becomes another's."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from access.errors import NotFoundError, UnavailableError
from access.service import together
from access.service.together import Together
from sandbox.reading import wait_for

FIRST = "first"


class Desk:
    """Acts on words by writing them down; ``FIRST`` waits until it may."""

    def __init__(self) -> None:
        self.acts: list[Sequence[str]] = []
        self.refuses: Callable[[Sequence[str]], None] = lambda _: None
        self._begun, self._go_on = threading.Event(), threading.Event()
        self.together = Together(self.act)

    def act(self, words: Sequence[str]) -> Sequence[str | Exception]:
        self.acts.append(words)
        if words[0] == FIRST:
            self._begun.set()
            assert self._go_on.wait(30)
        self.refuses(words)
        return [NotFoundError(f"There is no {word}.") if word.startswith("no-") else word.upper() for word in words]

    @contextmanager
    def crowd(self, *words: str) -> Iterator[list["Future[str]"]]:
        """Words that come, in this order, while the first is acted upon; that goes on when the block ends."""
        with ThreadPoolExecutor(len(words) + 1) as pool:
            running = [pool.submit(self.together.act_on, FIRST)]
            assert self._begun.wait(30)
            for word in words:
                running.append(pool.submit(self.together.act_on, word))
                wait_for(lambda: len(self.together._waiting) == len(running) - 1, "the word to wait")
            try:
                yield running
            finally:
                self._go_on.set()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_what_comes_together_is_one_act_in_the_order_in_which_it_came(desk: Desk) -> None:
    words = [f"word-{number}" for number in range(8)]
    with desk.crowd(*words) as running:
        pass
    assert [each.result(30) for each in running] == ["FIRST", *(word.upper() for word in words)]
    assert desk.acts == [[FIRST], words]


def test_more_than_may_share_one_go_with_the_next(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MOST", 3)
    words = [f"word-{number}" for number in range(7)]
    with desk.crowd(*words) as running:
        pass
    assert [each.result(30) for each in running] == ["FIRST", *(word.upper() for word in words)]
    assert desk.acts == [[FIRST], words[:3], words[3:6], words[6:]]
    assert desk.together.act_on("later") == "LATER", "the lead is free again"


def test_an_outcome_that_is_an_error_is_raised_for_its_own_item_only(desk: Desk) -> None:
    with desk.crowd("one", "no-thing", "two") as running:
        pass
    assert [running[1].result(30), running[3].result(30)] == ["ONE", "TWO"]
    with pytest.raises(NotFoundError, match="no no-thing"):
        running[2].result(30)
    assert desk.acts == [[FIRST], ["one", "no-thing", "two"]]


def test_an_act_that_breaks_is_tried_with_each_alone(desk: Desk) -> None:
    def refuse(words: Sequence[str]) -> None:
        if "bad" in words:
            raise ZeroDivisionError

    desk.refuses = refuse
    with desk.crowd("one", "bad", "two") as running:
        pass
    assert [running[1].result(30), running[3].result(30)] == ["ONE", "TWO"]
    with pytest.raises(ZeroDivisionError):
        running[2].result(30)
    assert desk.acts == [[FIRST], ["one", "bad", "two"], ["one"], ["bad"], ["two"]]


def test_all_are_told_at_once_of_a_database_that_does_not_answer(desk: Desk) -> None:
    def refuse(_: Sequence[str]) -> None:
        raise UnavailableError("It does not answer.")

    with desk.crowd("one", "two") as running:
        desk.refuses = refuse
    for each in running:
        with pytest.raises(UnavailableError, match="does not answer"):
            each.result(30)
    assert desk.acts == [[FIRST], ["one", "two"]]
    desk.refuses = lambda _: None
    assert desk.together.act_on("later") == "LATER"


def test_a_leader_that_is_interrupted_leaves_the_others_theirs(desk: Desk) -> None:
    def interrupt(words: Sequence[str]) -> None:
        if words == ["one", "two", "three"]:
            raise KeyboardInterrupt

    desk.refuses = interrupt
    with desk.crowd("one", "two", "three") as running:
        pass
    assert running[0].result(30) == "FIRST"
    with pytest.raises(KeyboardInterrupt):
        running[1].result(30)
    assert [each.result(30) for each in running[2:]] == ["TWO", "THREE"]
    assert desk.acts == [[FIRST], ["one", "two", "three"], ["two", "three"]]
