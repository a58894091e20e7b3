"""Attacks through Slack: what people who never signed in can find out."""

from collections.abc import Iterator

import pytest

from handlers import ids
from sandbox.slack import View
from storage.unit_of_work import SqlStore
from tests.integration.slack_stage import MAX, Stage, stage
from tests.values import ANA, a_server


@pytest.fixture
def on(sqlite_store: SqlStore) -> Iterator[Stage]:
    with stage(sqlite_store) as running:
        yield running


def front(on: Stage, who: str) -> View:
    view = on.slack.person(who).view()
    assert view is not None
    return view


def offered(on: Stage, who: str, text: str) -> list[str]:
    options = on.slack.person(who).suggest(front(on, who), ids.REQUEST_SERVERS, text)
    return [option["text"]["text"].split()[0] for option in options]


class TestServerNames:
    def test_are_not_listed_to_whoever_never_signed_in(self, on: Stage) -> None:
        on.world.inventory.servers = [a_server("web-1"), a_server("db-2", problem="db-2 is stopped.")]
        on.say("request", MAX.user_id)
        assert offered(on, MAX.user_id, "w") == []
        assert offered(on, MAX.user_id, "i-") == []
        assert offered(on, MAX.user_id, "web-1") == ["web-1"]  # whom they know already, they may ask for
        on.say("request")
        assert offered(on, ANA.user_id, "w") == ["web-1"]

    def test_are_not_listed_by_a_tag_in_the_form_either(self, on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(on.world.inventory, "find", lambda words: on.world.inventory.servers)
        on.say("request tag:env=prod", MAX.user_id)
        assert "web-1" not in str(front(on, MAX.user_id).blocks)
        on.say("request tag:env=prod")
        assert "web-1" in str(front(on, ANA.user_id).blocks)

    def test_are_shown_once_they_signed_in_even_long_ago(self, on: Stage) -> None:
        on.say("request")
        on.world.clock.forward(days=10)
        assert offered(on, ANA.user_id, "w") == ["web-1"]
