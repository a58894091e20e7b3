"""A strict Slack on loopback: Web API, signed deliveries, people who click, and Slack's own limits."""

from sandbox.slack.deliveries import Delivery
from sandbox.slack.people import Person
from sandbox.slack.server import DEFAULT_SCOPES, SlackDouble
from sandbox.slack.views import View
from sandbox.slack.web_api import Call
from sandbox.slack.wire import NotPossibleError
from sandbox.slack.workspace import Channel, Member, Message, Usergroup

__all__ = [
    "DEFAULT_SCOPES",
    "Call",
    "Channel",
    "Delivery",
    "Member",
    "Message",
    "NotPossibleError",
    "Person",
    "SlackDouble",
    "Usergroup",
    "View",
]
