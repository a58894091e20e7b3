"""The sandbox's Web API, asked by the real slack_sdk.WebClient, answers as strictly as Slack's."""

import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from sandbox.slack import DEFAULT_SCOPES, SlackDouble

HELLO = [{"type": "section", "text": {"type": "mrkdwn", "text": "hello <@U0ANA>"}}]


@pytest.fixture
def slack() -> Iterator[SlackDouble]:
    with SlackDouble() as double:
        double.add_member("U0ANA", name="ana", real_name="Ana Ruiz")
        double.add_member("U0BEN", name="ben")
        double.add_channel("C0AUDIT", name="passport-audit", members=["U0ANA"])
        double.add_channel("C0OTHER", name="other", members=["U0BEN"], with_bot=False)
        double.add_channel("G0SECRET", name="secret", members=["U0BEN"], kind="private", with_bot=False)
        double.add_usergroup("S0LEADS", handle="payments-leads", members=["U0ANA", "U0BEN"])
        yield double


@pytest.fixture
def client(slack: SlackDouble) -> WebClient:
    return WebClient(token=slack.bot_token, base_url=slack.url)


def error_of(slack: SlackDouble, method: str, *, token: str | None = None, **arguments: object) -> str:
    asking = WebClient(token=token or slack.bot_token, base_url=slack.url)
    with pytest.raises(SlackApiError) as refused:
        asking.api_call(method, json=arguments)
    assert refused.value.response.status_code == 200
    return str(refused.value.response["error"])


def test_auth_test_names_the_bot(client: WebClient) -> None:
    answer = client.auth_test()
    assert (answer["team_id"], answer["user_id"], answer["bot_id"]) == ("T0PASSPORT", "U0PASSPORT", "B0PASSPORT")


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("chat.meMessage", {}, "unknown_method"),
        ("chat.postMessage", {"text": "x"}, "invalid_arguments"),
        ("chat.postMessage", {"channel": "C0AUDIT", "text": "x", "colour": "red"}, "invalid_arguments"),
        ("chat.postMessage", {"channel": "C0AUDIT"}, "no_text"),
        ("chat.postMessage", {"channel": "C0AUDIT", "text": " "}, "no_text"),
        ("chat.postMessage", {"channel": "C0AUDIT", "text": "x" * 40_001}, "msg_too_long"),
        ("chat.postMessage", {"channel": "C0NONE", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", {"channel": "U0NONE", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", {"channel": "C0OTHER", "text": "x"}, "not_in_channel"),
        ("chat.postMessage", {"channel": "G0SECRET", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", {"channel": "U0PASSPORT", "text": "x"}, "cannot_dm_bot"),
        ("chat.postMessage", {"channel": "C0AUDIT", "text": "x", "blocks": "{"}, "invalid_blocks_format"),
        ("chat.postMessage", {"channel": "C0AUDIT", "text": "x", "metadata": {"a": 1}}, "invalid_metadata_format"),
        ("chat.postEphemeral", {"channel": "C0AUDIT", "user": "U0BEN", "text": "x"}, "user_not_in_channel"),
        ("chat.postEphemeral", {"channel": "C0AUDIT", "user": "U0NONE", "text": "x"}, "user_not_found"),
        ("chat.update", {"channel": "C0AUDIT", "ts": "1.2", "text": "x"}, "message_not_found"),
        ("chat.delete", {"channel": "C0AUDIT", "ts": "1.2"}, "message_not_found"),
        ("conversations.open", {}, "users_list_not_supplied"),
        ("conversations.open", {"users": "U0NONE"}, "user_not_found"),
        ("conversations.open", {"users": "U0ANA,U0BEN"}, "missing_scope"),
        ("conversations.info", {"channel": "G0SECRET"}, "channel_not_found"),
        ("conversations.list", {"types": "im"}, "missing_scope"),
        ("conversations.list", {"types": "nonsense"}, "invalid_types"),
        ("team.info", {}, "missing_scope"),
        ("users.info", {"user": "U0NONE"}, "user_not_found"),
        ("users.list", {"cursor": "nonsense"}, "invalid_cursor"),
        ("users.list", {"limit": 1001}, "invalid_limit"),
        ("users.lookupByEmail", {"email": "nobody@example.com"}, "users_not_found"),
        ("usergroups.users.list", {"usergroup": "S0NONE"}, "no_such_subteam"),
        ("views.open", {"trigger_id": "1.2.3", "view": {"type": "modal"}}, "invalid_arguments"),
        ("views.publish", {"user_id": "U0NONE", "view": {"type": "home", "blocks": []}}, "user_not_found"),
        ("views.update", {"view": {}, "view_id": "V1", "external_id": "x"}, "invalid_arguments"),
        ("views.update", {"view": {"type": "modal"}, "view_id": "V1"}, "not_found"),
        ("apps.connections.open", {}, "not_allowed_token_type"),
    ],
)
def test_what_slack_refuses(slack: SlackDouble, method: str, arguments: dict[str, Any], error: str) -> None:
    assert error_of(slack, method, **arguments) == error
    assert slack.calls[-1].method == method
    assert slack.calls[-1].error == error


def test_tokens(slack: SlackDouble) -> None:
    assert error_of(slack, "auth.test", token="xoxb-wrong") == "invalid_auth"
    assert error_of(slack, "auth.test", token=slack.app_token) == "not_allowed_token_type"
    assert requests.post(slack.url + "auth.test", timeout=5).json()["error"] == "not_authed"


def test_no_token_is_kept_or_shown(slack: SlackDouble, client: WebClient) -> None:
    client.auth_test()
    for headers in ({}, {"Authorization": f"Bearer {slack.bot_token}"}):
        form = {"token": slack.bot_token}
        assert requests.post(slack.url + "auth.test", data=form, headers=headers, timeout=5).json()["ok"]
    assert slack.bot_token not in repr([(call, call.arguments, call.answer) for call in slack.calls])


def test_missing_scope_says_what_is_needed_and_provided() -> None:
    with SlackDouble(scopes=("commands",)) as slack:
        client = WebClient(token=slack.bot_token, base_url=slack.url)
        with pytest.raises(SlackApiError) as refused:
            client.chat_postMessage(channel="C0", text="x")
        answer = refused.value.response
        assert (answer["error"], answer["needed"], answer["provided"]) == ("missing_scope", "chat:write", "commands")


def test_the_email_needs_its_scope_and_a_strangers_is_never_shown() -> None:
    for scopes, expected in ((DEFAULT_SCOPES, "ana@example.com"), (("users:read",), None)):
        with SlackDouble(scopes=scopes) as slack:
            slack.add_member("U0ANA", name="ana")
            slack.add_member("U0EVE", name="eve", team_id="T0OTHER")
            client = WebClient(token=slack.bot_token, base_url=slack.url)
            assert client.users_info(user="U0ANA")["user"]["profile"].get("email") == expected
            stranger = client.users_info(user="U0EVE")["user"]
            assert stranger["is_stranger"]
            assert stranger["team_id"] == "T0OTHER"
            assert "email" not in stranger["profile"]


def test_guests_and_deactivated_people_are_told_apart(slack: SlackDouble, client: WebClient) -> None:
    slack.add_member("U0MULTI", name="multi", guest="restricted")
    slack.add_member("U0SINGLE", name="single", guest="ultra_restricted")
    multi, single = (client.users_info(user=user)["user"] for user in ("U0MULTI", "U0SINGLE"))
    assert (multi["is_restricted"], multi["is_ultra_restricted"]) == (True, False)
    assert (single["is_restricted"], single["is_ultra_restricted"]) == (True, True)
    before = client.users_info(user="U0BEN")["user"]["updated"]
    slack.deactivate("U0BEN")
    ben = client.users_info(user="U0BEN")["user"]
    assert ben["deleted"]
    assert ben["updated"] > before
    assert error_of(slack, "users.lookupByEmail", email="ben@example.com") == "users_not_found"
    assert error_of(slack, "conversations.open", users="U0BEN") == "user_disabled"


def test_users_list_goes_page_by_page(slack: SlackDouble, client: WebClient) -> None:
    found, cursor = [], ""
    for _ in range(3):
        page = client.users_list(limit=1, cursor=cursor)
        found += [member["id"] for member in page["members"]]
        cursor = page["response_metadata"]["next_cursor"]
    assert (found, cursor) == (["U0PASSPORT", "U0ANA", "U0BEN"], "")


def test_usergroups(slack: SlackDouble, client: WebClient) -> None:
    assert client.usergroups_list()["usergroups"][0]["handle"] == "payments-leads"
    slack.deactivate("U0BEN")
    assert client.usergroups_users_list(usergroup="S0LEADS")["users"] == ["U0ANA"]


def test_conversations(slack: SlackDouble, client: WebClient) -> None:
    assert client.conversations_info(channel="C0OTHER")["channel"]["is_member"] is False
    assert client.conversations_members(channel="C0AUDIT")["members"] == ["U0ANA", "U0PASSPORT"]
    names = [channel["name"] for channel in client.conversations_list()["channels"]]
    assert names == ["passport-audit", "other"]
    first = client.conversations_open(users="U0ANA")
    again = client.conversations_open(users="U0ANA")
    assert first["channel"]["id"] == again["channel"]["id"]
    assert again["already_open"]


def test_a_message_its_edit_and_its_end(slack: SlackDouble, client: WebClient) -> None:
    posted = client.chat_postMessage(channel="C0AUDIT", text="hello &amp; *bye*", blocks=HELLO)
    (message,) = slack.person("U0ANA").messages("C0AUDIT")
    assert (message.plain, message.notification, message.pings) == ("hello @ana", "hello & bye", ("<@U0ANA>",))
    link = client.chat_getPermalink(channel="C0AUDIT", message_ts=posted["ts"])["permalink"]
    assert link.endswith(f"/C0AUDIT/p{posted['ts'].replace('.', '')}")
    client.chat_update(channel="C0AUDIT", ts=posted["ts"], text="changed")
    edited = slack.person("U0ANA").look(message)
    assert (edited.plain, edited.blocks, edited.ts) == ("changed", (), posted["ts"])
    assert edited.edited_ts is not None
    client.chat_delete(channel="C0AUDIT", ts=posted["ts"])
    assert slack.person("U0ANA").messages("C0AUDIT") == []


def test_an_archived_channel_takes_no_messages_and_no_edits(slack: SlackDouble, client: WebClient) -> None:
    ts = client.chat_postMessage(channel="C0AUDIT", text="x")["ts"]
    slack.archive("C0AUDIT")
    assert error_of(slack, "chat.postMessage", channel="C0AUDIT", text="x") == "is_archived"
    assert error_of(slack, "chat.update", channel="C0AUDIT", ts=ts, text="y") == "is_inactive"


def test_link_names_pings_where_plain_text_does_not(slack: SlackDouble, client: WebClient) -> None:
    client.chat_postMessage(channel="C0AUDIT", text="@ana @channel")
    client.chat_postMessage(channel="C0AUDIT", text="@ana @channel", link_names=True)
    quiet, loud = slack.messages("C0AUDIT")
    assert (quiet.pings, loud.pings) == ((), ("<@U0ANA>", "<!channel>"))


def test_an_update_pings_unless_it_says_parse_none(slack: SlackDouble, client: WebClient) -> None:
    ts = client.chat_postMessage(channel="C0AUDIT", text="x")["ts"]
    client.chat_update(channel="C0AUDIT", ts=ts, text="@channel")
    assert slack.messages("C0AUDIT")[0].pings == ("<!channel>",)
    client.chat_update(channel="C0AUDIT", ts=ts, text="@channel", parse="none")
    assert slack.messages("C0AUDIT")[0].pings == ()
    client.chat_update(channel="C0AUDIT", ts=ts, text="<@U0ANA> @here")
    assert slack.messages("C0AUDIT")[0].pings == ("<@U0ANA>", "<!here>")


def test_an_ephemeral_message_is_seen_by_one_and_cannot_be_updated(slack: SlackDouble, client: WebClient) -> None:
    slack.join("C0AUDIT", "U0BEN")
    sent = client.chat_postEphemeral(channel="C0AUDIT", user="U0ANA", text="secret")
    assert [message.plain for message in slack.person("U0ANA").ephemerals()] == ["secret"]
    assert slack.person("U0BEN").ephemerals() == []
    assert slack.messages("C0AUDIT") == []
    gone = error_of(slack, "chat.update", channel="C0AUDIT", ts=sent["message_ts"], text="x")
    assert gone == "message_not_found"
    slack.reload("U0ANA")
    assert slack.person("U0ANA").ephemerals() == []


def test_an_ephemeral_message_to_somebody_deactivated_goes_nowhere(slack: SlackDouble, client: WebClient) -> None:
    slack.deactivate("U0ANA")
    assert client.chat_postEphemeral(channel="C0AUDIT", user="U0ANA", text="secret")["ok"]
    assert slack.person("U0ANA").ephemerals() == []


def test_rate_limits_on_demand(slack: SlackDouble, client: WebClient) -> None:
    slack.faults.rate_limit("chat.postMessage", retry_after=7, times=1)
    with pytest.raises(SlackApiError) as limited:
        client.chat_postMessage(channel="C0AUDIT", text="x")
    assert limited.value.response.status_code == 429
    assert limited.value.response.headers["Retry-After"] == "7"
    assert client.chat_postMessage(channel="C0AUDIT", text="x")["ok"]
    assert len(slack.messages("C0AUDIT")) == 1


def test_slacks_own_rate_limits() -> None:
    with SlackDouble(real_rate_limits=True) as slack:
        slack.add_channel("C0A", name="a")
        slack.add_channel("C0B", name="b")
        client = WebClient(token=slack.bot_token, base_url=slack.url)
        for _ in range(3):
            client.chat_postMessage(channel="C0A", text="x")
        with pytest.raises(SlackApiError) as limited:
            client.chat_postMessage(channel="C0A", text="x")
        wait = int(limited.value.response.headers["Retry-After"])
        assert client.chat_postMessage(channel="C0B", text="another channel has its own limit")["ok"]
        slack.clock.advance(wait)
        assert client.chat_postMessage(channel="C0A", text="x")["ok"]
        for _ in range(20):
            client.users_list()
        with pytest.raises(SlackApiError, match="ratelimited"):
            client.users_list()


def test_slack_down_and_up_again(slack: SlackDouble) -> None:
    client = WebClient(token=slack.bot_token, base_url=slack.url, retry_handlers=[])
    with slack.faults.down(), pytest.raises((urllib.error.URLError, ConnectionError)):
        client.chat_postMessage(channel="C0AUDIT", text="x")
    assert slack.calls[-1].error == "no_answer"
    assert client.chat_postMessage(channel="C0AUDIT", text="x")["ok"]
    slack.faults.down(600)
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        client.auth_test()
    slack.faults.clear()
    assert client.auth_test()["ok"]


def test_a_lost_answer_leaves_the_message_and_a_client_that_retries_posts_it_twice(slack: SlackDouble) -> None:
    once = WebClient(token=slack.bot_token, base_url=slack.url, retry_handlers=[])
    slack.faults.drop_answer("chat.postMessage")
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        once.chat_postMessage(channel="C0AUDIT", text="once")
    assert [message.plain for message in slack.messages("C0AUDIT")] == ["once"]
    slack.faults.drop_answer("chat.postMessage")
    twice = WebClient(token=slack.bot_token, base_url=slack.url)  # retries a lost connection by default
    twice.chat_postMessage(channel="C0AUDIT", text="twice")
    assert [message.plain for message in slack.messages("C0AUDIT")] == ["once", "twice", "twice"]


def test_other_faults(slack: SlackDouble, client: WebClient) -> None:
    slack.faults.fail("chat.postMessage", "fatal_error")
    assert error_of(slack, "chat.postMessage", channel="C0AUDIT", text="x") == "fatal_error"
    slack.faults.http_error(status=503)
    with pytest.raises(SlackApiError) as broken:
        client.auth_test()
    assert broken.value.response.status_code == 503
    slack.faults.slow(30)
    hasty = WebClient(token=slack.bot_token, base_url=slack.url, timeout=1)
    with pytest.raises(TimeoutError):
        hasty.auth_test()
    slack.faults.clear()
    assert hasty.auth_test()["ok"]


def test_homes(slack: SlackDouble, client: WebClient) -> None:
    home = {"type": "home", "blocks": HELLO}
    first = client.views_publish(user_id="U0ANA", view=home)["view"]
    shown = slack.person("U0ANA").home()
    assert shown is not None
    assert shown.blocks[0]["text"]["text"] == "hello <@U0ANA>"
    assert slack.person("U0BEN").home() is None
    second = client.views_publish(user_id="U0ANA", view=home, hash=first["hash"])["view"]
    assert second["id"] == first["id"]
    stale = error_of(slack, "views.publish", user_id="U0ANA", view=home, hash=first["hash"])
    assert stale == "hash_conflict"


def test_a_direct_message_of_two_people_does_not_exist_for_the_app(slack: SlackDouble) -> None:
    slack.add_channel("D0PAIR", name="", kind="im", members=["U0ANA", "U0BEN"], with_bot=False)
    assert error_of(slack, "chat.postMessage", channel="D0PAIR", text="x") == "channel_not_found"


def test_a_message_to_somebody_deactivated_is_ok_as_it_is_with_slack(slack: SlackDouble, client: WebClient) -> None:
    slack.deactivate("U0ANA")
    assert client.chat_postMessage(channel="U0ANA", text="x")["ok"]


def test_the_double_says_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with SlackDouble() as slack:
        assert "it is not Slack" in caplog.text
        assert not any(secret in caplog.text for secret in (slack.bot_token, slack.app_token, slack.signing_secret))


def test_many_threads_post_without_losing_or_mixing_anything(slack: SlackDouble, client: WebClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        posted = list(pool.map(lambda n: client.chat_postMessage(channel="C0AUDIT", text=str(n))["ts"], range(80)))
    messages = slack.messages("C0AUDIT")
    assert len(set(posted)) == 80
    assert {message.ts: message.text for message in messages} == {ts: str(n) for n, ts in enumerate(posted)}
    assert [message.ts for message in messages] == sorted(posted)
