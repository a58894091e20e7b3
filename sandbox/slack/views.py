"""Modals, App Homes and the triggers that open them."""

from dataclasses import dataclass, field, replace

from sandbox.slack.blocks import action_ids, check_view, with_ids
from sandbox.slack.wire import Json, NotPossibleError, SlackError
from sandbox.slack.workspace import Workspace

TRIGGER_SECONDS = 3.0  # page "Modals": a trigger_id expires three seconds after it is sent
_MOST_VIEWS = 3  # page "views.push": push_limit_reached


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A modal or a Home as one person sees it; an update makes a new value under the same id."""

    id: str
    kind: str
    user: str
    definition: Json = field(repr=False)
    hash: str
    root_id: str
    previous_id: str | None = None

    @property
    def blocks(self) -> list[Json]:
        """The blocks, each with its block id."""
        return list(self.definition["blocks"])

    @property
    def actions(self) -> tuple[str, ...]:
        """The action ids of what can be clicked or filled in, in order."""
        return action_ids(self.blocks)

    @property
    def callback_id(self) -> str:
        """The app's name for it."""
        return str(self.definition.get("callback_id", ""))

    @property
    def private_metadata(self) -> str:
        """What the app keeps in it."""
        return str(self.definition.get("private_metadata", ""))


@dataclass(frozen=True, slots=True)
class _Trigger:
    user: str
    made_at: float
    view_id: str | None


class Views:
    """Every person's stack of modals and their Home."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = workspace.changed  # one lock for both, so that nobody can take the two in another order
        self._triggers: dict[str, _Trigger] = {}
        self._used: set[str] = set()
        self._stacks: dict[str, list[View]] = {}
        self._homes: dict[str, View] = {}

    def make_trigger(self, user: str, view_id: str | None = None) -> str:
        """A fresh trigger id for what this person just did."""
        trigger_id = self._workspace.ids.trigger()
        with self._lock:
            self._triggers[trigger_id] = _Trigger(user, self._workspace.clock.now(), view_id)
        return trigger_id

    def open(self, trigger_id: str, definition: Json) -> View:
        """Open a modal with a trigger; raises SlackError as views.open does."""
        check_view(definition, "modal")
        with self._lock:
            self._check_external_id(definition)
            trigger = self._exchange(trigger_id)
            view = self._made(trigger.user, definition)
            self._stacks[trigger.user] = [view]
        self._notify()
        return view

    def push(self, trigger_id: str, definition: Json) -> View:
        """Put a modal on top of the one the trigger came from; raises SlackError as views.push does."""
        check_view(definition, "modal")
        with self._lock:
            self._check_external_id(definition)
            trigger = self._exchange(trigger_id)
            if trigger.view_id not in [view.id for view in self.stack(trigger.user)]:
                raise SlackError("invalid_trigger_id")
            return self.push_answer(trigger.user, definition)

    def push_answer(self, user: str, definition: Json) -> View:
        """Put a modal on top, as the answer `push` to a submission does."""
        check_view(definition, "modal")
        with self._lock:
            stack = self._stacks.setdefault(user, [])
            if len(stack) >= _MOST_VIEWS:
                raise SlackError("push_limit_reached")
            made = self._made(user, definition)
            below = stack[-1] if stack else made
            view = replace(made, root_id=below.root_id, previous_id=below.id if stack else None)
            stack.append(view)
        self._notify()
        return view

    def update(
        self,
        definition: Json,
        *,
        view_id: str | None = None,
        external_id: str | None = None,
        view_hash: str | None = None,
    ) -> View:
        """Change an open modal or a Home; raises SlackError `not_found` or `hash_conflict`."""
        with self._lock:
            view = self._find(view_id, external_id)
            check_view(definition, view.kind)
            self._check_external_id(definition, besides=view.id)
            if view_hash is not None and view_hash != view.hash:
                raise SlackError("hash_conflict")
            changed = replace(view, definition=self._complete(definition), hash=self._fresh_hash())
            self._replace(changed)
        self._notify()
        return changed

    def publish(self, user: str, definition: Json, view_hash: str | None = None) -> View:
        """Show this Home to a person; raises SlackError `hash_conflict` or `invalid_arguments`."""
        check_view(definition, "home")
        with self._lock:
            old = self._homes.get(user)
            if view_hash is not None and old is not None and view_hash != old.hash:
                raise SlackError("hash_conflict")
            view = self._made(user, definition)
            self._homes[user] = replace(view, id=old.id, root_id=old.id) if old else view
            shown = self._homes[user]
        self._notify()
        return shown

    def stack(self, user: str) -> list[View]:
        """The modals this person has open, the lowest first."""
        with self._lock:
            return list(self._stacks.get(user, []))

    def home(self, user: str) -> View | None:
        """The Home this person sees, if the app has published one."""
        with self._lock:
            return self._homes.get(user)

    def top(self, user: str) -> View | None:
        """The modal in front, if any."""
        stack = self.stack(user)
        return stack[-1] if stack else None

    def close_top(self, user: str) -> None:
        """Close the modal in front; the one below appears."""
        with self._lock:
            if not self._stacks.get(user):
                raise NotPossibleError(f"{user} has no modal open")
            self._stacks[user].pop()
        self._notify()

    def clear(self, user: str) -> None:
        """Close every modal of this person."""
        with self._lock:
            self._stacks.pop(user, None)
        self._notify()

    def _exchange(self, trigger_id: str) -> _Trigger:
        trigger = self._triggers.get(trigger_id)
        if trigger is None:
            raise SlackError("invalid_trigger_id")
        if trigger_id in self._used:
            raise SlackError("exchanged_trigger_id")
        if self._workspace.clock.now() - trigger.made_at > TRIGGER_SECONDS:
            raise SlackError("expired_trigger_id")
        self._used.add(trigger_id)
        return trigger

    def _made(self, user: str, definition: Json) -> View:
        view_id = self._workspace.ids.next("V")
        return View(
            id=view_id,
            kind=str(definition["type"]),
            user=user,
            definition=self._complete(definition),
            hash=self._fresh_hash(),
            root_id=view_id,
        )

    def _complete(self, definition: Json) -> Json:
        return {**definition, "blocks": with_ids(definition["blocks"], self._workspace.ids)}

    def _fresh_hash(self) -> str:
        return self._workspace.ids.ts()

    def _everything(self) -> list[View]:
        return [*self._homes.values(), *(view for stack in self._stacks.values() for view in stack)]

    def _find(self, view_id: str | None, external_id: str | None) -> View:
        for view in self._everything():
            if view.id == view_id or (external_id and view.definition.get("external_id") == external_id):
                return view
        raise SlackError("not_found")

    def _check_external_id(self, definition: Json, besides: str | None = None) -> None:
        wanted = definition.get("external_id")
        taken = [v.definition.get("external_id") for v in self._everything() if v.id != besides]
        if wanted and wanted in taken:
            raise SlackError("duplicate_external_id")

    def _replace(self, changed: View) -> None:
        if changed.kind == "home":
            self._homes[changed.user] = changed
            return
        stack = self._stacks[changed.user]
        self._stacks[changed.user] = [changed if view.id == changed.id else view for view in stack]

    def _notify(self) -> None:
        with self._lock:
            self._lock.notify_all()
