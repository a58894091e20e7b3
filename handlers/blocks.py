"""Block Kit, as pure functions: text that people typed goes through ``mrkdwn.escape`` before it comes here."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from handlers import ids
from handlers.mrkdwn import MAX_SECTION, cut

# Slack's JSON is open-ended: what it may hold is Slack's to check, and the tests' strict double does.
Block: TypeAlias = dict[str, Any]

MAX_OPTION = 75  # "Option object", text and description
MAX_BUTTON = 75  # "Button element", text
MAX_TITLE = 24  # "Modal views", title, submit and close
MAX_OPTIONS = 100  # "Multi-select menu", options answered to a query
MAX_PLAIN = 3000  # "Text object"
_FENCE = len("```\n\n```")


def plain(text: str, most: int = MAX_PLAIN) -> Block:
    """Text in which nothing is markup, not even an emoji's name; never empty, which Slack refuses."""
    return {"type": "plain_text", "text": cut(text, most) or " ", "emoji": False}


def mrkdwn(text: str, most: int = MAX_SECTION) -> Block:
    """Text with our own markup; ``verbatim`` keeps Slack from linking names and addresses by itself."""
    return {"type": "mrkdwn", "text": cut(text, most) or " ", "verbatim": True}


def section(text: str) -> Block:
    """A paragraph of mrkdwn."""
    return {"type": "section", "text": mrkdwn(text)}


def sentence(text: str) -> Block:
    """A paragraph that is shown as it is, whatever it holds."""
    return {"type": "section", "text": plain(text)}


def context(text: str) -> Block:
    """A small grey line of mrkdwn."""
    return {"type": "context", "elements": [mrkdwn(text)]}


def header(text: str) -> Block:
    """A headline; Slack's limit is 150 characters."""
    return {"type": "header", "text": plain(text, 150)}


def divider() -> Block:
    """A line across."""
    return {"type": "divider"}


def code(text: str) -> Iterator[Block]:
    """Text to be copied exactly, in as many sections as Slack's limit asks for, cut between lines where it can."""
    for part in _parts(text.strip("\n"), MAX_SECTION - _FENCE):
        yield section(f"```\n{part}\n```")


def fenced(text: str) -> str:
    """A short text to be copied exactly, as mrkdwn."""
    return f"```\n{_escaped(text)}\n```"


def packed(paragraphs: Sequence[str]) -> Iterator[Block]:
    """Paragraphs of mrkdwn in as few sections as they fit in; none of them may be longer than a section."""
    together = ""
    for paragraph in paragraphs:
        if together and len(together) + 1 + len(paragraph) > MAX_SECTION:
            yield section(together)
            together = paragraph
        else:
            together = f"{together}\n{paragraph}" if together else paragraph
    if together:
        yield section(together)


def button(
    text: str,
    action_id: str,
    *,
    value: str = "",
    style: str = "",
    url: str = "",
) -> Block:
    """A button; ``style`` is ``primary`` or ``danger``."""
    found: Block = {"type": "button", "text": plain(text, MAX_BUTTON), "action_id": action_id}
    extra = {"value": value, "style": style, "url": url}
    return {**found, **{key: given for key, given in extra.items() if given}}


def actions(*buttons: Block) -> Block:
    """A row of buttons."""
    return {"type": "actions", "elements": list(buttons)}


def sign_in_button(url: str) -> Block:
    """The button that leads to the sign-in page."""
    return actions(button("Sign in", ids.LINK_OPEN, url=url, style="primary"))


def option(text: str, value: str, description: str = "") -> Block:
    """A choice in a select; Slack's limits are 75 characters each, and 150 for the value."""
    found: Block = {"text": plain(text, MAX_OPTION), "value": value[:150]}
    return {**found, "description": plain(description, MAX_OPTION)} if description else found


def field(block_id: str, label: str, element: Block, *, optional: bool = False, hint: str = "") -> Block:
    """An input of a modal, its one element named like its block."""
    named = {**element, "action_id": block_id}
    found: Block = {"type": "input", "block_id": block_id, "label": plain(label), "element": named}
    if hint:
        found["hint"] = plain(hint, 2000)
    return {**found, "optional": True} if optional else found


def text_input(*, initial: str = "", multiline: bool = False, most: int = MAX_PLAIN, placeholder: str = "") -> Block:
    """A field to type into."""
    found: Block = {"type": "plain_text_input", "multiline": multiline, "max_length": most}
    if initial:
        found["initial_value"] = initial[:most]
    return {**found, "placeholder": plain(placeholder, 150)} if placeholder else found


def modal(title: str, blocks: Sequence[Block], *, callback_id: str = "", submit: str = "", metadata: str = "") -> Block:
    """A modal; without ``submit`` it only says something."""
    found: Block = {"type": "modal", "title": plain(title, MAX_TITLE), "blocks": list(blocks)}
    found["close"] = plain("Cancel" if submit else "Close", MAX_TITLE)
    if submit:
        found["submit"] = plain(submit, MAX_TITLE)
    if callback_id:
        found["callback_id"] = callback_id
    return {**found, "private_metadata": metadata} if metadata else found


def reason_modal(title: str, *, about: str, callback_id: str, submit: str, request_id: str, most: int) -> Block:
    """The modal that asks why; ``about`` is mrkdwn that says what it concerns."""
    why = field(ids.REASON, "Why?", text_input(multiline=True, most=most))
    return modal(title, [section(about), why], callback_id=callback_id, submit=submit, metadata=request_id)


def _parts(text: str, room: int) -> Iterator[str]:
    part = ""
    for line in text.split("\n"):
        for piece in _pieces(_escaped(line), room):
            if part and len(part) + 1 + len(piece) > room:
                yield part
                part = piece
            else:
                part = f"{part}\n{piece}" if part else piece
    yield part or " "


def _pieces(line: str, room: int) -> list[str]:
    return [line[start : start + room] for start in range(0, len(line), room)] or [""]


def _escaped(line: str) -> str:
    """Slack's three control characters; the marks of mrkdwn mean nothing inside a fence, but a fence does."""
    plain_line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain_line.replace("```", "`\u200b`\u200b`")
