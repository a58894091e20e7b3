"""Block Kit validation for messages, modals and Home, with Slack's limits (page "Blocks")."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from sandbox.slack.elements import (
    CHOICES,
    ID,
    IMAGE,
    IN_ACTIONS,
    IN_INPUT,
    IN_SECTION,
    OPTIONS_ANSWER,
    SELECTS,
    TYPED,
)
from sandbox.slack.schema import (
    Check,
    Report,
    any_text,
    at_least_one,
    exactly_one,
    flag,
    link,
    listing,
    plain_text,
    shape,
    string,
    typed,
)
from sandbox.slack.wire import Ids, Json, SlackError

_INTERACTIVE = frozenset({"button", "overflow", *SELECTS, *CHOICES, *TYPED})
_VIEW_BYTES = 250_000  # page "views.open", error view_too_large
_CONTEXT_TEXT = {
    "plain_text": shape({"text": string(3000)}, {"emoji": flag}),
    "mrkdwn": shape({"text": string(3000)}, {"verbatim": flag}),
}


def _anything(value: object, path: str, report: Report) -> None:
    if not isinstance(value, dict | list | str):
        report.add(path, "must provide an object")


_EVERYWHERE: Mapping[str, Check] = {
    "section": shape(
        {},
        {
            "block_id": ID,
            "text": any_text(3000),
            "fields": listing(any_text(2000), 10),
            "accessory": IN_SECTION,
            "expand": flag,
        },
        at_least_one("text", "fields"),
    ),
    "header": shape({"text": plain_text(150)}, {"block_id": ID}),
    "divider": shape({}, {"block_id": ID}),
    "context": shape({"elements": listing(typed({**_CONTEXT_TEXT, "image": IMAGE}), 10)}, {"block_id": ID}),
    "actions": shape({"elements": listing(IN_ACTIONS, 25)}, {"block_id": ID}),
    "input": shape(
        {"label": plain_text(2000), "element": IN_INPUT},
        {"block_id": ID, "hint": plain_text(2000), "optional": flag, "dispatch_action": flag},
    ),
    "image": shape(
        {"alt_text": string(2000)},
        {"block_id": ID, "image_url": link, "slack_file": _anything, "title": plain_text(2000)},
        exactly_one("image_url", "slack_file"),
    ),
    "rich_text": shape({"elements": listing(_anything, 100)}, {"block_id": ID}),
}
_IN_MESSAGE = typed({**_EVERYWHERE, "markdown": shape({"text": string(12_000)}, {"block_id": ID})})
_IN_VIEW = typed(_EVERYWHERE)

_META: Mapping[str, Check] = {
    "private_metadata": string(3000, 0),
    "callback_id": string(255, 0),
    "external_id": string(255, 0),
}


def _submit_with_input(view: Json, path: str, report: Report) -> None:
    blocks = view.get("blocks")
    kinds = [b.get("type") for b in blocks if isinstance(b, dict)] if isinstance(blocks, list) else []
    if "input" in kinds and "submit" not in view:
        report.add(path, "missing required field: submit (a view with input blocks needs one)")


_MODAL = shape(
    {"title": plain_text(24), "blocks": listing(_IN_VIEW, 100)},
    {
        **_META,
        "submit": plain_text(24),
        "close": plain_text(24),
        "clear_on_close": flag,
        "notify_on_close": flag,
    },
    _submit_with_input,
)
_HOME = shape({"blocks": listing(_IN_VIEW, 100, least=0)}, _META)


def check_message_blocks(blocks: object) -> None:
    """Raise SlackError `invalid_blocks` unless Slack would take these in a message."""
    report = Report()
    if not isinstance(blocks, list):
        raise SlackError("invalid_blocks_format")
    listing(_IN_MESSAGE, 50, least=0)(blocks, "/blocks", report)
    _check_ids(blocks, "/blocks", report)
    if report.messages:
        raise SlackError("invalid_blocks", *report.messages)


def check_view(view: object, kind: str) -> None:
    """Raise SlackError `invalid_arguments` unless Slack would take this as a `modal` or `home` view."""
    report = Report()
    typed({kind: _MODAL if kind == "modal" else _HOME})(view, "/view", report)
    if isinstance(view, dict) and isinstance(view.get("blocks"), list):
        _check_ids(view["blocks"], "/view/blocks", report)
    if report.messages:
        raise SlackError("invalid_arguments", *report.messages)
    if len(json.dumps(view)) > _VIEW_BYTES:
        raise SlackError("view_too_large")


def check_suggestions(answer: object) -> None:
    """Raise SlackError `invalid_options` unless this may fill an external select."""
    report = Report()
    OPTIONS_ANSWER(answer, "", report)
    if report.messages:
        raise SlackError("invalid_options", *report.messages)


def elements(block: Json) -> list[Json]:
    """The interactive elements of one block."""
    found = [*block.get("elements", []), block.get("accessory"), block.get("element")]
    return [part for part in found if isinstance(part, dict) and "action_id" in part]


def action_ids(blocks: Sequence[Json]) -> tuple[str, ...]:
    """The action ids in these blocks, in order."""
    return tuple(str(element["action_id"]) for block in blocks for element in elements(block))


def with_ids(blocks: Sequence[Json], ids: Ids) -> list[Json]:
    """The blocks with the block and action ids that Slack makes up where the app gave none."""
    return [_with_action_ids({**block, "block_id": block.get("block_id") or ids.next("b")}, ids) for block in blocks]


def _with_action_ids(block: Json, ids: Ids) -> Json:
    def named(part: object) -> object:
        if not isinstance(part, dict) or part.get("type") not in _INTERACTIVE or part.get("action_id"):
            return part
        return {**part, "action_id": ids.next("a")}

    changed: Json = {}
    for key in ("accessory", "element"):
        if key in block:
            changed[key] = named(block[key])
    if block["type"] == "actions":
        changed["elements"] = [named(part) for part in block["elements"]]
    return {**block, **changed}


def _check_ids(blocks: Sequence[object], path: str, report: Report) -> None:
    known = [block for block in blocks if isinstance(block, dict)]
    for block_id in _repeated([str(block["block_id"]) for block in known if block.get("block_id")]):
        report.add(path, f"`block_id` `{block_id}` already exists")
    for number, block in enumerate(blocks):
        found = elements(block) if isinstance(block, dict) and _listed(block) else []
        for action_id in _repeated([str(element["action_id"]) for element in found]):
            report.add(f"{path}/{number}", f"`action_id` `{action_id}` already exists for another element")
    if sum(bool(e.get("focus_on_load")) for block in known if _listed(block) for e in elements(block)) > 1:
        report.add(path, "only one element can have focus_on_load set to true")


def _listed(block: Json) -> bool:
    return isinstance(block.get("elements", []), list)


def _repeated(values: list[str]) -> list[str]:
    return [value for value, times in Counter(values).items() if times > 1]
