"""The requester's direct messages; a new stage is a new message, so that the phone rings. Pure."""

from collections.abc import Iterator
from datetime import datetime

from access.model import AccessRequest, GrantState, RequestState
from access.service.submitting import Standing
from access.words import duration_words
from handlers import ids, outcomes, phrases
from handlers.blocks import Block, actions, button, context, section
from handlers.mrkdwn import clock
from handlers.wanted import ASKED, DENIED, ENDED, LAPSED, READY, REQUESTER, Wanted

_OVER = (RequestState.ENDING, RequestState.ENDED)
_WAITING = (RequestState.PENDING, RequestState.APPROVED)


def to_requester(standing: Standing, now: datetime) -> Iterator[Wanted]:
    """Every message that the requester shall have now."""
    request = standing.request
    yield _asked(standing)
    if request.state is RequestState.DENIED:
        who = outcomes.last_reviewer(standing.reviews)
        said = f"Not approved: {who} said no{outcomes.at_clock(request.decided_at)}."
        yield _wanted(request, DENIED, said, *outcomes.deny_reason(standing.reviews))
    if request.state is RequestState.LAPSED:
        yield _wanted(request, LAPSED, _lapsed(request))
    if request.state is RequestState.ACTIVE or request.state in _OVER:
        yield _ready(standing)
    if request.state in _OVER:
        first, *rest = outcomes.ending(standing, now)
        yield _wanted(request, ENDED, first, *rest)


def _asked(standing: Standing) -> Wanted:
    request = standing.request
    buttons = [button("Cancel", ids.REQUEST_CANCEL, value=request.id)] if request.state is RequestState.PENDING else []
    if request.state is RequestState.APPROVED:
        buttons = _retry(standing)
    return _wanted(request, ASKED, _asked_words(standing), buttons=buttons, closed=request.state not in _WAITING)


def _asked_words(standing: Standing) -> str:
    request = standing.request
    decided = outcomes.at_clock(request.decided_at)
    match request.state:
        case RequestState.PENDING:
            return " ".join(part for part in (_waiting(request), outcomes.so_far(standing)) if part)
        case RequestState.APPROVED:
            return " ".join([outcomes.approved(standing), *outcomes.opening(standing)])
        case RequestState.DENIED:
            return f"{outcomes.last_reviewer(standing.reviews)} said no{decided}."
        case RequestState.CANCELLED:
            why = phrases.sentence(request.cause_detail)
            return f"This was cancelled{decided}: {why}" if why else f"You cancelled this{decided}."
        case RequestState.LAPSED:
            return f"This lapsed{decided}: not enough people had decided."
        case _:
            return outcomes.approved(standing)


def _waiting(request: AccessRequest) -> str:
    decides = "one decides" if request.terms.quorum == 1 else f"{request.terms.quorum} of them have approved"
    who = f"{phrases.reviewers(request)}, by rule {request.terms.rule}"
    return f"Asked {who}. I tell you when {decides}. Lapses {clock(request.lapses_at)}."


def _lapsed(request: AccessRequest) -> str:
    return (
        f"Nobody decided in time: your request for {phrases.names(request.servers)} lapsed at "
        f"{clock(request.lapses_at)}. Ask again: /passport request. Or talk to one of {phrases.reviewers(request)}."
    )


def _ready(standing: Standing) -> Wanted:
    request, grants = standing.request, standing.grants
    if request.state in _OVER:
        what = "being closed" if request.state is RequestState.ENDING else "closed again"
        said = f"{outcomes.names_of(grants)} {outcomes.are(grants)} {what}."
        return _wanted(request, READY, said, closed=True)
    show = button("Show credentials", ids.CREDENTIALS_SHOW, value=request.id, style="primary")
    done = button("I'm done", ids.REQUEST_COMPLETE, value=request.id)
    first, *rest = outcomes.open_now(standing)
    if commands := phrases.sudo_words(request):
        rest.append(f"You log in {commands}: exactly as written, and nothing else.")
    ready = [grant.server for grant in grants if grant.state is GrantState.ACTIVE]
    if ready:
        first = f"{first} On your laptop: `{phrases.on_laptop(ready[0])}`"
    return _wanted(request, READY, first, *rest, buttons=[show, *_retry(standing), done])


def _retry(standing: Standing) -> list[Block]:
    """The button that tries the missing servers again, while any is missing."""
    if not outcomes.can_retry(standing):
        return []
    return [button("Retry", ids.REQUEST_RETRY, value=standing.request.id)]


def _wanted(
    request: AccessRequest, stage: str, first: str, *rest: str, buttons: list[Block] | None = None, closed: bool = False
) -> Wanted:
    """The first line is what a locked phone shows; a small line says which request it is."""
    what = f"{request.id} · {phrases.asked_for(request)} · {duration_words(request.duration)}"
    blocks = [section("\n".join([first, *rest])), context(f"{what} · “{phrases.shown(request.reason, 200)}”")]
    if buttons:
        blocks.append(actions(*buttons))
    return Wanted(
        audience=REQUESTER,
        recipients=(request.slack_user.user_id,),
        stage=stage,
        text=first,
        blocks=tuple(blocks),
        closed=closed,
    )
