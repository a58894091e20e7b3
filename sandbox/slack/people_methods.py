"""auth.test, team.info, users.*, usergroups.* and conversations.* of the Web API."""

import base64
import binascii
from collections.abc import Sequence
from typing import TypeVar

from sandbox.slack.web_api import Method, Office, method
from sandbox.slack.wire import Json, SlackError
from sandbox.slack.workspace import Channel, Member, Usergroup

T = TypeVar("T")
_READ_SCOPE = {"public": "channels:read", "private": "groups:read", "im": "im:read"}
_TYPE_SCOPE = {
    "public_channel": "channels:read",
    "private_channel": "groups:read",
    "im": "im:read",
    "mpim": "mpim:read",
}
_KIND_TYPE = {"public": "public_channel", "private": "private_channel", "im": "im"}
_PAGE_MOST = 1000


def auth_test(office: Office, _arguments: Json) -> Json:
    """auth.test"""
    workspace = office.workspace
    return {
        "url": f"https://{workspace.domain}.slack.com/",
        "team": "Passport sandbox",
        "user": workspace.member(workspace.bot_user_id).name,
        "team_id": workspace.team_id,
        "user_id": workspace.bot_user_id,
        "bot_id": workspace.bot_id,
        "is_enterprise_install": False,
    }


def team_info(office: Office, _arguments: Json) -> Json:
    """team.info"""
    workspace = office.workspace
    return {"team": {"id": workspace.team_id, "name": "Passport sandbox", "domain": workspace.domain}}


def users_info(office: Office, arguments: Json) -> Json:
    """users.info"""
    return {"user": user_json(office, office.workspace.member(str(arguments["user"])))}


def users_list(office: Office, arguments: Json) -> Json:
    """users.list"""
    page, cursor = _page(office.workspace.members(), arguments, default=_PAGE_MOST)
    return {"members": [user_json(office, m) for m in page], "response_metadata": {"next_cursor": cursor}}


def users_by_email(office: Office, arguments: Json) -> Json:
    """users.lookupByEmail"""
    wanted = str(arguments["email"]).strip().lower()
    for member in office.workspace.members():
        at_home = member.team_id == office.workspace.team_id and not member.is_bot and not member.deleted
        if at_home and member.email.lower() == wanted:
            return {"user": user_json(office, member)}
    raise SlackError("users_not_found")


def usergroups_list(office: Office, arguments: Json) -> Json:
    """usergroups.list"""
    groups = [g for g in office.workspace.usergroups() if not g.disabled or _flag(arguments, "include_disabled")]
    return {"usergroups": [_usergroup_json(office, g, users=_flag(arguments, "include_users")) for g in groups]}


def usergroup_users(office: Office, arguments: Json) -> Json:
    """usergroups.users.list"""
    for group in office.workspace.usergroups():
        if group.id == arguments["usergroup"]:
            return {"users": [u for u in group.members if not office.workspace.member(u).deleted]}
    raise SlackError("no_such_subteam")


def conversations_open(office: Office, arguments: Json) -> Json:
    """conversations.open"""
    if arguments.get("channel"):
        channel = _seen_channel(office, str(arguments["channel"]))
        if channel.kind != "im":
            raise SlackError("method_not_supported_for_channel_type")
        return {"channel": {"id": channel.id}, "no_op": True, "already_open": True}
    users = arguments.get("users") or ""
    names = users if isinstance(users, list) else [name for name in str(users).split(",") if name]
    if not names:
        raise SlackError("users_list_not_supplied")
    if len(names) > 1:
        office.tokens.require("mpim:write")
        raise SlackError("invalid_user_combination")  # group messages are not part of the sandbox
    return _opened(office, office.workspace.member(names[0]), whole=_flag(arguments, "return_im"))


def conversations_info(office: Office, arguments: Json) -> Json:
    """conversations.info"""
    channel = _seen_channel(office, str(arguments["channel"]))
    office.tokens.require(_READ_SCOPE[channel.kind])
    found = _channel_json(office, channel)
    if _flag(arguments, "include_num_members"):
        found["num_members"] = len(channel.members)
    return {"channel": found}


def conversations_members(office: Office, arguments: Json) -> Json:
    """conversations.members"""
    channel = _seen_channel(office, str(arguments["channel"]))
    office.tokens.require(_READ_SCOPE[channel.kind])
    page, cursor = _page(sorted(channel.members), arguments, default=100)
    return {"members": page, "response_metadata": {"next_cursor": cursor}}


def conversations_list(office: Office, arguments: Json) -> Json:
    """conversations.list"""
    types = [name.strip() for name in str(arguments.get("types") or "public_channel").split(",")]
    for name in types:
        if name not in _TYPE_SCOPE:
            raise SlackError("invalid_types")
        office.tokens.require(_TYPE_SCOPE[name])
    bot = office.workspace.bot_user_id
    seen = [
        channel
        for channel in office.workspace.channels()
        if _KIND_TYPE[channel.kind] in types
        and (channel.kind == "public" or bot in channel.members)
        and not (channel.archived and _flag(arguments, "exclude_archived"))
    ]
    page, cursor = _page(seen, arguments, default=100)
    shown = [_channel_json(office, channel) for channel in page]
    return {"channels": shown, "response_metadata": {"next_cursor": cursor}}


def user_json(office: Office, member: Member) -> Json:
    """A member as Slack shows them to this app: the email only with its scope, and never a stranger's."""
    stranger = member.team_id != office.workspace.team_id
    profile: Json = {
        "real_name": member.real_name,
        "real_name_normalized": member.real_name,
        "display_name": member.name,
        "display_name_normalized": member.name,
        "team": member.team_id,
    }
    if "users:read.email" in office.tokens.scopes and not stranger and not member.is_bot:
        profile["email"] = member.email
    found: Json = {
        "id": member.id,
        "team_id": member.team_id,
        "name": member.name,
        "deleted": member.deleted,
        "profile": profile,
        "is_bot": member.is_bot,
        "is_app_user": False,
        "updated": member.updated,
    }
    if member.deleted:
        return found  # Slack leaves the rest out for deactivated people
    return {**found, **_standing(member, stranger=stranger)}


def _standing(member: Member, *, stranger: bool) -> Json:
    found: Json = {
        "real_name": member.real_name,
        "tz": member.tz,
        "is_admin": member.is_admin,
        "is_owner": False,
        "is_primary_owner": False,
        "is_restricted": member.guest is not None,
        "is_ultra_restricted": member.guest == "ultra_restricted",
        "has_2fa": False,
    }
    return {**found, "is_stranger": True} if stranger else found


def _opened(office: Office, member: Member, *, whole: bool) -> Json:
    if member.deleted:
        raise SlackError("user_disabled")
    if member.is_bot:
        raise SlackError("cannot_dm_bot")
    known = any(c.kind == "im" and member.id in c.members for c in office.workspace.channels())
    channel = office.workspace.direct(member.id)
    shown = _channel_json(office, channel) if whole else {"id": channel.id}
    return {"channel": shown, **({"no_op": True, "already_open": True} if known else {})}


def _seen_channel(office: Office, name: str) -> Channel:
    channel = office.workspace.channel(name)
    if channel.kind != "public" and office.workspace.bot_user_id not in channel.members:
        raise SlackError("channel_not_found")
    return channel


def _channel_json(office: Office, channel: Channel) -> Json:
    if channel.kind == "im":
        (other,) = channel.members - {office.workspace.bot_user_id}
        return {"id": channel.id, "is_im": True, "user": other, "is_open": True, "is_archived": False}
    return {
        "id": channel.id,
        "name": channel.name,
        "is_channel": channel.kind == "public",
        "is_group": channel.kind == "private",
        "is_im": False,
        "is_private": channel.kind == "private",
        "is_archived": channel.archived,
        "is_member": office.workspace.bot_user_id in channel.members,
        "is_ext_shared": any(
            office.workspace.member(user).team_id != office.workspace.team_id for user in channel.members
        ),
    }


def _usergroup_json(office: Office, group: Usergroup, *, users: bool) -> Json:
    found: Json = {
        "id": group.id,
        "team_id": office.workspace.team_id,
        "is_usergroup": True,
        "name": group.handle,
        "handle": group.handle,
        "date_delete": 1 if group.disabled else 0,
        "user_count": len(group.members),
    }
    return {**found, "users": list(group.members)} if users else found


def _page(items: Sequence[T], arguments: Json, *, default: int) -> tuple[list[T], str]:
    try:
        limit = int(arguments.get("limit") or default)
    except (TypeError, ValueError):
        raise SlackError("invalid_limit") from None
    if not 0 < limit <= _PAGE_MOST:
        raise SlackError("invalid_limit")
    start = _start(str(arguments.get("cursor") or ""))
    end = start + limit
    cursor = base64.b64encode(f"next:{end}".encode()).decode() if end < len(items) else ""
    return list(items[start:end]), cursor


def _start(cursor: str) -> int:
    if not cursor:
        return 0
    try:
        return int(base64.b64decode(cursor, validate=True).decode().removeprefix("next:"))
    except (ValueError, binascii.Error):
        raise SlackError("invalid_cursor") from None


def _flag(arguments: Json, name: str) -> bool:
    return arguments.get(name) in (True, 1, "1", "true", "True")


METHODS: dict[str, Method] = {
    "auth.test": method(auth_test),
    "team.info": method(team_info, scope="team:read", optional="team domain"),
    "users.info": method(users_info, scope="users:read", required="user", optional="include_locale"),
    "users.list": method(users_list, scope="users:read", optional="cursor limit include_locale"),
    "users.lookupByEmail": method(users_by_email, scope="users:read.email", required="email"),
    "usergroups.list": method(
        usergroups_list,
        scope="usergroups:read",
        optional="include_count include_disabled include_users",
    ),
    "usergroups.users.list": method(
        usergroup_users, scope="usergroups:read", required="usergroup", optional="include_disabled"
    ),
    "conversations.open": method(
        conversations_open, scope="im:write", optional="channel users return_im prevent_creation"
    ),
    "conversations.info": method(conversations_info, required="channel", optional="include_locale include_num_members"),
    "conversations.members": method(conversations_members, required="channel", optional="cursor limit"),
    "conversations.list": method(conversations_list, optional="cursor limit types exclude_archived"),
}
