"""Attacks by a server on the others of its request, and secrets in representations."""

import pytest

from provisioning.aws import AwsAccount
from provisioning.framing import FramingError, parse_create
from tests.unit.test_framing import CREATED


@pytest.mark.parametrize("port", ["0", "65536", "99999999"])
def test_a_port_that_is_none_is_refused_where_it_is_said(port: str) -> None:
    """Believed here, it would break *Show credentials* of every other server of the request."""
    output = CREATED.replace("port=22", f"port={port}")
    with pytest.raises(FramingError):
        parse_create(output, request_id="AR-7F3K", user_name="pp-7f3k")


def test_an_external_id_is_in_no_representation() -> None:
    account = AwsAccount(name="prod", id="1" * 12, regions=("eu-west-1",), external_id="sesame-open")
    assert "sesame-open" not in repr(account)
