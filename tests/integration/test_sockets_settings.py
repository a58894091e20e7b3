"""The settings of Socket Mode: one way to Slack, and only one."""

from pathlib import Path

import pytest

from bot import settings as module
from bot.settings import Settings, SettingsError

EXAMPLE = Path(__file__).parents[2] / "passport.example.toml"
SIGNING, APP = "0123456789abcdef" * 2, "xapp-1-A0-123-recognisable"
VARIABLES = {
    "PASSPORT_SLACK_BOT_TOKEN": "xoxb-1234567890-secretsecret",
    "PASSPORT_SEALING_KEYS": "k1:c2VjcmV0",
}


@pytest.fixture(autouse=True)
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's settings without its signing secret."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if not line.startswith("slack_signing_secret")]
    (tmp_path / "passport.toml").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"PASSPORT_{name.upper()}", value)
    return module.load()


def test_the_app_token_stands_in_the_place_of_the_signing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, slack_app_token=APP)
    assert (settings.slack_signing_secret, settings.slack_socket_connections) == (None, 2)
    assert settings.slack_app_token is not None
    assert settings.slack_app_token.get_secret_value() == APP
    assert APP not in repr(settings)


def test_the_signing_secret_needs_no_app_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, slack_signing_secret=SIGNING).slack_app_token is None


@pytest.mark.parametrize("variables", [{}, {"slack_app_token": APP, "slack_signing_secret": SIGNING}])
def test_neither_and_both_are_refused(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as refused:
        load(monkeypatch, **variables)
    said = refused.value.sentence
    assert "either slack_signing_secret (Slack calls Passport) or slack_app_token (Socket Mode" in said
    assert "and not both" in said
    assert not [secret for secret in (SIGNING, APP) if secret in said]


@pytest.mark.parametrize("token", ["", "xoxb-1234567890-secretsecret", "xapp-"])
def test_a_token_of_another_kind_is_refused(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="slack_app_token is wrong: it begins with xapp-") as refused:
        load(monkeypatch, slack_app_token=token)
    assert "secretsecret" not in refused.value.sentence


@pytest.mark.parametrize("count", ["0", "11"])
def test_slack_allows_ten_connections(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="slack_socket_connections"):
        load(monkeypatch, slack_app_token=APP, slack_socket_connections=count)
    assert load(monkeypatch, slack_socket_connections="10").slack_socket_connections == 10
