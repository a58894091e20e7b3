"""What Slack puts into its deliveries (pages "Slash commands", "Interaction payloads", "Events API")."""

import json
import secrets
from urllib.parse import urlencode

from sandbox.slack.chat_methods import message_json
from sandbox.slack.view_methods import view_json
from sandbox.slack.views import View
from sandbox.slack.wire import Json
from sandbox.slack.workspace import Channel, Member, Message, Workspace

VERIFICATION_TOKEN = "sandbox-verification-token"
_CHANNEL_NAMES = {"im": "directmessage", "private": "privategroup"}


def form(fields: Json) -> bytes:
    """A command's body."""
    return urlencode(fields).encode()


def interaction(payload: Json) -> bytes:
    """The body of a click, a submission or a query for options."""
    return urlencode({"payload": json.dumps(payload, separators=(",", ":"))}).encode()


def command(
    workspace: Workspace,
    member: Member,
    channel: Channel,
    *,
    name: str,
    text: str,
    trigger_id: str,
    response_url: str,
) -> Json:
    """A slash command; its team is the one of the person who typed it."""
    home = member.team_id == workspace.team_id
    return {
        "token": VERIFICATION_TOKEN,
        "team_id": member.team_id,
        "team_domain": workspace.domain if home else f"team-{member.team_id.lower()}",
        "channel_id": channel.id,
        "channel_name": _CHANNEL_NAMES.get(channel.kind, channel.name),
        "user_id": member.id,
        "user_name": member.name,
        "command": name,
        "text": text,
        "api_app_id": workspace.app_id,
        "is_enterprise_install": "false",
        "response_url": response_url,
        "trigger_id": trigger_id,
    }


def common(workspace: Workspace, member: Member, kind: str) -> Json:
    """What every interaction payload begins with; `user.team_id` tells a stranger from a colleague."""
    return {
        "type": kind,
        "team": {"id": workspace.team_id, "domain": workspace.domain},
        "user": {"id": member.id, "username": member.name, "name": member.name, "team_id": member.team_id},
        "api_app_id": workspace.app_id,
        "token": VERIFICATION_TOKEN,
        "enterprise": None,
        "is_enterprise_install": False,
    }


def message_place(workspace: Workspace, message: Message, channel: Channel) -> Json:
    """Where a click on a message happened; an ephemeral message is not repeated to the app."""
    ephemeral = message.ephemeral_to is not None
    place: Json = {
        "container": {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": message.channel,
            "is_ephemeral": ephemeral,
        },
        "channel": {"id": channel.id, "name": _CHANNEL_NAMES.get(channel.kind, channel.name)},
    }
    if not ephemeral:
        place["message"] = message_json(workspace.bot_id, message)
    return place


def view_place(workspace: Workspace, view: View, values: Json) -> Json:
    """Where a click in a modal or on Home happened."""
    return {
        "container": {"type": "view", "view_id": view.id},
        "view": view_json(workspace, view, values),
    }


def event_callback(workspace: Workspace, event: Json, team_id: str) -> Json:
    """The envelope of an event."""
    return {
        "token": VERIFICATION_TOKEN,
        "team_id": workspace.team_id,
        "context_team_id": team_id,
        "api_app_id": workspace.app_id,
        "event": event,
        "type": "event_callback",
        "event_id": f"Ev{secrets.token_hex(5).upper()}",
        "event_time": int(workspace.clock.now()),
        "authorizations": [
            {
                "enterprise_id": None,
                "team_id": workspace.team_id,
                "user_id": workspace.bot_user_id,
                "is_bot": True,
                "is_enterprise_install": False,
            }
        ],
        "is_ext_shared_channel": team_id != workspace.team_id,
    }
