"""What a loop says of a turn that failed: a line where the database is away, the whole trace of anything else."""

from datetime import timedelta

import pytest

from access.errors import UnavailableError
from bot.loops import Loop


@pytest.mark.parametrize(("error", "traced"), [(UnavailableError("It is away."), False), (KeyError("x"), True)])
def test_a_database_that_is_away_is_a_line_without_a_trace(
    error: Exception, traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def turn() -> timedelta | None:
        raise error

    assert Loop("test", turn)._take_turn() > timedelta()

    (record,) = caplog.records
    assert record.getMessage().startswith("test: a turn failed; trying again")
    assert (record.exc_info is not None) is traced
