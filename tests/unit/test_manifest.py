"""The manifest asks Slack for what Passport uses, and for nothing else."""

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "app_manifest.yml").read_text())
    return found


def test_scopes_are_exactly_what_is_used(manifest: dict[str, Any]) -> None:
    scopes = manifest["oauth_config"]["scopes"]
    assert list(scopes) == ["bot"]
    used = {"commands", "chat:write", "im:write", "users:read", "users:read.email", "usergroups:read"}
    assert set(scopes["bot"]) == used


def test_the_command_is_escaped(manifest: dict[str, Any]) -> None:
    [command] = manifest["features"]["slash_commands"]
    assert (command["command"], command["should_escape"]) == ("/passport", True)


def test_events_are_those_with_a_listener(manifest: dict[str, Any]) -> None:
    listeners = (ROOT / "handlers" / "home.py").read_text()
    events = manifest["settings"]["event_subscriptions"]["bot_events"]
    assert events == ["app_home_opened", "team_join", "user_change"]
    assert all(f'app.event("{event}")' in listeners for event in events)


def test_clicks_and_options_arrive_where_everything_does(manifest: dict[str, Any]) -> None:
    settings = manifest["settings"]
    urls = {
        settings["event_subscriptions"]["request_url"],
        settings["interactivity"]["request_url"],
        settings["interactivity"]["message_menu_options_url"],
        manifest["features"]["slash_commands"][0]["url"],
    }
    assert settings["interactivity"]["is_enabled"] is True
    assert len(urls) == 1


def test_texts_are_within_slacks_limits(manifest: dict[str, Any]) -> None:
    # Slack's page "App manifest reference"
    assert len(manifest["display_information"]["name"]) <= 35
    assert len(manifest["display_information"]["description"]) <= 140
    assert len(manifest["features"]["bot_user"]["display_name"]) <= 80
    assert len(manifest["features"]["slash_commands"][0]["description"]) <= 2000
    assert len(manifest["features"]["slash_commands"][0]["usage_hint"]) <= 1000
