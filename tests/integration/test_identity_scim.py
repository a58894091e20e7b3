"""The SCIM identity store against a strict SCIM service, and against broken ones."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from access.errors import UnavailableError
from access.ports import IdentityStore
from identity.errors import StoreUnavailableError
from identity.stores.assertion import AssertionStore
from identity.stores.scim import ScimDirectory, ScimStore
from sandbox.idp import IdentityProviderDouble

ANA = "ana@example.com"


@pytest.fixture
def idp() -> Iterator[IdentityProviderDouble]:
    with IdentityProviderDouble() as idp:
        idp.add_person(ANA, name="Ana Ruiz", groups={"payments", "ops"}, subject="s-ana")
        idp.add_person("ben@example.com", name="Ben", groups={"admins"}, subject="s-ben")
        idp.add_person("cleo@example.com", name="Cleo", groups=(), subject="s-cleo")
        yield idp


def _store(idp: IdentityProviderDouble, **changes: object) -> ScimStore:
    settings: dict[str, object] = {"base_url": idp.scim_url, "token": idp.scim_token, **changes}
    return ScimStore(ScimDirectory(**settings))  # type: ignore[arg-type]


def test_both_stores_are_identity_stores(idp: IdentityProviderDouble) -> None:
    stores: list[IdentityStore] = [_store(idp), AssertionStore()]
    assert [store.refreshes for store in stores] == [True, False]
    with pytest.raises(NotImplementedError):
        stores[1].groups_of("s-ana", ANA)


def test_a_person_is_found_by_subject(idp: IdentityProviderDouble) -> None:
    assert _store(idp).groups_of("s-ana", "") == frozenset({"payments", "ops"})
    assert _store(idp).groups_of("s-cleo", "") == frozenset()


@pytest.mark.parametrize("attribute", ["userName", "emails.value"])
def test_a_person_is_found_by_email(idp: IdentityProviderDouble, attribute: str) -> None:
    store = _store(idp, lookup_by=(attribute,))
    assert store.groups_of("other name", ANA.upper()) == frozenset({"payments", "ops"})


def test_a_change_is_seen_at_the_next_look(idp: IdentityProviderDouble) -> None:
    store = _store(idp)
    idp.set_groups(ANA, {"ops"})
    assert store.groups_of("s-ana", ANA) == frozenset({"ops"})
    idp.deactivate(ANA)
    assert store.groups_of("s-ana", ANA) is None
    idp.remove(ANA)
    assert store.groups_of("s-ana", ANA) is None


def test_an_email_that_passed_to_somebody_else_is_not_the_person(idp: IdentityProviderDouble) -> None:
    store = _store(idp, lookup_by=("externalId",))
    idp.remove(ANA)
    idp.add_person(ANA, name="Another Ana", groups={"admins"}, subject="s-new")
    assert store.groups_of("s-ana", ANA) is None


def test_whoever_has_the_email_of_a_leaver_now_is_not_taken_for_them(idp: IdentityProviderDouble) -> None:
    idp.remove(ANA)
    idp.add_person(ANA, name="Another Ana", groups={"admins"}, subject="s-new")
    with pytest.raises(StoreUnavailableError, match="somebody else by externalId"):
        _store(idp).groups_of("s-ana", ANA)
    assert _store(idp).groups_of("s-new", ANA) == frozenset({"admins"})
    by_email = _store(idp, lookup_by=("userName",))  # where an admin says that externalId is something else
    assert by_email.groups_of("s-ana", ANA) == frozenset({"admins"})


def _listed(*emails: str, primary: str = "", **more: str) -> tuple[int, bytes]:
    """A service whose one person, a manager, has these emails."""
    listed = [{"value": email, "primary": True} if email == primary else {"value": email} for email in emails]
    user = {"userName": "boss", "active": True, "groups": [{"display": "admins"}], "emails": listed, **more}
    return 200, json.dumps({"totalResults": 1, "Resources": [user]}).encode()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (_listed(ANA), True),
        (_listed("boss@example.com", ANA, primary=ANA), True),
        (
            _listed("boss@example.com", ANA, primary="boss@example.com"),
            False,
        ),  # Ana left, and her mail goes to the boss
        (_listed("boss@example.com", ANA), False),
        (_listed(ANA, userName=ANA), True),
        (_listed("boss@example.com", userName=ANA), True),
    ],
)
def test_without_an_external_id_only_a_persons_own_email_counts(
    idp: IdentityProviderDouble, answer: tuple[int, bytes], found: bool
) -> None:
    idp.scim.broken = answer
    assert _store(idp).groups_of("s-ana", ANA) == (frozenset({"admins"}) if found else None)


@pytest.mark.parametrize(
    "value",
    [
        'x" or userName eq "ben@example.com',
        'x\\" or externalId pr or userName eq \\"',
        "x&filter=userName pr",
        "x\n\r\t\x00",
        "' or 1 eq 1",
        "é\u202e\U0001f600",
        "\\",
        '"',
    ],
)
def test_nothing_in_a_name_is_filter_syntax(idp: IdentityProviderDouble, value: str) -> None:
    assert _store(idp).groups_of(value, value) is None
    assert [query["filter"].split(" ")[0] for query in idp.scim.queries] == [
        "externalId",
        "userName",
        "emails.value",
    ]
    idp.add_person("odd@example.com", name="Odd", groups={"odd"}, subject=value)
    assert _store(idp).groups_of(value, "") == frozenset({"odd"})


def test_all_pages_are_read_and_only_the_person_counts(idp: IdentityProviderDouble) -> None:
    """Some services ignore filters; then everybody comes, page by page."""
    idp.scim.ignores_filters = True
    idp.scim.page_size = 1
    assert _store(idp).groups_of("s-cleo", "") == frozenset()
    assert [query["startIndex"] for query in idp.scim.queries] == ["1", "2", "3"]
    assert _store(idp).groups_of("s-nobody", "nobody@example.com") is None


def test_two_people_of_one_name_are_not_guessed_between(idp: IdentityProviderDouble) -> None:
    idp.add_person("ana2@example.com", name="Ana", groups={"admins"}, subject="s-ana")
    with pytest.raises(StoreUnavailableError, match="more than one person"):
        _store(idp).groups_of("s-ana", ANA)


def test_only_what_is_needed_is_asked_for(idp: IdentityProviderDouble) -> None:
    _store(idp).groups_of("s-ana", ANA)
    assert idp.scim.queries[0]["attributes"] == "id,userName,externalId,emails,active,groups"


_ONE = b'{"totalResults": 1, "Resources": [%s]}'


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (500, b"", "status 500"),
        (429, b"{}", "status 429"),
        (302, b"", "status 302"),
        (404, b"{}", "status 404"),
        (200, b"<html>", "not SCIM"),
        (200, b"[]", "not SCIM"),
        (200, b"[" * 100_000, "not SCIM"),
        (200, b'{"Resources": []}', "not SCIM"),
        (200, b'{"totalResults": 1, "Resources": ["x"]}', "not SCIM"),
        (200, _ONE % b'{"externalId": "s-ana", "groups": []}', "who is active"),
        (200, _ONE % b'{"externalId": "s-ana", "active": "true"}', "who is active"),
        (200, _ONE % b'{"externalId": "s-ana", "active": true, "groups": "ops"}', "not SCIM"),
        (200, _ONE % b'{"externalId": "s-ana", "active": true, "groups": [{"value": "1"}]}', "names of groups"),
        (200, b'{"totalResults": 9999, "Resources": [{"externalId": "x"}]}', "no end"),
        (200, b" " * 5_000_001, "too large"),
    ],
)
def test_a_broken_answer_is_no_answer(idp: IdentityProviderDouble, status: int, body: bytes, problem: str) -> None:
    idp.scim.broken = (status, body)
    with pytest.raises(StoreUnavailableError, match=problem) as unavailable:
        _store(idp).groups_of("s-ana", ANA)
    assert isinstance(unavailable.value, UnavailableError)
    idp.scim.broken = None
    assert _store(idp).groups_of("s-ana", ANA) == frozenset({"payments", "ops"})


def test_a_wrong_token_is_refused_and_never_shown(idp: IdentityProviderDouble) -> None:
    with pytest.raises(StoreUnavailableError, match="status 401") as unavailable:
        _store(idp, token="not-the-token").groups_of("s-ana", ANA)
    assert "not-the-token" not in repr(unavailable.value)
    assert unavailable.value.__context__ is None


@pytest.mark.parametrize("token", ["", "line\nbreak", "é"])
def test_a_token_that_no_header_carries_stops_the_start(token: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as refused:
        ScimStore(ScimDirectory(base_url="https://scim.example", token=token))
    assert not token or token not in str(refused.value)


def test_the_token_is_not_in_a_repr(idp: IdentityProviderDouble) -> None:
    directory = ScimDirectory(base_url=idp.scim_url, token=idp.scim_token)
    assert idp.scim_token not in repr(directory)


def test_a_netrc_file_does_not_replace_the_token(
    idp: IdentityProviderDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert _store(idp).groups_of("s-ana", ANA) == frozenset({"payments", "ops"})


def test_nobody_listening_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        directory = ScimDirectory(base_url=f"http://127.0.0.1:{free.getsockname()[1]}", token="t")
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            ScimStore(directory).groups_of("s-ana", ANA)


def test_a_silent_service_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = ScimStore(ScimDirectory(base_url=url, token="t", read_timeout=0.2))
        with pytest.raises(StoreUnavailableError, match="ReadTimeout"):
            store.groups_of("s-ana", ANA)


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def break_off() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")

        thread = threading.Thread(target=break_off)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StoreUnavailableError):
            ScimStore(ScimDirectory(base_url=url, token="t")).groups_of("s-ana", ANA)
        thread.join()


@pytest.mark.parametrize("url", ["http://scim.example/v2", "ftp://scim.example", "scim.example", "", "http://["])
def test_the_token_travels_by_https_only(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        ScimStore(ScimDirectory(base_url=url, token="t"))


@pytest.mark.parametrize("lookup_by", [(), ("displayName",), ('userName eq "x" or id',)])
def test_people_are_looked_up_by_known_attributes_only(lookup_by: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="looked up by"):
        ScimStore(ScimDirectory(base_url="https://scim.example", token="t", lookup_by=lookup_by))


@pytest.mark.parametrize(
    "query",
    [
        "filter=userName",
        "filter=userName+eq+ana",
        'filter=userName eq "a" or userName eq "b"',
        "filter=password+pr",
        "startIndex=one",
        "sortBy=name",
        "count=1&count=2",
    ],
)
def test_the_service_itself_is_strict(idp: IdentityProviderDouble, query: str) -> None:
    headers = {"Authorization": f"Bearer {idp.scim_token}"}
    answer = requests.get(f"{idp.scim_url}/Users?{query}", headers=headers, timeout=5)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/scim+json"
