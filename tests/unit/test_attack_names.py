"""Names that somebody gave to a server so that it is taken for another."""

from dataclasses import replace
from datetime import timedelta

import pytest

from access.errors import RefusedError
from access.model import Grant, GrantState, RequestState
from access.recording import Case
from access.service.choosing import Choice, choose
from tests.values import NOW, a_request, a_server

VICTIM = a_server("db-1", instance_id="i-0123456789abcdef0")


def a_case(*names_and_ids: tuple[str, str]) -> Case:
    servers = tuple(a_server(name, instance_id=id_) for name, id_ in names_and_ids)
    request = replace(a_request(servers=servers), state=RequestState.ACTIVE, expires_at=NOW + timedelta(hours=1))
    grants = [
        Grant(id=f"{request.id}.{number}", request_id=request.id, server=server, state=GrantState.ACTIVE)
        for number, server in enumerate(servers, 1)
    ]
    return Case(request=request, grants=tuple(grants))


def test_a_server_named_like_anothers_id_is_not_that_one() -> None:
    hostile = a_case((VICTIM.instance_id, "i-0fedcba9876543210"))
    with pytest.raises(RefusedError, match=f"You have no access to {VICTIM.instance_id}"):
        choose([hostile], VICTIM.instance_id, address="", now=NOW)


def test_a_server_named_like_anothers_id_does_not_keep_anybody_from_that_one() -> None:
    both = a_case((VICTIM.instance_id, "i-0fedcba9876543210"), (VICTIM.name, VICTIM.instance_id))
    found = choose([both], VICTIM.instance_id, address="", now=NOW)
    assert isinstance(found, Choice)
    assert found.grant.server.instance_id == VICTIM.instance_id
    found = choose([both], "i-0fedcba9876543210", address="", now=NOW)  # the hostile one by its own id
    assert isinstance(found, Choice)
    assert found.grant.server.instance_id == "i-0fedcba9876543210"
