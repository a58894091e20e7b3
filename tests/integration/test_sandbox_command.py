"""What the command line of the sandbox hands on."""

import sys

import pytest

from sandbox import __main__ as command
from sandbox import demo
from sandbox.narrator import NotSoError


@pytest.mark.parametrize(
    ("words", "played"),
    [
        ([], {"as_json": False, "socket_mode": False}),
        (["--socket-mode"], {"as_json": False, "socket_mode": True}),
        (["--json"], {"as_json": True, "socket_mode": False}),
    ],
)
def test_the_demo_is_played_as_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, words: list[str], played: dict[str, bool]
) -> None:
    given: list[dict[str, bool]] = []
    monkeypatch.setattr(demo, "play", lambda **options: given.append(options))
    monkeypatch.setattr(sys, "argv", ["sandbox", "demo", *words])
    assert command.main() == 0
    assert given == [played]


def test_what_is_not_so_is_said_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def not_so(**_options: bool) -> None:
        raise NotSoError("the third step")

    monkeypatch.setattr(demo, "play", not_so)
    monkeypatch.setattr(sys, "argv", ["sandbox", "demo"])
    assert command.main() == 1
    assert "demo: not so: the third step" in capsys.readouterr().err
