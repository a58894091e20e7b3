"""The modal that asks for what the command left out, prefilled with what it said."""

from collections.abc import Sequence
from datetime import timedelta

from access.errors import InvalidInputError, UnavailableError
from access.model import RouteName, Server, Submission
from access.policy import Policy
from access.ports import Inventory
from access.service.filing import shorten
from access.service.submitting import REASON_LENGTH
from access.words import duration_words
from handlers import blocks, ids
from handlers.blocks import Block
from handlers.listening import Form
from handlers.mrkdwn import cut
from handlers.operands import parse_address
from handlers.understood import Parsed

_LENGTHS = [timedelta(minutes=minutes) for minutes in (15, 30, 60, 120, 240, 480, 720)]
_MOST_NOTES = 5

FIELDS = {
    "": ids.REQUEST_SERVERS,
    "servers": ids.REQUEST_SERVERS,
    "duration": ids.REQUEST_DURATION,
    "reason": ids.REQUEST_REASON,
    "source_ip": ids.REQUEST_SOURCE_IP,
}


def request_form(parsed: Parsed, inventory: Inventory, policy: Policy) -> Block:
    """The form, with a note for each server that cannot be chosen by what was typed."""
    found, notes = _known(parsed.servers, inventory)
    said = [blocks.sentence(note) for note in notes[:_MOST_NOTES]]
    fields = [
        blocks.field(ids.REQUEST_SERVERS, "Which servers?", _servers(found, policy)),
        blocks.field(ids.REQUEST_DURATION, "For how long?", _durations(parsed.duration, policy)),
        blocks.field(
            ids.REQUEST_REASON,
            "Why?",
            blocks.text_input(
                initial=parsed.reason, multiline=True, most=REASON_LENGTH, placeholder="INC-123: disk full"
            ),
        ),
        blocks.field(
            ids.REQUEST_SOURCE_IP,
            "From which IP address?",
            blocks.text_input(initial=parsed.source_ip or "", most=45),
            optional=True,
        ),
    ]
    return blocks.modal(
        "Ask for access",
        [*said, *fields],
        callback_id=ids.REQUEST_MODAL,
        submit="Ask",
        metadata=parsed.route.value,
    )


def submission_of(form: Form) -> Submission:
    """What the form says; raises InvalidInputError."""
    servers = form.choices(ids.REQUEST_SERVERS)
    if not servers:
        raise InvalidInputError("Choose at least one server.", field="servers")
    seconds, address = form.choice(ids.REQUEST_DURATION), form.text(ids.REQUEST_SOURCE_IP).strip()
    return Submission(
        servers=servers,
        reason=form.text(ids.REQUEST_REASON),
        duration=timedelta(seconds=int(seconds)) if seconds else None,
        source_ip=parse_address(address) if address else None,
        route=RouteName(form.metadata) if form.metadata else RouteName.SESSION_MANAGER,
    )


def server_option(server: Server) -> Block:
    """``web-1 · prod-payments · eu-west-1``; the account and region stay where the name is long."""
    where = cut(f"{server.account} · {server.region}", 40)
    name = cut(server.name or server.instance_id, blocks.MAX_OPTION - len(where) - 3)
    return blocks.option(f"{name} · {where}", server.instance_id, server.problem)


def _known(words: Sequence[str], inventory: Inventory) -> tuple[list[Server], list[str]]:
    found: dict[str, Server] = {}
    notes: list[str] = []
    for word in words:
        try:
            servers = inventory.find(word)
        except UnavailableError as error:
            notes.append(f"I know no server {shorten(word)} so far. {error.sentence}")
            continue
        if not servers:
            notes.append(f"I know no server {shorten(word)}. Choose it below.")
        elif len(servers) > 1 and not word.startswith("tag:"):
            notes.append(f"{len(servers)} servers are called {shorten(word)}. Choose the right one below.")
        else:
            found.update({server.key: server for server in servers})
    return list(found.values()), notes


def _servers(found: Sequence[Server], policy: Policy) -> Block:
    most = min(policy.max_servers, blocks.MAX_OPTIONS)
    select: Block = {
        "type": "multi_external_select",
        "min_query_length": 1,
        "max_selected_items": most,
        "placeholder": blocks.plain("A name, an id or a tag", 150),
    }
    if found:
        select["initial_options"] = [server_option(server) for server in found[:most]]
    return select


def _durations(asked: timedelta | None, policy: Policy) -> Block:
    chosen = asked or policy.default_duration
    within = [length for length in _LENGTHS if policy.min_duration <= length <= policy.max_duration]
    options = {length: _duration_option(length) for length in sorted({*within, chosen})}
    return {"type": "static_select", "options": list(options.values()), "initial_option": options[chosen]}


def _duration_option(length: timedelta) -> Block:
    return blocks.option(duration_words(length), str(int(length.total_seconds())))
