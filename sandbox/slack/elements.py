"""The interactive elements of Block Kit and their limits (page "Block elements" of Slack's reference)."""

import json
from collections.abc import Mapping

from sandbox.slack.schema import (
    Check,
    Report,
    any_text,
    choice,
    exactly_one,
    flag,
    link,
    listing,
    plain_text,
    shape,
    string,
    typed,
    whole,
)
from sandbox.slack.wire import Json

ID = string(255)
CONFIRM = shape(
    {"title": plain_text(100), "text": any_text(300), "confirm": plain_text(30), "deny": plain_text(30)},
    {"style": choice("primary", "danger")},
)
OPTION = shape({"text": plain_text(75), "value": string(150)}, {"description": plain_text(75)})
BOX_OPTION = shape({"text": any_text(75), "value": string(150)}, {"description": any_text(75)})
MENU_OPTION = shape({"text": plain_text(75), "value": string(150)}, {"description": plain_text(75), "url": link})
GROUP = shape({"label": plain_text(75), "options": listing(OPTION, 100)}, {})
OPTIONS_ANSWER = shape(
    {},
    {"options": listing(OPTION, 100, least=0), "option_groups": listing(GROUP, 100, least=0)},
    exactly_one("options", "option_groups"),
)

_ALL: Mapping[str, Check] = {"action_id": ID, "confirm": CONFIRM, "focus_on_load": flag}
_MENU: Mapping[str, Check] = {**_ALL, "placeholder": plain_text(150)}
_DISPATCH = shape({}, {"trigger_actions_on": listing(choice("on_enter_pressed", "on_character_entered"), 2)})
_TYPED: Mapping[str, Check] = {
    "action_id": ID,
    "focus_on_load": flag,
    "placeholder": plain_text(150),
    "dispatch_action_config": _DISPATCH,
}
_FILTER = shape(
    {},
    {
        "include": listing(choice("im", "mpim", "private", "public"), 4),
        "exclude_external_shared_channels": flag,
        "exclude_bot_users": flag,
    },
)


def _initial_among_options(value: Json, path: str, report: Report) -> None:
    groups = [option for group in _objects(value, "option_groups") for option in _objects(group, "options")]
    offered = [json.dumps(option, sort_keys=True) for option in [*_objects(value, "options"), *groups]]
    one = [("initial_option", value["initial_option"])] if "initial_option" in value else []
    several = [("initial_options", option) for option in _objects(value, "initial_options")]
    for name, option in one + several:
        if json.dumps(option, sort_keys=True) not in offered:
            report.add(f"{path}/{name}", f"{name} must be one of the provided options")


def _values_differ(value: Json, path: str, report: Report) -> None:
    seen = [str(option.get("value")) for option in _objects(value, "options")]
    if len(seen) != len(set(seen)):
        report.add(f"{path}/options", "option values must be unique")


def _objects(value: Json, name: str) -> list[Json]:
    found = value.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _length_in_order(value: Json, path: str, report: Report) -> None:
    least, most, text = value.get("min_length", 0), value.get("max_length", 3000), value.get("initial_value", "")
    if not (isinstance(least, int) and isinstance(most, int) and isinstance(text, str)):
        return
    if least > most:
        report.add(path, "min_length must not exceed max_length")
    if not text or least <= len(text) <= most:
        return
    report.add(f"{path}/initial_value", f"must be between {least} and {most} characters")


def _select(extra: Mapping[str, Check], initial: Check, key: str) -> Check:
    return shape({}, {**_MENU, **extra, key: initial})


def _several(extra: Mapping[str, Check], initial: Check, key: str) -> Check:
    counted = {"max_selected_items": whole(1, 100)}
    return shape({}, {**_MENU, **counted, **extra, key: listing(initial, 100)})


_OFFERED: Mapping[str, Check] = {"options": listing(OPTION, 100), "option_groups": listing(GROUP, 100)}
_STATIC_RULES = (exactly_one("options", "option_groups"), _initial_among_options, _values_differ)
_SUGGESTED: Mapping[str, Check] = {"min_query_length": whole(0, 3000)}
_RESPONSE: Mapping[str, Check] = {
    "response_url_enabled": flag,
    "default_to_current_conversation": flag,
    "filter": _FILTER,
}

SELECTS: Mapping[str, Check] = {
    "static_select": shape({}, {**_MENU, **_OFFERED, "initial_option": OPTION}, *_STATIC_RULES),
    "external_select": _select(_SUGGESTED, OPTION, "initial_option"),
    "users_select": _select({}, ID, "initial_user"),
    "conversations_select": _select(_RESPONSE, ID, "initial_conversation"),
    "channels_select": _select({"response_url_enabled": flag}, ID, "initial_channel"),
    "multi_static_select": shape(
        {},
        {**_MENU, **_OFFERED, "max_selected_items": whole(1, 100), "initial_options": listing(OPTION, 100)},
        *_STATIC_RULES,
    ),
    "multi_external_select": _several(_SUGGESTED, OPTION, "initial_options"),
    "multi_users_select": _several({}, ID, "initial_users"),
    "multi_conversations_select": _several(
        {"default_to_current_conversation": flag, "filter": _FILTER}, ID, "initial_conversations"
    ),
    "multi_channels_select": _several({}, ID, "initial_channels"),
}

CHOICES: Mapping[str, Check] = {
    "checkboxes": shape(
        {"options": listing(BOX_OPTION, 10)},
        {**_ALL, "initial_options": listing(BOX_OPTION, 10)},
        _initial_among_options,
        _values_differ,
    ),
    "radio_buttons": shape(
        {"options": listing(BOX_OPTION, 10)},
        {**_ALL, "initial_option": BOX_OPTION},
        _initial_among_options,
        _values_differ,
    ),
    "datepicker": shape({}, {**_MENU, "initial_date": string(10, 10)}),
    "timepicker": shape({}, {**_MENU, "initial_time": string(5, 5), "timezone": string(100)}),
    "datetimepicker": shape({}, {**_ALL, "initial_date_time": whole(1_000_000_000, 9_999_999_999)}),
}

BUTTON = shape(
    {"text": plain_text(75)},
    {
        "action_id": ID,
        "confirm": CONFIRM,
        "url": link,
        "value": string(2000),
        "style": choice("primary", "danger"),
        "accessibility_label": string(75),
    },
)
OVERFLOW = shape({"options": listing(MENU_OPTION, 5)}, {"action_id": ID, "confirm": CONFIRM}, _values_differ)
IMAGE = shape({"image_url": link, "alt_text": string(2000)}, {})

TYPED: Mapping[str, Check] = {
    "plain_text_input": shape(
        {},
        {
            **_TYPED,
            "initial_value": string(3000, 0),
            "multiline": flag,
            "min_length": whole(0, 3000),
            "max_length": whole(1, 3000),
        },
        _length_in_order,
    ),
    "number_input": shape(
        {"is_decimal_allowed": flag},
        {**_TYPED, "initial_value": string(100), "min_value": string(100), "max_value": string(100)},
    ),
    "email_text_input": shape({}, {**_TYPED, "initial_value": string(3000)}),
    "url_text_input": shape({}, {**_TYPED, "initial_value": string(3000)}),
}

IN_ACTIONS = typed({"button": BUTTON, "overflow": OVERFLOW, **SELECTS, **CHOICES})
IN_SECTION = typed({"button": BUTTON, "overflow": OVERFLOW, "image": IMAGE, **SELECTS, **CHOICES})
IN_INPUT = typed({**SELECTS, **CHOICES, **TYPED})
