"""Every pair of states: the table's transitions happen, all others raise."""

from datetime import timedelta
from itertools import product

import pytest

from access import lifecycle
from access.errors import TransitionError
from access.model import EndCause, Grant, GrantState, Progress, RequestState
from tests.values import NOW, a_request, a_server


@pytest.mark.parametrize(("old", "new"), list(product(RequestState, RequestState)))
def test_a_request_moves_only_as_the_table_says(old: RequestState, new: RequestState) -> None:
    request = a_request(state=old)
    if new in lifecycle.REQUEST[old]:
        moved = lifecycle.move(request, new, due_at=NOW)
        assert (moved.state, moved.revision) == (new, request.revision + 1)
    else:
        with pytest.raises(TransitionError, match=f"{old} to {new}"):
            lifecycle.move(request, new, due_at=NOW)


@pytest.mark.parametrize(("old", "new"), list(product(GrantState, GrantState)))
def test_a_grant_moves_only_as_the_table_says(old: GrantState, new: GrantState) -> None:
    grant = Grant(id="AR-7F3K.1", request_id="AR-7F3K", server=a_server(), state=old, account=Progress(attempts=3))
    if new in lifecycle.GRANT[old]:
        moved = lifecycle.move_grant(grant, new)
        assert moved.state is new
        assert moved.account == Progress()  # the next operation starts afresh
    else:
        with pytest.raises(TransitionError):
            lifecycle.move_grant(grant, new)


def test_only_an_end_leads_out_of_every_running_state() -> None:
    for state in (RequestState.APPROVED, RequestState.ACTIVE):
        ending = lifecycle.begin_end(a_request(state=state), EndCause.REVOKED, "why", at=NOW)
        assert (ending.state, ending.cause, ending.due_at) == (RequestState.ENDING, EndCause.REVOKED, NOW)
        ended = lifecycle.end(ending, at=NOW + timedelta(seconds=1))
        assert (ended.state, ended.due_at, ended.is_open) == (RequestState.ENDED, None, False)


def test_an_approved_request_is_due_at_once_and_a_denied_one_never_again() -> None:
    pending = a_request(state=RequestState.PENDING)
    assert lifecycle.decide(pending, RequestState.APPROVED, at=NOW).due_at == NOW
    assert lifecycle.decide(pending, RequestState.DENIED, at=NOW).due_at is None
