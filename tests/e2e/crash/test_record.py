"""What the checks of the crash tests find."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from access.audit import Head
from access.model import Grant, GrantState
from sandbox.slack import Message
from tests.e2e.crash.record import HostUser, Tables, access_faults, channel_faults, channel_repeats
from tests.values import NOW, a_request, a_server

REQUEST = a_request(expires_at=NOW)
USER = REQUEST.user_name


def tables(state: GrantState, *, started: bool = True) -> Tables:
    request = REQUEST if started else replace(REQUEST, expires_at=None)
    grant = Grant(id=f"{REQUEST.id}.1", request_id=REQUEST.id, server=a_server("web-1"), state=state)
    return Tables(events=[], requests=[request], grants=[grant])


@pytest.mark.parametrize(
    ("account", "known", "found"),
    [
        (("web-1", USER), tables(GrantState.ACTIVE), False),
        (("web-1", USER), tables(GrantState.PROVISIONING, started=False), True),
        (("web-1", USER), tables(GrantState.REMOVED), True),
        (("db-2", USER), tables(GrantState.ACTIVE), True),
        (("web-1", "pp-gh05"), tables(GrantState.ACTIVE), True),
    ],
)
def test_access_without_a_record(account: HostUser, known: Tables, found: bool) -> None:
    expected = [f"{account[1]} has access to {account[0]} without a record"] if found else []
    assert list(access_faults({account}, known)) == expected


def messages(*bundles: Sequence[int]) -> list[Message]:
    """The audit channel, with the events of each message."""
    texts = ["\n".join(f"#{number} something" for number in bundle) for bundle in bundles]
    return [Message(channel="C0AUDIT", ts=str(number), user="U0BOT", text=text) for number, text in enumerate(texts)]


def faults(*bundles: Sequence[int], repeats: int | None = 1) -> list[str]:
    return list(channel_faults(messages(*bundles), Head(sequence=5, hash="f" * 64), repeats=repeats))


def test_a_message_that_one_death_repeats_is_no_fault() -> None:
    repeated = ([1, 2], [3], [3, 4, 5])
    assert faults(*repeated) == []
    assert channel_repeats(messages(*repeated)) == 1
    assert faults([1, 2], [3], [3, 4], [5], repeats=0) == ["the events from 3 to 4 were repeated"]


@pytest.mark.parametrize(
    "bundles",
    [
        ([1, 2], [1, 2, 3], [3, 4], [5]),
        ([1, 2], [3], [4, 5], [1, 2]),
        ([1, 2, 3, 4, 5], [4, 5]),
        ([1, 3, 2], [4, 5]),
        ([1, 2], [4, 5], [3]),
        ([1, 2], [3, 4]),
    ],
)
def test_the_audit_channel_in_disorder_is_found(bundles: Sequence[Sequence[int]]) -> None:
    assert faults(*bundles) != []


def test_any_number_of_repeats_is_any_number() -> None:
    thrice = ([1, 2], [1, 2], [1, 2, 3], [4, 5], [4, 5])
    assert faults(*thrice, repeats=None) == []
    assert faults(*thrice, repeats=2) == ["the events from 4 to 5 were repeated"]
