"""Cards and direct messages follow the state of their requests: what Slack shows is made to agree."""

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256

from access.errors import PassportError, UnavailableError
from access.model import AccessRequest, RequestState
from access.ports import Clock, Post, Store, UnitOfWork
from access.service.submitting import Standing, standings
from handlers import phrases
from handlers.cards import wanted_posts
from handlers.paced import CallError, LastingError, NotNowError, OutageError, PacedSlack
from handlers.patience import MOST_SILENCES, Alarms, Alerts, LeaseLostError, backoff
from handlers.recipients import Recipients
from handlers.wanted import REVIEWERS, Wanted

BATCH = 20
LOOK_AGAIN = timedelta(seconds=5)  # a request's other messages never wait longer for the one that fails
MENDED_AFTER = timedelta(minutes=1)  # while it is pending, reviewers may yet see it
_MOST_REMEMBERED = 5000
_GONE = frozenset({"message_not_found", "cant_update_message"})

_log = logging.getLogger(__name__)

Key = tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A request as it stands, and the messages that Slack has of it."""

    standing: Standing
    posts: Sequence[Post]


class SlackPosts:
    """Brings the messages of stale requests up to date, each on its own."""

    def __init__(
        self,
        store: Store,
        slack: PacedSlack,
        recipients: Recipients,
        alarms: Alarms,
        alerts: Alerts,
        *,
        clock: Clock,
    ) -> None:
        self._store = store
        self._slack = slack
        self._recipients = recipients
        self._alarms = alarms
        self._alerts = alerts
        self._clock = clock
        self._said: OrderedDict[Key, tuple[int, str]] = OrderedDict()
        self._silences = 0

    def step(self) -> None:
        """Bring one batch up to date; raises OutageError."""
        (batch, broken), self._silences = self._load(), 0
        done: dict[str, datetime | None] = dict.fromkeys(broken, self._clock() + MENDED_AFTER)
        try:
            for seen in batch:
                done[seen.standing.request.id] = self._bring(seen)
        finally:
            self._record(batch, done)
        if len(batch) + len(broken) == BATCH:
            self._alarms.set(self._clock())

    def _load(self) -> tuple[list[Shown], set[str]]:
        """A batch, and the requests that belong to it but cannot be read as a whole."""
        with self._store.unit_of_work(read_only=True) as uow:
            stale = uow.posts.stale(self._clock(), BATCH)
            found = _readable(uow, stale)
            posts = uow.posts.of_all([each.request.id for each in found])
        broken = {request.id for request in stale} - {each.request.id for each in found}
        return [Shown(standing=each, posts=posts.get(each.request.id, ())) for each in found], broken

    def _record(self, batch: Sequence[Shown], done: Mapping[str, datetime | None]) -> None:
        """Mark the revision that was rendered: one that came meanwhile stays stale."""
        if not done:
            return
        soon = self._clock() + LOOK_AGAIN
        until = {request_id: min(later, soon) for request_id, later in done.items() if later}
        revisions = {seen.standing.request.id: seen.standing.request.revision for seen in batch}
        with self._store.unit_of_work() as uow:
            shown = {request_id: revisions[request_id] for request_id in done if request_id not in until}
            uow.posts.note(shown=shown, put_off=until)
            uow.commit()
        for at in until.values():
            self._alarms.set(at)

    def _bring(self, seen: Shown) -> datetime | None:
        """Bring one request's messages up to date; when to try again what failed."""
        request = seen.standing.request
        later: list[datetime] = []
        try:
            for wanted in wanted_posts(seen.standing, now=self._clock()):
                recipients, unknown = self._everyone(seen, wanted)
                agreed = [self._agree(_post_of(seen, wanted, recipient), wanted, request) for recipient in recipients]
                later += unknown + [at for at in agreed if at]
        except (OutageError, LeaseLostError, UnavailableError):
            raise
        except Exception:  # noqa: BLE001 - one poisoned request must not stop the others; it stays stale
            _log.exception("%s: what Slack shall show of it is broken", request.id)
            later.append(self._clock() + MENDED_AFTER)
        return min(later, default=None)

    def _everyone(self, seen: Shown, wanted: Wanted) -> tuple[list[str], list[datetime]]:
        """Who sees the message and who shall see it; and when to ask again who that is."""
        request = seen.standing.request
        found = {post.recipient for post in seen.posts if post.ts and _is_of(post, wanted)}
        later: list[datetime] = []
        for entry in () if wanted.closed else wanted.recipients:
            try:
                found.update(self._recipients.behind(entry))
            except OutageError:
                raise
            except NotNowError as error:
                later.append(error.until)
            except CallError as error:
                if isinstance(error, LastingError):
                    self._complain(request, entry, error)
                if request.state is RequestState.PENDING or not isinstance(error, LastingError):
                    later.append(self._clock() + MENDED_AFTER)
        if wanted.audience == REVIEWERS:
            found.discard(request.slack_user.user_id)  # nobody reviews what they asked for
        return sorted(found), later

    def _agree(self, post: Post, wanted: Wanted, request: AccessRequest) -> datetime | None:
        """Make Slack show this one message as wanted; when to try again, or None."""
        if post.shown_revision >= request.revision:
            return None
        if post.retry_at and post.retry_at > self._clock():
            return post.retry_at
        try:
            shown = self._show(post, wanted, request.revision)
        except NotNowError as error:
            return error.until
        except OutageError as error:
            failed = self._failed(post, request, error)
            self._save(failed)
            self._silences += 1
            if self._silences == MOST_SILENCES:
                raise
            return failed.retry_at
        except CallError as error:
            shown = self._failed(post, request, error)
        self._save(shown)
        return shown.retry_at

    def _save(self, post: Post) -> None:
        with self._store.unit_of_work() as uow:
            uow.posts.save(post)
            uow.commit()

    def _show(self, post: Post, wanted: Wanted, revision: int) -> Post:
        """Post or update, unless it says so already; the post as it is then. Raises CallError."""
        done = replace(post, shown_revision=revision, attempts=0, retry_at=None, problem="")
        said = sha256(json.dumps([wanted.text, wanted.blocks]).encode()).hexdigest()
        says_so = self._said.get(_key(post)) == (post.shown_revision, said)
        if post.ts and not says_so and not self._update(post, wanted):
            post = replace(post, ts="")
        if not post.ts and not wanted.closed:
            channel = post.channel or self._recipients.channel_of(post.recipient)
            done = replace(done, channel=channel, ts=self._slack.post(channel, wanted.text, wanted.blocks))
        self._said[_key(post)] = (revision, said)
        if len(self._said) > _MOST_REMEMBERED:
            self._said.popitem(last=False)
        return done

    def _update(self, post: Post, wanted: Wanted) -> bool:
        """Whether the message was still there; raises CallError."""
        try:
            self._slack.update(post.channel, post.ts, wanted.text, wanted.blocks)
        except LastingError as error:
            if error.code not in _GONE:
                raise
            return False
        return True

    def _failed(self, post: Post, request: AccessRequest, error: CallError) -> Post:
        failed = replace(post, attempts=post.attempts + 1, problem=error.code)
        if not isinstance(error, LastingError):
            return replace(failed, retry_at=self._clock() + backoff(failed.attempts))
        self._complain(request, post.recipient, error)
        if request.state is RequestState.PENDING:
            return replace(failed, retry_at=self._clock() + MENDED_AFTER)
        return replace(failed, retry_at=None, shown_revision=request.revision)  # the next revision tries anew

    def _complain(self, request: AccessRequest, recipient: str, error: CallError) -> None:
        self._alerts.report(
            f"{recipient} {error.code}",
            f"Slack takes no messages to {phrases.shown(recipient, 40)} ({phrases.shown(error.code)}), "
            f"so nobody there sees {request.id}. Mend that, or change whom its rule tells.",
        )


def _readable(uow: UnitOfWork, requests: Sequence[AccessRequest]) -> list[Standing]:
    try:
        return standings(uow, requests)
    except UnavailableError:
        raise
    except PassportError as error:
        if len(requests) == 1:
            _log.error("%s", error.sentence)
            return []
        return [found for request in requests for found in _readable(uow, [request])]


def _post_of(seen: Shown, wanted: Wanted, recipient: str) -> Post:
    known = (post for post in seen.posts if post.recipient == recipient and _is_of(post, wanted))
    fresh = Post(request_id=seen.standing.request.id, audience=wanted.audience, recipient=recipient, stage=wanted.stage)
    return next(known, fresh)


def _is_of(post: Post, wanted: Wanted) -> bool:
    return (post.audience, post.stage) == (wanted.audience, wanted.stage)


def _key(post: Post) -> Key:
    return (post.request_id, post.audience, post.recipient, post.stage)
