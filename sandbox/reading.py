"""Reading messages as a person does: finding one, and copying out of it what is to be pasted."""

import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from sandbox.slack import Message
from sandbox.slack.mrkdwn import unescape

T = TypeVar("T")
_FENCE = re.compile(r"```\n?(.*?)\n?```", re.DOTALL)


def wait_for(look: Callable[[], T | None], what: str, *, seconds: float = 30) -> T:
    """Look again until something is there; raises TimeoutError that says what was missed."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


def with_button(messages: list[Message], action_id: str, containing: str = "") -> Message | None:
    """The newest message that has this button, and these words somewhere in it."""
    for message in reversed(messages):
        if action_id in message.actions and containing in message.plain + message.text:
            return message
    return None


def code_blocks(message: Message) -> list[str]:
    """What stands in code blocks, ready to paste."""
    return [unescape(code) for text in _sections(message) for code in _FENCE.findall(text)]


def first_url(message: Message) -> str:
    """The address of the first button that has one; raises LookupError."""
    for block in message.blocks:
        for element in [*block.get("elements", []), block.get("accessory") or {}]:
            if "url" in element:
                return str(element["url"])
    raise LookupError(f"no link in {message.plain!r}")


def _sections(message: Message) -> Iterator[str]:
    for block in message.blocks:
        if block["type"] == "section" and "text" in block:
            yield block["text"]["text"]
