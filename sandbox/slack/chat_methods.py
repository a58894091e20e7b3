"""chat.* of the Web API."""

from sandbox.slack.blocks import check_message_blocks
from sandbox.slack.web_api import Method, Office, method
from sandbox.slack.wire import Json, SlackError
from sandbox.slack.workspace import Channel, Message

TEXT_MOST = 40_000  # page "Truncating really long messages"
_TEXT = "text blocks metadata parse link_names mrkdwn thread_ts reply_broadcast unfurl_links unfurl_media"


def post_message(office: Office, arguments: Json) -> Json:
    """chat.postMessage"""
    channel = _writable(office, str(arguments["channel"]))
    text, blocks = words(arguments)
    message = office.workspace.post(
        channel.id,
        text,
        blocks,
        thread_ts=arguments.get("thread_ts"),
        metadata=arguments.get("metadata"),
        link_names=_links_names(arguments),
    )
    return {"channel": channel.id, "ts": message.ts, "message": message_json(office.workspace.bot_id, message)}


def post_ephemeral(office: Office, arguments: Json) -> Json:
    """chat.postEphemeral"""
    channel = _writable(office, str(arguments["channel"]))
    user = office.workspace.member(str(arguments["user"]))
    if user.id not in channel.members:
        raise SlackError("user_not_in_channel")
    text, blocks = words(arguments)
    message = office.workspace.post(channel.id, text, blocks, ephemeral_to=user.id, link_names=_links_names(arguments))
    return {"message_ts": message.ts}


def update(office: Office, arguments: Json) -> Json:
    """chat.update; with text alone, the blocks go (page "chat.update")"""
    channel = _readable(office, str(arguments["channel"]))
    message = office.workspace.message(channel.id, str(arguments["ts"]))
    if channel.archived:
        raise SlackError("is_inactive")
    if message.user != office.workspace.bot_user_id:
        raise SlackError("cant_update_message")
    text, blocks = words(arguments)
    parses = arguments.get("parse", "client") != "none"  # unlike chat.postMessage, it parses unless told not to
    metadata = arguments.get("metadata")
    edited = office.workspace.edit(message, text, blocks, metadata=metadata, link_names=parses)
    shown = message_json(office.workspace.bot_id, edited)
    return {"channel": channel.id, "ts": edited.ts, "text": edited.text, "message": shown}


def delete(office: Office, arguments: Json) -> Json:
    """chat.delete"""
    channel = _readable(office, str(arguments["channel"]))
    message = office.workspace.message(channel.id, str(arguments["ts"]))
    if message.user != office.workspace.bot_user_id:
        raise SlackError("cant_delete_message")
    office.workspace.delete(message)
    return {"channel": channel.id, "ts": message.ts}


def permalink(office: Office, arguments: Json) -> Json:
    """chat.getPermalink"""
    channel = _readable(office, str(arguments["channel"]))
    message = office.workspace.message(channel.id, str(arguments["message_ts"]))
    place = f"{channel.id}/p{message.ts.replace('.', '')}"
    return {"channel": channel.id, "permalink": f"https://{office.workspace.domain}.slack.com/archives/{place}"}


def words(arguments: Json) -> tuple[str, list[Json]]:
    """The text and blocks of a message; raises SlackError where Slack refuses them."""
    text, blocks = arguments.get("text") or "", arguments.get("blocks")
    if not isinstance(text, str):
        raise SlackError("invalid_arguments", "[ERROR] must provide a string [json-pointer:/text]")
    if blocks is not None:
        check_message_blocks(blocks)
    _check_metadata(arguments.get("metadata"))
    if not text.strip() and not blocks:
        raise SlackError("no_text")
    if len(text) > TEXT_MOST:
        raise SlackError("msg_too_long")
    return text, list(blocks or [])


def message_json(bot_id: str, message: Message) -> Json:
    """A message as Slack's JSON shows it."""
    found: Json = {
        "type": "message",
        "user": message.user,
        "bot_id": bot_id,
        "ts": message.ts,
        "text": message.text,
        "blocks": list(message.blocks),
    }
    if message.thread_ts:
        found["thread_ts"] = message.thread_ts
    if message.edited_ts:
        found["edited"] = {"user": message.user, "ts": message.edited_ts}
    if message.metadata:
        found["metadata"] = message.metadata
    return found


def _check_metadata(metadata: object) -> None:
    """Message metadata is an event type and its payload (page "Message metadata")."""
    if metadata is None:
        return
    if not isinstance(metadata, dict) or metadata.keys() != {"event_type", "event_payload"}:
        raise SlackError("invalid_metadata_format")
    if not isinstance(metadata["event_type"], str) or not isinstance(metadata["event_payload"], dict):
        raise SlackError("invalid_metadata_schema")


def _links_names(arguments: Json) -> bool:
    return arguments.get("parse") == "full" or arguments.get("link_names") in (True, 1, "1", "true", "True")


def _readable(office: Office, name: str) -> Channel:
    """The channel if the app may look into it; a private one it is not in does not exist for it."""
    channel = office.workspace.channel(name)
    if office.workspace.bot_user_id not in channel.members:
        raise SlackError("not_in_channel" if channel.kind == "public" else "channel_not_found")
    return channel


def _writable(office: Office, name: str) -> Channel:
    workspace = office.workspace
    if name.startswith(("U", "W")):
        name = workspace.direct(_person_to_write_to(office, name)).id
    elif name.startswith("#"):
        name = workspace.ids_by_name().get(name, name)
    channel = workspace.channel(name)
    if channel.archived:
        raise SlackError("is_archived")
    outside = workspace.bot_user_id not in channel.members
    if outside and channel.kind == "public" and "chat:write.public" in office.tokens.scopes:
        return channel
    return _readable(office, name)


def _person_to_write_to(office: Office, user_id: str) -> str:
    try:
        member = office.workspace.member(user_id)
    except SlackError:
        raise SlackError("channel_not_found") from None
    if member.is_bot:
        raise SlackError("cannot_dm_bot")
    return member.id  # a deactivated person too: Slack says ok, and nobody reads it (python-slack-sdk issue 1156)


METHODS: dict[str, Method] = {
    "chat.postMessage": method(post_message, scope="chat:write", required="channel", optional=_TEXT),
    "chat.postEphemeral": method(post_ephemeral, scope="chat:write", required="channel user", optional=_TEXT),
    "chat.update": method(update, scope="chat:write", required="channel ts", optional=_TEXT),
    "chat.delete": method(delete, scope="chat:write", required="channel ts"),
    "chat.getPermalink": method(permalink, required="channel message_ts"),
}
