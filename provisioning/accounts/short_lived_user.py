"""The account `short_lived_user`: an OS user of this request alone, made and removed by Run Command."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from access.model import AccessRequest, Grant
from access.ports import Clock
from access.steps import Done, Failed, Step, Waiting
from provisioning.aws import Sessions
from provisioning.aws_errors import AwsError
from provisioning.command_intent import Order
from provisioning.command_outcome import Answered, Unanswered
from provisioning.documents import PREFIX, Document, create_document, remove_document
from provisioning.framing import Created, FramingError, Refused, Removed, parse_create, parse_remove
from provisioning.instances import Instance, read_instances
from provisioning.run_command import RunCommand


class ShortLivedUser:
    """Makes and removes a user per request and server; ``access.ports.Account``.

    ``authority_keys`` are the public keys that servers shall trust: one, or two while it changes.
    ``details["attempt"]`` of a grant says how often its request has asked for this server; "1" if it does not.
    """

    def __init__(
        self,
        run_command: RunCommand,
        sessions: Sessions,
        *,
        authority_keys: Sequence[str],
        clock: Clock,
        prefix: str = PREFIX,
    ) -> None:
        self._run_command = run_command
        self._sessions = sessions
        self._authority_keys = tuple(authority_keys)
        self._clock = clock
        self._create: Document = create_document(prefix)
        self._remove: Document = remove_document(prefix)

    def provision(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:
        """Make the user; ``Done`` has user, uid, port and host_keys (``type base64``, a line each)."""
        ends = request.expires_at
        if ends is None or ends <= self._clock():
            late = Failed(reason="The time was over before the server was ready.", retryable=False)
            return {grant.id: late for grant in grants}
        parameters = {
            "NotAfter": str(int(ends.timestamp())),
            "Sudo": "all" if request.terms.rights.sudo else "none",
            "CaPublicKey": ",".join(self._authority_keys),
            "Forwarding": "yes" if request.terms.rights.forwarding else "no",
        }
        steps: dict[str, Step] = {}
        for grant, outcome in self._run(self._create, request, grants, parameters):
            match outcome:
                case Waiting():
                    steps[grant.id] = outcome
                case Answered():
                    steps[grant.id] = _created(request, grant, outcome.output)
                case Unanswered():
                    steps[grant.id] = Failed(reason=outcome.reason, retryable=outcome.retryable)
        return steps

    def remove(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:
        """Remove the user; ``Done`` has the proof. A server that is terminated needs none of its own."""
        steps: dict[str, Step] = {}
        unanswered: list[tuple[Grant, Unanswered]] = []
        for grant, outcome in self._run(self._remove, request, grants, {}):
            match outcome:
                case Waiting():
                    steps[grant.id] = outcome
                case Answered():
                    steps[grant.id] = _removed(request, grant, outcome.output)
                case Unanswered():
                    unanswered.append((grant, outcome))
        gone, silent = self._split(unanswered)
        steps |= {grant.id: _terminated(grant) for grant in gone}
        return steps | {grant.id: self._unproven(request, failed) for grant, failed in silent}

    def _run(
        self, document: Document, request: AccessRequest, grants: Sequence[Grant], parameters: Mapping[str, str]
    ) -> list[tuple[Grant, Waiting | Answered | Unanswered]]:
        """The outcome for every grant; servers asked for equally often share their commands."""
        by_attempt: dict[str, list[Grant]] = defaultdict(list)
        for grant in grants:
            by_attempt[grant.details.get("attempt", "1")].append(grant)
        pairs: list[tuple[Grant, Waiting | Answered | Unanswered]] = []
        for attempt, together in by_attempt.items():
            given = {"RequestId": request.id, "UserName": request.user_name, "Attempt": attempt, **parameters}
            order = Order(request_id=request.id, document=document, parameters=given)
            outcomes = self._run_command.run(order, together)
            pairs += [(grant, outcomes[grant.id]) for grant in together]
        return pairs

    def _split(
        self, unanswered: Sequence[tuple[Grant, Unanswered]]
    ) -> tuple[list[Grant], list[tuple[Grant, Unanswered]]]:
        """Which of the servers that did not answer are gone for good, and what the others are."""
        places: dict[tuple[str, str], list[tuple[Grant, Unanswered]]] = defaultdict(list)
        for grant, outcome in unanswered:
            places[grant.server.account, grant.server.region].append((grant, outcome))
        gone: list[Grant] = []
        silent: list[tuple[Grant, Unanswered]] = []
        for place, pairs in places.items():
            known = self._known(*place, [grant.server.instance_id for grant, _ in pairs])
            for grant, outcome in pairs:
                instance = known.get(grant.server.instance_id)
                if grant.server.instance_id in known and (instance is None or instance.is_gone):
                    gone.append(grant)
                elif instance and instance.state != "running":
                    reason = f"{grant.server.name} is {instance.state}."
                    silent.append((grant, Unanswered(reason=reason, retryable=True)))
                else:
                    silent.append((grant, outcome))
        return gone, silent

    def _known(self, account: str, region: str, ids: Sequence[str]) -> dict[str, Instance | None]:
        """What EC2 says of each instance, None for one it does not know; nothing at all if it does not answer.

        Only EC2's own: a machine elsewhere that was deregistered (``mi-…``) still exists.
        """
        on_ec2 = [instance_id for instance_id in ids if instance_id.startswith("i-")]
        try:
            found = read_instances(self._sessions, account, region, on_ec2)
            if len(found) < len(on_ec2):
                self._sessions.confirm_account(account)
        except AwsError:
            return {}
        return {instance_id: found.get(instance_id) for instance_id in on_ec2}

    def _unproven(self, request: AccessRequest, outcome: Unanswered) -> Failed:
        unproven = f"{outcome.reason} So I cannot prove that {request.person_name}'s user {request.user_name} is gone."
        ends = request.expires_at
        if ends is None:
            return Failed(reason=unproven, retryable=outcome.retryable)
        will = "was to end" if ends <= self._clock() else "ends"
        return Failed(
            reason=f"{unproven} The server {will} the account itself at {ends:%H:%M} UTC.", retryable=outcome.retryable
        )


def _created(request: AccessRequest, grant: Grant, output: str) -> Step:
    try:
        created = parse_create(output, request_id=request.id, user_name=request.user_name)
    except FramingError as error:
        return Failed(reason=f"{grant.server.name}: {error.sentence}", retryable=True)
    match created:
        case Refused():
            return Failed(reason=f"{grant.server.name}: {created.sentence}", retryable=created.retryable)
        case Created():
            if request.expires_at is None or created.not_after > request.expires_at:
                return Failed(reason=f"{grant.server.name} would end the access too late.", retryable=True)
            details = {
                "user": created.user_name,
                "uid": str(created.uid),
                "port": str(created.port),
                "host_keys": "\n".join(map(str, created.host_keys)),
            }
            return Done(details=details)


def _removed(request: AccessRequest, grant: Grant, output: str) -> Step:
    try:
        removed = parse_remove(output, request_id=request.id, user_name=request.user_name)
    except FramingError as error:
        return Failed(reason=f"{grant.server.name}: {error.sentence}", retryable=True)
    match removed:
        case Refused():
            return Failed(reason=f"{grant.server.name}: {removed.sentence}", retryable=removed.retryable)
        case Removed():
            had_root = removed.had_sudo or request.terms.rights.sudo
            return Done(details=_proof(removed, had_root=had_root))


def _proof(removed: Removed, *, had_root: bool) -> dict[str, str]:
    proof = {
        "result": removed.result,
        "verified": "yes" if removed.verified else "no",
        "user": removed.user_name,
        "processes": str(removed.processes),
        "files": str(removed.files),
        "mounts": str(removed.mounts),
        "jobs": str(removed.jobs),
        "vouched_by": "reported by the host; the person had root" if had_root else "reported by the host",
    }
    optional = {"uid": removed.uid, "ended_at": _text(removed.ended_at), "swept_at": _text(removed.swept_at)}
    return proof | {name: str(value) for name, value in optional.items() if value}


def _terminated(grant: Grant) -> Done:
    vouched = "EC2: the instance is terminated"
    return Done(details={"result": "terminated", "terminated": grant.server.instance_id, "vouched_by": vouched})


def _text(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}" if instant else ""
