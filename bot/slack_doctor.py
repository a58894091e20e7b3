"""The doctor's look at Slack: the token, its scopes, the clock, and everyone Passport has to reach."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web import SlackResponse

from bot import wiring
from bot.settings import Settings
from bot.verdicts import Finding, clock_finding, good, unseen, wrong

SCOPES = ("commands", "chat:write", "im:write", "users:read", "users:read.email", "usergroups:read")
SECONDS = 10
_READING = frozenset({"channels:read", "groups:read"})
_INVITE = "Type /invite @Passport there."


def look_at_slack(settings: Settings) -> Iterator[Finding]:
    """Everything that the bot token can tell."""
    client = WebClient(
        token=settings.slack_bot_token.get_secret_value(),
        base_url=settings.slack_api_url,
        timeout=SECONDS,
        retry_handlers=[],
    )
    try:
        answer = client.auth_test()
    except (SlackClientError, OSError) as error:
        yield wrong("slack token", *_no_token(error))
        return
    yield _team(settings, answer)
    headers = {str(name).lower(): str(value) for name, value in answer.headers.items()}
    granted = {scope.strip() for scope in headers.get("x-oauth-scopes", "").split(",")}
    yield _scopes(granted)
    yield from clock_finding("Slack", headers.get("date", ""), wiring.now())
    if settings.slack_app_token:
        yield _socket(client, settings.slack_app_token.get_secret_value())
    for subject, recipient in _recipients(settings).items():
        yield _reach(client, f"slack {recipient}", subject, recipient)


def _no_token(error: Exception) -> tuple[str, str]:
    code = _code(error)
    if not code:
        return f"Slack does not answer ({type(error).__name__}).", "Check slack_api_url, the network and its proxy."
    return f"Slack refuses the bot token ({code}).", "Install the app again and set slack_bot_token anew."


def _team(settings: Settings, answer: SlackResponse) -> Finding:
    found = answer.get("team_id")
    if found != settings.slack_team_id:
        return wrong(
            "slack token",
            f"It is of workspace {found}, and slack_team_id says {settings.slack_team_id}.",
            "Mend one of the two.",
        )
    return good("slack token", f"It is good, and of workspace {found}.")


def _scopes(granted: set[str]) -> Finding:
    missing = [scope for scope in SCOPES if scope not in granted]
    if missing:
        return wrong(
            "slack scopes",
            f"The app lacks {', '.join(missing)}.",
            "Add them as in app_manifest.yml and install the app again.",
        )
    return good("slack scopes", "The app has all it needs.")


def _socket(client: WebClient, app_token: str) -> Finding:
    """Asks for an address and leaves it unused."""
    try:
        client.apps_connections_open(app_token=app_token)
    except (SlackClientError, OSError) as error:
        code = _code(error) or type(error).__name__
        return wrong(
            "slack socket",
            f"Slack gives no connection ({code}).",
            "Switch Socket Mode on, and set slack_app_token to an app-level token with connections:write.",
        )
    return good("slack socket", "Socket Mode is on, and the app token opens connections.")


def _recipients(settings: Settings) -> Mapping[str, str]:
    """Whom the settings tell, by what for; each once."""
    found = {settings.slack_audit_channel: "the audit channel"}
    for rule in settings.rules:
        for recipient in rule.tell:
            found.setdefault(recipient, f"told by the rule {rule.name}")
    for recipient in settings.slack_admins:
        found.setdefault(recipient, "told as slack_admins")
    return {f"{recipient}, {why}": recipient for recipient, why in found.items()}


def _reach(client: WebClient, subject: str, who: str, recipient: str) -> Finding:
    looks: Mapping[str, Callable[[], Finding]] = {
        "U": lambda: _person(client, subject, who, recipient),
        "W": lambda: _person(client, subject, who, recipient),
        "S": lambda: _group(client, subject, who, recipient),
    }
    try:
        return looks.get(recipient[:1], lambda: _channel(client, subject, who, recipient))()
    except (SlackClientError, OSError) as error:
        return _unreached(subject, who, error)


def _channel(client: WebClient, subject: str, who: str, channel: str) -> Finding:
    found: dict[str, Any] = client.conversations_info(channel=channel)["channel"]
    if found.get("is_archived"):
        return wrong(subject, f"{who}, is archived.", "Unarchive it, or name another.")
    if not found.get("is_member"):
        return wrong(subject, f"Passport is not in {who}.", _INVITE)
    return good(subject, f"Passport is in {who}.")


def _group(client: WebClient, subject: str, who: str, group: str) -> Finding:
    members = client.usergroups_users_list(usergroup=group)["users"]
    if not members:
        return wrong(subject, f"Nobody is in the user group {who}.", "Add people, or name another.")
    return good(subject, f"{len(members)} people are in the user group {who}.")


def _person(client: WebClient, subject: str, who: str, user: str) -> Finding:
    if client.users_info(user=user)["user"].get("deleted"):
        return wrong(subject, f"{who}, is deactivated.", "Name somebody else.")
    return good(subject, f"{who}, can be told.")


def _unreached(subject: str, who: str, error: Exception) -> Finding:
    code = _code(error)
    if code == "missing_scope":
        wanted = " and ".join(sorted(_READING))
        return unseen(subject, f"Whether Passport is in {who}, can be seen only with the scopes {wanted}.")
    if code == "channel_not_found":
        return wrong(subject, f"There is no {who}; or it is private, and Passport is not in it.", _INVITE)
    return wrong(subject, f"{who}, cannot be looked up ({code or type(error).__name__}).", "Check the id.")


def _code(error: Exception) -> str:
    """Slack's word for it, "" where it is not Slack who spoke."""
    if not isinstance(error, SlackApiError) or not isinstance(error.response, SlackResponse):
        return ""
    return str(error.response.get("error") or "")
