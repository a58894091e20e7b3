"""Small checks that combine into Slack's Block Kit rules, with messages in Slack's own words."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from sandbox.slack.wire import Json


class Report:
    """The problems found so far, each with the JSON pointer of its place."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def add(self, path: str, words: str) -> None:
        """Note one problem."""
        self.messages.append(f"[ERROR] {words} [json-pointer:{path}]")


Check: TypeAlias = Callable[[object, str, Report], None]
Rule: TypeAlias = Callable[[Json, str, Report], None]


def string(most: int, least: int = 1) -> Check:
    """Text between these lengths; an empty one is refused unless `least` is 0."""

    def check(value: object, path: str, report: Report) -> None:
        if not isinstance(value, str):
            report.add(path, "must provide a string")
        elif len(value) > most:
            report.add(path, f"must be less than {most + 1} characters")
        elif len(value) < least:
            report.add(path, f"must be more than {least - 1} characters")

    return check


def link(value: object, path: str, report: Report) -> None:
    """An http(s) address of at most 3,000 characters."""
    string(3000)(value, path, report)
    if isinstance(value, str) and not value.startswith(("http://", "https://")):
        report.add(path, "must be a valid URL")


def flag(value: object, path: str, report: Report) -> None:
    """True or false."""
    if not isinstance(value, bool):
        report.add(path, "must provide a boolean")


def whole(least: int, most: int) -> Check:
    """A whole number within these bounds."""

    def check(value: object, path: str, report: Report) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            report.add(path, "must provide an integer")
        elif not least <= value <= most:
            report.add(path, f"must be between {least} and {most}")

    return check


def choice(*values: str) -> Check:
    """One of these words."""

    def check(value: object, path: str, report: Report) -> None:
        if value not in values:
            report.add(path, f"must be a valid enum value: {', '.join(values)}")

    return check


def listing(of: Check, most: int, least: int = 1) -> Check:
    """A list of these, within bounds."""

    def check(value: object, path: str, report: Report) -> None:
        if not isinstance(value, list):
            report.add(path, "must provide an array")
            return
        if len(value) > most:
            report.add(path, f"no more than {most} items allowed")
        if len(value) < least:
            report.add(path, f"no fewer than {least} items allowed")
        for number, item in enumerate(value):
            of(item, f"{path}/{number}", report)

    return check


def shape(required: Mapping[str, Check], optional: Mapping[str, Check], *rules: Rule) -> Check:
    """An object with these fields and no others; `rules` look at it as a whole."""
    known = {**required, **optional}

    def check(value: object, path: str, report: Report) -> None:
        if not isinstance(value, dict):
            report.add(path, "must provide an object")
            return
        for name in required.keys() - value.keys():
            report.add(path, f"missing required field: {name}")
        for name, part in value.items():
            if name in known:
                known[name](part, f"{path}/{name}", report)
            elif name != "type":
                report.add(path, f"invalid additional property: {name}")
        for rule in rules:
            rule(value, path, report)

    return check


def typed(shapes: Mapping[str, Check]) -> Check:
    """An object whose `type` says which of these it is."""

    def check(value: object, path: str, report: Report) -> None:
        if not isinstance(value, dict):
            report.add(path, "must provide an object")
        elif (kind := str(value.get("type"))) in shapes:
            shapes[kind](value, path, report)
        else:
            report.add(f"{path}/type", f"unsupported type: {kind}")

    return check


def plain_text(most: int = 3000) -> Check:
    """A `plain_text` object of at most this length."""
    return typed({"plain_text": shape({"text": string(most)}, {"emoji": flag})})


def any_text(most: int = 3000) -> Check:
    """A `plain_text` or `mrkdwn` object of at most this length."""
    return typed(
        {
            "plain_text": shape({"text": string(most)}, {"emoji": flag}),
            "mrkdwn": shape({"text": string(most)}, {"verbatim": flag}),
        }
    )


def exactly_one(*names: str) -> Rule:
    """A rule: one of these fields, and only one."""

    def rule(value: Json, path: str, report: Report) -> None:
        if sum(name in value for name in names) != 1:
            report.add(path, f"must define exactly one of: {', '.join(names)}")

    return rule


def at_least_one(*names: str) -> Rule:
    """A rule: one of these fields, or several."""

    def rule(value: Json, path: str, report: Report) -> None:
        if not any(name in value for name in names):
            report.add(path, f"must define either `{'` or `'.join(names)}`")

    return rule
