"""Acting as a person: only with what that person can see, and only as Slack's client allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sandbox.slack import answers, inputs, mrkdwn, payloads
from sandbox.slack.blocks import elements
from sandbox.slack.deliveries import Courier, Delivery
from sandbox.slack.events import Events
from sandbox.slack.response_urls import ResponseUrls
from sandbox.slack.view_methods import view_json
from sandbox.slack.views import View, Views
from sandbox.slack.wire import Json, NotPossibleError
from sandbox.slack.workspace import Channel, Member, Message, Workspace

Place: TypeAlias = Message | View
_NOTHING: Mapping[str, object] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """The parts of Slack that a person's client talks to."""

    workspace: Workspace
    views: Views
    courier: Courier
    events: Events
    response_urls: ResponseUrls
    base: str


class Person:
    """Somebody at their client; a deactivated one or a guest may act too, so that the app can refuse."""

    def __init__(self, client: Client, user_id: str) -> None:
        self._client = client
        self.id = user_id
        self._filled: dict[str, dict[inputs.Spot, object]] = {}

    @property
    def member(self) -> Member:
        """This person as the workspace knows them now."""
        return self._client.workspace.member(self.id)

    def command(self, name: str, text: str = "", *, channel: str | None = None) -> Delivery:
        """Type a slash command, in the app's direct messages unless a channel is given."""
        client = self._client
        place = self._channel(channel) if channel else client.workspace.direct(self.id)
        fields = payloads.command(
            client.workspace,
            self.member,
            place,
            name=name,
            text=mrkdwn.escape_command(text.strip(), client.workspace.ids_by_name()),
            trigger_id=client.views.make_trigger(self.id),
            response_url=client.base + client.response_urls.make("commands", self.id, place.id),
        )
        sent = client.courier.send("command", self.id, payloads.form(fields), fields)
        return client.courier.keep(answers.to_command(client.workspace, sent, place.id))

    def click(
        self,
        place: Place,
        action_id: str,
        *,
        block_id: str | None = None,
        value: str | None = None,
        choose: object = None,
    ) -> Delivery:
        """Click a button (confirming what it asks), or choose in a select or a menu.

        Raises NotPossibleError when it is not on this person's screen, or not the only one of that name.
        """
        self._check_seen(place)
        block, element = _only(place, action_id, block_id, value)
        action = {**self._acted(place, block, element, choose), "action_id": action_id, "block_id": block["block_id"]}
        action["action_ts"] = self._client.workspace.ids.ts()
        payload = {**self._interaction("block_actions", place), "actions": [action]}
        payload["trigger_id"] = self._client.views.make_trigger(self.id, place.id if isinstance(place, View) else None)
        if isinstance(place, Message):
            path = self._client.response_urls.make("actions", self.id, place.channel, place)
            payload["response_url"] = self._client.base + path
        return self._client.courier.keep(self._deliver("block_actions", payload))

    def fill(self, values: Mapping[str, object], view: View | None = None) -> None:
        """Fill in inputs of the modal without sending it; names are block ids or action ids."""
        shown = self._open_view(view)
        self._filled.setdefault(shown.id, {}).update(inputs.placed(shown.blocks, values))

    def submit(self, view: View | None = None, values: Mapping[str, object] = _NOTHING) -> Delivery:
        """Send the modal in front; raises NotPossibleError where Slack's client would not let it go."""
        shown = self._open_view(view)
        if "submit" not in shown.definition:
            raise NotPossibleError("this modal has no submit button")
        self.fill(values, shown)
        filled = self._values(shown)
        inputs.check_complete(shown.blocks, filled)
        payload = {**self._interaction("view_submission", shown), "response_urls": []}
        payload.pop("container")
        payload["trigger_id"] = self._client.views.make_trigger(self.id, shown.id)
        sent = self._deliver("view_submission", payload)
        return self._client.courier.keep(answers.to_submission(self._client.views, sent, shown))

    def close(self, view: View | None = None) -> Delivery | None:
        """Close the modal in front; the app hears of it only if it asked to."""
        shown = self._open_view(view)
        payload = {**self._interaction("view_closed", shown), "is_cleared": False}
        payload.pop("container")
        self._client.views.close_top(self.id)
        if not shown.definition.get("notify_on_close"):
            return None
        return self._client.courier.keep(self._deliver("view_closed", payload))

    def suggest(self, place: Place, action_id: str, query: str = "") -> list[Json]:
        """The options that an external select shows for what was typed; none when the app fails."""
        self._check_seen(place)
        block, element = _only(place, action_id, None, None)
        if "external" not in element["type"]:
            raise NotPossibleError(f"{action_id!r} does not ask the app for options")
        if len(query) < element.get("min_query_length", 3):
            raise NotPossibleError(f"{query!r} is shorter than min_query_length; Slack does not ask yet")
        payload = {**self._interaction("block_suggestion", place, state=False), "value": query}
        payload.update(action_id=action_id, block_id=block["block_id"])
        sent = self._deliver("block_suggestion", payload)
        return list(self._client.courier.keep(answers.to_suggestion(sent)).options)

    def view(self) -> View | None:
        """The modal in front, if one is open."""
        return self._client.views.top(self.id)

    def home(self) -> View | None:
        """The App Home that the app has published for this person."""
        return self._client.views.home(self.id)

    def open_home(self, tab: str = "home") -> Delivery:
        """Go to the App Home, of which the app gets an event."""
        event: Json = {
            "type": "app_home_opened",
            "user": self.id,
            "channel": self._client.workspace.direct(self.id).id,
            "tab": tab,
            "event_ts": self._client.workspace.ids.ts(),
        }
        if (shown := self.home()) is not None:
            event["view"] = view_json(self._client.workspace, shown)
        return self._client.events.send(event, user=self.id, team_id=self.member.team_id)

    def messages(self, channel: str) -> list[Message]:
        """What everyone in this channel sees; raises NotPossibleError for somebody who is not in it."""
        return self._client.workspace.messages(self._channel(channel).id)

    def direct_messages(self) -> list[Message]:
        """What the app has written to this person alone."""
        return self._client.workspace.messages(self._client.workspace.direct(self.id).id)

    def ephemerals(self) -> list[Message]:
        """What only this person sees, until a reload."""
        return self._client.workspace.ephemerals(self.id)

    def look(self, message: Message) -> Message:
        """The message as it stands now; raises NotPossibleError when it is gone or not theirs to see."""
        self._check_seen(message)
        current = self._client.workspace.current(message)
        assert current is not None
        return current

    def reload(self) -> None:
        """Reload the client: what was ephemeral is gone."""
        self._client.workspace.forget_ephemerals(self.id)

    @property
    def troubles(self) -> list[str]:
        """The errors that Slack has shown this person, such as `operation_timeout`."""
        kept = self._client.courier.deliveries
        return [d.error for d in kept if d.user == self.id and d.error and not d.replayed and d.kind != "event"]

    def _channel(self, name: str) -> Channel:
        channel = self._client.workspace.channel(name)
        if self.id not in channel.members:
            raise NotPossibleError(f"{self.id} is not in {channel.id}")
        return channel

    def _open_view(self, view: View | None) -> View:
        front = self.view()
        if front is None or (view is not None and view.id != front.id):
            raise NotPossibleError(f"{self.id} does not have that modal in front")
        return front

    def _check_seen(self, place: Place) -> None:
        if isinstance(place, View):
            mine = [view.id for view in (self.view(), self.home()) if view is not None]
            if place.user != self.id or place.id not in mine:
                raise NotPossibleError(f"{self.id} does not have that view in front")
        elif self._client.workspace.current(place) is None:
            raise NotPossibleError("that message is gone")
        elif not self._client.workspace.sees(self.id, place):
            raise NotPossibleError(f"{self.id} does not see that message")

    def _acted(self, place: Place, block: Json, element: Json, choose: object) -> Json:
        if element["type"] == "button":
            return {key: element[key] for key in ("type", "text", "value", "style") if key in element}
        if isinstance(place, View):
            self._filled.setdefault(place.id, {})[block["block_id"], element["action_id"]] = choose
        return inputs.selected(element, choose, lambda found, query: self._find(place, found, query))

    def _values(self, place: Place) -> Json:
        blocks = place.blocks
        filled = self._filled.get(place.id, {}) if isinstance(place, View) else {}
        return inputs.state(blocks, filled, lambda element, query: self._find(place, element, query))

    def _find(self, place: Place, element: Json, query: str) -> Sequence[Json]:
        typed = query.ljust(element.get("min_query_length", 3))
        return self.suggest(place, element["action_id"], typed)

    def _interaction(self, kind: str, place: Place, *, state: bool = True) -> Json:
        workspace = self._client.workspace
        payload = payloads.common(workspace, self.member, kind)
        values = self._values(place) if state else {}
        if isinstance(place, View):
            return {**payload, **payloads.view_place(workspace, place, values)}
        where = payloads.message_place(workspace, place, workspace.channel(place.channel))
        return {**payload, **where, "state": {"values": values}}

    def _deliver(self, kind: str, payload: Json) -> Delivery:
        return self._client.courier.send(kind, self.id, payloads.interaction(payload), payload)


def _only(place: Place, action_id: str, block_id: str | None, value: str | None) -> tuple[Json, Json]:
    every = [(block, element) for block in place.blocks for element in elements(block)]
    found = [
        (block, element)
        for block, element in every
        if element["action_id"] == action_id
        and block_id in (None, block["block_id"])
        and value in (None, element.get("value"))
    ]
    if len(found) != 1:
        offered = [element["action_id"] for _, element in every]
        raise NotPossibleError(f"{len(found)} elements {action_id!r} here; there are {offered}")
    return found[0]
