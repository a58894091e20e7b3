"""What Slack makes of the app's answer to a delivery."""

import json
from dataclasses import replace

from sandbox.slack.blocks import check_suggestions
from sandbox.slack.deliveries import Delivery
from sandbox.slack.response_urls import say
from sandbox.slack.views import View, Views
from sandbox.slack.wire import Json, SlackError
from sandbox.slack.workspace import Workspace


def to_command(workspace: Workspace, delivery: Delivery, channel: str) -> Delivery:
    """Show the answer to a slash command."""
    if delivery.error or not delivery.answer.strip():
        return delivery
    try:
        message = say(workspace, _said(delivery), channel, delivery.user)
    except SlackError as error:
        return replace(delivery, error=error.code)
    return replace(delivery, message=message)


def to_submission(views: Views, delivery: Delivery, view: View) -> Delivery:
    """Close, change or keep the modal, as the answer to its submission says."""
    if delivery.error:
        return delivery
    try:
        return _acted(views, delivery, view)
    except SlackError as error:
        return replace(delivery, error=error.code)


def to_suggestion(delivery: Delivery) -> Delivery:
    """The options that an external select shows."""
    if delivery.error:
        return delivery
    answer = delivery.json()
    try:
        check_suggestions(answer)
    except SlackError as error:
        return replace(delivery, error=error.code)
    groups = [option for group in answer.get("option_groups", []) for option in group["options"]]
    return replace(delivery, options=(*answer.get("options", []), *groups))


def _acted(views: Views, delivery: Delivery, view: View) -> Delivery:
    if not delivery.answer.strip():
        if view.id in [shown.id for shown in views.stack(view.user)]:
            views.close_top(view.user)
        return delivery
    answer = delivery.json()
    action = answer.get("response_action")
    if action == "errors":
        return replace(delivery, errors=_checked_errors(answer, view))
    if action == "clear":
        views.clear(view.user)
    elif action == "update":
        views.update(answer.get("view") or {}, view_id=view.id)
    elif action == "push":
        views.push_answer(view.user, answer.get("view") or {})
    else:
        raise SlackError("invalid_response_action")
    return delivery


def _checked_errors(answer: Json, view: View) -> dict[str, str]:
    """The errors, each under an input block that exists; Slack shows none at all otherwise."""
    errors = answer.get("errors")
    inputs = {block["block_id"] for block in view.blocks if block["type"] == "input"}
    if not isinstance(errors, dict) or not errors or errors.keys() - inputs:
        raise SlackError("invalid_errors")
    if not all(isinstance(words, str) and words for words in errors.values()):
        raise SlackError("invalid_errors")
    return errors


def _said(delivery: Delivery) -> Json:
    """The answer as a message: JSON where the content type says so, else plain text."""
    if not delivery.content_type.startswith("application/json"):
        return {"text": delivery.answer.decode("utf-8", "replace")}
    try:
        found = json.loads(delivery.answer)
    except ValueError:
        raise SlackError("invalid_command_response") from None
    if not isinstance(found, dict):
        raise SlackError("invalid_command_response")
    return found
