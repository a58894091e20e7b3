"""What came of a request, as sentences that reviewers and requester alike are told. Pure, and escaped."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from access.attempts import has_failed, latest
from access.model import AccessRequest, EndCause, Grant, GrantState, RequestState, Review, Verdict
from access.service.submitting import Standing
from access.words import duration_words
from handlers import phrases
from handlers.mrkdwn import MAX_SECTION, clock, day

_TRYING = "I go on trying."
_REMOVED, _TERMINATED, _NEVER_MADE = "removed", "terminated", "never made"  # as proofs name their results


def so_far(standing: Standing) -> str:
    """Who approved, while more approvals are needed; "" when nobody did."""
    approvals = [review for review in standing.reviews if review.verdict is Verdict.APPROVE]
    if not approvals:
        return ""
    missing = max(1, standing.request.terms.quorum - len(approvals))
    return f"{phrases.approvers(approvals)} approved{at_clock(approvals[-1].at)}; {missing} more needed."


def approved(standing: Standing) -> str:
    """``Ben Ito approved 30 min at 03:04.``; the time only where a reviewer shortened it."""
    duration = standing.request.duration
    shortened = any(review.duration == duration for review in standing.reviews if review.duration)
    what = f" {duration_words(duration)}" if shortened else ""
    return f"{phrases.approvers(standing.reviews)} approved{what}{at_clock(standing.request.decided_at)}."


def opening(standing: Standing) -> list[str]:
    """That servers are being opened, and what holds it up."""
    request = standing.request
    told = phrases.troubles(latest(standing.grants), phrases.problem_of)
    if not told and request.problem:
        told = [phrases.sentence(request.problem)]
    doing = f"I am opening {phrases.names(request.servers)}."
    return [doing, *told, _TRYING] if told else [doing]


def open_now(standing: Standing) -> list[str]:
    """``11 of 12 are open until …``, and what is the matter with the others."""
    grants, until = latest(standing.grants), standing.request.expires_at
    ready, coming = _in(grants, GrantState.ACTIVE), _in(grants, GrantState.PROVISIONING)
    failed = [grant for grant in grants if has_failed(grant)]
    span = f" until {clock(until)}" if until else ""
    if len(ready) == len(grants):
        return [f"{names_of(ready)} {are(ready)} open{span}."]
    lines = [f"{len(ready)} of {len(grants)} {are(ready)} open{span}: {names_of(ready, most=20)}."]
    lines += phrases.troubles(failed, lambda grant: grant.outcome, lead=" could not be opened")
    held_up = phrases.troubles(coming, phrases.problem_of)
    if held_up:
        return [*lines, *held_up, _TRYING]
    return [*lines, f"{names_of(coming)} {are(coming)} still being opened."] if coming else lines


def can_retry(standing: Standing) -> bool:
    """Whether the servers of a running request could not all be opened, so far or for good."""
    return any(
        has_failed(grant) or (grant.state is GrantState.PROVISIONING and phrases.problem_of(grant))
        for grant in latest(standing.grants)
    )


def ending(standing: Standing, now: datetime) -> list[str]:
    """What of the access is gone, what is not, and why it ends."""
    request, grants = standing.request, standing.grants
    if request.state is RequestState.ENDED:
        return [_closed(request, grants), *_reservations(request, grants), f"Why: {_why(request)}"]
    left = [grant for grant in grants if grant.state is not GrantState.REMOVED]
    late = phrases.troubles(left, phrases.problem_of)
    if not late:
        return [f"Closing {names_of(left or grants)}. {_why(request)}"]
    gone = _in(grants, GrantState.REMOVED)
    return [
        f":warning: {late[0]}",
        *late[1:],
        *_doubts(request, left, now),
        *([f"Gone from {names_of(gone)}."] if gone else []),
        f"{_TRYING} Why it ends: {_why(request)}",
    ]


def deny_reason(reviews: Sequence[Review]) -> list[str]:
    """The words of whoever denied, as a quotation; empty when there are none."""
    denial = next((review for review in reviews if review.verdict is Verdict.DENY), None)
    return [phrases.quoted(denial.reason, MAX_SECTION - 300)] if denial and denial.reason else []


def last_reviewer(reviews: Sequence[Review]) -> str:
    """Who spoke last."""
    return phrases.shown(reviews[-1].person_name, 60) if reviews else "Somebody"


def names_of(grants: Sequence[Grant], *, most: int = 6) -> str:
    """The grants' servers, each once."""
    return phrases.names([grant.server for grant in latest(grants)], most=most)


def are(grants: Sequence[Grant]) -> str:
    """``is`` or ``are``."""
    return "is" if len(latest(grants)) == 1 else "are"


def at_clock(at: datetime | None) -> str:
    """`` at 03:04`` in the reader's zone."""
    return f" at {clock(at)}" if at else ""


def _closed(request: AccessRequest, grants: Sequence[Grant]) -> str:
    """Where the user was removed, where it went with its server, and where there never was one."""
    removed, terminated, never_made = _by_end(grants).values()
    at = at_clock(request.ended_at)
    verified = ", verified" if all(grant.proof for grant in removed) else ""
    where = f": {request.user_name} removed from {names_of(removed, most=20)}{verified}" if removed else ""
    said = [f"Closed{where}{at}."]
    if terminated:
        were, them = ("was", "it") if len(terminated) == 1 else ("were", "them")
        said.append(f"{names_of(terminated)} {were} terminated, says EC2, so nobody is on {them}.")
    if never_made:
        said.append(f"Nothing was ever made on {names_of(never_made)}.")
    return " ".join(said)


def _by_end(grants: Sequence[Grant]) -> Mapping[str, list[Grant]]:
    """The last attempts by what all attempts on their server came to."""
    attempts: dict[str, list[Grant]] = defaultdict(list)
    for grant in grants:
        attempts[grant.server.key].append(grant)
    ends: dict[str, list[Grant]] = {_REMOVED: [], _TERMINATED: [], _NEVER_MADE: []}
    for last in latest(grants):
        ends[_end(last, attempts[last.server.key])].append(last)
    return ends


def _end(last: Grant, attempts: Sequence[Grant]) -> str:
    if last.proof.get("result") == _TERMINATED:
        return _TERMINATED
    return _REMOVED if any(_was_made(grant) for grant in attempts) else _NEVER_MADE


def _was_made(grant: Grant) -> bool:
    """Whether there ever was a user; a server tells its number also after its end, if it had one."""
    if grant.proof.get("result") == "absent":
        return "uid" in grant.proof or "uid" in grant.details
    return grant.proof.get("result") != _NEVER_MADE


def _reservations(request: AccessRequest, grants: Sequence[Grant]) -> list[str]:
    lines = phrases.troubles(latest(grants), lambda grant: grant.outcome)
    lines += [f"The servers say so themselves, and {given} given on them." for given in _powers(request, grants)]
    return lines + _kept_homes(grants)


def _powers(request: AccessRequest, grants: Sequence[Grant]) -> list[str]:
    """What the person could have used to make a server say anything; EC2's word and Passport's own are their own."""
    rights, powers = request.terms.rights, list[str]()
    proven = {grant.server.is_windows for grant in _by_end(grants)[_REMOVED] if grant.proof}
    if False in proven and (rights.sudo or rights.commands):
        powers.append("root was" if rights.sudo else "sudo for some commands was")
    if True in proven and rights.administrator:
        powers.append("administrator rights were")
    return [" and ".join(powers)] if powers else []


def _kept_homes(grants: Sequence[Grant]) -> list[str]:
    """Whose home only root can read until when, by server."""
    kept = [(grant, grant.proof["home_kept_until"]) for grant in grants if "home_kept_until" in grant.proof]
    if not kept:
        return []
    longest = max(datetime.fromisoformat(until) for _, until in kept)
    where = names_of([grant for grant, _ in kept])
    return [f"The home folder on {where} is kept, for root only, until {day(longest)}; then it is deleted."]


def _doubts(request: AccessRequest, left: Sequence[Grant], now: datetime) -> list[str]:
    """What cannot be proved, and what ends the access all the same."""
    silent = [grant for grant in left if not grant.account.done]
    tunnelled = [grant for grant in left if not grant.route.done]
    if not silent:
        return [f"{request.user_name} is gone, but I cannot prove that the tunnel to {names_of(tunnelled)} is closed."]
    closed = ["The tunnel is closed." if len(silent) == 1 else "The tunnels are closed."] if not tunnelled else []
    doubt = f"So I cannot prove that {request.user_name} is gone from {names_of(silent)}."
    return [" ".join([doubt, *closed, *_failsafes(request, silent, now)])]


def _failsafes(request: AccessRequest, silent: Sequence[Grant], now: datetime) -> list[str]:
    """What ends the access where I cannot."""
    if request.expires_at is None:
        return ["No certificate was given out."]
    at, is_over = clock(request.expires_at), request.expires_at <= now
    unable = [grant for grant in silent if grant.account.server_cannot]
    if not unable:
        timer = f"The server ends the account itself at {at}."
        return [f"The certificate ran out at {at}, and the server's own timer ends the account." if is_over else timer]
    certificate = f"The certificate ran out at {at}." if is_over else f"The certificate runs out at {at} at the latest."
    return [certificate, f"The timer on {names_of(unable)} cannot finish either until that is mended."]


def _why(request: AccessRequest) -> str:
    if request.cause is EndCause.EXPIRED:
        return "The time was up."
    return phrases.sentence(request.cause_detail, 400) or "It ended."


def _in(grants: Sequence[Grant], state: GrantState) -> list[Grant]:
    return [grant for grant in grants if grant.state is state]
