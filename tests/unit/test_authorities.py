"""Which keys servers shall trust, and which one signs for whom."""

from dataclasses import replace
from datetime import timedelta

import pytest

from access.authorities import FILE, KNOWN, Authority, AuthorityRole, known_to, signers, trust_of
from access.errors import RefusedError, UnavailableError
from access.model import Grant
from tests.values import NOW, a_server

CURRENT, NEXT, RETIRED = AuthorityRole.CURRENT, AuthorityRole.NEXT, AuthorityRole.RETIRED


def key(name: str, role: AuthorityRole, generation: int = 1) -> Authority:
    since = NOW + timedelta(days=generation)
    return Authority(
        fingerprint=f"SHA256:{name}",
        public_key=f"ssh-ed25519 {name}",
        place=FILE,
        role=role,
        since=since,
        changed_at=since,
        generation=generation,
    )


def grant(*known: str) -> Grant:
    details = {KNOWN: " ".join(f"SHA256:{name}" for name in known)} if known else {}
    return Grant(id="AR-7F3K.1", request_id="AR-7F3K", server=a_server("web-1"), details=details)


def names(authorities: tuple[Authority, ...]) -> str:
    return "".join(authority.fingerprint.removeprefix("SHA256:") for authority in authorities)


OLD, NEW = key("A", CURRENT), key("B", NEXT, 2)


def test_servers_trust_the_one_key_and_both_while_it_changes() -> None:
    assert trust_of([OLD]).public_keys == ("ssh-ed25519 A",)
    assert trust_of([OLD]).generation == 1
    both = trust_of([OLD, NEW])
    assert (both.public_keys, both.generation) == (("ssh-ed25519 A", "ssh-ed25519 B"), 2)
    after = trust_of([replace(OLD, role=RETIRED, generation=3), replace(NEW, role=CURRENT, generation=3)])
    assert (after.public_keys, after.generation) == (("ssh-ed25519 B",), 3)


def test_an_abort_is_a_further_generation_though_fewer_keys_are_in_use() -> None:
    assert trust_of([OLD, replace(NEW, role=RETIRED, generation=3)]).generation == 3


def test_without_a_key_nothing_is_sent_to_servers() -> None:
    with pytest.raises(UnavailableError, match="no key yet"):
        trust_of([replace(OLD, role=RETIRED)])


@pytest.mark.parametrize(
    ("known", "signs"),
    [
        ([("A",)], "A"),
        ([("A", "B")], "BA"),  # the newer first: its certificates outlast the rotation
        ([("B",)], "B"),
        ([("A",), ("A", "B")], "A"),  # one certificate for all servers of a request
        ([("A", "X"), ("A", "B")], "A"),
        ([()], "A"),  # from before it was noted
        ([(), ("A", "B")], "A"),
    ],
)
def test_the_key_that_all_the_servers_know_signs(known: list[tuple[str, ...]], signs: str) -> None:
    assert names(signers([OLD, NEW], [grant(*each) for each in known])) == signs


@pytest.mark.parametrize("known", [[("X",)], [("A",), ("B",)]])
def test_a_certificate_that_some_server_would_refuse_is_not_signed(known: list[tuple[str, ...]]) -> None:
    with pytest.raises(RefusedError, match=r"web-1.* has been replaced. Ask anew"):
        signers([OLD, NEW], [grant(*each) for each in known])


def test_a_retired_key_never_signs() -> None:
    retired = [replace(OLD, role=RETIRED), replace(NEW, role=CURRENT)]
    assert names(signers(retired, [grant("A", "B")])) == "B"
    for known in (("A",), ()):
        with pytest.raises(RefusedError):
            signers(retired, [grant(*known)])


def test_what_a_server_said_is_believed_and_not_guessed() -> None:
    assert known_to(replace(grant(), details={KNOWN: ""}), [OLD]) == frozenset()
    assert known_to(grant(), [NEW, OLD]) == {"SHA256:A"}
