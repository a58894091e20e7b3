"""Turns for tunnels: round robin over persons, so many a second in each place, and nobody is forgotten."""

import threading
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from provisioning.fair_queue import FairQueue


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(queue: FairQueue[str], time: Time, count: int) -> list[tuple[str, float]]:
    """What comes out and when, with a clock that goes on whenever nothing may come yet."""
    found = []
    while len(found) < count:
        waits = [queue._wait_of(lane) for lane in queue._lanes.values() if lane.waiting]
        time.now += max(0.0, min(waits))
        piece = queue.take()
        assert piece is not None
        found.append((piece, time.now))
    return found


def test_who_asks_for_much_waits_behind_who_asks_for_little() -> None:
    time = Time()
    queue = FairQueue[str](a_second=3, monotonic=time)
    for number in range(4):
        queue.put("home", "ana", f"ana-{number}")
    queue.put("home", "ben", "ben-0")
    queue.put("home", "cleo", "cleo-0")
    queue.put("home", "ben", "ben-1")
    order = [piece for piece, _ in taken(queue, time, 7)]
    assert order == ["ana-0", "ben-0", "cleo-0", "ana-1", "ben-1", "ana-2", "ana-3"]


def test_three_a_second_in_each_place_and_places_do_not_wait_for_each_other() -> None:
    time = Time()
    queue = FairQueue[str](a_second=3, monotonic=time)
    for number in range(7):
        queue.put("busy", "ana", f"busy-{number}")
    queue.put("calm", "ben", "calm-0")
    came = taken(queue, time, 8)
    assert [at - 100 for piece, at in came if piece.startswith("busy")] == [0, 0, 0, 1, 1, 1, 2]
    assert ("calm-0", 100.0) in came


def test_what_aws_threw_back_goes_first_after_a_pause() -> None:
    time = Time()
    queue = FairQueue[str](a_second=3, monotonic=time)
    queue.put("home", "ana", "ana-0")
    queue.put("home", "ben", "ben-0")
    assert queue.take() == "ana-0"
    queue.put_back("home", "ana", "ana-0", pause=0.5)
    assert taken(queue, time, 2) == [("ana-0", 100.5), ("ben-0", 100.5)]


def test_a_closed_queue_lets_everybody_go() -> None:
    queue = FairQueue[str](a_second=3, monotonic=Time())
    found: list[str | None] = []
    waiting = [threading.Thread(target=lambda: found.append(queue.take())) for _ in range(3)]
    for thread in waiting:
        thread.start()
    queue.close()
    for thread in waiting:
        thread.join(timeout=10)
    assert found == [None] * 3


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["ana", "ben", "cleo"])), min_size=1, max_size=40))
def test_everything_comes_out_once_in_a_persons_order_and_no_second_has_four(puts: list[tuple[str, str]]) -> None:
    time = Time()
    queue = FairQueue[str](a_second=3, monotonic=time)
    for number, (place, person) in enumerate(puts):
        queue.put(place, person, f"{place} {person} {number}")
    came = taken(queue, time, len(puts))
    assert Counter(piece for piece, _ in came) == Counter(f"{p} {who} {n}" for n, (p, who) in enumerate(puts))
    for place in "xyz":
        times = [at for piece, at in came if piece.startswith(place)]
        assert all(fourth - first >= 1.0 for first, fourth in zip(times, times[3:], strict=False))
        for person in ("ana", "ben", "cleo"):
            numbers = [int(piece.split()[2]) for piece, _ in came if piece.startswith(f"{place} {person} ")]
            assert numbers == sorted(numbers)
