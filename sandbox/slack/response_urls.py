"""response_url: five uses within thirty minutes (page "Handling user interaction")."""

import json
import secrets
import threading
from dataclasses import dataclass

from sandbox.slack.chat_methods import words
from sandbox.slack.wire import Json, SlackError
from sandbox.slack.workspace import Message, Workspace

MOST_USES = 5
OPEN_SECONDS = 30 * 60
_KNOWN = frozenset(
    {
        "text",
        "blocks",
        "response_type",
        "replace_original",
        "delete_original",
        "thread_ts",
        "unfurl_links",
        "unfurl_media",
        "mrkdwn",
        "metadata",
    }
)


@dataclass(slots=True)
class _Mailbox:
    user: str
    channel: str
    source: Message | None
    made_at: float
    uses: int = 0


class ResponseUrls:
    """Makes them and takes what the app posts to them."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._boxes: dict[str, _Mailbox] = {}

    def make(self, kind: str, user: str, channel: str, source: Message | None = None) -> str:
        """The path of a fresh response_url; `kind` is `commands` or `actions`."""
        path = f"/{kind}/{self._workspace.team_id}/{secrets.randbelow(10**12)}/{secrets.token_urlsafe(18)}"
        with self._lock:
            self._boxes[path] = _Mailbox(user, channel, source, self._workspace.clock.now())
        return path

    def use(self, path: str, body: bytes) -> tuple[int, Json]:
        """Take one post; the HTTP status and body of Slack's answer."""
        try:
            box = self._open(path)
        except SlackError as error:
            return 404, error.answer()
        try:
            self._act(box, _parsed(body))
        except SlackError as error:
            return (404 if error.code == "message_not_found" else 400), error.answer()
        return 200, {"ok": True}

    def _open(self, path: str) -> _Mailbox:
        with self._lock:
            box = self._boxes.get(path)
            if box is None:
                raise SlackError("invalid_url")
            if self._workspace.clock.now() - box.made_at > OPEN_SECONDS:
                raise SlackError("expired_url")
            if box.uses >= MOST_USES:
                raise SlackError("used_url")
            box.uses += 1
            return box

    def _act(self, box: _Mailbox, said: Json) -> None:
        if said.get("delete_original") in (True, "true"):
            self._workspace.delete(_source(box))
        elif said.get("replace_original") in (True, "true"):
            text, blocks = words(said)
            self._workspace.edit(_source(box), text, blocks)
        else:
            say(self._workspace, said, box.channel, box.user)


def say(workspace: Workspace, said: Json, channel: str, user: str) -> Message:
    """Show an answer to a person, or to the channel where it says so; raises SlackError."""
    kind = said.get("response_type", "ephemeral")
    if kind not in ("ephemeral", "in_channel") or said.keys() - _KNOWN:
        raise SlackError("invalid_payload", *[f"[ERROR] unknown field: {name}" for name in said.keys() - _KNOWN])
    text, blocks = words(said)
    seen_by = user if kind == "ephemeral" else None
    return workspace.post(channel, text, blocks, ephemeral_to=seen_by, thread_ts=said.get("thread_ts"))


def _source(box: _Mailbox) -> Message:
    if box.source is None:
        raise SlackError("message_not_found")
    return box.source


def _parsed(body: bytes) -> Json:
    try:
        said = json.loads(body)
    except ValueError:
        raise SlackError("invalid_payload") from None
    if not isinstance(said, dict):
        raise SlackError("invalid_payload")
    return said
