"""The feed in front of the strict Slack: time passes only as the feed asks for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from slack_sdk import WebClient

from access.audit import Event, Kind
from access.model import AccessRequest
from access.policy import Policy
from access.ports import Store
from handlers.feed import Feed
from sandbox.slack import Message, SlackDouble
from tests.values import ANA, BEN
from tests.world import World

AUDIT, LEADS = "C0AUDIT", "C0LEADS"


@contextmanager
def a_slack(*, real_rate_limits: bool = False) -> Iterator[SlackDouble]:
    """A workspace with Ana, Ben, an admin, the leads' channel and the audit channel."""
    with SlackDouble(real_rate_limits=real_rate_limits) as slack:
        slack.add_member(ANA.user_id, name="ana", real_name="Ana Ruiz")
        slack.add_member(BEN.user_id, name="ben", real_name="Ben Ito")
        slack.add_member("U0CYD", name="cyd", real_name="Cyd Lee")
        slack.add_member("U0ADMIN", name="admin", real_name="Ada Min")
        slack.add_channel(LEADS, name="payments-leads", members=[BEN.user_id])
        slack.add_channel(AUDIT, name="passport-audit", members=[BEN.user_id])
        yield slack


class Lab:
    """A world, a Slack, and a feed between them."""

    def __init__(self, store: Store, slack: SlackDouble, policy: Policy | None = None) -> None:
        self.store, self.slack = store, slack
        self.world = World(store, policy)
        self.clock = self.world.clock
        self.feed = self.make_feed()

    def make_feed(self, owner: str = "one") -> Feed:
        """Another feed on the same database: a restart, or a second replica."""
        client = WebClient(self.slack.bot_token, base_url=self.slack.url, timeout=10, retry_handlers=[])
        return Feed(self.store, client, clock=self.clock, audit_channel=AUDIT, owner=owner, admins=("U0ADMIN",))

    def settle(self, feed: Feed | None = None, *, within: timedelta = timedelta(hours=2)) -> timedelta:
        """Run the feed until it has nothing left to do; how long that took on the clock."""
        began = self.clock.now
        while (delay := (feed or self.feed).run_once()) is not None:
            self.forward(delay)
            assert self.clock.now - began <= within, "the feed does not come to rest"
        return self.clock.now - began

    def run_for(self, span: timedelta) -> None:
        """Run the feed for as long as that on the clock, whether or not it comes to rest."""
        end = self.clock.now + span
        while self.clock.now < end:
            delay = self.feed.run_once()
            self.forward(min(delay if delay is not None else span, end - self.clock.now))

    def forward(self, span: timedelta) -> None:
        """Let time pass for Passport and for Slack."""
        self.clock.now += span
        self.slack.clock.advance(span.total_seconds())

    def events(self, count: int) -> None:
        """Something happened, that many times."""
        with self.store.unit_of_work() as uow:
            for number in range(count):
                details = {"fingerprint": f"SHA256:{number:043d}"}
                uow.record(
                    Event(kind=Kind.KEY_ADDED, at=self.clock(), actor="P-ana", actor_name="Ana", details=details)
                )
            uow.commit()

    def message(self, user_id: str, text: str = "hello") -> None:
        """Somebody shall be written to."""
        with self.store.unit_of_work() as uow:
            uow.outbox.add(next(u for u in (ANA, BEN) if u.user_id == user_id), text, at=self.clock())
            uow.commit()

    def directs(self, user_id: str) -> list[Message]:
        """What Passport wrote to this person."""
        return self.slack.person(user_id).direct_messages()

    def cards(self, channel: str = LEADS) -> list[Message]:
        """What the reviewers' channel shows."""
        return self.slack.messages(channel)

    def sequences(self) -> list[int]:
        """The numbers of the events that the audit channel shows, as they stand there."""
        lines = [line for message in self.slack.messages(AUDIT) for line in message.text.splitlines()]
        return [int(line.split()[0][1:]) for line in lines if line.startswith("#")]

    def log(self) -> list[int]:
        """The numbers of the events that there are."""
        with self.store.unit_of_work(read_only=True) as uow:
            return [event.sequence for event in uow.audit.all()]

    def is_shown(self, request: AccessRequest) -> bool:
        """Whether the database takes Slack to show all of this request."""
        with self.store.unit_of_work(read_only=True) as uow:
            far = self.clock() + timedelta(days=1)
            return request.id not in {stale.id for stale in uow.posts.stale(far, 1000)}

    def calls(self, method: str) -> int:
        """How often the feed called this method with success."""
        return sum(call.method == method and call.ok for call in self.slack.calls)
