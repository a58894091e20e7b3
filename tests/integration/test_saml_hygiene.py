"""SAML leaves nothing behind: no assertion in logs or errors, no key on disk, no program, no mixed-up threads."""

import logging
import subprocess
import tempfile
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest

from identity.errors import AssertionRefusedError
from identity.providers import IdentityProvider
from sandbox.idp import IdentityProviderDouble, Tamper
from sandbox.idp.keys import new_key_pair
from tests.integration.saml_desk import ANA, Desk, new_service_provider, open_desk


@pytest.fixture(scope="module")
def module_desk() -> Iterator[Desk]:
    with IdentityProviderDouble() as idp:
        yield open_desk(idp, new_key_pair("passport"))


@pytest.fixture
def desk(module_desk: Desk) -> Iterator[Desk]:
    yield module_desk
    module_desk.idp.tamper = None


def _everything_hanging_on(error: BaseException) -> str:
    said = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    for hidden in (error.__cause__, error.__context__):
        said += _everything_hanging_on(hidden) if hidden else ""
    return said


@pytest.mark.parametrize("tamper", sorted(set(Tamper) - {Tamper.REPLAY}))
def test_no_assertion_reaches_a_log_or_an_error(
    desk: Desk, tamper: Tamper, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    # As somebody would who turns on debugging everywhere.
    for name in ("saml2.response", "saml2.sigver", "xmlschema"):
        caplog.set_level(logging.DEBUG, logger=name)
    said = ""
    try:
        desk.sign_in(tamper)
    except AssertionRefusedError as refused:
        said = _everything_hanging_on(refused)
    printed = capfd.readouterr()
    said += caplog.text + printed.out + printed.err
    for secret in (ANA, "subject-of-ana", "mallory", "payments", "Ana Ruiz", "Assertion ", "PRIVATE KEY"):
        assert secret not in said


def test_a_service_provider_shows_no_key(desk: Desk) -> None:
    assert "PRIVATE" not in repr(desk.sp) + repr(vars(desk.sp))


def test_no_program_and_no_file_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a program or a temporary file was wanted")

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr("saml2.sigver.Popen", refuse)
    monkeypatch.setattr("saml2.sigver.NamedTemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with IdentityProviderDouble() as idp:
        desk = open_desk(idp, new_key_pair("passport"))
        assert desk.sign_in().email == ANA
        assert desk.sign_in(Tamper.ENCRYPTED).email == ANA


def test_threads_do_not_mix_people_or_keys(desk: Desk) -> None:
    """Two service providers with different keys in one process: pysaml2's own signer would mix them up."""
    with IdentityProviderDouble() as partner:
        second = new_service_provider(new_key_pair("second"), IdentityProvider(name="corp", metadata=partner.metadata))
        partner.trust(second.metadata())
        desks = [desk, Desk(idp=partner, sp=second, keys=desk.keys)]
        for number in range(8):
            for one in desks:
                one.idp.add_person(f"p{number}@example.com", name=f"P{number}", groups={f"g{number}"})

        def sign_in(number: int) -> None:
            email = f"p{number % 8}@example.com"
            found = desks[number % 2].sign_in(email=email)
            assert (found.email, found.groups) == (email, frozenset({f"g{number % 8}"}))
            assert found.issuer == desks[number % 2].idp.entity_id

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(sign_in, range(64)))
