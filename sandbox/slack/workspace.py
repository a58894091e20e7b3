"""The workspace: its members, channels, user groups and messages, and who may see what."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from sandbox.slack import mrkdwn
from sandbox.slack.blocks import action_ids, with_ids
from sandbox.slack.wire import Clock, Ids, Json, SlackError

ChannelKind = Literal["public", "private", "im"]
Guest = Literal["restricted", "ultra_restricted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A person (or the app's bot) as the workspace knows them."""

    id: str
    name: str
    real_name: str
    email: str
    team_id: str
    tz: str = "Europe/Madrid"
    guest: Guest | None = None
    deleted: bool = False
    is_admin: bool = False
    is_bot: bool = False
    updated: int = 0  # seconds since 1970; set by the workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A public or private channel, or the direct messages of one person and the app."""

    id: str
    name: str
    kind: ChannelKind
    members: frozenset[str]
    archived: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Usergroup:
    """A user group such as `@payments-leads`."""

    id: str
    handle: str
    members: tuple[str, ...]
    disabled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A message as it stands now; an edit makes a new value under the same timestamp."""

    channel: str
    ts: str
    user: str
    text: str
    blocks: tuple[Json, ...] = field(default=(), repr=False)
    thread_ts: str | None = None
    ephemeral_to: str | None = None
    edited_ts: str | None = None
    metadata: Json | None = None
    pings: tuple[str, ...] = ()
    plain: str = ""
    notification: str = ""

    @property
    def actions(self) -> tuple[str, ...]:
        """The action ids of what can be clicked in it, in order."""
        return action_ids(self.blocks)


class Workspace:
    """Everything in it is guarded by `changed`, which is notified on every change."""

    def __init__(self, *, team_id: str, app_id: str, bot_id: str, bot_user_id: str, clock: Clock) -> None:
        self.team_id = team_id
        self.app_id = app_id
        self.bot_id = bot_id
        self.bot_user_id = bot_user_id
        self.domain = "passport-sandbox"
        self.clock = clock
        self.ids = Ids(clock)
        self.changed = threading.Condition(threading.RLock())
        self._members: dict[str, Member] = {}
        self._channels: dict[str, Channel] = {}
        self._groups: dict[str, Usergroup] = {}
        self._messages: dict[str, Message] = {}  # by timestamp, which never repeats; ephemeral ones too

    def put_member(self, member: Member) -> Member:
        """Add a member, or change one; `updated` grows with every change."""
        with self.changed:
            before = self._members[member.id].updated if member.id in self._members else 0
            changed = replace(member, updated=max(before + 1, int(self.clock.now())))
            self._members[member.id] = changed
            self.changed.notify_all()
        return changed

    def put_channel(self, channel: Channel) -> Channel:
        """Add a channel, or change one."""
        with self.changed:
            self._channels[channel.id] = channel
            self.changed.notify_all()
        return channel

    def put_usergroup(self, group: Usergroup) -> Usergroup:
        """Add a user group, or change one."""
        with self.changed:
            self._groups[group.id] = group
        return group

    def member(self, user_id: str) -> Member:
        """A member; raises SlackError `user_not_found`."""
        with self.changed:
            if user_id not in self._members:
                raise SlackError("user_not_found")
            return self._members[user_id]

    def channel(self, channel_id: str) -> Channel:
        """A channel; raises SlackError `channel_not_found`."""
        with self.changed:
            if channel_id not in self._channels:
                raise SlackError("channel_not_found")
            return self._channels[channel_id]

    def members(self) -> list[Member]:
        """Every member, in the order in which they came."""
        with self.changed:
            return list(self._members.values())

    def channels(self) -> list[Channel]:
        """Every channel and open direct message."""
        with self.changed:
            return list(self._channels.values())

    def usergroups(self) -> list[Usergroup]:
        """Every user group."""
        with self.changed:
            return list(self._groups.values())

    def direct(self, user_id: str) -> Channel:
        """The direct messages of this person and the app, opened if need be."""
        with self.changed:
            pair = frozenset({user_id, self.bot_user_id})
            for channel in self._channels.values():
                if channel.kind == "im" and channel.members == pair:
                    return channel
            self.member(user_id)
            return self.put_channel(Channel(id=f"D{user_id[1:]}", name="directmessage", kind="im", members=pair))

    def post(
        self,
        channel_id: str,
        text: str,
        blocks: Sequence[Json] = (),
        *,
        thread_ts: str | None = None,
        ephemeral_to: str | None = None,
        metadata: Json | None = None,
        link_names: bool = False,
    ) -> Message:
        """Store a message of the app; an ephemeral one reaches only an active person who is there."""
        with self.changed:
            draft = Message(
                channel=channel_id,
                ts=self.ids.ts(),
                user=self.bot_user_id,
                text=text,
                thread_ts=thread_ts,
                ephemeral_to=ephemeral_to,
                metadata=metadata,
            )
            message = self._written(draft, text, blocks, link_names=link_names)
            if ephemeral_to is None or self._is_there(ephemeral_to, channel_id):
                self._messages[message.ts] = message
            self.changed.notify_all()
            return message

    def edit(
        self,
        message: Message,
        text: str,
        blocks: Sequence[Json],
        *,
        metadata: Json | None = None,
        link_names: bool = False,
    ) -> Message:
        """Replace what a message says; raises SlackError `message_not_found`."""
        with self.changed:
            if message.ts not in self._messages:
                raise SlackError("message_not_found")
            kept = metadata if metadata is not None else self._messages[message.ts].metadata
            draft = replace(self._messages[message.ts], edited_ts=self.ids.ts(), metadata=kept)
            self._messages[message.ts] = edited = self._written(draft, text, blocks, link_names=link_names)
            self.changed.notify_all()
            return edited

    def delete(self, message: Message) -> None:
        """Take a message away; raises SlackError `message_not_found`."""
        with self.changed:
            if self._messages.pop(message.ts, None) is None:
                raise SlackError("message_not_found")
            self.changed.notify_all()

    def message(self, channel_id: str, ts: str) -> Message:
        """A message that is not ephemeral; raises SlackError `message_not_found`."""
        with self.changed:
            found = self._messages.get(ts)
            if found is None or found.channel != channel_id or found.ephemeral_to is not None:
                raise SlackError("message_not_found")
            return found

    def current(self, message: Message) -> Message | None:
        """The message as it stands now, or None when it is gone."""
        with self.changed:
            return self._messages.get(message.ts)

    def messages(self, channel_id: str) -> list[Message]:
        """The channel's messages that everyone in it sees, oldest first."""
        with self.changed:
            kept = list(self._messages.values())
        return [m for m in kept if m.channel == channel_id and m.ephemeral_to is None]

    def ephemerals(self, user_id: str) -> list[Message]:
        """What only this person sees, oldest first."""
        with self.changed:
            return [message for message in self._messages.values() if message.ephemeral_to == user_id]

    def forget_ephemerals(self, user_id: str) -> None:
        """What a reload of the client does."""
        with self.changed:
            for message in self.ephemerals(user_id):
                del self._messages[message.ts]
            self.changed.notify_all()

    def sees(self, user_id: str, message: Message) -> bool:
        """Whether this person has the message on their screen."""
        if message.ephemeral_to is not None:
            return message.ephemeral_to == user_id
        return user_id in self.channel(message.channel).members

    def names(self) -> dict[str, str]:
        """Names by id, for rendering mentions."""
        with self.changed:
            return {
                **{member.id: member.name for member in self._members.values()},
                **{channel.id: channel.name for channel in self._channels.values()},
                **{group.id: group.handle for group in self._groups.values()},
            }

    def ids_by_name(self) -> dict[str, str]:
        """Ids by `@name` and `#name`, for what people type."""
        with self.changed:
            people = [("@" + member.name, member.id) for member in self._members.values()]
            groups = [("@" + group.handle, group.id) for group in self._groups.values()]
            public = [("#" + c.name, c.id) for c in self._channels.values() if c.kind != "im"]
            return dict([*public, *groups, *people])

    def _is_there(self, user_id: str, channel_id: str) -> bool:
        return user_id in self.channel(channel_id).members and not self.member(user_id).deleted

    def _written(self, draft: Message, text: str, blocks: Sequence[Json], *, link_names: bool = False) -> Message:
        names = self.names()
        linked = mrkdwn.escape_command(mrkdwn.unescape(text), self.ids_by_name()) if link_names else ""
        return replace(
            draft,
            text=text,
            blocks=tuple(with_ids(blocks, self.ids)),
            pings=_once([*mrkdwn.pings(text), *mrkdwn.pings(linked), *mrkdwn.block_pings(blocks)]),
            plain=mrkdwn.read_blocks(blocks, names) if blocks else mrkdwn.plain(text, names),
            notification=mrkdwn.plain(text, names),
        )


def _once(pings: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pings))
