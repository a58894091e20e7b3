"""Candidates for request ids: short, and longer where the short ones are taken."""

import re

from bot.wiring import new_request_id


def test_an_id_is_four_characters_while_those_are_free_and_never_more_than_eight() -> None:
    lengths = [len(new_request_id(taken)) - len("AR-") for taken in (0, 7, 8, 16, 32, 1000)]
    assert lengths == [4, 4, 5, 6, 8, 8]


def test_an_id_holds_nothing_that_could_be_misread() -> None:
    assert all(re.fullmatch(r"AR-[0-9A-HJKMNP-TV-Z]{4}", new_request_id()) for _ in range(200))
