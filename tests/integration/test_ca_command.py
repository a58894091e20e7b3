"""``passport ca``: what it says, what it leaves on the disk, and that a crash at any of its lines does no harm."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from access.authorities import AuthorityRole, signers, trust_of
from bot import authority as authority_module
from bot import cli, wiring
from bot.authority import AuthorityKeys, establish
from bot.ca_files import KeyFiles
from bot.settings import load
from provisioning.authority_ring import AuthorityRing
from provisioning.ssh_certificate import read_certificate
from provisioning.ssh_keys import fingerprint
from storage.sealing import Sealer
from storage.unit_of_work import SqlStore, SqlUnitOfWork
from tests.integration.test_cli import CONFIG, SIGNING, TOKEN
from tests.stores import SEALER
from tests.unit.test_ssh_ca import WANTED


class KilledError(BaseException):
    """Nothing after this line is run."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> Iterator[Path]:
    """A folder with settings and a migrated database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PASSPORT_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("PASSPORT_SLACK_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("PASSPORT_SLACK_SIGNING_SECRET", SIGNING)
    monkeypatch.setenv("PASSPORT_SEALING_KEYS", "k1:" + "A" * 43 + "=")
    (tmp_path / "passport.toml").write_text(CONFIG.format(port=1, account="111111111111", region="eu-west-1"))
    handlers = logging.getLogger().handlers[:]
    yield tmp_path
    logging.getLogger().handlers[:] = handlers


def start() -> None:
    """What ``passport serve`` does first."""
    settings, store = load(), wiring.open_store(load(), exclusive=False)
    establish(store, AuthorityKeys(settings, wiring.sealer(settings)), clock=wiring.now)
    store.close()


def works(place: Path) -> dict[str, str]:
    """After a start, somebody signs with each usable key, and files are as they should be; the roles."""
    start()
    settings = load()
    keys, store = AuthorityKeys(settings, wiring.sealer(settings)), wiring.open_store(settings, exclusive=False)
    with store.unit_of_work(read_only=True) as uow:
        found = uow.authorities.all()
    store.close()
    for authority in trust_of(found).authorities:
        keys.find(authority).prove()
    assert not list(keys.files.open_to_others())
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in place.glob("passport-ca.sealed*"))
    for authority in found:
        if authority.role is AuthorityRole.RETIRED:
            with pytest.raises(Exception, match="is not on this machine"):
                keys.find(authority)
    return {authority.role.value: authority.fingerprint for authority in found}


def run(*words: str) -> int:
    return cli.main(["ca", *words])


def test_before_the_first_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show") == 0
    assert "There is no key yet" in capsys.readouterr().out
    for words in ((), ("--finish",), ("--abort",), ("--compromised", "stolen")):
        assert run("rotate", *words) == 1
        assert "no key yet" in capsys.readouterr().err
    assert not list(Path().glob("passport-ca*"))


def test_a_rotation_leaves_the_new_key_alone_on_the_disk(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start()
    (old,) = works(place).values()
    assert run("rotate") == 0
    said = capsys.readouterr().out
    assert "Servers that are opened from now on trust both keys." in said
    assert "No open server depends on the former key" in said
    both = works(place)
    assert both["current"] == old
    assert both["next"] in said
    assert len(list(place.glob("passport-ca.sealed*"))) == 2
    assert run("rotate") == 1
    assert len(list(place.glob("passport-ca.sealed*"))) == 2  # what was made for nothing is gone
    assert run("rotate", "--finish") == 0
    assert "its file is taken away" in capsys.readouterr().out
    assert works(place) == {"current": both["next"], "retired": old}
    assert len(list(place.glob("passport-ca.sealed*"))) == 1
    assert run("show") == 0
    assert f"current  {both['next']}" in capsys.readouterr().out


def test_a_rotation_that_is_called_off_leaves_the_old_key_alone(place: Path) -> None:
    start()
    assert run("rotate") == 0
    assert run("rotate", "--abort") == 0
    assert [path.name for path in place.glob("passport-ca.sealed*")] == ["passport-ca.sealed"]
    assert works(place)["current"]


def test_compromised_needs_a_reason_and_takes_every_key_away(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start()
    before = works(place)
    with pytest.raises(SystemExit):
        run("rotate", "--compromised")
    assert run("rotate", "--compromised", " ") == 1
    assert "Say why" in capsys.readouterr().err
    assert works(place) == before
    run("rotate")
    assert run("rotate", "--compromised", "stolen") == 0
    after = works(place)
    assert len(list(place.glob("passport-ca.sealed*"))) == 1
    assert after["current"] not in before.values()


def test_a_lost_key_is_replaced_the_same_way(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start()
    (place / "passport-ca.sealed").unlink()
    assert run("rotate", "--compromised", "the disk is broken") == 0
    assert works(place)["current"]


def kill_before(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, *, after: bool = False) -> None:
    """Die where the method would begin, or has just ended."""
    original: Callable[..., Any] = getattr(owner, method)

    def dying(*args: Any, **given: Any) -> None:
        if after:
            original(*args, **given)
        raise KilledError

    monkeypatch.setattr(owner, method, dying)


@pytest.mark.parametrize("words", [(), ("--finish",), ("--abort",), ("--compromised", "stolen")])
@pytest.mark.parametrize(
    ("owner", "method", "after"),
    [
        (Sealer, "seal_file", False),
        (Sealer, "seal_file", True),
        (SqlUnitOfWork, "commit", False),
        (SqlUnitOfWork, "commit", True),
        (KeyFiles, "forget", False),
        (KeyFiles, "forget", True),
        (Path, "unlink", False),
    ],
)
def test_a_crash_at_any_line_leaves_a_working_authority(
    place: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], owner: type, method: str, after: bool
) -> None:
    start()
    if words in {("--finish",), ("--abort",)}:
        run("rotate")
    with monkeypatch.context() as dying:
        kill_before(dying, owner, method, after=after)
        with suppress(KilledError):
            run("rotate", *words)
    assert works(place)["current"]
    # And whatever was begun can be gone on with.
    if "next" in works(place):
        assert run("rotate", "--finish") == 0
    assert run("rotate") == 0
    assert run("rotate", "--finish") == 0
    assert set(works(place)) == {"current", "retired"}


def test_what_a_crash_left_is_taken_away_and_nothing_else(place: Path) -> None:
    start()
    run("rotate")
    kept = set(place.glob("*passport-ca*"))
    abandoned = {place / f"passport-ca.sealed.{'x' * 16}", place / ".passport-ca.sealed.tmpabc"}
    young = place / f"passport-ca.sealed.{'y' * 16}"  # of a rotation that is starting at this moment
    foreign = place / "passport-ca.sealed.bak"
    for path in (*abandoned, young, foreign):
        path.write_text("v1:")
        path.chmod(0o600)
    for path in (*abandoned, foreign, *kept):
        os.utime(path, (0, 0))
    start()
    assert set(place.glob("*passport-ca*")) | set(place.glob(".passport-ca*")) == {*kept, young, foreign}


def test_a_running_process_notices_without_a_restart(place: Path) -> None:
    start()
    settings = load()
    store = SqlStore(settings.database_url, sealing=SEALER)  # as `passport serve` has it
    ring = AuthorityRing(AuthorityKeys(settings, wiring.sealer(settings)).find)

    def signs() -> str:
        with store.unit_of_work(read_only=True) as uow:
            chosen = signers(uow.authorities.all(), ())
        now = wiring.now()
        line = ring.certify(replace(WANTED, valid_after=now, valid_before=now + timedelta(hours=1)), chosen)
        signed_with = read_certificate(line)[0].signature_key
        assert fingerprint(signed_with) == chosen[0].fingerprint
        return chosen[0].fingerprint

    before = signs()
    run("rotate")
    assert len(authority_module.trust(store).authorities) == 2
    coming = signs()
    run("rotate", "--finish")
    assert signs() == coming != before
    assert authority_module.trust(store).fingerprints == {coming}
    store.close()
