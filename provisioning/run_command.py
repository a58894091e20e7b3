"""The one place that sends commands to servers and hears of their ends.

SendCommand has no client token, so its promise is *at least once*: an intent is saved before it is sent and named in
the command's comment, by which a restart finds it again. A command that is sent twice all the same is harmless:
Passport's documents are idempotent on the request, and refuse after its end or its removal.
"""

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

from access.model import Grant
from access.ports import Clock
from access.steps import Waiting
from provisioning.aws import Sessions
from provisioning.aws_errors import AwsError
from provisioning.command_intent import Batch, FreshIntents, Intent, Order, Outcome
from provisioning.command_outcome import Unanswered
from provisioning.command_status import read_invocation
from provisioning.instances import read_agents, read_instances

MOST_SERVERS = 50  # instance ids of one SendCommand (API reference)
START_WITHIN = timedelta(seconds=60)  # SendCommand's TimeoutSeconds: an agent that is offline longer is given up
_MARGIN = timedelta(seconds=60)
_LIST_LAG = timedelta(seconds=10)  # ListCommands may know a command only so much later
_LOOK_AGAIN = timedelta(seconds=2)
_MOST_TRIES = 12  # before it is said; with the pauses between them, a little over a minute


class RunCommand:
    """Runs Passport's documents on many servers at once, without ever waiting for them."""

    def __init__(
        self, sessions: Sessions, *, clock: Clock, new_token: Callable[[], str] = lambda: secrets.token_hex(8)
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self._new_token = new_token
        self._fresh = FreshIntents()

    def run(self, order: Order, grants: Sequence[Grant]) -> dict[str, Outcome]:
        """Bring the order a step further on every grant, by its id.

        Where there is no intent, it makes one, to be saved; the next call sends it; those after it ask how it goes.
        """
        outcomes: dict[str, Outcome] = {
            **self.intend(order.act, [grant for grant in grants if not _intent(order, grant)])
        }
        batches = self._batches(order, grants)
        sent = [batch for batch in batches if batch.intent.command_id]
        for batch in batches:
            if not batch.intent.command_id:
                outcomes |= self._begin(batch)
        # One pause for all that are asked together, so that they go on being asked together.
        now = self._clock()
        pause = _pause(now - max((batch.intent.at for batch in sent), default=now))
        for batch in sent:
            outcomes |= self._poll(batch, pause)
        return outcomes

    def intend(self, act: str, grants: Iterable[Grant]) -> dict[str, Waiting]:
        """What is to be saved before ``run`` sends an order of this act to these grants."""
        intents: dict[str, Waiting] = {}
        now = self._clock()
        places: dict[tuple[str, str, str], list[Grant]] = defaultdict(list)
        for grant in grants:
            places[grant.server.account, grant.server.region, grant.server.platform].append(grant)
        for together in places.values():
            for start in range(0, len(together), MOST_SERVERS):
                intent = Intent(act=act, token=self._new_token(), made_at=now, at=now)
                self._fresh.add(intent.token)
                intents |= {grant.id: intent.wait(timedelta()) for grant in together[start : start + MOST_SERVERS]}
        return intents

    def _batches(self, order: Order, grants: Sequence[Grant]) -> list[Batch]:
        """Grants by their command, or by their intent while that has none."""
        together: dict[tuple[str, str], list[tuple[Intent, Grant]]] = defaultdict(list)
        for grant in grants:
            intent = _intent(order, grant)
            if intent:
                together[intent.token, intent.command_id].append((intent, grant))
        return [
            Batch(order=order, intent=pairs[0][0], grants=tuple(grant for _, grant in pairs))
            for pairs in together.values()
        ]

    def _begin(self, batch: Batch) -> dict[str, Outcome]:
        """Send what has surely not been sent; look for anything else first."""
        if self._fresh.take(batch.intent.token):
            return self._send(replace(batch, is_first=batch.intent.tries == 0))
        try:
            found = self._find(batch)
        except AwsError as error:
            return self._put_off(batch, error)
        outcomes: dict[str, Outcome] = {
            grant.id: replace(batch.intent, command_id=found[grant.server.instance_id]).wait(timedelta())
            for grant in batch.grants
            if grant.server.instance_id in found
        }
        missing = batch.only(grant for grant in batch.grants if grant.id not in outcomes)
        if not missing.grants:
            return outcomes
        unsure = batch.intent.at + _LIST_LAG - self._clock()
        if unsure > timedelta():
            return outcomes | missing.all(batch.intent.wait(min(_LOOK_AGAIN, unsure)))
        return outcomes | self._send(missing)

    def _find(self, batch: Batch) -> dict[str, str]:
        """The commands with this intent's comment, by instance id."""
        since = batch.intent.made_at.astimezone(UTC) - _MARGIN
        filters = [
            {"key": "DocumentName", "value": batch.order.document.name},
            {"key": "InvokedAfter", "value": f"{since:%Y-%m-%dT%H:%M:%SZ}"},
        ]
        found: dict[str, str] = {}
        for page in self._sessions.pages(*batch.place, "ssm", "list_commands", {"Filters": filters}, once=True):
            for command in page.get("Commands", []):
                if command.get("Comment") == batch.comment:
                    found |= dict.fromkeys(command.get("InstanceIds", []), command["CommandId"])
        return found

    def _send(self, batch: Batch) -> dict[str, Outcome]:
        try:
            answer = self._sessions.call(
                *batch.place,
                "ssm",
                "send_command",
                once=True,
                person=batch.order.person,
                InstanceIds=batch.ids,
                DocumentName=batch.order.document.name,
                Parameters=batch.order.document.values(batch.parameters),
                Comment=batch.comment,
                TimeoutSeconds=int(START_WITHIN.total_seconds()),
                # One server's failure is no reason to stop the others.
                MaxConcurrency="100%",
                MaxErrors="100%",
            )
        except AwsError as error:
            if error.code == "InvalidInstanceId":
                return self._send_without_bad(batch)
            if denied := [grant for grant in batch.grants if _is_named_in(error.resource, grant)]:
                return self._send_without_denied(batch, denied)
            if error.answered and error.retryable:
                self._fresh.add(batch.intent.token)  # surely not taken: no need to look for it
            return self._put_off(batch, error)
        intent = replace(batch.intent, at=self._clock(), tries=0, command_id=str(answer["Command"]["CommandId"]))
        return batch.all(intent.wait(_pause(timedelta())))

    def _put_off(self, batch: Batch, error: AwsError) -> dict[str, Outcome]:
        """Try again soon what may work then; after too many tries, leave it to the reconciler's longer pauses."""
        tries = batch.intent.tries + 1
        if not error.retryable or tries > _MOST_TRIES:
            self._fresh.take(batch.intent.token)
            never_sent = batch.is_first and error.refused
            return batch.all(Unanswered(reason=error.sentence, retryable=error.retryable, never_sent=never_sent))
        intent = replace(batch.intent, at=self._clock(), tries=tries)
        return batch.all(intent.wait(_backoff(intent), is_retry=True))

    def _send_without_bad(self, batch: Batch) -> dict[str, Outcome]:
        """One id that AWS does not take fails the whole call: find it, and send the rest."""
        reachable = self._reachable(batch)
        good = [grant for grant in batch.grants if grant.server.instance_id in reachable]
        if len(good) < len(batch.grants):
            bad = {grant.id: _unreachable(grant) for grant in batch.grants if grant not in good}
            return bad | (self._send(batch.only(good)) if good else {})
        if len(good) == 1:
            return {good[0].id: _unreachable(good[0])}
        # AWS does not say which: halve until it is alone.
        middle = len(good) // 2
        return self._send(batch.only(good[:middle])) | self._send(batch.only(good[middle:]))

    def _send_without_denied(self, batch: Batch, denied: Sequence[Grant]) -> dict[str, Outcome]:
        """A server that the policy leaves out, by its tags say, must not keep the others open or shut."""
        refused: dict[str, Outcome] = {grant.id: _not_allowed(grant, never_sent=batch.is_first) for grant in denied}
        others = [grant for grant in batch.grants if grant.id not in refused]
        return refused | (self._send(batch.only(others)) if others else {})

    def _reachable(self, batch: Batch) -> set[str]:
        """Which of the batch's servers AWS knows as running an agent; all, when it does not tell."""
        try:
            agents = read_agents(self._sessions, *batch.place, batch.ids)
            on_ec2 = [instance_id for instance_id in batch.ids if instance_id.startswith("i-")]
            instances = read_instances(self._sessions, *batch.place, on_ec2)
        except AwsError:
            return set(batch.ids)
        alive = {instance.id for instance in instances.values() if not instance.is_gone}
        return {instance_id for instance_id in agents if instance_id in alive or not instance_id.startswith("i-")}

    def _poll(self, batch: Batch, pause: timedelta) -> dict[str, Outcome]:
        """Ask for all servers of a command in one call."""
        try:
            invocations = self._invocations(batch)
        except AwsError as error:
            return self._put_off_poll(batch, error)
        return {grant.id: self._outcome(batch, grant, invocations, pause) for grant in batch.grants}

    def _invocations(self, batch: Batch) -> dict[str, Mapping[str, Any]]:
        wanted = {"CommandId": batch.intent.command_id, "Details": True}
        pages = self._sessions.pages(*batch.place, "ssm", "list_command_invocations", wanted, once=True)
        return {each["InstanceId"]: each for page in pages for each in page.get("CommandInvocations", [])}

    def _outcome(
        self, batch: Batch, grant: Grant, invocations: Mapping[str, Mapping[str, Any]], pause: timedelta
    ) -> Outcome:
        found = read_invocation(grant.server.name, invocations.get(grant.server.instance_id, {}))
        if found:
            return found
        if self._clock() > _deadline(batch):
            return Unanswered(reason=f"{grant.server.name} did not finish in time.", retryable=True, silent=True)
        was_told = batch.intent.tries >= _MOST_TRIES
        return replace(batch.intent, tries=0).wait(pause, problem="" if was_told else None)

    def _put_off_poll(self, batch: Batch, error: AwsError) -> dict[str, Outcome]:
        """Ask again, and say so each time that it has failed a minute long: the command may be at work all the same."""
        # ListCommandInvocations does not know a very young command.
        unknown = error.code == "InvalidCommandId" and self._clock() - batch.intent.at < _LIST_LAG
        if (error.retryable or unknown) and self._clock() <= _deadline(batch):
            intent = replace(batch.intent, tries=batch.intent.tries + 1)
            problem = None if intent.tries % _MOST_TRIES else error.sentence
            pause = _LOOK_AGAIN if unknown else _backoff(intent)
            return batch.all(intent.wait(pause, problem=problem, is_retry=not unknown))
        return batch.all(
            Unanswered(reason=error.sentence, retryable=error.retryable or error.code == "InvalidCommandId")
        )


def _intent(order: Order, grant: Grant) -> Intent | None:
    return Intent.of(grant.account.handle, order.act)


def _deadline(batch: Batch) -> datetime:
    return batch.intent.at + START_WITHIN + timedelta(seconds=batch.order.document.timeout_seconds) + _MARGIN


def _pause(age: timedelta) -> timedelta:
    """Often at first, then less, 50 ms to 5 s: an end is heard of within a twelfth of the time that it took."""
    return min(max(age / 12, timedelta(milliseconds=50)), timedelta(seconds=5))


def _backoff(intent: Intent) -> timedelta:
    """Twice as long each time, up to 8 s, give or take an eighth: what was turned away together comes back spread."""
    spread = 0.875 + crc32(intent.token.encode()) % 256 / 1024
    return timedelta(seconds=min(0.25 * 2.0 ** min(intent.tries, 8), 8.0) * spread)


def _is_named_in(resource: str, grant: Grant) -> bool:
    return resource.endswith(f"/{grant.server.instance_id}")


def _not_allowed(grant: Grant, *, never_sent: bool) -> Unanswered:
    reason = (
        f"AWS does not let Passport run commands on {grant.server.name}. It may lack the tag passport = enabled: its "
        "owner sets it, or an admin looks at the stack of deploy/passport-account.yaml."
    )
    return Unanswered(reason=reason, retryable=False, never_sent=never_sent)


def _unreachable(grant: Grant) -> Unanswered:
    reason = f"{grant.server.name} is not known to Systems Manager: it is terminated, or its SSM agent is gone."
    return Unanswered(reason=reason, retryable=True)
