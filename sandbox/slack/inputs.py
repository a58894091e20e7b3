"""What a person fills in: the state of a view's inputs, and what Slack's client refuses to send."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from sandbox.slack.blocks import elements
from sandbox.slack.wire import Json, NotPossibleError

Spot: TypeAlias = tuple[str, str]  # block id and action id
Filled: TypeAlias = Mapping[Spot, object]
FindOptions: TypeAlias = Callable[[Json, str], Sequence[Json]]

# element type: its key in the state, its initial value's key, and whether it holds options
_SHAPES: dict[str, tuple[str, str, bool]] = {
    "plain_text_input": ("value", "initial_value", False),
    "email_text_input": ("value", "initial_value", False),
    "url_text_input": ("value", "initial_value", False),
    "number_input": ("value", "initial_value", False),
    "static_select": ("selected_option", "initial_option", True),
    "external_select": ("selected_option", "initial_option", True),
    "radio_buttons": ("selected_option", "initial_option", True),
    "overflow": ("selected_option", "", True),
    "multi_static_select": ("selected_options", "initial_options", True),
    "multi_external_select": ("selected_options", "initial_options", True),
    "checkboxes": ("selected_options", "initial_options", True),
    "users_select": ("selected_user", "initial_user", False),
    "multi_users_select": ("selected_users", "initial_users", False),
    "conversations_select": ("selected_conversation", "initial_conversation", False),
    "multi_conversations_select": ("selected_conversations", "initial_conversations", False),
    "channels_select": ("selected_channel", "initial_channel", False),
    "multi_channels_select": ("selected_channels", "initial_channels", False),
    "datepicker": ("selected_date", "initial_date", False),
    "timepicker": ("selected_time", "initial_time", False),
    "datetimepicker": ("selected_date_time", "initial_date_time", False),
}
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def selected(element: Json, chosen: object, find: FindOptions) -> Json:
    """The part of a state that says what was chosen in this element; raises NotPossibleError."""
    kind = str(element["type"])
    key, _, has_options = _SHAPES[kind]
    if not has_options or chosen is None:
        return {"type": kind, key: chosen}
    if key == "selected_option":
        return {"type": kind, key: _option(element, str(chosen), find)}
    wanted = [chosen] if isinstance(chosen, str) else list(chosen) if isinstance(chosen, list | tuple) else []
    return {"type": kind, key: [_option(element, str(value), find) for value in wanted]}


def state(blocks: Sequence[Json], filled: Filled, find: FindOptions) -> Json:
    """The `state.values` of these blocks."""
    values: dict[str, Json] = {}
    for block, element in _stateful(blocks):
        part = _state_of(_spot(block, element), element, filled, find)
        values.setdefault(str(block["block_id"]), {})[str(element["action_id"])] = part
    return values


def placed(blocks: Sequence[Json], named: Mapping[str, object]) -> dict[Spot, object]:
    """What goes where, with inputs named by block id or action id; raises NotPossibleError."""
    spots = [_spot(block, element) for block, element in _stateful(blocks)]
    found: dict[Spot, object] = {}
    for name, value in named.items():
        meant = [spot for spot in spots if name in spot]
        if len(meant) != 1:
            raise NotPossibleError(f"{len(meant)} inputs {name!r}; there are {spots}")
        found[meant[0]] = value
    return found


def check_complete(blocks: Sequence[Json], values: Json) -> None:
    """Raise NotPossibleError where Slack's client would not send the form."""
    for block, element in _stateful(blocks):
        if block["type"] != "input":
            continue
        label = block["label"]["text"]
        value = values[block["block_id"]][element["action_id"]][_SHAPES[element["type"]][0]]
        if value in (None, "", []):
            if not block.get("optional", False):
                raise NotPossibleError(f"{label!r} is required")
        else:
            _check_typed(label, element, value)


def _check_typed(label: str, element: Json, value: object) -> None:
    kind, text = element["type"], str(value)
    if kind == "plain_text_input" and not element.get("min_length", 0) <= len(text) <= element.get("max_length", 3000):
        raise NotPossibleError(f"{label!r} is too short or too long ({len(text)} characters)")
    if kind == "email_text_input" and not _EMAIL.fullmatch(text):
        raise NotPossibleError(f"{label!r} is not an email address")
    if kind == "number_input" and not _NUMBER.fullmatch(text):
        raise NotPossibleError(f"{label!r} is not a number")
    if isinstance(value, list) and len(value) > element.get("max_selected_items", len(value)):
        raise NotPossibleError(f"{label!r} takes at most {element['max_selected_items']}")


def _stateful(blocks: Sequence[Json]) -> Iterator[tuple[Json, Json]]:
    for block in blocks:
        for element in elements(block):
            if element["type"] in _SHAPES and element["type"] != "overflow":
                yield block, element


def _spot(block: Json, element: Json) -> Spot:
    return str(block["block_id"]), str(element["action_id"])


def _state_of(spot: Spot, element: Json, filled: Filled, find: FindOptions) -> Json:
    if spot in filled:
        return selected(element, filled[spot], find)
    key, initial, has_options = _SHAPES[element["type"]]
    nothing: object = [] if has_options and key == "selected_options" else None
    return {"type": element["type"], key: element.get(initial, nothing)}


def _option(element: Json, wanted: str, find: FindOptions) -> Json:
    groups = [option for group in element.get("option_groups", []) for option in group["options"]]
    initial = [element["initial_option"]] if "initial_option" in element else element.get("initial_options", [])
    offered: list[Json] = [*element.get("options", []), *groups, *initial]
    if not _matching(offered, wanted) and "external" in element["type"]:
        offered.extend(find(element, wanted))
    for option in _matching(offered, wanted):
        return option
    raise NotPossibleError(f"{wanted!r} is not offered; there are {[option['value'] for option in offered]}")


def _matching(offered: Sequence[Json], wanted: str) -> list[Json]:
    exact = [option for option in offered if option["value"] == wanted]
    return exact or [option for option in offered if option["text"]["text"] == wanted]
