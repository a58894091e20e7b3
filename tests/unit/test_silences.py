"""The circuit breaker: who is asked while a place is silent, and who is not."""

from provisioning.silences import MOST, REST_SECONDS, Silences

HERE, THERE = "eu-west-1", "us-east-1"


class Hands:
    """A stopwatch that a test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def silences(hands: Hands) -> Silences[str]:
    return Silences(hands, patience=11.0)


def test_a_place_is_asked_until_it_was_silent_several_times_in_a_row() -> None:
    found = silences(Hands())
    for _ in range(MOST - 1):
        found.was_silent(HERE)
    assert found.may_call(HERE)
    found.answered(HERE)
    for _ in range(MOST - 1):
        found.was_silent(HERE)
    assert found.may_call(HERE), "an answer in between counts"
    found.was_silent(HERE)
    assert not found.may_call(HERE)
    assert found.may_call(THERE)


def test_after_a_rest_one_call_looks_again_and_the_others_still_go_without() -> None:
    hands = Hands()
    found = silences(hands)
    for _ in range(MOST):
        found.was_silent(HERE)
    hands.at += REST_SECONDS - 0.1
    assert not found.may_call(HERE)
    hands.at += 0.2
    assert [found.may_call(HERE) for _ in range(3)] == [True, False, False]


def test_the_look_decides_and_one_that_is_lost_is_followed_by_another() -> None:
    hands = Hands()
    found = silences(hands)
    for _ in range(MOST):
        found.was_silent(HERE)
    hands.at += REST_SECONDS
    assert found.may_call(HERE)
    found.was_silent(HERE)
    assert not found.may_call(HERE), "silent still"
    hands.at += REST_SECONDS
    assert found.may_call(HERE)
    hands.at += 11.1
    assert found.may_call(HERE), "whoever looked never came back"
    found.answered(HERE)
    assert all(found.may_call(HERE) for _ in range(5))
