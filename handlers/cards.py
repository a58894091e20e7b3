"""The reviewers' card, and every message that Slack shall show of a request. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from access.model import AccessRequest, RequestState, Server
from access.service.submitting import Standing
from access.words import duration_words
from handlers import ids, outcomes, phrases
from handlers.blocks import Block, actions, button, context, section
from handlers.direct import to_requester
from handlers.mrkdwn import MAX_SECTION, clock
from handlers.wanted import CARD, REVIEWERS, Wanted

SHORTER = timedelta(minutes=30)  # the second approve button

_RUNNING = (RequestState.APPROVED, RequestState.ACTIVE)
_ROOM_FOR_SERVERS = MAX_SECTION - 100


def wanted_posts(standing: Standing, *, now: datetime) -> list[Wanted]:
    """Every message about this request as it shall be now; none to the requester as a reviewer."""
    request = standing.request
    card = Wanted(
        audience=REVIEWERS,
        recipients=tuple(entry for entry in request.terms.tell if entry != request.slack_user.user_id),
        stage=CARD,
        text=_text(standing),
        blocks=tuple(_blocks(standing, now)),
        closed=request.state not in (RequestState.PENDING, *_RUNNING),
    )
    return [card, *to_requester(standing, now)]


def _text(standing: Standing) -> str:
    request = standing.request
    who, duration = phrases.shown(request.person_name, 60), duration_words(request.duration)
    wish = f"{who} asks for {phrases.asked_for(request)}, {duration}"
    match request.state:
        case RequestState.PENDING:
            return f"{wish}: {phrases.shown(request.reason, 300)}"
        case RequestState.DENIED:
            return f"Denied by {outcomes.last_reviewer(standing.reviews)}: {wish}"
        case RequestState.APPROVED | RequestState.ACTIVE:
            return f"Approved by {phrases.approvers(standing.reviews)}: {wish}"
        case _:
            return f"{request.state.capitalize()}: {wish}"


def _blocks(standing: Standing, now: datetime) -> Iterator[Block]:
    request = standing.request
    yield section(_headline(request))
    yield section("\n".join(_server_lines(request)))
    yield section(phrases.quoted(request.reason))
    yield context(_rule_words(request))
    if said := [line for line in _outcome(standing, now) if line]:
        yield section("\n".join(said))
    if buttons := _buttons(request):
        yield actions(*buttons)


def _headline(request: AccessRequest) -> str:
    rights, count = request.terms.rights, len(request.servers)
    many = [str(count), phrases.environment(request.servers), "server" if count == 1 else "servers"]
    parts = [
        f"*{phrases.shown(request.person_name, 80)}*",
        " ".join(part for part in many if part),
        duration_words(request.duration),
        *phrases.as_whom(request),
        "with forwarding" if rights.forwarding else "",
        "with the servers' AWS credentials" if rights.metadata else "",
        f"from {phrases.shown(request.source_ip, 60)}" if request.source_ip else "",
    ]
    return " · ".join(part for part in parts if part)


def _server_lines(request: AccessRequest) -> list[str]:
    """Every server with its id, a line per account and region; what does not fit is counted."""
    by_place: dict[str, list[str]] = {}
    room, left_out = _ROOM_FOR_SERVERS, 0
    for server in request.servers:
        place, words = _place(server), f"{phrases.name_of(server)} ({phrases.shown(server.instance_id, 40)})"
        room -= len(words) + 2 + (0 if place in by_place else len(place) + 5)
        if room < 0:
            left_out += 1
        else:
            by_place.setdefault(place, []).append(words)
    lines = [f"*{place}*: {', '.join(words)}" for place, words in by_place.items()]
    return lines + ([f"and {left_out} more; all of them: /passport status {request.id}"] if left_out else [])


def _place(server: Server) -> str:
    return f"{phrases.shown(server.account, 60)} · {phrases.shown(server.region, 40)}"


def _rule_words(request: AccessRequest) -> str:
    rule, groups = phrases.shown(request.terms.rule, 80), phrases.reviewers(request)
    words = f"{request.id} · Rule *{rule}*: {request.terms.quorum} of {groups}."
    return f"{words} Lapses {clock(request.lapses_at)}." if request.state is RequestState.PENDING else words


def _buttons(request: AccessRequest) -> Sequence[Block]:
    if request.state in _RUNNING:
        return [button("Revoke…", ids.REQUEST_REVOKE, value=request.id, style="danger")]
    if request.state is not RequestState.PENDING:
        return []
    approve = f"Approve {duration_words(request.duration)}"
    found = [button(approve, ids.REVIEW_APPROVE, value=request.id, style="primary")]
    if request.duration > SHORTER:
        value = f"{request.id} {int(SHORTER.total_seconds()) // 60}"
        found.append(button(duration_words(SHORTER), ids.REVIEW_APPROVE_SHORTER, value=value))
    return [*found, button("Deny…", ids.REVIEW_DENY, value=request.id, style="danger")]


def _outcome(standing: Standing, now: datetime) -> list[str]:
    """Who decided, when, and what came of it."""
    request = standing.request
    decided = outcomes.at_clock(request.decided_at)
    match request.state:
        case RequestState.PENDING:
            lines = [outcomes.so_far(standing)]
        case RequestState.DENIED:
            who = outcomes.last_reviewer(standing.reviews)
            lines = [f"*Denied* by {who}{decided}.", *outcomes.deny_reason(standing.reviews)]
        case RequestState.CANCELLED:
            why = phrases.sentence(request.cause_detail)
            by = f"*Cancelled* by {phrases.shown(request.person_name, 60)}{decided}."
            lines = [f"*Cancelled*{decided}: {why}" if why else by]
        case RequestState.LAPSED:
            lines = [f"*Lapsed*{decided}: not enough people had decided."]
        case RequestState.APPROVED:
            lines = [outcomes.approved(standing), *outcomes.opening(standing)]
        case RequestState.ACTIVE:
            lines = [outcomes.approved(standing), *outcomes.open_now(standing)]
        case _:
            lines = [outcomes.approved(standing), *outcomes.ending(standing, now)]
    return lines
