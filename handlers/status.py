"""Where requests stand, for the one who asked and for those who may look."""

from access.attempts import latest
from access.model import AccessRequest, EndCause, GrantState, RequestState, SlackUser
from access.service.submitting import Standing
from access.words import duration_words
from handlers import blocks, ids, mrkdwn, phrases
from handlers.blocks import Block
from handlers.replies import Reply
from handlers.surface import Surface
from handlers.turn import Turn

MOST_LISTED = 15
_HOW = "To ask for access: /passport request web-1 for 2h because INC-123: disk full"


class Statuses:
    """``/passport list`` and ``status``."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def list(self, turn: Turn) -> Reply:
        """The caller's open requests."""
        found = self._surface.submitting.own(turn.caller)
        if not found:
            return Reply.plain(f"You have no open request. {_HOW}")
        plain = ", ".join(f"{standing.request.id} {standing.request.state}" for standing in found[:MOST_LISTED])
        return Reply(sentence=plain, blocks=tuple(listing(found, turn.caller.slack_user)))

    def status(self, turn: Turn, request_id: str) -> Reply:
        """One request with its servers."""
        standing = self._surface.submitting.status(turn.caller, request_id)
        request = standing.request
        seen = [*_summary(standing), *_grants(standing), *_buttons(standing, turn.caller.slack_user)]
        return Reply(sentence=f"{request.id} is {request.state}.", blocks=tuple(seen))


def listing(standings: list[Standing], viewer: SlackUser) -> list[Block]:
    """Each request with its buttons, the newest first."""
    found: list[Block] = []
    for standing in standings[:MOST_LISTED]:
        found += [*_summary(standing), *_buttons(standing, viewer)]
    if len(standings) > MOST_LISTED:
        found.append(blocks.context(f"And {len(standings) - MOST_LISTED} more. /passport status AR-… shows one."))
    return found


def _summary(standing: Standing) -> list[Block]:
    request = standing.request
    line = (
        f"*{request.id}* · {phrases.shown(request.person_name, 60)} · {phrases.asked_for(request)} · "
        f"{duration_words(request.duration)} · {where(standing)}"
    )
    return [blocks.section(f"{line}\n{phrases.quoted(request.reason, 1500)}")]


def where(standing: Standing) -> str:
    """Where the request stands, as escaped words."""
    request = standing.request
    match request.state:
        case RequestState.PENDING:
            return f"waits for {phrases.reviewers(request)}, lapses {mrkdwn.clock(request.lapses_at)}"
        case RequestState.APPROVED:
            return f"approved by {phrases.approvers(standing.reviews)}, being opened"
        case RequestState.ACTIVE:
            return "open" + (f" until {mrkdwn.clock(request.expires_at)}" if request.expires_at else "")
        case RequestState.DENIED:
            return _denied(standing)
        case _:
            return _over(request)


def _over(request: AccessRequest) -> str:
    """What ended it, or ends it now."""
    if request.cause is None:
        return request.state.value
    detail = "its time was over" if request.cause is EndCause.EXPIRED else request.cause.value
    when = f" {mrkdwn.clock(request.ended_at)}" if request.ended_at else ""
    word = "being closed" if request.state is RequestState.ENDING else f"ended{when}"
    return f"{word}: {phrases.shown(request.cause_detail) or detail}"


def _denied(standing: Standing) -> str:
    last = standing.reviews[-1] if standing.reviews else None
    if last is None:
        return "denied"
    return f"denied by {phrases.shown(last.person_name, 60)}: {phrases.shown(last.reason)}"


def _grants(standing: Standing) -> list[Block]:
    lines = [
        f"{phrases.name_of(grant.server)} ({grant.server.instance_id}, {phrases.shown(grant.server.account, 40)}, "
        f"{grant.server.region}): {_GRANT_WORDS[grant.state]}"
        + (f". {phrases.sentence(said)}" if (said := phrases.problem_of(grant) or grant.outcome) else "")
        for grant in sorted(latest(standing.grants), key=lambda grant: _ORDER.index(grant.state))
    ]
    more = [f"And {len(lines) - _MOST_GRANTS} more."] if len(lines) > _MOST_GRANTS else []
    return list(blocks.packed([*lines[:_MOST_GRANTS], *more]))


# What a reader has to know of first.
_ORDER = (GrantState.PROVISIONING, GrantState.REMOVING, GrantState.REMOVED, GrantState.ACTIVE)
_MOST_GRANTS = 60
_GRANT_WORDS = {
    GrantState.PROVISIONING: "being opened",
    GrantState.ACTIVE: "open",
    GrantState.REMOVING: "being removed",
    GrantState.REMOVED: "removed",
}


def _buttons(standing: Standing, viewer: SlackUser) -> list[Block]:
    request, own = standing.request, standing.request.slack_user == viewer
    if request.state is RequestState.PENDING and own:
        return [blocks.actions(blocks.button("Cancel", ids.REQUEST_CANCEL, value=request.id))]
    if request.state not in {RequestState.APPROVED, RequestState.ACTIVE}:
        return []
    if own:
        return [blocks.actions(blocks.button("I'm done", ids.REQUEST_COMPLETE, value=request.id))]
    return [blocks.actions(blocks.button("Revoke…", ids.REQUEST_REVOKE, value=request.id, style="danger"))]
