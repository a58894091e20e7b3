"""The small rules behind the workstation's pages: challenges, addresses, bounds, derived keys."""

import threading
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.errors import BusyError
from access.service.challenges import LASTS, Challenges, StaleChallengeError, statement
from access.service.choosing import comes_from
from bot.workstation import limits
from bot.workstation.limits import BURST, AddressLimit, Lane
from storage.sealing import Sealer
from tests.values import FakeClock

MINE, OTHER = "SHA256:" + "a" * 43, "SHA256:" + "b" * 43
OLD, NEW = b"o" * 32, b"n" * 32


def challenges(*keys: bytes, clock: FakeClock | None = None) -> Challenges:
    return Challenges(keys or (NEW,), clock=clock or FakeClock(), random_bytes=lambda count: bytes(range(count)))


def test_a_challenge_is_good_for_its_key_and_time() -> None:
    clock = FakeClock()
    made = challenges(clock=clock)
    challenge = made.issue(MINE)
    assert made.check(challenge, MINE) == "workstation:" + bytes(range(16)).hex()
    with pytest.raises(StaleChallengeError, match="not mine for your key"):
        made.check(challenge, OTHER)
    clock.now += LASTS - timedelta(seconds=1)
    made.check(challenge, MINE)
    clock.forward(seconds=1)
    with pytest.raises(StaleChallengeError, match="run out"):
        made.check(challenge, MINE)


def test_replicas_may_change_their_keys_one_by_one() -> None:
    challenge = challenges(OLD).issue(MINE)
    assert challenges(NEW, OLD).check(challenge, MINE) == challenges(OLD, NEW).check(challenge, MINE)
    with pytest.raises(StaleChallengeError):
        challenges(NEW).check(challenge, MINE)


@given(at=st.integers(0, 74), letter=st.sampled_from("ABCxyz019-_=~.é\n"))
def test_no_letter_of_a_challenge_can_be_changed(at: int, letter: str) -> None:
    challenge = challenges().issue(MINE)
    changed = challenge[:at] + letter + challenge[at + 1 :]
    if changed != challenge:
        with pytest.raises(StaleChallengeError):
            challenges().check(changed, MINE)


@given(st.text(max_size=120))
def test_nonsense_is_no_challenge(text: str) -> None:
    with pytest.raises(StaleChallengeError):
        challenges().check(text, MINE)


def test_the_statement_is_five_lines() -> None:
    said = statement(home="https://passport.example.com", act="tunnel", host="web-1", challenge="abc")
    assert said == b"passport-workstation-1\nhttps://passport.example.com\ntunnel\nweb-1\nabc\n"


@pytest.mark.parametrize(
    ("wanted", "address", "is_it"),
    [
        (None, "198.51.100.9", True),
        ("203.0.113.7", "203.0.113.7", True),
        ("203.0.113.7", "203.0.113.70", False),
        ("203.0.113.7", "::ffff:203.0.113.7", True),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("2001:db8::1", "2001:0DB8:0:0::1", True),
        ("2001:db8::1", "2001:db8::2", False),
        ("203.0.113.7", "", False),
        ("203.0.113.7", "203.0.113.7, 198.51.100.9", False),
        ("203.0.113.7", "203.0.113.7:4711", False),
        ("203.0.113.7", "unknown", False),
    ],
)
def test_where_a_caller_comes_from(wanted: str | None, address: str, is_it: bool) -> None:
    assert comes_from(wanted, address) is is_it


def test_an_address_has_so_many_calls_and_its_network_shares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    limit = AddressLimit(monotonic=lambda: now[0])
    for number in range(BURST):
        limit.take(f"2001:db8::{number:x}")
    for address in ("2001:db8::ffff", "2001:db8:0:0:ffff::1"):
        with pytest.raises(BusyError) as caught:
            limit.take(address)
        assert caught.value.retry_in == timedelta(seconds=5)
    limit.take("2001:db8:0:1::1")
    limit.give_back("2001:db8::1", 1)
    limit.take("2001:db8::2")
    now[0] += 1
    limit.take("2001:db8::3")
    limit.take("2001:db8::4")
    with pytest.raises(BusyError):
        limit.take("2001:db8::5")
    monkeypatch.setattr(limits, "MOST_ADDRESSES", 3)
    for number in range(10):
        limit.take(f"198.51.100.{number}")
    assert len(limit._left) == 3


def test_giving_back_never_makes_more_than_there_was() -> None:
    limit = AddressLimit(monotonic=lambda: 0.0)
    for _ in range(10):
        limit.give_back("203.0.113.7", 2)
    for _ in range(BURST):
        limit.take("203.0.113.7")
    with pytest.raises(BusyError):
        limit.take("203.0.113.7")


def test_a_full_lane_says_so_at_once_and_is_free_again() -> None:
    lane, entered, leave = Lane(1), threading.Event(), threading.Event()

    def stay() -> None:
        with lane.entered():
            entered.set()
            leave.wait(timeout=10)

    thread = threading.Thread(target=stay)
    thread.start()
    assert entered.wait(timeout=10)
    with pytest.raises(BusyError), lane.entered():
        pass
    leave.set()
    thread.join(timeout=10)
    with lane.entered():
        pass


def test_derived_keys_are_of_their_purpose_and_of_each_sealing_key() -> None:
    sealer, turned = Sealer([("k2", NEW), ("k1", OLD)]), Sealer([("k1", OLD), ("k2", NEW)])
    first, second = sealer.derive("workstation challenge")
    assert len({first, second, NEW, OLD, *sealer.derive("another purpose")}) == 6
    assert turned.derive("workstation challenge") == (second, first)
    assert len(first) == 32
