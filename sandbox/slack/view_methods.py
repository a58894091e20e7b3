"""views.* and apps.connections.open of the Web API."""

from sandbox.slack.views import View
from sandbox.slack.web_api import Method, Office, method
from sandbox.slack.wire import Json, SlackError
from sandbox.slack.workspace import Workspace


def views_open(office: Office, arguments: Json) -> Json:
    """views.open"""
    view = office.views.open(str(arguments["trigger_id"]), arguments["view"])
    return {"view": view_json(office.workspace, view)}


def views_push(office: Office, arguments: Json) -> Json:
    """views.push"""
    view = office.views.push(str(arguments["trigger_id"]), arguments["view"])
    return {"view": view_json(office.workspace, view)}


def views_update(office: Office, arguments: Json) -> Json:
    """views.update"""
    if bool(arguments.get("view_id")) == bool(arguments.get("external_id")):
        raise SlackError("invalid_arguments", "[ERROR] must define exactly one of: view_id, external_id")
    view = office.views.update(
        arguments["view"],
        view_id=arguments.get("view_id"),
        external_id=arguments.get("external_id"),
        view_hash=arguments.get("hash"),
    )
    return {"view": view_json(office.workspace, view)}


def views_publish(office: Office, arguments: Json) -> Json:
    """views.publish"""
    member = office.workspace.member(str(arguments["user_id"]))
    if member.deleted:
        raise SlackError("user_disabled")
    view = office.views.publish(member.id, arguments["view"], arguments.get("hash"))
    return {"view": view_json(office.workspace, view)}


def connections_open(office: Office, _arguments: Json) -> Json:
    """apps.connections.open"""
    return {"url": office.make_socket_url()}


def view_json(workspace: Workspace, view: View, values: Json | None = None) -> Json:
    """A view as Slack's JSON shows it, with what the person has filled in."""
    defaults: Json = {
        "private_metadata": "",
        "callback_id": "",
        "external_id": "",
        "title": None,
        "close": None,
        "submit": None,
        "clear_on_close": False,
        "notify_on_close": False,
    }
    return {
        **defaults,
        **view.definition,
        "id": view.id,
        "team_id": workspace.team_id,
        "app_id": workspace.app_id,
        "app_installed_team_id": workspace.team_id,
        "bot_id": workspace.bot_id,
        "hash": view.hash,
        "root_view_id": view.root_id,
        "previous_view_id": view.previous_id,
        "state": {"values": values or {}},
    }


METHODS: dict[str, Method] = {
    "views.open": method(views_open, required="trigger_id view"),
    "views.push": method(views_push, required="trigger_id view"),
    "views.update": method(views_update, required="view", optional="view_id external_id hash"),
    "views.publish": method(views_publish, required="user_id view", optional="hash"),
    "apps.connections.open": method(connections_open, app_token=True),
}
